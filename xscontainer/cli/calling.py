"""What subcommands share: a login, and the plugin's functions, called as every client does."""

import contextlib
from typing import Iterator, Optional, Sequence

from xscontainer.errors import XapiError
from xscontainer.settings import Settings
from xscontainer.xapi import pool
from xscontainer.xapi.session import Session

# Seconds that a call may take: those of the plugin's own deadlines, and what two hosts need on top.
PATIENCE = 180.0


@contextlib.contextmanager
def logged_in(settings: Settings) -> "Iterator[Session]":
    """A session on this host's XAPI.

    :raises XapiError: there is none to be had.
    """
    # Not access.login: that room brings paramiko and docker along, half a second of CPU.
    xapi = settings.xapi
    session = Session.login(xapi.socket, xapi.originator, xapi.timeout, xapi.login_timeout)
    try:
        yield session
    finally:
        session.logout()


def this_host(session: Session, settings: Settings) -> str:
    """The ref of the host that we run on.

    :raises XapiError: it is not known.
    """
    try:
        return pool.this_host(session, settings.daemon.inventory)[0]
    except (OSError, ValueError) as error:
        raise XapiError(f"This host is not known: {error}.", "Run it in dom0.") from error


def answered(text: str) -> str:
    """What a function of the plugin answers, without the ``True`` before it."""
    return text[4:] if text.startswith("True") else text


def told(details: "Sequence[str]") -> "Optional[XapiError]":
    """A failure in the plugin's own words, a code and sentences, with these as its text; None: it is XAPI's."""
    return XapiError(": ".join(details), details=list(details)) if len(details) == 2 else None


def call(session: Session, settings: Settings, function: str, **arguments: str) -> str:
    """What the plugin's function answers, after its ``True``; this host's plugin finds the host that must serve.

    :raises XapiError: it failed; ``details`` has its code and sentences.
    """
    here = this_host(session, settings)
    try:
        with session.patient(PATIENCE):
            answer = str(session.xenapi.host.call_plugin(here, settings.daemon.plugin_name, function, arguments))
    except XapiError as error:
        raise (told(error.details) or error) from error
    return answered(answer)
