# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The first page: the server, and the sites that are connected to it."""

from __future__ import annotations

from nicegui import ui
from starlette.requests import Request

from bundle.report.wording import human_seconds
from dashboard.pages.frame import frame
from dashboard.pages.live import Live
from dashboard.pages.parts import Text, attributes, box, card, chip, empty, link, link_button, loading
from dashboard.system import RUNNING, Client, Snapshot
from dashboard.web import Web
from dashboard.words import Mark, ago, connection, is_over, short, status

MOST_NAMED = 6  # jobs; the list of sessions has them all


def add_page(web: Web) -> None:
    """Adds `/`."""

    @ui.page("/")
    def network(request: Request) -> None:
        with frame(web, request, "Network", "Network") as live:
            with box("title"):
                Text("h1", "Network")
                link_button("Launch training", "/launch", "rocket_launch", "primary", "to-launch")
            live.part(_server_state, lambda snapshot: _server(live, snapshot))
            live.part(_clients_state, lambda snapshot: _clients(live, snapshot))


def _server_state(snapshot: Snapshot) -> object:
    active = tuple((job.job_id, job.status) for job in snapshot.jobs if not is_over(job))
    return (snapshot.server_started, active, bool(snapshot.problem), snapshot.taken == 0)


def _server(live: Live, snapshot: Snapshot) -> None:
    with attributes(card(classes="server"), data_testid="server"):
        with box("card-head"):
            Text("h2", "Server")
            chip(_server_mark(snapshot), "server-status")
        if not snapshot.taken:
            if not snapshot.problem:
                loading("Connecting to the FLARE server ...")
            return
        with box("facts", "dl"):
            uptime = _fact("Uptime")
            started = snapshot.server_started
            live.clock(uptime, lambda now: human_seconds(now - started) if started else "not known")
            _fact("Clients", str(len(snapshot.clients)))
            active = [job for job in snapshot.jobs if not is_over(job)]
            running = sum(job.status == RUNNING for job in active)
            _fact("Jobs running", str(running))
            _fact("Jobs waiting", str(len(active) - running))
        if active:
            with box("links"):
                for job in active[:MOST_NAMED]:
                    chip(status(job))
                    link(f"{job.name} ({short(job.job_id)})", f"/session/{job.job_id}", name=f"running-{job.job_id}")


def _server_mark(snapshot: Snapshot) -> Mark:
    if snapshot.problem:
        return Mark("Not reachable", "cloud_off", "bad")
    if not snapshot.taken:
        return Mark("Connecting", "cloud_sync", "idle")
    return Mark("Up", "cloud_done", "good")


def _fact(label: str, value: str = "") -> Text:
    with box("fact"):
        Text("dt", label)
        with box("", "dd"):
            return attributes(Text("span", value), data_testid=f"fact-{label.lower().replace(' ', '-')}")


def _clients_state(snapshot: Snapshot) -> object:
    names = tuple((job.job_id, job.name) for job in snapshot.jobs if not job.ended)
    known = tuple(
        (client.name, client.is_silent(snapshot.taken), client.jobs, tuple(client.resources.items()))
        for client in snapshot.clients
    )
    return (known, names, snapshot.taken == 0, bool(snapshot.problem))


def _clients(live: Live, snapshot: Snapshot) -> None:
    if not snapshot.taken:
        return
    with box("section-head"):
        Text("h2", "Sites")
        Text("span", _count(snapshot), "soft")
    if not snapshot.clients:
        empty(
            "lan",
            "No client has registered yet",
            "Start each site with startup/start.sh of its kit; it appears here within seconds.",
            "no-clients",
        )
        return
    with attributes(box("cards"), role="list"):
        for client in snapshot.clients:
            _client(live, client, snapshot)


def _count(snapshot: Snapshot) -> str:
    silent = sum(client.is_silent(snapshot.taken) for client in snapshot.clients)
    connected = f"{len(snapshot.clients) - silent} connected"
    return f"{connected}, {silent} silent" if silent else connected


def _client(live: Live, client: Client, snapshot: Snapshot) -> None:
    names = {job.job_id: job.name for job in snapshot.jobs}
    with attributes(card(classes="client"), role="listitem", data_testid=f"client-{client.name}"):
        with box("card-head"):
            Text("h3", client.name)
            chip(connection(client, snapshot), "client-status")
        with box("lines", "dl"):
            Text("dt", "Last contact")
            seen = attributes(Text("dd"), data_testid="client-contact")
            live.clock(seen, lambda now: ago(client.last_contact, now))
            Text("dt", "Running")
            with attributes(box("", "dd"), data_testid="client-jobs"):
                if not client.jobs:
                    Text("span", "nothing", "soft")
                for job_id in client.jobs:
                    link(f"{names.get(job_id, 'job')} ({short(job_id)})", f"/session/{job_id}")
            for name, value in client.resources.items():
                Text("dt", name)
                Text("dd", value)
