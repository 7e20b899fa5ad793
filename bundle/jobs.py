# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Finding a job and reading its JSON. Writes nothing."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import ROOT
from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.names import check_name

JOBS = ROOT / "jobs"
CLASS_KEYS = ("path", "class_path", "name")  # each of which FLARE takes


@dataclass(frozen=True)
class Job:
    """A job folder as it lies on the disk.

    Attributes:
        folder: the absolute path of the job.
        meta: the content of meta.json.
        configs: the content of each config_fed_*.json, by its path relative to `folder`.
    """

    folder: Path
    meta: dict[str, Any]
    configs: dict[Path, dict[str, Any]]

    @property
    def name(self) -> str:
        """The name in meta.json, which FLARE shows in its lists."""
        return str(self.meta["name"])

    @property
    def min_clients(self) -> int:
        """The smallest federation that FLARE would start the job with."""
        value = self.meta.get("min_clients", 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BundleError(
                code="job-malformed",
                key=f"{self.folder / 'meta.json'} min_clients",
                expected="1 or more sites",
                got=repr(value),
            )
        return value

    @property
    def workflows(self) -> list[dict[str, Any]]:
        """The server's workflows, in order."""
        return [flow for config in self.configs.values() for flow in config.get("workflows", [])]


def find_job(name_or_path: str) -> Path:
    """The folder of a job of this bundle, by name, or of any other job, by path.

    Raises:
        BundleError: there is no such job; the message lists those there are.
    """
    path = without_tilde(name_or_path)
    if "/" not in name_or_path and (JOBS / name_or_path / "meta.json").is_file():
        return JOBS / name_or_path
    if (path / "meta.json").is_file():
        return path.resolve()
    if path.is_dir():
        raise BundleError(
            "there is no meta.json",
            code="job-not-found",
            key=str(path),
            remedy="a job folder holds meta.json and app/config/*.json",
        )
    names = sorted(job.name for job in JOBS.glob("*") if (job / "meta.json").is_file())
    close = difflib.get_close_matches(name_or_path, names, n=1)
    question = f"did you mean {close[0]}? " if close else ""
    raise BundleError(
        "no such job",
        code="job-not-found",
        key=name_or_path,
        remedy=f"{question}the jobs here are {', '.join(names) or '(none)'}, and a path to a job folder will do too",
    )


def read_job(name_or_path: str) -> Job:
    """The job with its JSON, after the checks that need no FLARE.

    Raises:
        BundleError: the job does not exist, a file is not JSON, or FLARE would refuse a name.
    """
    folder = find_job(name_or_path)
    meta = read_json(folder / "meta.json")
    check_meta(meta, str(folder / "meta.json"))
    paths = sorted(folder.glob("*/config/config_fed_*.json"))
    if not paths:
        raise BundleError(
            "no app/config/config_fed_server.json or config_fed_client.json", code="job-not-found", key=str(folder)
        )
    configs = {path.relative_to(folder): read_json(path) for path in paths}
    for path, config in configs.items():
        check_config(config, path.name)
    return Job(folder, meta, configs)


def check_meta(meta: dict[str, Any], where: str) -> None:
    """Raises BundleError where the job or one of its apps, which become folders, has no name that may be one."""
    check_name(meta.get("name"), f"{where} name")
    apps = meta.get("deploy_map", {})
    if not isinstance(apps, dict):
        raise BundleError(
            code="job-malformed", key=f"{where} deploy_map", expected="a JSON object", got=f"{json.dumps(apps):.80}"
        )
    for app in apps:
        check_name(app, f"{where} deploy_map")


def check_config(config: dict[str, Any], file: str) -> None:
    """Raises BundleError where there is no list of components, or one of them is none."""

    def entries(holder: dict[str, Any], kind: str, where: str) -> list[dict[str, Any]]:
        found = holder.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise BundleError(
                code="job-malformed",
                key=f"{where} {kind}",
                expected="a list of JSON objects",
                got=f"{json.dumps(found):.80}",
            )
        return found

    def check_class(entry: Any, where: str) -> None:
        named = [entry[key] for key in CLASS_KEYS if key in entry] if isinstance(entry, dict) else []
        if not named or not isinstance(named[0], str):
            expected = '{"path": "module.Class", "args": {...}}'
            raise BundleError(code="job-malformed", key=where, expected=expected, got=f"{json.dumps(entry):.80}")

    def check_tasks(binding: dict[str, Any], where: str) -> None:
        tasks = binding.get("tasks", [])
        if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
            expected, got = "a list of names", f"{json.dumps(tasks):.80}"
            raise BundleError(code="job-malformed", key=f"{where} tasks", expected=expected, got=got)

    for kind in ("workflows", "components"):
        for entry in entries(config, kind, file):
            if not isinstance(entry.get("id", ""), str):
                got = f"{json.dumps(entry['id']):.80}"
                raise BundleError(code="job-malformed", key=f"{file} {kind} id", expected="a text", got=got)
            check_class(entry, f"{file} {kind} {entry.get('id', '')}".strip())
    for binding in entries(config, "executors", file):
        check_tasks(binding, f"{file} executors")
        check_class(binding.get("executor"), f"{file} executor of {binding.get('tasks')}")
    for kind in ("task_data_filters", "task_result_filters"):
        for binding in entries(config, kind, file):
            check_tasks(binding, f"{file} {kind}")
            for entry in entries(binding, "filters", f"{file} {kind}"):
                check_class(entry, f"{file} filter of {binding.get('tasks')}")


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        BundleError: the file cannot be read, or is not a JSON object; the message has the line.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"cannot be read ({error.strerror})", code="job-malformed", key=str(path)) from error
    except UnicodeDecodeError as error:
        raise BundleError("is not text", code="job-malformed", key=str(path)) from error
    except json.JSONDecodeError as error:
        raise BundleError(
            f"line {error.lineno} is not JSON ({error.msg})", code="job-malformed", key=str(path)
        ) from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, thousands of brackets
        raise BundleError(f"is not JSON that can be read ({error})", code="job-malformed", key=str(path)) from error
    if not isinstance(value, dict):
        raise BundleError(code="job-malformed", key=str(path), expected="a JSON object", got=type(value).__name__)
    return value
