# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Command line: `python -m bundle run|resume|export|settings|sweep|link|report|save-pretrained|data|provision`."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bundle import missing_packages
from bundle.forked import fork_server
from bundle.interrupts import interrupts_call, raise_keyboard_interrupt
from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.progress import write_atomically

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
    if problem := missing_packages():
        print(f"error: {problem} [package-missing]", file=sys.stderr)
        return BAD_INPUT
    try:
        if command not in (_run, _sweep, _resume):
            return command(options)
        with interrupts_call(raise_keyboard_interrupt), fork_server():
            return command(options)
    except BundleError as error:
        print(f"error: {error.coded()}", file=sys.stderr)
    except BrokenPipeError:  # `... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK if command in (_report, _settings) else NOT_FINISHED  # the others were cut short
    except OSError as error:  # a full disk, no permission
        print(f"error: {_typed(error).coded()}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return BAD_INPUT


def _first(error: OSError) -> OSError:
    """Of a folder that could not be copied, shutil lists source, target and reason of each file, as text."""
    if not isinstance(error, shutil.Error) or not isinstance(error.args[0], list):
        return error
    _, target, reason = error.args[0][0]
    found = re.search(r"\[Errno (\d+)\]", str(reason))
    number = int(found[1]) if found else 0
    return OSError(number, os.strerror(number) if found else str(reason), str(target))


def _typed(error: OSError) -> BundleError:
    error = _first(error)
    problem, key = error.strerror or str(error), str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BundleError(problem, code="disk-full", key=key, remedy="make room, or choose another folder")
    if isinstance(error, PermissionError):
        return BundleError(problem, code="not-writable", key=key)
    return BundleError(problem, code="file-unusable", key=key)


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m bundle", description="Everything that happens around a FLARE job.")
    commands = parser.add_subparsers(
        required=True, metavar="run|resume|export|settings|sweep|link|report|save-pretrained|data|provision"
    )
    _add_run(commands.add_parser("run", help="run a job in FLARE's simulator, with progress and a report"))
    _add_resume(commands.add_parser("resume", help="continue a job that ended early from its last completed round"))
    _add_export(commands.add_parser("export", help="write a plain, self-contained job folder"))
    _add_settings(commands.add_parser("settings", help="show the main settings of a job, for --set"))
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
    _add_provision(commands.add_parser("provision", help="make the kits of a FLARE system from a workspace template"))
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="name of a job, or path to a job folder")
    parser.add_argument("-n", "--sites", type=int, default=2, metavar="SITES", help="number of sites (default: 2)")
    parser.add_argument("-t", "--threads", type=int, metavar="THREADS", help="sites at a time (default: all)")
    parser.add_argument("-w", "--workspace", type=Path, help="new folder (default: workspace/JOB-TIME)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=SET_HELP)
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the report as a page")
    parser.set_defaults(command=_run)


def _add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", nargs="?", default="", metavar="JOB_ID", help="which job (with -w: the only one)")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--server-kit", type=Path, metavar="DIR", help="of the server that ran it, on this machine")
    place.add_argument("-w", "--workspace", type=Path, help="of the simulator that ran it; it runs on in a new one")
    parser.add_argument("--kit", type=Path, metavar="DIR", help="an admin's, to submit with (default: the one beside)")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="new workspace (default: workspace/JOB-TIME)")
    parser.add_argument("-t", "--threads", type=int, metavar="THREADS", help="in the simulator: sites at a time")
    parser.set_defaults(command=_resume)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="name of a job, or path to a job folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=SET_HELP)
    parser.add_argument(
        "--no-code", action="store_false", dest="code", help="leave app/custom out: the sites have the code installed"
    )
    parser.set_defaults(command=_export)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="names or paths (default: all jobs of this bundle)")
    parser.add_argument("--json", action="store_true", help="as a list of objects, for programs")
    parser.set_defaults(command=_settings)


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


def _add_provision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("template", metavar="TEMPLATE", help="poc, secure, secure-no-byoc, privacy, or a folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder; with --renew, the one of before")
    parser.add_argument("--sites", nargs="+", metavar="NAME", help="names of the sites (default: site-1 site-2)")
    parser.add_argument("--host", metavar="HOST", help="the server's name for all others (default: localhost)")
    parser.add_argument("--port", type=int, metavar="PORT", help="of the server (default: 8002)")
    parser.add_argument("--domain", metavar="DOMAIN", help="admins are admin@DOMAIN ... (default: flare.example)")
    parser.add_argument(
        "--no-preflight", action="store_false", dest="preflight", help="skip FLARE's check of the server"
    )
    parser.add_argument(
        "--renew", action="store_true", help="from OUT/project.yml as it is now, new keys and certificates for all"
    )
    parser.set_defaults(command=_provision)


def _run(options: argparse.Namespace) -> int:
    from bundle.run import run

    _check_file(options.html)
    if options.html:
        import matplotlib.figure  # noqa: F401  # a second, which is not missed while the fork server imports, too

        from bundle.report.html import to_html

    report = run(options.job, options.sites, options.threads, options.workspace, options.settings)
    if report is None:
        return INTERRUPTED
    if options.html:
        _write(options.html, to_html(report))
        print(f"wrote {options.html}")
    return OK if report.finished else NOT_FINISHED


def _resume(options: argparse.Namespace) -> int:
    from bundle.resume import resume_at_server, resume_in_simulator

    given = {"-o": options.out, "-t": options.threads} if options.server_kit else {"--kit": options.kit}
    if unused := [name for name, value in given.items() if value is not None]:
        place = "--server-kit" if options.server_kit else "-w"
        raise BundleError(f"has no meaning with {place}", code="option-value", key=unused[0], remedy="leave it out")
    if options.server_kit:
        if not options.job:
            raise BundleError(
                "which job?",
                code="option-value",
                key="JOB_ID",
                remedy=f"python -m bundle report {shlex.quote(options.server_kit)} has it",
            )
        resume_at_server(options.job, options.server_kit, options.kit)
        return OK
    report = resume_in_simulator(options.job, options.workspace, options.out, options.threads)
    if report is None:
        return INTERRUPTED
    return OK if report.finished else NOT_FINISHED


def _export(options: argparse.Namespace) -> int:
    from bundle.export import export

    job = export(options.job, options.out, options.settings, options.code)
    print(f"{job.name} is now a plain folder{'' if options.code else ' without code'}: {job.folder}")
    return OK


def _settings(options: argparse.Namespace) -> int:
    from bundle.form import names, read_form
    from bundle.form_table import to_json, to_text

    forms = [read_form(job) for job in options.jobs or names()]
    print(to_json(forms) if options.json else "\n".join(map(to_text, forms)), end="")
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
    numbers = json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
    files = {options.json: numbers} if options.json and not to_stdout else {}
    if options.html:
        from bundle.report.html import to_html

        files[options.html] = to_html(report)
    for path, text in files.items():
        _write(path, text)
    print(numbers if to_stdout else to_text(report), end="")
    for path in files:
        print(f"wrote {path}", file=sys.stderr if to_stdout else None)
    return OK


def _save_pretrained(options: argparse.Namespace) -> int:
    from bundle.save_pretrained import save_pretrained

    print(save_pretrained(options.workspace, options.out, options.job, best=options.best, encoder=options.encoder))
    return OK


def _data(options: argparse.Namespace) -> int:
    from bundle.data import prepare

    print(f"{options.name} is complete in {prepare(options.name, options.path)}")
    return OK


def _provision(options: argparse.Namespace) -> int:
    from bundle.handover import to_text
    from bundle.preflight import check_server
    from bundle.provision import is_here, provision, renew
    from bundle.templates import Wanted, find_template, split_names

    given = {name: getattr(options, name) for name in ("sites", "host", "port", "domain")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.renew:
        find_template(options.template)
        if given:
            remedy = f"change {options.out / 'project.yml'}, which --renew reads"
            raise BundleError(
                "cannot be changed by --renew", code="option-value", key=f"--{next(iter(given))}", remedy=remedy
            )
        print(to_text(renew(options.out), None), end="")
        return OK
    if "sites" in given:
        given["sites"] = split_names(given["sites"])
    kits = provision(options.template, options.out, Wanted(**given))
    wanted = options.preflight and is_here(kits.server, kits.port)
    checks = check_server(kits.folder / kits.server) if wanted else None
    print(to_text(kits, checks), end="")
    return NOT_FINISHED if any(check.problem for check in checks or ()) else OK


def _check_file(path: Path | None) -> None:
    if path == STDOUT:
        raise BundleError(
            "is not a file",
            code="output-unusable",
            key=str(path),
            remedy="give the file to write; only `report --json -` prints",
        )
    if path and without_tilde(path).is_dir():
        raise BundleError("is a folder", code="output-unusable", key=str(path), remedy="give the file to write")


def _write(path: Path, text: str) -> None:
    """Writes the whole file or leaves what was there; what is no file, such as a pipe, gets the text as it is."""
    path = without_tilde(path)
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    path = path.resolve()  # of a link, the file that it leads to
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


def _open_streams() -> None:
    """Standard streams that were closed (`>&-`) lead nowhere: else the next file that is opened takes their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


if __name__ == "__main__":
    _open_streams()
    exit_code = main()
    with suppress(OSError):
        sys.stdout.flush()
        os._exit(exit_code)  # taking PyTorch apart takes half a second
    sys.exit(exit_code)
