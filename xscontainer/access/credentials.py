"""What authenticates: towards guests the pool's SSH key and TLS certificates, towards us the guests' host keys."""

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Callable, Optional, Tuple

from xscontainer import keys
from xscontainer.access.facts import Facts
from xscontainer.engine import hostkeys, keypair
from xscontainer.errors import HostKeyChanged, ObjectGone, TLSCredentialsMissing
from xscontainer.reach import Reach
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import secret
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

if TYPE_CHECKING:
    import paramiko

    from xscontainer.engine.certs import Credentials

log = logging.getLogger(__name__)


class PoolKey:
    """The pool's key pair; one log-in to XAPI for all VMs. Thread-safe.

    :param facts: gives the facts as they are now.
    """

    def __init__(self, sessions: SessionPool, facts: "Callable[[], Facts]") -> None:
        self._sessions = sessions
        self._facts = facts
        self._key: "Optional[Tuple[str, paramiko.PKey]]" = None  # (uuid of its secret, key)
        self._lock = threading.Lock()

    def private(self) -> "paramiko.PKey":
        """The private key; the pair is made if the pool has none.

        :raises KeyPairError: it is there but unusable.
        """
        with self._lock:
            pool = self._facts().pool
            uuid = pool.other_config.get(keys.PRIVATE_SECRET, "")
            if self._key is None or (uuid and uuid != self._key[0]):
                pair = self._sessions.run(lambda session: secret.key_pair(
                    session, pool.ref, session.xenapi.pool.get_other_config(pool.ref),
                    lambda: secret.KeyPair(*keypair.new_key_pair())))
                self._key = (uuid, keypair.load_private_key(pair.private))
            return self._key[1]


def pin(sessions: SessionPool, vm: VMRecord, base64: str, fingerprint: str) -> None:
    """Remember the host key that a guest showed the first time.

    :raises HostKeyChanged: another one was pinned meanwhile.
    """
    def write(session: Session) -> None:
        # Another host may have pinned between our snapshot and now: never overwrite that.
        pinned = session.xenapi.VM.get_other_config(vm.ref).get(keys.HOST_KEY)
        if pinned and hostkeys.parse_pin(pinned).base64 != base64:
            raise HostKeyChanged(f"Another host key than {fingerprint} was pinned for VM {vm.label} meanwhile.")
        if not pinned:
            xapi_vm.put_key(session, vm.ref, keys.HOST_KEY, base64, present=pinned is not None)

    sessions.run(write)
    log.info("VM %s: pinned its SSH host key %s, seen for the first time", vm.label, fingerprint)


def of_tls(sessions: SessionPool, vm: VMRecord, reach: Reach) -> "Credentials":
    """What the VM's secrets hold to connect with over TLS.

    :raises TLSCredentialsMissing: it names no secret, or one that is gone.
    """
    from xscontainer.engine.certs import Credentials

    found = []
    for key, uuid in zip((keys.TLS_CA_CERT, keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY), reach.secrets):
        if not uuid:
            raise TLSCredentialsMissing(f"VM {vm.label} is to be reached over TLS, and its other_config has no {key}.")
        try:
            found.append(sessions.run(partial(secret.value, uuid=uuid)))
        except ObjectGone as error:
            raise TLSCredentialsMissing(f"There is no secret {uuid}, which {key} of VM {vm.label} names.") from error
    return Credentials(*found)
