"""What authenticates: towards guests the pool's SSH key and TLS certificates, towards us the guests' host keys."""

import contextlib
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Callable, Optional, Tuple

from xscontainer import keys
from xscontainer.access.facts import Facts
from xscontainer.engine import hostkeys, install_key, keypair
from xscontainer.errors import (
    HostKeyChanged,
    KeyNotAccepted,
    KeyPairError,
    ObjectGone,
    TLSCredentialsMissing,
    XapiError,
    XSContainerError,
)
from xscontainer.reach import Reach
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import rotation, secret
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

if TYPE_CHECKING:
    import paramiko

    from xscontainer.engine.certs import Credentials
    from xscontainer.engine.ssh import SSHConnection

log = logging.getLogger(__name__)


class PoolKey:
    """The pool's key pair; one log-in to XAPI for all VMs. Thread-safe.

    :param facts: gives the facts as they are now.
    """

    def __init__(self, sessions: SessionPool, facts: "Callable[[], Facts]") -> None:
        self._sessions = sessions
        self._facts = facts
        self._key: "Optional[Tuple[str, paramiko.PKey]]" = None  # (uuid of its secret, key)
        self._previous: "Tuple[str, Optional[paramiko.PKey]]" = ("", None)
        self._lock = threading.Lock()

    def private(self, make: bool = True) -> "paramiko.PKey":
        """The private key.

        :param make: make the pair if the pool has none.
        :raises KeyPairError: it is there but unusable, or not there.
        """
        with self._lock:
            pool = self._facts().pool
            uuid = pool.other_config.get(keys.PRIVATE_SECRET, "")
            if not (make or uuid or self._key or rotation.State.of(pool.other_config).running):
                raise KeyPairError("The pool has no SSH key pair yet, so no VM can have been prepared for it.",
                                   "Prepare the VM ('xscontainer prepare'), which makes one.")
            if self._key is None or (uuid and uuid != self._key[0]):
                pair = self._sessions.run(lambda session: secret.key_pair(
                    session, pool.ref, session.xenapi.pool.get_other_config(pool.ref),
                    lambda: secret.KeyPair(*keypair.new_key_pair())))
                self._key = (uuid, keypair.load_private_key(pair.private))
            return self._key[1]

    def previous(self) -> "Optional[paramiko.PKey]":
        """The key that guests may still know instead, while the pair is being replaced; else None."""
        state = rotation.State.of(self._facts().pool.other_config)
        if not state.running:
            return None
        with self._lock:
            if self._previous[0] != state.previous:
                try:
                    text = self._sessions.run(lambda session: secret.value(session, state.previous))
                    self._previous = (state.previous, keypair.load_private_key(text))
                except (ObjectGone, KeyPairError) as error:
                    log.warning("The pool's previous SSH key is of no use: %s", error)
                    self._previous = (state.previous, None)
            return self._previous[1]

    def connect(self, vm: VMRecord, dial: "Callable[[paramiko.PKey], SSHConnection]") -> "SSHConnection":
        """With the pool's key; while it is being replaced, a guest that only knows the previous one gets the new one.

        :param dial: connects with a key; raises as engine.ssh.connect.
        """
        key, previous = self.private(), self.previous()
        try:
            connection = dial(key)
        except KeyNotAccepted:
            if previous is None:
                raise
            connection = dial(previous)
            try:
                install_key.install(connection.transport, key)
                log.info("VM %s: the pool's new SSH key was installed", vm.label)
            except XSContainerError as error:
                log.warning("VM %s: the pool's new SSH key could not be installed: %s", vm.label, error)
                return connection
        # Where there is only one key and no word of another it goes without saying.
        known, accepted = vm.other_config.get(keys.POOL_KEY), hostkeys.of_key(key).fingerprint
        if known != accepted and (known or previous is not None):
            with contextlib.suppress(XapiError):  # the next connection says it again
                self._sessions.run(lambda session: xapi_vm.put(session, vm, {keys.POOL_KEY: accepted}))
        return connection


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
    for key, uuid in zip(keys.TLS_SECRETS, reach.secrets):
        if not uuid:
            raise TLSCredentialsMissing(f"VM {vm.label} is to be reached over TLS, and its other_config has no {key}.")
        try:
            found.append(sessions.run(partial(secret.value, uuid=uuid)))
        except ObjectGone as error:
            raise TLSCredentialsMissing(f"There is no secret {uuid}, which {key} of VM {vm.label} names.") from error
    return Credentials(*found)
