# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The sites: when the server last heard of them, and what they say of themselves when they are asked."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nvflare.fuel.flare_api.flare_api import Session

from bundle.connection import Connection, Refused
from custom.errors import BundleError
from custom.names import is_name
from dashboard.system import Client

GIB = 2**30
SAME_CLOCK_S = 2.0  # a difference that a reading takes is none


@dataclass(frozen=True)
class Said:
    """What a client answered: the jobs it runs, and its machine."""

    jobs: tuple[str, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)


class Contacts:
    """Last contacts by this machine's clock.

    The server gives them by its own clock, and does not say what time it has. But a contact that is new in a reading
    happened between that reading and the one before, which is how the difference becomes known.
    """

    def __init__(self) -> None:
        self._known: dict[str, float] = {}
        self._read = 0.0
        self._behind_s = 0.0  # how far the server's clock is behind this one

    def read(self, contacts: Mapping[str, float | None], now: float) -> dict[str, float | None]:
        """Each site's last contact; `contacts` as the server has just given them."""
        for site, contact in contacts.items():
            if contact is not None and site in self._known and contact != self._known[site]:
                lowest, highest = self._read - contact, now - contact
                same = lowest - SAME_CLOCK_S <= 0 <= highest + SAME_CLOCK_S
                self._behind_s = 0.0 if same else lowest
        self._known = {site: contact for site, contact in contacts.items() if contact is not None}
        self._read = now
        return {site: None if c is None else min(c + self._behind_s, now) for site, c in contacts.items()}


def ask(connection: Connection, sites: Sequence[str]) -> dict[str, Said]:
    """Asks all at once; if that takes too long, because one is dead, each by itself. Those without answer are left out.

    Raises:
        Refused: the user may not ask.
    """
    sites = [site for site in sites if is_name(site)]  # what is put into a command must be one word
    try:
        machines = connection.kit.may("operate")
        return connection.run(lambda session: _ask(session, sites, machines), keep=True) if sites else {}
    except Refused:
        raise
    except BundleError:
        answers: dict[str, Said] = {}
        for site in sites if len(sites) > 1 else []:
            answers |= ask(connection, [site])
        return answers


def _ask(session: Session, sites: Sequence[str], with_machines: bool) -> dict[str, Said]:
    jobs: dict[str, list[str]] = {}
    for entry in session.get_client_job_status(list(sites)) or []:
        if entry.get("status") not in ("no_reply", "error"):
            jobs.setdefault(str(entry["client_name"]), []).extend([entry["job_id"]] if entry.get("job_id") else [])
    machines, devices = {}, {}
    if with_machines:
        machines = machines_of(session.do_command(f"sys_info client {' '.join(sites)}").get("data") or [])
        devices = session.report_resources("client", list(sites))
    return {
        site: Said(tuple(jobs[site]), machine(machines.get(site, {}), devices.get(site)))
        for site in sites
        if site in jobs
    }


def machines_of(items: Iterable[Any]) -> dict[str, dict[str, str]]:
    """By site, the rows of FLARE's answer to `sys_info client`: a line with the name, then a table, for each."""
    found: dict[str, dict[str, str]] = {}
    site = ""
    for item in items:
        if item.get("type") == "string" and str(item.get("data", "")).startswith("Client: "):
            site = item["data"].removeprefix("Client: ")
        elif item.get("type") == "table" and site:
            found[site] = {str(row[0]): str(row[1]) for row in item.get("rows", [])[1:] if len(row) > 1}
    return found


def machine(info: Mapping[str, str], devices: Any) -> dict[str, str]:
    """What is shown of a site's machine. FLARE reports no load of its processors.

    Args:
        info: of `sys_info`; anything else than numbers means that the user may not ask this site.
        devices: of `report_resources`, Python as text.
    """
    shown: dict[str, str] = {}
    if (total := _number(info.get("total"))) and (available := _number(info.get("available"))) is not None:
        used = total - available
        shown["Memory"] = f"{used / GIB:.1f} of {total / GIB:.1f} GiB used ({100 * used / total:.0f} %)"
    names = [name for key, name in sorted(info.items()) if key.startswith("gpu_device_")]
    if names:
        shown["GPUs"] = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    if for_jobs := _for_jobs(devices):
        shown["GPUs for jobs"] = for_jobs
    elif info and not names:
        shown["GPUs for jobs"] = "none configured"
    return shown


def _for_jobs(text: Any) -> str:
    """What FLARE's GPUResourceManager or ListResourceManager has left to give to jobs; empty if that is nothing."""
    try:
        left = ast.literal_eval(text)["resources"] if isinstance(text, str) else []
        if isinstance(left, dict):
            return ", ".join(f"{kind}: {len(units)} free" for kind, units in left.items())
        return ", ".join(f"GPU {unit['gpu_id']}: {unit['memory']:g} GiB free" for unit in left)
    except (ValueError, SyntaxError, TypeError, KeyError):
        return ""


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def clients(
    contacts: Mapping[str, float | None], said: Mapping[str, Said], running: Iterable[str]
) -> tuple[Client, ...]:
    """All that are registered, by name; a job that the server knows no more is not shown at a site either."""
    alive = set(running)
    return tuple(
        Client(
            site,
            contact,
            tuple(job for job in said[site].jobs if job in alive) if site in said else (),
            said[site].resources if site in said else {},
        )
        for site, contact in sorted(contacts.items())
    )
