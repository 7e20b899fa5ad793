# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The password of the dashboard: one file of mode 600 that holds its scrypt hash, and never the password."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
import threading
from pathlib import Path

from custom.errors import BundleError

DEFAULT_FILE = Path("~/.config/flare-dashboard/password")
SHORTEST, LONGEST = 12, 1000  # characters
COST, BLOCK, PARALLEL = 2**14, 8, 5  # scrypt's N, r and p: 16 MB and about 0.2 s for each guess
KEY_BYTES, SALT_BYTES = 32, 16
RANDOM_BYTES = 15  # of a password made here: 120 bits
OPEN_TO_OTHERS = 0o077
_one_at_a_time = threading.Lock()  # many logins at once must not add up to memory


def hash_password(password: str) -> str:
    """One line: `scrypt$N$r$p$salt$key`.

    Raises:
        BundleError: it is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise BundleError(
            "the password", code="password-unusable", expected=f"{SHORTEST} to {LONGEST} characters", got=len(password)
        )
    salt = secrets.token_bytes(SALT_BYTES)
    key = _derive(password, salt, COST, BLOCK, PARALLEL)
    return "$".join(("scrypt", str(COST), str(BLOCK), str(PARALLEL), _encode(salt), _encode(key)))


def matches(password: str, hashed: str) -> bool:
    """Is it the password that was hashed? Takes as long for a wrong one."""
    if len(password) > LONGEST:
        return False
    cost, block, parallel, salt, key = _parse(hashed)
    return hmac.compare_digest(_derive(password, salt, cost, block, parallel), key)


def random_password() -> str:
    """One that nobody has to think of; it only has lower-case letters and digits."""
    return base64.b32encode(secrets.token_bytes(RANDOM_BYTES)).decode().lower()


def write_password(path: Path, password: str) -> str:
    """Replaces the file; returns the hash.

    Raises:
        BundleError: the password is too short or too long.
    """
    hashed = hash_password(password)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(hashed + "\n")
    os.replace(temporary, path)
    return hashed


def read_password(path: Path) -> str:
    """The hash in the file.

    Raises:
        BundleError: others can read or change the file, it is not this user's, or it holds no hash.
    """
    remedy = "set a new one with: python -m dashboard --set-password"
    try:
        found = path.stat()
        if found.st_uid != os.getuid():
            raise BundleError("belongs to another user", code="password-unusable", key=str(path), remedy=remedy)
        if found.st_mode & OPEN_TO_OTHERS:
            mode = oct(stat.S_IMODE(found.st_mode))
            raise BundleError(
                "other users",
                code="password-unusable",
                key=str(path),
                expected="mode 0o600",
                got=mode,
                remedy=f"chmod 600 {path}",
            )
        hashed = path.read_text(encoding="ascii").strip()
        _parse(hashed)
    except FileNotFoundError:
        raise BundleError(
            "there is not a password file", code="password-unusable", key=str(path), remedy=remedy
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(
            f"is not a password file ({error})", code="password-unusable", key=str(path), remedy=remedy
        ) from None
    return hashed


def _parse(hashed: str) -> tuple[int, int, int, bytes, bytes]:
    kind, cost, block, parallel, salt, key = hashed.split("$")
    if kind != "scrypt":
        raise ValueError(f"unknown kind {kind[:20]!r}")
    return int(cost), int(block), int(parallel), _decode(salt), _decode(key)


def _derive(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    memory = 128 * block * (cost + parallel + 2)  # what scrypt needs; OpenSSL's limit is lower
    with _one_at_a_time:
        return hashlib.scrypt(
            password.encode("utf-8"), salt=salt, n=cost, r=block, p=parallel, maxmem=memory, dklen=KEY_BYTES
        )


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
