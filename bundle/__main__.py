# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Command line: `python -m bundle run|export|sweep|link|report|save-pretrained|data`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from custom.errors import BundleError

OK, NOT_FINISHED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
STDOUT = Path("-")
SET_HELP = (
    "change an argument of the job, such as num_rounds=3 or train.local_epochs=2 (may be given several times); a "
    "folder or file that lies here, such as dataset_path=data, goes into the job as its absolute path on this machine; "
    'ID={"path": "module.Class", "args": {...}} replaces the whole component or workflow of that id'
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a user's mistake is one paragraph on stderr and exit code 2."""
    options = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # `... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:  # a full disk, no permission
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m bundle", description="Everything that happens around a FLARE job.")
    commands = parser.add_subparsers(required=True, metavar="run|export|sweep|link|report|save-pretrained|data")
    _add_run(commands.add_parser("run", help="run a job in FLARE's simulator, with progress and a report"))
    _add_export(commands.add_parser("export", help="write a plain, self-contained job folder"))
    _add_sweep(commands.add_parser("sweep", help="run a grid of settings of a job, and compare"))
    link = commands.add_parser("link", help="renew the links in app/custom of every job")
    link.add_argument("jobs", nargs="*", metavar="JOB", help="only these jobs (default: all of this bundle)")
    link.add_argument("--check", action="store_true", help="change nothing; exit 1 if a link is missing or stale")
    link.set_defaults(command=_link)
    _add_report(commands.add_parser("report", help="show what a job did"))
    _add_save_pretrained(commands.add_parser("save-pretrained", help="write a job's text classifier for Hugging Face"))
    data = commands.add_parser("data", help="download and check a data set")
    data.add_argument("name", metavar="NAME", help="cifar10, mnist, femnist or ag_news")
    data.add_argument("path", metavar="PATH", type=Path, help="folder it is kept in (dataset_path of a job)")
    data.set_defaults(command=_data)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="name of a job, or path to a job folder")
    parser.add_argument("-n", "--sites", type=int, default=2, metavar="SITES", help="number of sites (default: 2)")
    parser.add_argument("-t", "--threads", type=int, metavar="THREADS", help="sites at a time (default: all)")
    parser.add_argument("-w", "--workspace", type=Path, help="new folder (default: workspace/JOB-TIME)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=SET_HELP)
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the report as a page")
    parser.set_defaults(command=_run)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="name of a job, or path to a job folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=SET_HELP)
    parser.set_defaults(command=_export)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="name of a job, or path to a job folder")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="values of an argument, as --set takes them (may be given several times: all combinations); "
        "all of them as JSON where one holds a comma: 'key=[1, 2],[3]'",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=SET_HELP)
    parser.add_argument("-n", "--sites", type=int, default=2, metavar="SITES", help="number of sites (default: 2)")
    parser.add_argument("-t", "--threads", type=int, metavar="THREADS", help="sites at a time (default: all)")
    parser.add_argument("-j", "--jobs", type=int, metavar="JOBS", help="runs at a time (default: cores / sites)")
    parser.add_argument("--metric", default="", metavar="NAME", help="to compare by (default: the job's key metric)")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT", help="folder; the same again goes on where it stopped"
    )
    parser.set_defaults(command=_sweep)


def _add_workspace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workspace", metavar="WORKSPACE", type=Path, help="simulator workspace, POC or server kit, or downloaded job"
    )
    parser.add_argument("--job", default="", metavar="ID", help="which job, if there are several (default: the newest)")


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_workspace(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the numbers; `-` prints them, and no report"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with curves")
    parser.set_defaults(command=_report)


def _add_save_pretrained(parser: argparse.ArgumentParser) -> None:
    _add_workspace(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="new folder")
    parser.add_argument("--best", action="store_true", help="the best global model by validation, not the last")
    parser.add_argument(
        "--encoder",
        default="",
        metavar="NAME",
        help="folder or name of the pretrained encoder (default: the job's model_name_or_path)",
    )
    parser.set_defaults(command=_save_pretrained)


def _run(options: argparse.Namespace) -> int:
    from bundle.run import run

    _check_file(options.html)
    report = run(options.job, options.sites, options.threads, options.workspace, options.settings)
    if report is None:
        return INTERRUPTED
    if options.html:
        from bundle.report.html import to_html

        _write(options.html, to_html(report))
    return OK if report.finished else NOT_FINISHED


def _export(options: argparse.Namespace) -> int:
    from bundle.export import export

    job = export(options.job, options.out, options.settings)
    print(f"{job.name} is now a plain folder: {job.folder}")
    return OK


def _sweep(options: argparse.Namespace) -> int:
    from bundle.sweep import Asked, sweep

    names = ("job", "grid", "out", "sites", "threads", "jobs", "metric")
    asked = {name: getattr(options, name) for name in names}
    results = sweep(Asked(assignments=options.settings, **asked))
    if results is None:
        return INTERRUPTED
    return OK if all(result.finished for result in results) else NOT_FINISHED


def _link(options: argparse.Namespace) -> int:
    from bundle.link import link_command

    return link_command(options.jobs, options.check)


def _report(options: argparse.Namespace) -> int:
    from bundle.report.reading import read_report
    from bundle.report.text import to_text

    to_stdout = options.json == STDOUT
    _check_file(None if to_stdout else options.json)
    _check_file(options.html)
    report = read_report(options.workspace, options.job)
    numbers = json.dumps(report.to_json(), indent=2) + "\n"
    print(numbers if to_stdout else to_text(report), end="")
    if options.json and not to_stdout:
        _write(options.json, numbers)
    if options.html:
        from bundle.report.html import to_html

        _write(options.html, to_html(report), sys.stderr if to_stdout else None)
    return OK


def _save_pretrained(options: argparse.Namespace) -> int:
    from bundle.save_pretrained import save_pretrained

    print(save_pretrained(options.workspace, options.out, options.job, best=options.best, encoder=options.encoder))
    return OK


def _data(options: argparse.Namespace) -> int:
    from bundle.data import prepare

    print(f"{options.name} is complete in {prepare(options.name, options.path)}")
    return OK


def _check_file(path: Path | None) -> None:
    if path == STDOUT:
        raise BundleError("is no file", key=str(path), remedy="give the file to write; only `report --json -` prints")
    if path and path.expanduser().is_dir():
        raise BundleError("is a folder", key=str(path), remedy="give the file to write")


def _write(path: Path, text: str, told: TextIO | None = None) -> None:
    """Writes the whole file or leaves what was there."""
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"wrote {path}", file=told)


if __name__ == "__main__":
    sys.exit(main())
