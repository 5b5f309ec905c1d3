"""Post a XAPI message before a certificate expires: one message for each certificate."""

import logging
import time
from typing import Optional, Sequence

from xscontainer import keys
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.connection import CA, CLIENT, ENGINE, End
from xscontainer.xapi import message
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)

MESSAGE = "TLS_CERTIFICATE_ENDS"

_HAND_IN = "xscontainer-prepare-vm -v {vm} --mode tls --ca-cert FILE --client-cert FILE --client-key FILE."
# Whose certificate -> what it is, and what to do if the pool did not make it.
_WORDS = {
    ENGINE: ("The TLS certificate of the container engine", "Give the engine a new certificate of the same CA."),
    CA: (f"The CA ({keys.TLS_CA_CERT}) behind the TLS certificate of the container engine",
         f"Give the engine a certificate of another CA, and hand in what goes with it: {_HAND_IN}"),
    CLIENT: (f"The TLS client certificate ({keys.TLS_CLIENT_CERT})",
             f"Have a new one signed, and hand it in: {_HAND_IN}"),
}

# s between two messages about one VM. A guest that has the CA can show a new expiry date each time, and all VMs share
# the messages that XAPI keeps.
BETWEEN = 86400.0


def warn(sessions: SessionPool, pool: PoolRecord, vm: VMRecord, due: "Sequence[End]",
         now: Optional[float] = None) -> None:
    """Post a message about the certificate that expires first, unless one was posted or the pool renews it itself.

    :param due: the certificates of this VM that expire soon.
    :param now: seconds since the epoch, instead of the clock.
    :raises XapiError: the message could not be posted; the next call tries again.
    """
    at = time.time() if now is None else now
    pools = bool(pool.other_config.get(keys.TLS_CLIENT_SECRET)) and (
        vm.other_config.get(keys.TLS_CLIENT_KEY) == pool.other_config.get(keys.TLS_CLIENT_SECRET))
    # The coordinator renews the pool's client certificate.
    found = [end for end in due if not (pools and end.whose == CLIENT)]
    if not found:
        return
    first = min(found, key=lambda end: end.at)
    ends = first.at
    if _was_posted(vm, vm.other_config.get(keys.TLS_WARNED, ""), ends, at):
        return

    def post(session: Session) -> bool:
        before = session.xenapi.VM.get_other_config(vm.ref).get(keys.TLS_WARNED)
        if _was_posted(vm, before or "", ends, at):  # the event that reports it has not arrived yet
            return False
        message.create(session, MESSAGE, vm.uuid, _body(vm, first, pools))
        # The mark names the VM: for a clone that inherits it no message was posted.
        mark = f"{vm.uuid} {_moment(ends)} {_moment(at)}"
        xapi_vm.put_key(session, vm.ref, keys.TLS_WARNED, mark, present=before is not None)
        return True

    if sessions.run(post):
        log.warning("VM %s: a certificate of the connection to its engine expires at %s", vm.label, _moment(ends))


def _was_posted(vm: VMRecord, mark: str, ends: float, now: float) -> bool:
    """Return whether a message about this expiry, or one about this VM within BETWEEN, was posted."""
    uuid, end, posted = (mark.split(" ") + ["", ""])[:3]
    recent = _moment(now - BETWEEN) < posted <= _moment(now)  # such texts sort as the times do
    return uuid == vm.uuid and (end == _moment(ends) or recent)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _body(vm: VMRecord, end: End, pools: bool) -> str:
    what, advice = _WORDS[end.whose]
    if pools:
        advice = "Create a new certificate: xscontainer-prepare-vm -v {vm} --mode tls --generate-certs."
    return (f"{what} of the VM {vm.label} expires at {_moment(end.at)}. After that its containers cannot be reached. "
            f"{advice.format(vm=vm.uuid)}")
