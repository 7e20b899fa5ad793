# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The real dashboard as a process, with a kit that fits no running FLARE system, and a browser's side of HTTP."""

from __future__ import annotations

import datetime
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bundle.forked import OFF, SOCKET
from dashboard.passwords import write_password
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"
START_S = 400.0
PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


def write_certificate(folder: Path, name: str, days: float = 30, dns: str = "localhost") -> tuple[Path, Path]:
    """A self-signed certificate and its key, valid from yesterday for `days` from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "admin@nvidia.com"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nvidia"),
            x509.NameAttribute(NameOID.UNSTRUCTURED_NAME, "project_admin"),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=3))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(PEM))
    paths[1].write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN))
    return paths


def make_kit(folder: Path, port: int) -> Path:
    """An admin's kit, as FLARE provisions it, of a server that would listen at `port`."""
    startup = folder / "startup"
    startup.mkdir(parents=True)
    write_certificate(startup, "client")
    (startup / "rootCA.pem").write_bytes((startup / "client.crt").read_bytes())
    admin = {"project_name": "example_project", "host": "localhost", "port": port, "uid_source": "cert", **FILES}
    (startup / "fed_admin.json").write_text(json.dumps({"format_version": 1, "admin": admin}), encoding="utf-8")
    return folder


def unverified() -> ssl.SSLContext:
    """A client's, which takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


FILES = {"client_cert": "client.crt", "client_key": "client.key", "ca_cert": "rootCA.pem"}


class Served:
    """A process that serves the dashboard at `url`.

    Args:
        folder: empty; kit, password, cache and log go there.
        module: what `python -m` runs; it takes the options of the dashboard.
        options: more of them.
        forks: with a fork server of its own, which few tests need.
    """

    def __init__(self, folder: Path, module: str = "dashboard", *options: str, forks: bool = False) -> None:
        self.port, self.folder = free_port(), folder
        secure = "--tls-cert" in options
        self.cookie = f"flare_dashboard_{self.port}"
        self.url = f"{'https' if secure else 'http'}://localhost:{self.port}"
        write_password(folder / "password", PASSWORD)
        kit = make_kit(folder / "kit", free_port())
        files = ["--password-file", str(folder / "password"), "--cache", str(folder / "cache")]
        command = [sys.executable, "-m", module, "--kit", str(kit), "--port", str(self.port), *files, *options]
        env = os.environ | {"OMP_NUM_THREADS": "1"} | ({} if forks else {SOCKET: OFF})
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=env)
        self._wait()

    def client(self) -> httpx.Client:
        """A browser that has not logged in."""
        return httpx.Client(base_url=self.url, verify=False, headers={"accept": "text/html"}, timeout=60)

    @contextmanager
    def logged_in(self) -> Iterator[httpx.Client]:
        """A browser that has."""
        with self.client() as client:
            answer = client.post("/login", data={"password": PASSWORD}, headers={"origin": self.url})
            assert answer.status_code == 303, answer.text
            yield client

    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def stop(self) -> None:
        """Ends the process, as Ctrl-C does."""
        self.process.terminate()
        self.process.wait(60)

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log()
            try:
                with self.client() as client:
                    client.get("/login")
                return
            except httpx.TransportError:
                time.sleep(0.1)
        self.stop()
        raise AssertionError(f"not served after {START_S} s: {self.log()}")
