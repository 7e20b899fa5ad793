# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest

from dashboard.clients import Contacts, Said, clients, machine, machines_of

GIB = 2**30


@pytest.mark.parametrize("behind_s", [0.0, 3600.0, -3600.0])
def test_last_contacts_are_told_by_this_machines_clock(behind_s: float) -> None:
    """The server's clock is `behind_s` behind; it heard of the site at 100, 110 and 120 s, and is read each second."""
    contacts = Contacts()
    for now in range(101, 125):
        heard = now // 10 * 10
        told = contacts.read({"site-1": heard - behind_s, "site-2": None}, float(now))
        if now > 110:  # the first news since the first reading
            assert told["site-1"] == pytest.approx(heard, abs=1.0)
            assert told["site-1"] <= now
        assert told["site-2"] is None


def test_a_site_that_says_nothing_new_becomes_silent_whatever_the_servers_clock() -> None:
    contacts = Contacts()
    contacts.read({"a": 500.0, "b": 500.0}, 100.0)  # the server's clock is 400 s fast
    contacts.read({"a": 510.0, "b": 500.0}, 110.5)
    told = contacts.read({"a": 530.0, "b": 500.0}, 130.5)
    by_name = {client.name: client for client in clients(told, {}, [])}
    assert not by_name["a"].is_silent(130.5)
    assert by_name["b"].is_silent(130.5)


def test_what_flare_answers_to_sys_info() -> None:
    """As in a POC, shortened; `available_percent` is of the server and not of the site, which is FLARE's mistake."""
    rows = [["METRICS", "VALUE"], ["total", str(20 * GIB)], ["available", str(15 * GIB)], ["available_percent", "66.0"]]
    items = [{"type": "string", "data": "Client: site-1"}, {"type": "table", "rows": rows}]
    refused = [["METRICS", "VALUE"], ["user is not authorized", ""]]
    items += [{"type": "string", "data": "Client: site-2"}, {"type": "table", "rows": refused}]
    found = machines_of(items)
    assert machine(found["site-1"], "{'resources': [], 'reserved_resources': {}}") == {
        "Memory": "5.0 of 20.0 GiB used (25 %)",
        "GPUs for jobs": "none configured",
    }
    assert "Memory" not in machine(found["site-2"], None)
    assert machine({}, None) == {}


def test_gpus() -> None:
    info = {"total": str(GIB), "available": str(GIB), "gpu_count": "3"}
    info |= {"gpu_device_0": "H200", "gpu_device_1": "H200", "gpu_device_2": "T4"}
    devices = "{'resources': [{'gpu_id': 0, 'memory': 16}, {'gpu_id': 1, 'memory': 0}], 'reserved_resources': {}}"
    shown = machine(info, devices)
    assert shown["GPUs"] == "2 x H200, 1 x T4"
    assert shown["GPUs for jobs"] == "GPU 0: 16 GiB free, GPU 1: 0 GiB free"
    assert machine(info, "{'resources': {'gpu': [0, 1]}, 'reserved_resources': {}}")["GPUs for jobs"] == "gpu: 2 free"
    assert "GPUs for jobs" not in machine(info, "__import__('os')")


def test_a_site_runs_only_what_the_server_knows() -> None:
    said = {"site-1": Said(("running", "ended"), {"Memory": "much"}), "gone": Said(("running",))}
    one, two = clients({"site-2": 1.0, "site-1": 2.0}, said, ["running"])
    assert (one.name, one.jobs, dict(one.resources)) == ("site-1", ("running",), {"Memory": "much"})
    assert (two.name, two.jobs, dict(two.resources)) == ("site-2", (), {})
