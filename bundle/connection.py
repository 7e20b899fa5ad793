# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One session with a FLARE server: made when it is needed, made anew when it was lost, its errors as sentences."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from nvflare.fuel.flare_api import api_spec
from nvflare.fuel.flare_api.flare_api import Session

from bundle.admin_kit import Kit
from custom.errors import BundleError

Result = TypeVar("Result")
PROBE_S = 3.0  # for the server's port to answer at all
CONNECT_S = 8.0  # for it to let us in
LOGIN_TRIES = 2
LOST = (api_spec.NoConnection, api_spec.SessionClosed)  # SessionExpired is one of the latter
logger = logging.getLogger(__name__)


class Unreachable(BundleError):
    """The server cannot be talked to now; it may be another time."""


class Refused(BundleError):
    """The server knows the user, who may not do this."""


class Connection:
    """Runs commands in a session, from any thread, several at a time.

    FLARE keeps what belongs to one command in an object of that command, so only making and ending a session needs a
    lock.

    Args:
        kit: to log in with.
    """

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._closed = False

    def run(self, command: Callable[[Session], Result], *, keep: bool = False) -> Result:
        """What `command` gives.

        Args:
            command: called with the session.
            keep: no answer says nothing about the connection; for what a busy job or a dead client may hold up.

        Raises:
            Unreachable: there is no connection now.
            Refused: the user may not do that.
            BundleError: anything else that FLARE has to say.
        """
        for attempt in (1, 2):
            session = self._connected()
            try:
                return command(session)
            except api_spec.SessionClosed as error:  # the server forgot it before it looked at the command
                self._drop(session)
                if attempt == 2:
                    raise self._translated(error) from error
            except Exception as error:
                if isinstance(error, LOST) and not keep:
                    self._drop(session)
                raise self._translated(error) from error
        raise AssertionError("not reached")

    def connect(self) -> None:
        """Makes a session if there is none.

        Raises:
            Unreachable: it cannot be made now.
        """
        self._connected()

    def close(self) -> None:
        """Logs out; no command can be run after that."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None:
            _end(session.close)

    def _connected(self) -> Session:
        with self._lock:
            if self._closed:
                raise Unreachable("the connection is closed", code="server-unreachable")
            if self._session is None:
                self._session = self._connect()
            return self._session

    def _connect(self) -> Session:
        if time.time() >= self.kit.expires:
            raise Unreachable(
                f"the certificate of {self.kit.user} has expired",
                code="certificate-not-valid",
                remedy="start again with a new kit",
            )
        self._probe()
        try:
            session = Session(username=self.kit.user, startup_path=str(self.kit.folder))
            session.api.auto_login_max_tries = LOGIN_TRIES
            session.api._print_hci = logger.debug  # it would print to stdout
        except Exception as error:
            raise self._translated(error) from error
        try:
            session.try_connect(CONNECT_S)
        except Exception as error:
            _leave(session)
            raise self._translated(error) from error
        logger.info("connected to FLARE at %s as %s", self.kit.address, self.kit.user)
        return session

    def _probe(self) -> None:
        """Does the server answer at all? To find out with a session takes half a minute, and leaves threads behind."""
        try:
            with socket.create_connection((self.kit.server, self.kit.port), timeout=PROBE_S) as plain:
                if self.kit.security != "clear":
                    self._tls().wrap_socket(plain, server_hostname=self.kit.server).close()
        except ssl.SSLCertVerificationError as error:
            remedy = "does the kit belong to this system?"
            raise Unreachable(
                f"the FLARE server at {self.kit.address} is not the kit's", code="server-unreachable", remedy=remedy
            ) from error
        except socket.gaierror as error:
            raise Unreachable(
                f"the name of the FLARE server, {self.kit.server}, is not known on this machine",
                code="server-unreachable",
                remedy="is the network up, and is the name in DNS or in the hosts file?",
            ) from error
        except OSError as error:
            raise self._no_answer() from error

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.kit.authority))
        context.check_hostname = False  # FLARE compares the name in the certificate with the one that the kit gives it
        if self.kit.security == "mtls":
            context.load_cert_chain(str(self.kit.certificate), str(self.kit.key))
        else:  # the certificate may be that of a proxy in between; FLARE has the server prove itself behind it
            context.verify_mode = ssl.CERT_NONE
        return context

    def _no_answer(self) -> Unreachable:
        return Unreachable(
            f"the FLARE server at {self.kit.address} does not answer",
            code="server-unreachable",
            remedy="is it running?",
        )

    def _drop(self, session: Session) -> None:
        with self._lock:
            if self._session is session:
                self._session = None
        _leave(session)

    def _translated(self, error: Exception) -> BundleError:
        who = f"{self.kit.user} ({self.kit.role})"
        if isinstance(error, BundleError):
            return error
        if isinstance(error, LOST):
            return self._no_answer()
        if isinstance(error, api_spec.AuthenticationError):
            remedy = "does the kit belong to this system, and is it the newest?"
            return Unreachable(
                f"the FLARE server at {self.kit.address} does not let {who} in", code="not-allowed", remedy=remedy
            )
        if isinstance(error, api_spec.AuthorizationError):
            return Refused(
                f"FLARE does not allow this to {who}",
                code="not-allowed",
                remedy="ask the project's admin, or use another kit",
            )
        return _of_a_job(error)


def _of_a_job(error: Exception) -> BundleError:
    if isinstance(error, api_spec.JobNotFound):
        return BundleError(
            "there is no such job any more",
            code="job-not-found",
            remedy="it was deleted, or it belongs to another study",
        )
    if isinstance(error, api_spec.JobNotDone):
        return BundleError("the job has not ended yet", code="job-state")
    if isinstance(error, api_spec.JobNotRunning):
        return BundleError("the job is not running", code="job-state")
    if isinstance(error, api_spec.InvalidJobDefinition):
        return BundleError(
            "FLARE refuses the job", code="flare-refuses", got=str(error).removeprefix("invalid job definition: ")
        )
    if isinstance(error, api_spec.SubmitTokenJobDeleted):
        return BundleError(
            "this was launched before, and the job was deleted", code="job-not-found", remedy="open the form again"
        )
    if isinstance(error, api_spec.NoClientsAvailable):
        return BundleError("no client is connected", code="too-few-sites")
    return BundleError("FLARE answers with an error", code="flare-refuses", got=str(error) or type(error).__name__)


def _leave(session: Session) -> None:
    """Ends a session without saying goodbye to the server, for which FLARE takes ten seconds if it does not listen."""
    threading.Thread(target=_end, args=(session.api.close,), name="flare-leave", daemon=True).start()


def _end(close: Callable[[], Any]) -> None:
    try:
        close()
    except Exception as error:  # a session that is gone cannot be ended, and need not be
        logger.debug("while closing a session: %s", error)
