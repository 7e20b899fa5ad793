# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`bundle provision`: a workspace template, filled in, through FLARE's provisioning and preflight check.

FLARE makes the certificates and the kits; what the templates add to them is `bundle.kit_files`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle.export import check_new
from bundle.templates import PROJECT, Wanted, fill_in, find_template
from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.progress import write_atomically

ROOT_KEYS = ("root_cert", "root_pri_key")  # of FLARE's state/cert.json; the other keys are participants


@dataclass(frozen=True)
class Kits:
    """What FLARE made.

    Attributes:
        folder: of the newest kits, OUT/PROJECT/prod_NN.
        server: name of the server, and of its kit.
        port: of the server.
        sites: names of the sites, and of their kits.
        admins: name to role.
    """

    folder: Path
    server: str
    port: int
    sites: tuple[str, ...]
    admins: dict[str, str]

    @property
    def state(self) -> Path:
        """Where FLARE keeps the keys of the project."""
        return self.folder.parent / "state"


def provision(name_or_path: str, out: Path, wanted: Wanted) -> Kits:
    """Fills the template in, into the new folder `out`, and has FLARE make the kits.

    Raises:
        BundleError: the template, a name, the port or `out` is not as it must be, or FLARE refuses the project. `out`
            is then as it was.
    """
    out = without_tilde(out).absolute()
    if unfit := [character for character in str(out) if character == ":" or not character.isprintable()]:
        raise BundleError(
            f"a kit cannot lie in a folder with {unfit[0]!r} in its path: FLARE's start scripts could not find it",
            code="output-unusable",
            key=repr(str(out)),
            remedy="choose another folder",
        )
    text = fill_in(find_template(name_or_path), wanted)
    check_new(out)
    is_here(wanted.host, wanted.port)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _private(), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        made = Path(temporary) / out.name
        made.mkdir()
        (made / PROJECT).write_text(text, encoding="utf-8")
        kits = _run_flare(made)
        if out.exists():
            out.rmdir()
        made.rename(out)
    return Kits(out / kits.folder.relative_to(made), kits.server, kits.port, kits.sites, kits.admins)


def renew(out: Path) -> Kits:
    """Makes kits anew from OUT/project.yml as it is now, with new keys and certificates under the same root.

    Raises:
        BundleError: `out` was not provisioned, or FLARE refuses the project; the state is then as it was.
    """
    out = without_tilde(out).absolute()
    states = sorted(out.glob("*/state/cert.json"))
    if not (out / PROJECT).is_file() or len(states) != 1:
        raise BundleError(
            f"holds no {PROJECT} with */state/cert.json",
            code="kit-unusable",
            key=str(out),
            remedy="was it provisioned there?",
        )
    state, before = states[0], states[0].with_name("cert.json.before")
    with _private():
        if before.exists():  # a renewal was killed
            _put_back(before, state)
        root = _root_of(state)
        os.link(state, before)
        try:
            write_atomically(state, json.dumps(root))
            kits = _run_flare(out)
        except BaseException:
            _put_back(before, state)
            raise
        before.unlink()
        return kits


def _put_back(before: Path, state: Path) -> None:
    os.replace(before, state)
    before.unlink(missing_ok=True)  # if they are two names of one file, `replace` does nothing


def _root_of(state: Path) -> dict[str, str]:
    try:
        certificates = json.loads(state.read_text(encoding="utf-8"))
        return {key: certificates[key] for key in ROOT_KEYS}
    except (ValueError, KeyError, TypeError) as error:
        remedy = "put back a copy of the file from before it was damaged; without one, provision into a new folder"
        expected = "the root certificate and its key, by FLARE"
        raise BundleError(
            code="kit-unusable", key=str(state), expected=expected, got=repr(error), remedy=remedy
        ) from error


def is_here(host: str, port: int) -> bool:
    """Is `host` this machine, with the port free? Of another machine, or an unknown name, nothing can be said: False.

    Raises:
        BundleError: it is this machine, and the port is taken.
    """
    try:
        address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    except (socket.gaierror, UnicodeError):  # the latter of a part that is too long for a name
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return False
            remedy = "stop what listens there, or choose another port"
            raise BundleError(
                f"{host}: {error.strerror}", code="port-unusable", key=f"--port {port}", remedy=remedy
            ) from error
    return True


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """What is written meanwhile is for this user only."""
    mask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(mask)


def _run_flare(folder: Path) -> Kits:
    from nvflare.lighter.constants import CtxKey
    from nvflare.lighter.prov_utils import prepare_builders
    from nvflare.lighter.provision import prepare_project
    from nvflare.lighter.provisioner import Provisioner
    from nvflare.lighter.utils import load_yaml

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            definition = load_yaml(str(folder / PROJECT))
            project = prepare_project(definition)
            ctx = Provisioner(str(folder), prepare_builders(definition)).provision(project)
    except Exception as error:  # of the YAML parser, or ValueError, or of a builder that is not there
        raise BundleError(f"FLARE refuses it ({error})", code="template-unusable", key=str(folder / PROJECT)) from error
    if ctx.get(CtxKey.BUILD_ERROR):
        raise BundleError(
            "; ".join(ctx.get_errors()) or said.getvalue(), code="template-unusable", key=str(folder / PROJECT)
        )
    return Kits(
        Path(ctx.get_result_location()),
        project.get_server().name,
        int(ctx[CtxKey.FED_LEARN_PORT]),
        tuple(client.name for client in project.get_clients()),
        {admin.name: str(admin.get_prop("role")) for admin in project.get_admins()},
    )
