"""Telling people in time that a certificate ends: one message for each."""

import logging
import time
from typing import Optional, Sequence

from xscontainer import keys
from xscontainer.engine.connection import CA, CLIENT, ENGINE, End
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import message
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)

MESSAGE = "TLS_CERTIFICATE_ENDS"

_HAND_IN = "xscontainer-prepare-vm -v {vm} --mode tls --ca-cert FILE --client-cert FILE --client-key FILE."
# Whose certificate -> what it is, and what to do where it is not the pool that made it.
_WORDS = {
    ENGINE: ("The TLS certificate of the container engine", "Give the engine a new one of the same CA."),
    CA: (f"The CA ({keys.TLS_CA_CERT}) behind the TLS certificate of the container engine",
         f"Give the engine a certificate of another CA, and hand in what goes with it: {_HAND_IN}"),
    CLIENT: (f"The TLS client certificate ({keys.TLS_CLIENT_CERT})",
             f"Have a new one signed, and hand it in: {_HAND_IN}"),
}

# s between two messages about one VM. Whose CA is in the guest can show a new end each time, and what XAPI keeps of
# messages is for all.
BETWEEN = 86400.0


def warn(sessions: SessionPool, pool: PoolRecord, vm: VMRecord, due: "Sequence[End]",
         now: Optional[float] = None) -> None:
    """Post a message about the first of these ends, unless there was one, or it is the pool's own business.

    :param due: of certificates that this VM is reached with.
    :param now: instead of the clock, seconds since the epoch.
    :raises XapiError: it could not be posted; the next call tries again.
    """
    at = time.time() if now is None else now
    pools = bool(pool.other_config.get(keys.TLS_CLIENT_SECRET)) and (
        vm.other_config.get(keys.TLS_CLIENT_KEY) == pool.other_config.get(keys.TLS_CLIENT_SECRET))
    # The coordinator renews the pool's client certificate; what was connected before need not know.
    found = [end for end in due if not (pools and end.whose == CLIENT)]
    if not found:
        return
    first = min(found, key=lambda end: end.at)
    ends = first.at
    if _told(vm, vm.other_config.get(keys.TLS_WARNED, ""), ends, at):
        return

    def post(session: Session) -> bool:
        before = session.xenapi.VM.get_other_config(vm.ref).get(keys.TLS_WARNED)
        if _told(vm, before or "", ends, at):  # the event that says so is on its way
            return False
        message.create(session, MESSAGE, vm.uuid, _body(vm, first, pools))
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


def _body(vm: VMRecord, end: End, pools: bool) -> str:
    what, advice = _WORDS[end.whose]
    if pools:
        advice = "Give it a new one: xscontainer-prepare-vm -v {vm} --mode tls --generate-certs."
    return (f"{what} of VM {vm.label} ends at {_moment(end.at)}; from then on its containers are out of reach. "
            f"{advice.format(vm=vm.uuid)}")
