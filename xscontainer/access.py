"""From a VM to its engine: where it answers, how to log in, and an open connection.

The one place where XAPI's side (addresses, secrets, other_config) and the
engine's side (SSH, Docker) meet.
"""

import logging
import re
import threading
from typing import TYPE_CHECKING, FrozenSet, List, Mapping, NamedTuple, Optional, Tuple

from xscontainer import addresses, keys
from xscontainer.engine import hostkeys, keypair, ssh
from xscontainer.engine.api import Engine
from xscontainer.errors import (
    AddressRefused,
    AddressUnknown,
    ArgumentError,
    HostKeyChanged,
    ModeUnsupported,
    VMElsewhere,
    VMNotRunning,
)
from xscontainer.settings import Settings
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import pool, secret
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger(__name__)

# A user name is only ever sent as the name to log in with, a socket path also stands in
# the command of a fallback: nothing a shell would read as more than one word.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?\Z")
_SOCKET = re.compile(r"/[A-Za-z0-9._/@:+-]{1,100}\Z")


class Facts(NamedTuple):
    """What is known of the pool and of this host, read at each subscription."""

    pool: pool.PoolRecord
    this_host: str  # ref
    this_host_uuid: str
    host_addresses: FrozenSet[str]

    @property
    def is_coordinator(self) -> bool:
        return self.pool.coordinator == self.this_host


def read_facts(session: Session, inventory: str) -> Facts:
    """:param inventory: path of the file that says which host this is."""
    ref, uuid = pool.this_host(session, inventory)
    return Facts(pool.record(session), ref, uuid, pool.host_addresses(session))


class Reach(NamedTuple):
    """How to reach a VM's engine, from its other_config; a change of it calls for a new connection."""

    user: str
    port: int
    socket: str

    @classmethod
    def of(cls, other_config: "Mapping[str, str]", settings: Settings) -> "Reach":
        """Others write other_config, so each value is checked.

        :raises ModeUnsupported: the VM is not to be reached over SSH. ArgumentError: a key holds what it cannot.
        """
        mode = other_config.get(keys.MODE) or "ssh"
        if mode != "ssh":
            raise ModeUnsupported(f"The VM is to be reached by {mode[:20]!r}, and only ssh is supported so far.")
        user = other_config.get(keys.USERNAME) or settings.ssh.user
        port = other_config.get(keys.SSH_PORT) or str(settings.ssh.port)
        socket = other_config.get(keys.ENGINE_SOCKET) or settings.engine.socket
        if not _USER.match(user):
            raise _unusable(keys.USERNAME, user, "a user name")
        if not re.match(r"[0-9]{1,5}\Z", port) or not 0 < int(port) < 65536:
            raise _unusable(keys.SSH_PORT, port, "a TCP port, 1 to 65535")
        if not _SOCKET.match(socket) or "/../" in f"{socket}/":
            raise _unusable(keys.ENGINE_SOCKET, socket, "an absolute path of a socket")
        return cls(user, int(port), socket)


def _unusable(key: str, value: str, wanted: str) -> ArgumentError:
    return ArgumentError(f"{key} in the VM's other_config is {value[:80]!r}, which is not {wanted}.",
                         "Correct or remove the key.")


class Remembered(NamedTuple):
    """What worked last time for a VM, and is tried first the next time."""

    address: str = ""
    method: str = ""


class Access:
    """Opens engines. Thread-safe.

    :param sessions: XAPI logins, for the key pair and for pinning host keys.
    """

    def __init__(self, settings: Settings, sessions: SessionPool) -> None:
        self.settings = settings
        self.sessions = sessions
        self._facts: Optional[Facts] = None
        self._key: "Optional[Tuple[str, paramiko.PKey]]" = None  # (uuid of its secret, key)
        self._key_lock = threading.Lock()

    def update(self, facts: Facts) -> None:
        """Take newer facts; what is open stays open."""
        self._facts = facts

    @property
    def facts(self) -> Facts:
        if self._facts is None:
            self._facts = self.sessions.run(
                lambda session: read_facts(session, self.settings.daemon.inventory))
        return self._facts

    def private_key(self) -> "paramiko.PKey":
        """The pool's key, made if the pool has none; one log-in to XAPI for all VMs.

        :raises KeyPairError: it is there but unusable.
        """
        with self._key_lock:
            uuid = self.facts.pool.other_config.get(keys.PRIVATE_SECRET, "")
            if self._key is None or (uuid and uuid != self._key[0]):
                pair = self.sessions.run(lambda session: secret.key_pair(
                    session, self.facts.pool.ref,
                    session.xenapi.pool.get_other_config(self.facts.pool.ref),
                    lambda: secret.KeyPair(*keypair.new_key_pair())))
                self._key = (uuid, keypair.load_private_key(pair.private))
            return self._key[1]

    def open(self, vm: VMRecord, remembered: Remembered = Remembered()) -> Tuple[Engine, Remembered]:
        """Connect to the engine in a VM; the caller ends it with :func:`hang_up`.

        What a clone carried in is removed first: nobody is shown another VM's list, nor asked for its host key.

        :raises VMError: its addresses do not serve. ConnectError: nor does what answers there.
        """
        if not vm.is_owner:
            vm = self.sessions.run(lambda session: xapi_vm.adopt(session, vm))
        reach = Reach.of(vm.other_config, self.settings)
        shown: List[Tuple[str, str]] = []  # the guest's host key, if it is the first time that we see one
        connection = ssh.connect(
            ssh.Target(self._addresses(vm, remembered), reach.port, reach.user, reach.socket,
                       vm.other_config.get(keys.HOST_KEY) or None, remembered.method),
            self.private_key(), self.settings.ssh, self.settings.engine,
            on_host_key=lambda base64, fingerprint: shown.append((base64, fingerprint)))
        try:
            # Only now: what answers at the address has shown that it is prepared for this pool.
            for base64, fingerprint in shown:
                self._pin(vm, base64, fingerprint)
            return (Engine(connection, self.settings.engine),
                    Remembered(connection.address, connection.method))
        except BaseException:
            connection.close()
            raise

    def _addresses(self, vm: VMRecord, remembered: Remembered) -> Tuple[str, ...]:
        found = addresses.candidates(
            vm.networks, self.facts.host_addresses, remembered.address,
            self.facts.pool.prefers_internal_network, self.settings.address.allow_loopback)
        if found.usable:
            return found.usable
        if found.refused:
            refused = "; ".join(f"{address}: {why}" for address, why in found.refused)
            raise AddressRefused(f"VM {vm.label} has no address that may be used ({refused}).")
        raise AddressUnknown(f"The guest tools of VM {vm.label} report no IP address.")

    def _pin(self, vm: VMRecord, base64: str, fingerprint: str) -> None:
        def write(session: Session) -> None:
            # Another host may have pinned between our snapshot and now: never overwrite that.
            pinned = session.xenapi.VM.get_other_config(vm.ref).get(keys.HOST_KEY)
            if pinned and hostkeys.parse_pin(pinned).base64 != base64:
                raise HostKeyChanged(f"Another host key than {fingerprint} was pinned for VM {vm.label} meanwhile.")
            if not pinned:
                xapi_vm.put_key(session, vm.ref, keys.HOST_KEY, base64, present=pinned is not None)

        self.sessions.run(write)
        log.info("VM %s: pinned its SSH host key %s, seen for the first time", vm.label, fingerprint)


def require_running_here(vm: VMRecord, this_host: str) -> None:
    """:raises VMNotRunning: it does not run. VMElsewhere: not on this host."""
    if vm.power_state != "Running":
        raise VMNotRunning(f"VM {vm.label} is {vm.power_state.lower()}: its containers cannot be reached.")
    if vm.resident_on != this_host:
        raise VMElsewhere(f"VM {vm.label} does not run on this host (any more).")


def hang_up(engine: Engine) -> None:
    """End an engine that :meth:`Access.open` gave, and the connection under it."""
    engine.close()
    engine.connection.close()


def login(settings: Settings, timeout: Optional[float] = None) -> Session:
    """A session on this host's xapi with our own originator."""
    xapi = settings.xapi
    return Session.login(xapi.socket, xapi.originator, timeout or xapi.timeout, xapi.login_timeout)


def session_pool(settings: Settings, most: int = 0) -> SessionPool:
    """:param most: sessions at once; 0: as the settings say."""
    return SessionPool(lambda: login(settings), most or settings.xapi.sessions, settings.xapi.timeout)
