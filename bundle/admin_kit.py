# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""An admin's startup kit: whose it is, which system it belongs to, and whether its certificate is good now."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.names import is_name

PROJECT_ADMIN = "project_admin"
# What FLARE's default policy gives the other roles (nvflare/lighter/templates/master_template.yml, default_authz).
# "own" is for jobs that this user submitted. A site may have another policy: the server's answer is what counts.
DEFAULT_POLICY: dict[str, dict[str, str]] = {
    "lead": {"submit_job": "any", "manage_job": "own", "download_job": "own", "operate": "any"},
    "org_admin": {
        "manage_job": "any",
        "download_job": "any",
        "operate": "any",
    },  # of its organisation: FLARE checks that
    "member": {},
}
RIGHTS = ("submit_job", "manage_job", "download_job", "get_job_log", "operate")  # the last: to ask sites
ADMIN, SERVER, CLIENT = "fed_admin.json", "fed_server.json", "fed_client.json"
COPY_AGAIN = "copy the whole kit again, as it was provisioned"
USE_ANOTHER = "give the folder of an admin's kit: the one that holds startup/fed_admin.json"


@dataclass(frozen=True)
class Kit:
    """Whom a program acts for, and where.

    Attributes:
        folder: of the kit; `startup/` is in it.
        user: the name in the certificate, which FLARE shows as the submitter of a job.
        role: `project_admin`, `org_admin`, `lead` or `member`.
        organization: of the user.
        project: FLARE's name of the system.
        server: its host name.
        port: that the server listens at.
        expires: Unix seconds; the certificate is not good after that.
        certificate, key, authority: the files that it proves itself with, and that of whom it trusts.
        security: of the connection: `mtls`, `tls` or `clear`.
    """

    folder: Path
    user: str
    role: str
    organization: str
    project: str
    server: str
    port: int
    expires: float
    certificate: Path
    key: Path
    authority: Path
    security: str

    @property
    def address(self) -> str:
        """The server, as `host:port`."""
        return f"{self.server}:{self.port}"

    def may(self, right: str, submitter: str = "") -> bool:
        """Does FLARE's default policy give the role this one of RIGHTS, for a job of that submitter?"""
        if self.role == PROJECT_ADMIN:
            return True
        given = DEFAULT_POLICY.get(self.role, {}).get(right, "")
        return given == "any" or (given == "own" and submitter in ("", self.user))


def read_kit(path: Path) -> Kit:
    """The kit in that folder.

    Raises:
        BundleError: it is no admin's kit, is not whole, or its certificate is not good now.
    """
    folder = _kit_folder(without_tilde(path))
    startup = folder / "startup"
    admin = _admin_config(startup / ADMIN)
    files = {name: startup / admin[name] for name in ("client_cert", "client_key", "ca_cert")}
    for file in files.values():
        if not file.is_file():
            raise BundleError("is missing", code="kit-unusable", key=str(file), remedy=COPY_AGAIN)
    certificate = _certificate(files["client_cert"])
    _check_dates(certificate, files["client_cert"])
    _check_key(certificate, files["client_key"])
    return Kit(
        folder=folder,
        user=_name(certificate, NameOID.COMMON_NAME),
        role=_name(certificate, NameOID.UNSTRUCTURED_NAME),
        organization=_name(certificate, NameOID.ORGANIZATION_NAME),
        project=str(admin.get("project_name", "")),
        server=str(admin["host"]),
        port=int(admin["port"]),
        expires=certificate.not_valid_after_utc.timestamp(),
        certificate=files["client_cert"],
        key=files["client_key"],
        authority=files["ca_cert"],
        security=str(admin.get("connection_security") or "mtls").lower(),
    )


def _kit_folder(path: Path) -> Path:
    if not path.is_dir():
        raise BundleError("no such folder", code="kit-unusable", key=str(path), remedy=USE_ANOTHER)
    path = path.resolve()
    if (path / ADMIN).is_file():
        return path.parent  # the startup folder itself
    if (path / "startup" / ADMIN).is_file():
        return path
    for other, whose in ((SERVER, "the server's"), (CLIENT, "a client's")):
        if (path / "startup" / other).is_file() or (path / other).is_file():
            raise BundleError(f"is {whose} kit", code="kit-unusable", key=str(path), remedy=USE_ANOTHER)
    below = sorted({file.parent.parent for depth in (1, 2, 3) for file in path.glob("*/" * depth + f"startup/{ADMIN}")})
    remedy = f"there is one in {below[0]}" if below else USE_ANOTHER
    raise BundleError("is not a startup kit", code="kit-unusable", key=str(path), remedy=remedy)


def _admin_config(file: Path) -> dict[str, Any]:
    try:
        admin: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["admin"]
        missing = [name for name in ("host", "port", "client_cert", "client_key", "ca_cert") if not admin.get(name)]
        int(admin.get("port", 0))
        odd = [name for name in ("client_cert", "client_key", "ca_cert") if not is_name(admin.get(name))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise BundleError("cannot be read", code="kit-unusable", key=str(file), remedy=COPY_AGAIN) from error
    if missing:
        raise BundleError(f"does not say {missing[0]}", code="kit-unusable", key=str(file), remedy=COPY_AGAIN)
    if odd:
        expected, got = "a file beside it", f"{admin[odd[0]]!r:.100}"
        raise BundleError(code="kit-unusable", key=f"{file} {odd[0]}", expected=expected, got=got, remedy=COPY_AGAIN)
    return admin


def _certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError("is not a certificate", code="kit-unusable", key=str(file), remedy=COPY_AGAIN) from error


def _check_dates(certificate: x509.Certificate, file: Path) -> None:
    now, begin, end = time.time(), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= end.timestamp():
        raise BundleError(
            f"the certificate expired on {end:%Y-%m-%d}",
            code="certificate-not-valid",
            key=str(file),
            remedy="ask the project's admin for a new kit",
        )
    if now < begin.timestamp():
        raise BundleError(
            f"the certificate is valid only from {begin:%Y-%m-%d %H:%M} UTC",
            code="certificate-not-valid",
            key=str(file),
            remedy="is this machine's clock right?",
        )


def _check_key(certificate: x509.Certificate, file: Path) -> None:
    """Without this a wrong key shows as a TLS failure, which looks as if the server were down."""
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(
            "is not a private key that can be read", code="kit-unusable", key=str(file), remedy=COPY_AGAIN
        ) from error
    if key.public_key() != certificate.public_key():
        raise BundleError(
            "does not belong to the certificate beside it", code="kit-unusable", key=str(file), remedy=COPY_AGAIN
        )


def _name(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    values = certificate.subject.get_attributes_for_oid(oid)
    return str(values[0].value) if values else ""
