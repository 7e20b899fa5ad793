# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A program: submits a job through FLARE's API, with its zip changed after FLARE has signed it.

Arguments: kit, user, job, and JSON of {"append": {end of a name: text}, "add": {name: text}, "drop": [end of a name]}.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.fuel.hci.client import file_transfer


def change(path: Path, changes: dict[str, Any]) -> None:
    """Rewrites the zip."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    for end, text in changes.get("append", {}).items():
        names = [name for name in content if name.endswith(end)]
        assert names, (end, list(content))
        content.update({name: content[name] + text.encode() for name in names})
    drop = tuple(changes.get("drop", []))
    kept = {name: data for name, data in content.items() if not (drop and name.endswith(drop))}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**kept, **{name: text.encode() for name, text in changes.get("add", {}).items()}}.items():
            archive.writestr(name, data)


def main() -> None:
    kit, user, job, changes = sys.argv[1:]
    make = file_transfer.zip_directory_to_file

    def make_and_change(root: str, folder: str, out_file: str) -> None:
        make(root, folder, out_file)
        change(Path(out_file), json.loads(changes))

    file_transfer.zip_directory_to_file = make_and_change
    session = new_secure_session(user, kit)
    try:
        job_id = session.submit_job(job)
        session.monitor_job(job_id, timeout=240)
        print("ENDED", job_id, session.get_job_meta(job_id)["status"])
    except Exception as error:
        print("REFUSED", type(error).__name__, error)
    finally:
        session.close()


if __name__ == "__main__":
    main()
