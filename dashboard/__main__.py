# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Command line: `python -m dashboard --kit DIR`. Start-up errors are one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bundle.forked import fork_server
from custom.data.folders import without_tilde
from custom.errors import BundleError
from dashboard import passwords
from dashboard.serving import DEFAULT_PORT, Address, port_number

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
DEFAULT_CACHE = Path("~/.cache/flare-dashboard")
M_ARENA_MAX, HEAPS = -8, 2  # the former as in malloc.h


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the dashboard until it is interrupted."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        if options.set_password:
            return _set_password(options.password_file)
        if options.kit is None:
            raise BundleError(
                "--kit is missing", code="option-value", remedy="give the folder of an admin's startup kit"
            )
        return _serve(options)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:  # the end of it, or a change of mind while it starts
        return INTERRUPTED
    except OSError as error:  # a full disk, no permission
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
    return BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboard",
        description="A web page that launches and follows training on a running FLARE system.",
    )
    parser.add_argument("--kit", type=Path, metavar="DIR", help="startup kit of the FLARE admin to act as")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port_number, default=DEFAULT_PORT, help=f"port (default: {DEFAULT_PORT})")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM), for other machines")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM)")
    parser.add_argument(
        "--password-file",
        type=Path,
        default=passwords.DEFAULT_FILE,
        metavar="FILE",
        help=f"holds the password's hash (default: {passwords.DEFAULT_FILE})",
    )
    parser.add_argument(
        "--cache", type=Path, default=DEFAULT_CACHE, metavar="DIR", help=f"downloads (default: {DEFAULT_CACHE})"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--set-password", action="store_true", help="ask for a new password, store its hash, and end")
    return parser


def _set_password(path: Path) -> int:
    path = without_tilde(path)
    if sys.stdin.isatty():
        password = getpass.getpass(f"New password ({passwords.SHORTEST} characters or more): ")
        if getpass.getpass("The same again: ") != password:
            raise BundleError(
                "the two are not the same", code="password-unusable", remedy="nothing was changed; start again"
            )
    else:
        password = sys.stdin.readline().rstrip("\n")
    passwords.write_password(path, password)
    print(f"The password is set; its hash is in {path}. A dashboard that runs takes it, and logs everybody out.")
    return OK


def _serve(options: argparse.Namespace) -> int:
    from bundle.admin_kit import read_kit

    address = Address(options.host, options.port, options.tls_cert, options.tls_key)
    address.check()
    kit = read_kit(without_tilde(options.kit))
    password = without_tilde(options.password_file)
    _make_password(password, address)
    cache = without_tilde(options.cache)
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    with fork_server():  # which imports torch while the page comes up: no launch waits for that
        from dashboard.app import serve  # slow to import, and a wrong option should be told at once

        who = f"{kit.project or kit.server} for {kit.user}"
        print(f"FLARE dashboard of {who}: {address.url}  (Ctrl-C ends it)", flush=True)
        serve(kit, cache, address, password, options.open)
    return OK


def _make_password(path: Path, address: Address) -> None:
    """On a first start, where only this machine can reach the page, makes one and shows it once; checks it later on."""
    if path.exists() or not address.local:
        passwords.read_password(path)
        return
    if not sys.stdout.isatty():  # it would end up in a log
        remedy = "set one first: python -m dashboard --set-password"
        raise BundleError("there is no password yet", code="password-unusable", key=str(path), remedy=remedy)
    password = passwords.random_password()
    passwords.write_password(path, password)
    print(f"The password of the dashboard, shown only now: {password}")
    print("  another one: python -m dashboard --set-password")


def _spare_memory() -> None:
    """FLARE and the pages have 160 threads: lets them share glibc's heaps, else each keeps what it has freed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, HEAPS)


if __name__ == "__main__":
    os.umask(0o077)  # results and uploads are for this user only
    _spare_memory()
    sys.exit(main())
