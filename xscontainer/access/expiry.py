"""Telling people in time that a certificate ends: one message for each."""

import logging
import time

from xscontainer import keys
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import message
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)

MESSAGE = "TLS_CERTIFICATE_ENDS"


def warn(sessions: SessionPool, vm: VMRecord, ends: float) -> None:
    """Post a message about a certificate of this VM that ends then (seconds since the epoch), unless there was one.

    :raises XapiError: it could not be posted; the next call tries again.
    """
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
    # With the uuid: a clone that carries the mark in has not been warned.
    mark = f"{vm.uuid} {moment}"
    if vm.other_config.get(keys.TLS_WARNED) == mark:
        return

    def post(session: Session) -> bool:
        before = session.xenapi.VM.get_other_config(vm.ref).get(keys.TLS_WARNED)
        if before == mark:  # the event that says so is on its way
            return False
        message.create(session, MESSAGE, vm.uuid, _body(vm, moment))
        xapi_vm.put_key(session, vm.ref, keys.TLS_WARNED, mark, present=before is not None)
        return True

    if sessions.run(post):
        log.warning("VM %s: a certificate that its engine is reached with ends at %s", vm.label, moment)


def _body(vm: VMRecord, moment: str) -> str:
    return (f"A TLS certificate that the container engine of VM {vm.label} is reached with ends at {moment}; "
            f"from then on its containers are out of reach. Give it new ones: "
            f"xscontainer-prepare-vm -v {vm.uuid} --mode tls --generate-certs.")
