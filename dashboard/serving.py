# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Where the dashboard is served: which addresses it may bind to, under which names, and with which certificate."""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from custom.errors import BundleError

DEFAULT_PORT = 8765
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
LAST_PORT = 65535
ANY_ADDRESS = ("0.0.0.0", "::")


def port_number(text: str) -> int:
    """For the command line.

    Raises:
        argparse.ArgumentTypeError: it is none from 1 to 65535.
    """
    if not re.fullmatch(r"[1-9]\d{0,4}", text) or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1 to {LAST_PORT}")
    return int(text)


@dataclass(frozen=True)
class Address:
    """What to listen on.

    Attributes:
        host: name or address.
        port: number.
        certificate: PEM file of the certificate chain; None for plain HTTP.
        key: PEM file of its key.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @property
    def local(self) -> bool:
        """Can only this machine reach it?"""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """What to open in a browser on this machine."""
        host = "127.0.0.1" if self.host in ANY_ADDRESS else self.host
        return f"{'https' if self.certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def names(self) -> frozenset[str]:
        """The host names to answer to: this machine's own, the one that was given, and the certificate's.

        Raises:
            BundleError: see `check`.
        """
        given = () if self.host in ANY_ADDRESS else (self.host.lower(),)
        return frozenset((*LOOPBACK_NAMES, *given, *(_certificate_names(self.certificate) if self.certificate else ())))

    def tls(self) -> ssl.SSLContext | None:
        """With certificate and key, TLS 1.2 or later; None for plain HTTP."""
        if not (self.certificate and self.key):
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def check(self) -> None:
        """Is it safe to listen there, and possible?

        Raises:
            BundleError: no TLS where others can reach it, a certificate that is not valid now or does not fit its key,
                or a port that is taken.
        """
        if (self.certificate is None) != (self.key is None):
            raise BundleError("--tls-cert and --tls-key", code="option-value", remedy="give both or none")
        if not self.local and not self.certificate:
            raise BundleError(
                "other machines could reach the dashboard, and passwords would travel in the clear",
                code="option-value",
                key=f"--host {self.host}",
                remedy="give --tls-cert and --tls-key, or leave --host out and use an SSH tunnel",
            )
        if self.certificate and self.key:
            _check_certificate(self.certificate, self.key)
        self._check_port()

    def _check_port(self) -> None:
        try:
            family, kind, _, _, target = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(target)
        except OSError as error:
            raise BundleError(
                f"cannot listen there ({error.strerror})",
                code="port-unusable",
                key=f"--host {self.host} --port {self.port}",
                remedy="choose another --port, or end the program that uses it",
            ) from None


def _check_certificate(certificate: Path, key: Path) -> None:
    found = _read(certificate)
    now = datetime.datetime.now(datetime.UTC)
    if now > found.not_valid_after_utc:
        raise BundleError(
            f"expired on {found.not_valid_after_utc:%Y-%m-%d}",
            code="certificate-not-valid",
            key=str(certificate),
            remedy="renew it",
        )
    if now < found.not_valid_before_utc:
        raise BundleError(
            f"is not valid before {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            code="certificate-not-valid",
            key=str(certificate),
        )
    try:
        Address("", 0, certificate, key).tls()
    except (OSError, ssl.SSLError) as error:
        problem = f"is not the key of {certificate} ({error.strerror or error})"
        raise BundleError(
            problem, code="certificate-not-valid", key=str(key), remedy="give a PEM file without a passphrase"
        ) from None


def _certificate_names(certificate: Path) -> list[str]:
    try:
        names = _read(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)] + addresses


def _read(certificate: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes())
    except OSError as error:
        raise BundleError(
            f"cannot be read ({error.strerror})", code="certificate-not-valid", key=str(certificate)
        ) from None
    except ValueError:
        raise BundleError(
            "is not a certificate in PEM format", code="certificate-not-valid", key=str(certificate)
        ) from None
