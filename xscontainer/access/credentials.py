"""Credentials of both sides: the pool's SSH key and TLS certificates, and the pinned host keys of guests."""

import contextlib
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Callable, Optional, Tuple

from xscontainer import keys
from xscontainer.access.pool_state import CurrentPool
from xscontainer.core.target import Reach
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.ssh import hostkeys, install_key, keypair
from xscontainer.errors import (
    HostKeyChanged,
    KeyNotAccepted,
    KeyPairError,
    ObjectGone,
    TLSCredentialsMissing,
    XapiError,
    XSContainerError,
)
from xscontainer.xapi import key_rotation as rotation
from xscontainer.xapi import secret
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

if TYPE_CHECKING:
    import paramiko

    from xscontainer.engine.ssh.connection import SSHConnection
    from xscontainer.engine.tls.certs import Credentials

log = logging.getLogger(__name__)


class PoolKey:
    """The pool's SSH key pair: read from XAPI once for all VMs. Thread-safe.

    :param pool: says which secrets hold the keys.
    """

    def __init__(self, sessions: SessionPool, pool: CurrentPool) -> None:
        self._sessions = sessions
        self._pool = pool
        self._key: "Optional[Tuple[str, paramiko.PKey]]" = None  # (uuid of its secret, key)
        self._previous: "Tuple[str, Optional[paramiko.PKey]]" = ("", None)
        self._lock = threading.Lock()

    def private(self, make: bool = True) -> "paramiko.PKey":
        """Return the private key.

        :param make: make a key pair if the pool has none.
        :raises KeyPairError: the key is unusable, or the pool has none.
        """
        with self._lock:
            pool = self._pool.state.record
            uuid = pool.other_config.get(keys.PRIVATE_SECRET, "")
            if not (make or uuid or self._key or rotation.State.of(pool.other_config).running):
                raise KeyPairError("The pool has no SSH key pair yet, so no VM has been prepared.",
                                   "Prepare the VM ('xscontainer prepare VM'), which makes the key pair.")
            if self._key is None or (uuid and uuid != self._key[0]):
                pair = self._sessions.run(lambda session: secret.key_pair(
                    session, pool.ref, session.xenapi.pool.get_other_config(pool.ref),
                    lambda: secret.KeyPair(*keypair.new_key_pair())))
                self._key = (uuid, keypair.load_private_key(pair.private))
            return self._key[1]

    def previous(self) -> "Optional[paramiko.PKey]":
        """Return the key that guests may still have instead, while the pair is being replaced; else None."""
        state = rotation.State.of(self._pool.state.record.other_config)
        if not state.running:
            return None
        with self._lock:
            if self._previous[0] != state.previous:
                try:
                    text = self._sessions.run(lambda session: secret.value(session, state.previous))
                    self._previous = (state.previous, keypair.load_private_key(text))
                except (ObjectGone, KeyPairError) as error:
                    log.warning("The pool's previous SSH key cannot be used: %s", error)
                    self._previous = (state.previous, None)
            return self._previous[1]

    def connect(self, vm: VMRecord, dial: "Callable[[paramiko.PKey], SSHConnection]") -> "SSHConnection":
        """Connect with the pool's key. While it is being replaced, a guest with only the previous key gets the new one.

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
                install_key.install(connection.shell, key, previous)
                log.info("VM %s: the pool's new SSH key was installed", vm.label)
            except XSContainerError as error:
                log.warning("VM %s: the pool's new SSH key could not be installed: %s", vm.label, error)
                return connection
        # A pool key that was never rotated is not recorded: its fingerprint is implied.
        known, accepted = vm.other_config.get(keys.POOL_KEY), hostkeys.of_key(key).fingerprint
        if known != accepted and (known or previous is not None):
            with contextlib.suppress(XapiError):  # the next connection records it
                self._sessions.run(lambda session: xapi_vm.put(session, vm, {keys.POOL_KEY: accepted}))
        return connection


def pin(sessions: SessionPool, vm: VMRecord, base64: str, fingerprint: str) -> None:
    """Pin the host key that a guest showed at its first login.

    :raises HostKeyChanged: another host key was pinned in the meantime.
    """
    def write(session: Session) -> None:
        # Another host may have pinned a key since our snapshot: never overwrite it.
        pinned = session.xenapi.VM.get_other_config(vm.ref).get(keys.HOST_KEY)
        if pinned and hostkeys.parse_pin(pinned).base64 != base64:
            raise HostKeyChanged(f"Another host key than {fingerprint} was pinned for the VM {vm.label} in the "
                                 "meantime.")
        if not pinned:
            xapi_vm.put_key(session, vm.ref, keys.HOST_KEY, base64, present=pinned is not None)

    sessions.run(write)
    log.info("VM %s: pinned its SSH host key %s at the first login", vm.label, fingerprint)


def of_tls(sessions: SessionPool, vm: VMRecord, reach: Reach) -> "Credentials":
    """Return the certificates and the key in the VM's secrets.

    :raises TLSCredentialsMissing: the VM names no secret, or a secret that does not exist.
    """
    from xscontainer.engine.tls.certs import Credentials

    found = []
    for key, uuid in zip(keys.TLS_SECRETS, reach.secrets):
        if not uuid:
            raise TLSCredentialsMissing(f"The VM {vm.label} is to be reached over TLS, but its other_config has no "
                                        f"{key}.")
        try:
            found.append(sessions.run(partial(secret.value, uuid=uuid)))
        except ObjectGone as error:
            raise TLSCredentialsMissing(f"The secret {uuid}, which {key} of the VM {vm.label} names, does not "
                                        "exist.") from error
    return Credentials(*found)
