# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A builder for project.yml: what a workspace template changes in the kits that FLARE provisions.

It runs inside FLARE's provisioning, so `nvflare provision -p project.yml` makes the same kits as `bundle provision`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvflare.lighter.constants import ParticipantType
from nvflare.lighter.ctx import ProvisionContext
from nvflare.lighter.entity import Participant, Project
from nvflare.lighter.spec import Builder

from bundle.allow_list import allowed_classes, install_code
from bundle.templates import COMMON, LOOPBACK
from custom.errors import BundleError

ANCHOR = "export PYTHONPATH=/local/custom:$PYTHONPATH\n"  # a line of FLARE's startup/sub_start.sh
START = """\
cd "$WORKSPACE"  # Python looks here first; elsewhere, a folder named custom would hide that of a job
umask 077  # models, logs and results are for this user alone; a line of local/site.env can say otherwise
set -a; . local/site.env; set +a
"""
CHECK_PLACE = """\
if [[ "$WORKSPACE" == *[:$'\\n']* ]]; then
  echo "$WORKSPACE: a kit cannot lie in a folder with a colon or a line break in its path; move it" >&2
  exit 1
fi
"""
RUN = """\
  "$DIR/sub_start.sh" &
  sleep 1
  kill -0 $! 2> /dev/null || wait $!  # it ends at once only if it cannot start
"""
ENVIRONMENT = """\
# The environment of everything that runs from this kit, read by startup/sub_start.sh: KEY=value, quoted as in a shell.
# The first line keeps poisoned models from running, whatever a job asks for: leave it there.
# Also of use: FLARE_DEVICE, CUDA_VISIBLE_DEVICES, and OMP_NUM_THREADS: its share of the cores of a shared machine.
TORCH_FORCE_WEIGHTS_ONLY_LOAD=1
"""
# In FLARE's startup/*.sh, what is wrong and what is right: a path with a blank breaks a command, and a site that runs
# already or cannot start ends with 0.
SUB_START = {
    ANCHOR: ANCHOR + START,
    'remove daemon_pid.fl in $WORKSPACE"\n      exit\n': 'remove daemon_pid.fl in $WORKSPACE"\n      exit 1\n',
    'shutdown.fl" "$WORKSPACE/restart.fl" "$WORKSPACE/daemon_pid.fl"\n    exit\n': (
        'shutdown.fl" "$WORKSPACE/restart.fl" "$WORKSPACE/daemon_pid.fl"\n    exit 1\n'
    ),
    'WORKSPACE="$SOURCE_WORKSPACE"\nfi\n': 'WORKSPACE="$SOURCE_WORKSPACE"\nfi\n' + CHECK_PLACE,
}
START_SCRIPT = {"  $DIR/sub_start.sh &\n": RUN}
ADMIN_SCRIPT = {"mkdir -p $DIR/../transfer\n": 'mkdir -p "$DIR/../transfer"\n', " -m $DIR/.. -s ": ' -m "$DIR/.." -s '}
LAUNCHERS = ("job_launchers.SiteLauncher", "job_launchers.ServerLauncher")
STORAGE, LOGS = "kit_storage.KitStorage", "site_logs.SiteLogs"
GUARDS = {  # components of local/resources.json, in workspace_templates/common
    "audit_refusals": "AuditRefusals",
    "message_guard": "MessageGuard",  # of the server
    "site_commands": "SiteCommands",  # of a site
    "named_classes": "NamedClasses",  # where there is a list of classes
}


class KitFiles(Builder):
    """Writes local/ of the server and the sites: resources, environment, log format, and files of the template.

    Every kit keeps its log short on the console, has one line a round in log_rounds.txt, and a line in audit.log for
    what was refused. The server keeps its job store in its kit, and takes from sites and admins what FLARE's programs
    send in their own name, no more; a site takes no command that reads its files. With the server on `localhost` all
    sites run here, and each gets its share of the cores: threads of processes that all take every core wait for each
    other, and rounds then take up to ten times as long.

    Args:
        template: the template's folder.
        server_settings: into `servers` of the server's resources.json.
        client_settings: into `client` of the sites' resources.json.
        server_environment: into local/site.env of the server.
        site_environment: into local/site.env of the sites; FLARE_DATA_ROOT is a participant's `data_root`.
        local_files: of the template, into local/ of the server and the sites.
        site_files: of the template, into local/ of the sites.
        bundle_code: installs the bundle's code into local/custom, and allows exactly the classes that its jobs name.
        allow: more classes.
    """

    def __init__(
        self,
        template: str,
        server_settings: Mapping[str, Any] | None = None,
        client_settings: Mapping[str, Any] | None = None,
        server_environment: Mapping[str, Any] | None = None,
        site_environment: Mapping[str, Any] | None = None,
        local_files: Sequence[str] = (),
        site_files: Sequence[str] = (),
        bundle_code: bool = False,
        allow: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.template = Path(template)
        self.server_settings, self.client_settings = dict(server_settings or {}), dict(client_settings or {})
        self.server_environment, self.site_environment = dict(server_environment or {}), dict(site_environment or {})
        self.local_files, self.site_files = list(local_files), list(site_files)
        self.bundle_code, self.allow = bundle_code, list(allow)

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Called after StaticFileBuilder has written the kits."""
        for participant in (project.get_server(), *project.get_clients()):
            local = Path(ctx.get_local_dir(participant))
            is_server = participant.type == ParticipantType.SERVER
            resources = json.loads((local / "resources.json.default").read_text(encoding="utf-8"))
            if is_server:
                resources["servers"][0].update(self.server_settings)
                _store_in_kit(resources)
                for name in ("kit_storage.py", "site_logs.py"):
                    _copy(COMMON, name, local / "custom")
            else:
                resources["client"].update(self.client_settings)
            _copy(COMMON, "job_launchers.py", local / "custom")
            launcher = next(one for one in resources["components"] if one["id"] == "process_launcher")
            launcher["path"] = LAUNCHERS[is_server]
            guards = ["audit_refusals", "message_guard" if is_server else "site_commands"]
            for name in [*guards, *(["named_classes"] * self.bundle_code)]:
                _copy(COMMON, f"{name}.py", local / "custom")
                resources["components"].append({"id": name, "path": f"{name}.{GUARDS[name]}", "args": {}})
            if self.bundle_code:
                resources["class_allow_list"] = allowed_classes(self.allow)
                install_code(local / "custom")
            _write_json(local / "resources.json", resources)
            _copy(COMMON, "log_config.json", local)
            for name in [*self.local_files, *(() if is_server else self.site_files)]:
                _copy(self.template, name, local)
            values = self._environment(participant, project)
            lines = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in values.items())
            (local / "site.env").write_text(ENVIRONMENT + lines, encoding="utf-8")
            _edit(Path(ctx.get_kit_dir(participant)) / "sub_start.sh", SUB_START)
            _edit(Path(ctx.get_kit_dir(participant)) / "start.sh", START_SCRIPT)
        for admin in project.get_admins():
            _edit(Path(ctx.get_kit_dir(admin)) / "fl_admin.sh", ADMIN_SCRIPT)

    def finalize(self, project: Project, ctx: ProvisionContext) -> None:
        """Called after CertBuilder has written the state, which FLARE leaves readable to all: it holds every key."""
        for path in Path(ctx.get_state_dir()).iterdir():
            path.chmod(0o600)

    def _environment(self, participant: Participant, project: Project) -> dict[str, Any]:
        if participant.type == ParticipantType.SERVER:
            return self.server_environment
        values: dict[str, Any] = {}
        if data_root := participant.get_prop("data_root"):
            values["FLARE_DATA_ROOT"] = data_root
        if project.get_server().name in LOOPBACK:
            values["OMP_NUM_THREADS"] = max(1, (os.cpu_count() or 1) // len(project.get_clients()))
        return values | self.site_environment


def _store_in_kit(resources: dict[str, Any]) -> None:
    """FLARE's default is /tmp."""
    storage = {"path": STORAGE, "args": {"folder": "snapshot-storage"}}
    resources["snapshot_persistor"]["args"]["storage"] = storage
    for component in resources["components"]:
        if component["id"] == "job_manager":
            component["args"]["uri_root"] = "jobs-storage"
        elif component["id"] == "job_store":
            component.update(path=STORAGE, args={"folder": "."})
        elif component["id"] == "log_receiver":
            component.update(path=LOGS, args={})


def _edit(script: Path, changes: Mapping[str, str]) -> None:
    text = script.read_text(encoding="utf-8")
    for old, new in changes.items():
        if old not in text:
            raise BundleError(
                "is not that of nvflare 2.9.0",
                code="package-missing",
                key=str(script),
                remedy="pip install nvflare==2.9.0",
            )
        text = text.replace(old, new)
    script.write_text(text, encoding="utf-8")


def _copy(source: Path, name: str, target: Path) -> None:
    if not (source / name).is_file():
        raise BundleError("no such file in the template", code="template-unusable", key=str(source / name))
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / name, target / name)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
