# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Takes out of log lines what lets somebody in: keys, tokens, passwords, certificates."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"
PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL)
SECRET = re.compile(
    r"(?i)(?P<name>(?:password|passwd|passphrase|secret|api[-_ ]?key|private[-_ ]?key|authorization)[\"']?\s*[:=]\s*"
    r"(?:bearer\s+)?)(?:\"[^\"]*\"|'[^']*'|[^\s,;)\]}]+)"
)
TOKEN = re.compile(r"(?i)(?P<name>(?:token|signature|ssid)[\"']?\s*[:=]\s*[\"']?)[^\s,;)\]}\"']{8,}")  # not "token: 12"
IN_URL = re.compile(r"(?P<before>://[^/\s:@]+:)[^@\s/]+@")


def redact(text: str) -> str:
    """The text with HIDDEN in the place of each secret."""
    text = PEM.sub(HIDDEN, text)
    text = SECRET.sub(lambda found: found["name"] + HIDDEN, text)
    text = TOKEN.sub(lambda found: found["name"] + HIDDEN, text)
    return IN_URL.sub(lambda found: f"{found['before']}{HIDDEN}@", text)
