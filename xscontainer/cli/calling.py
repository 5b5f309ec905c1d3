"""What subcommands that act share: the VM that is meant, and the plugin's functions, called as every client does."""

import contextlib
import re
from typing import Iterator, List

from xscontainer.cli import inventory
from xscontainer.errors import ArgumentError, ObjectGone, XapiError
from xscontainer.settings import Settings
from xscontainer.xapi import pool
from xscontainer.xapi.session import Session

# Seconds that a call may take: those of the plugin's own deadlines, and what two hosts need on top.
PATIENCE = 180.0

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


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


def vm_uuid(session: Session, wanted: str) -> str:
    """The VM of that name or uuid.

    :raises ArgumentError: there is none, or there are several.
    """
    if _UUID.match(wanted.lower()):
        try:
            session.xenapi.VM.get_by_uuid(wanted.lower())
            return wanted.lower()
        except ObjectGone:
            pass  # somebody may have named a VM like that
    everything = inventory.read(session, every_vm=True)
    vms: List[inventory.VM] = [vm for host in everything.hosts for vm in host.vms] + list(everything.vms)
    found = [vm.uuid for vm in vms if vm.name == wanted]
    if not found:
        raise ArgumentError(f"The pool has no VM {wanted!r}.", "Give its name or its uuid.")
    if len(found) > 1:
        raise ArgumentError(f"{len(found)} VMs are named {wanted!r}.", f"Give a uuid: {', '.join(found[:10])}.")
    return found[0]


def call(session: Session, settings: Settings, function: str, **arguments: str) -> str:
    """What the plugin's function answers, after its ``True``; this host's plugin finds the host that must serve.

    :raises XapiError: it failed; ``details`` has its code and sentences.
    """
    try:
        here, _ = pool.this_host(session, settings.daemon.inventory)
    except (OSError, ValueError) as error:
        raise XapiError(f"This host is not known: {error}.", "Run it in dom0.") from error
    session.set_timeout(PATIENCE)
    try:
        answer = str(session.xenapi.host.call_plugin(here, settings.daemon.plugin_name, function, arguments))
    except XapiError as error:
        if len(error.details) == 2:  # the plugin's own: a code and sentences
            raise XapiError(": ".join(error.details), details=error.details) from error
        raise
    finally:
        session.set_timeout(settings.xapi.timeout)
    return answer[4:] if answer.startswith("True") else answer
