# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What `bundle provision` says: what was made, what goes to whom, what to open, how to start."""

from __future__ import annotations

from collections.abc import Sequence

from bundle.preflight import Check
from bundle.provision import Kits
from bundle.report.wording import table
from bundle.templates import LOOPBACK

WHO = {
    "project_admin": "the operator: may do everything",
    "org_admin": "the administrator of a site's organisation",
    "lead": "a lead: submits jobs, manages those",
    "member": "a member: looks, and changes nothing",
}


def to_text(kits: Kits, checks: Sequence[Check] | None) -> str:
    """For the operator; `checks` is None if none were asked for."""
    rows = [["kit", "to whom"], [kits.server, "who runs the server"]]
    rows += [[site, f"who runs {site}"] for site in kits.sites]
    rows += [[name, WHO.get(role, role)] for name, role in kits.admins.items()]
    lines = [
        f"kits in {kits.folder}",
        "",
        table(rows, 2),
        "",
        "Each kit holds a private key: hand it over so that nobody else can read it, and keep no copy. What stays with",
        f"you, readable to you alone, is {kits.state}: whoever has it can make kits.",
        "",
        f"open       port {kits.port} (TCP) of {kits.server}, to the sites and admins; nothing else",
        f"start      {kits.server}/startup/start.sh, then startup/start.sh at each site; their python3 must have FLARE",
    ]
    if kits.sites:
        lines.append(f"check      nvflare preflight-check -p {kits.sites[0]}   at each site, while the server runs")
    if kits.server in LOOPBACK:
        lines.append(f"only here  the server listens on {kits.server}: for sites on other machines, give --host")
    return "\n".join([*lines, "", *_preflight(kits, checks)]) + "\n"


def _preflight(kits: Kits, checks: Sequence[Check] | None) -> list[str]:
    if checks is None:
        return [f"not checked: nvflare preflight-check -p {kits.server}   on the machine of the server"]
    lines = [f"preflight check of {kits.server}, on this machine"]
    for check in checks:
        lines.append(f"  {'FAILED' if check.problem else 'passed'}  {check.name}")
        if check.problem:
            lines += [f"          {check.problem.strip()}", f"          {check.remedy}"]
    return lines
