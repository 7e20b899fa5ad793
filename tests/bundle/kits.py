# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Startup kits as FLARE provisions them, with certificates of any age; no server belongs to them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

YEAR = 365 * 86400.0


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """The root of a project.

    Args:
        name: of the project.
    """

    def __init__(self, name: str) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._certificate(self.name, self._key.public_key(), 0.0, YEAR, True)

    def issue(self, name: x509.Name, age_s: float = 60.0, life_s: float = YEAR) -> tuple[bytes, bytes]:
        """A new certificate and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._certificate(name, key.public_key(), age_s, life_s, False), _pem(key)

    def _certificate(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, age_s: float, life_s: float, is_root: bool
    ) -> bytes:
        start = datetime.now(UTC) - timedelta(seconds=age_s)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(seconds=life_s))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def write_kit(
    folder: Path,
    authority: Authority,
    user: str = "ann@clinic.org",
    role: str = "project_admin",
    host: str = "127.0.0.1",
    port: int = 8002,
    age_s: float = 60.0,
    life_s: float = YEAR,
) -> Path:
    """An admin's kit in `folder`, which it returns."""
    subject = [
        x509.NameAttribute(NameOID.COMMON_NAME, user),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "clinic"),
        x509.NameAttribute(NameOID.UNSTRUCTURED_NAME, role),
    ]
    certificate, key = authority.issue(x509.Name(subject), age_s, life_s)
    startup = folder / "startup"
    startup.mkdir(parents=True)
    (folder / "transfer").mkdir()
    (startup / "client.crt").write_bytes(certificate)
    (startup / "client.key").write_bytes(key)
    (startup / "rootCA.pem").write_bytes(authority.certificate)
    admin = {
        "project_name": "hospitals",
        "username": user,
        "server_identity": "server",
        "scheme": "http",
        "host": host,
        "port": port,
        "connection_security": "mtls",
        "uid_source": "cert",
        "upload_dir": "transfer",
        "download_dir": "transfer",
        "client_key": "client.key",
        "client_cert": "client.crt",
        "ca_cert": "rootCA.pem",
    }
    (startup / "fed_admin.json").write_text(json.dumps({"format_version": 1, "admin": admin}))
    return folder
