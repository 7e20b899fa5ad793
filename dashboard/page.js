// Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
// When the connection is refused because the login is over, goes to the login page instead of trying for ever.
"use strict";

(() => {
  const EVERY_MS = 200;

  async function check() {
    try {
      const answer = await fetch("/alive", { cache: "no-store", redirect: "manual" });
      if (answer.status === 401) {
        location.href = "/login?next=" + encodeURIComponent(location.pathname + location.search);
      }
    } catch {
      // The dashboard itself cannot be reached: NiceGUI says so, and goes on trying.
    }
  }

  const waiting = setInterval(() => {
    if (!window.socket) return;
    clearInterval(waiting);
    window.socket.on("connect_error", check);
    window.socket.on("disconnect", () => setTimeout(check, EVERY_MS));
  }, EVERY_MS);
})();
