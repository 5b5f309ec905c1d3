"""Telling people in time that a certificate ends: one message for each."""

import logging
import time
from typing import Optional

from xscontainer import keys
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import message
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)

MESSAGE = "TLS_CERTIFICATE_ENDS"


# s between two messages about one VM. Whose CA is in the guest can show a new end each time, and what XAPI keeps of
# messages is for all.
BETWEEN = 86400.0


def warn(sessions: SessionPool, vm: VMRecord, ends: float, now: Optional[float] = None) -> None:
    """Post a message about a certificate of this VM that ends then (seconds since the epoch), unless there was one.

    :param now: instead of the clock, seconds since the epoch.
    :raises XapiError: it could not be posted; the next call tries again.
    """
    at = time.time() if now is None else now
    if _told(vm, vm.other_config.get(keys.TLS_WARNED, ""), ends, at):
        return

    def post(session: Session) -> bool:
        before = session.xenapi.VM.get_other_config(vm.ref).get(keys.TLS_WARNED)
        if _told(vm, before or "", ends, at):  # the event that says so is on its way
            return False
        message.create(session, MESSAGE, vm.uuid, _body(vm, _moment(ends)))
        # With the uuid: a clone that carries the mark in has not been warned.
        mark = f"{vm.uuid} {_moment(ends)} {_moment(at)}"
        xapi_vm.put_key(session, vm.ref, keys.TLS_WARNED, mark, present=before is not None)
        return True

    if sessions.run(post):
        log.warning("VM %s: a certificate that its engine is reached with ends at %s", vm.label, _moment(ends))


def _told(vm: VMRecord, mark: str, ends: float, now: float) -> bool:
    """Whether there was a message about this end, or one about this VM not long ago."""
    uuid, end, posted = (mark.split(" ") + ["", ""])[:3]
    recent = _moment(now - BETWEEN) < posted <= _moment(now)  # such words sort as the times do
    return uuid == vm.uuid and (end == _moment(ends) or recent)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _body(vm: VMRecord, moment: str) -> str:
    return (f"A TLS certificate that the container engine of VM {vm.label} is reached with ends at {moment}; "
            f"from then on its containers are out of reach. Give it new ones: "
            f"xscontainer-prepare-vm -v {vm.uuid} --mode tls --generate-certs.")
