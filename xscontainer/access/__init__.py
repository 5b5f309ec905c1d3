"""From a VM to its engine: where it answers, how to log in, and an open connection.

The one place where XAPI's side (addresses, secrets, other_config) and the
engine's side (SSH, TLS, Docker) meet.
"""

import math
from typing import List, Optional, Tuple

from xscontainer import addresses, keys, names
from xscontainer.access import credentials
from xscontainer.access.facts import Facts, read_facts
from xscontainer.engine import ssh
from xscontainer.engine.api import Engine
from xscontainer.engine.connection import Connection
from xscontainer.errors import AddressRefused, AddressUnknown, VMElsewhere, VMNotRunning
from xscontainer.reach import TLS, Reach, Remembered
from xscontainer.settings import Settings
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

__all__ = ["Access", "Facts", "hang_up", "login", "read_facts", "require_running_here", "session_pool",
           "remembered_of", "ssh_target"]

_OVERRIDE_HINT = ("Set another address there, or remove the key from the VM's other_config: then the addresses that "
                  "its guest tools report are tried.")


class Access:
    """Opens engines. Thread-safe.

    :param sessions: XAPI logins, for the key pair and for pinning host keys.
    """

    def __init__(self, settings: Settings, sessions: SessionPool) -> None:
        self.settings = settings
        self.sessions = sessions
        self.pool_key = credentials.PoolKey(sessions, lambda: self.facts)
        self._facts: Optional[Facts] = None

    def update(self, facts: Facts) -> None:
        """Take newer facts; what is open stays open."""
        self._facts = facts

    @property
    def facts(self) -> Facts:
        if self._facts is None:
            self._facts = self.sessions.run(
                lambda session: read_facts(session, self.settings.daemon.inventory))
        return self._facts

    def open(self, vm: VMRecord, remembered: Remembered = Remembered()) -> Tuple[Engine, Remembered]:
        """Connect to the engine in a VM; the caller ends it with :func:`hang_up`.

        What a clone carried in is removed first: nobody is shown another VM's list, nor asked for its host key.

        :raises VMError: its addresses do not serve. ConnectError: nor does what answers there.
        """
        if not vm.is_owner:
            vm = self.sessions.run(lambda session: xapi_vm.adopt(session, vm))
        reach = Reach.of(vm.other_config, self.settings)
        where = self.addresses(vm, reach, remembered.address)
        if remembered.reach != reach:
            remembered = Remembered()
        if reach.mode == TLS:
            connection = self._over_tls(vm, reach, where)
        else:
            connection = self._over_ssh(vm, reach, where, remembered)
        return Engine(connection, self.settings.engine), remembered_of(connection, reach)

    def addresses(self, vm: VMRecord, reach: Reach, last_good: str = "",
                  seconds: float = math.inf) -> Tuple[str, ...]:
        """Numeric addresses at which to try the VM, in order of preference.

        :param seconds: for looking a name up, if that is less than a connection may take.
        :raises AddressUnknown: there is none. AddressRefused: there are, and none may be used.
            NameUnresolved: the VM's settings give a name, which has none.
        """
        forbidden, loopback = self.facts.host_addresses, self.settings.address.allow_loopback
        if reach.address:
            patience = min(seconds, self.settings.ssh.connect_timeout)
            given = names.resolve(reach.name, patience) if reach.name else (reach.address,)
            found = addresses.judge(given, forbidden, last_good, loopback)
            whose = f"{keys.ADDRESS} of VM {vm.label} is {reach.address}, which may not be used"
        else:
            found = addresses.candidates(vm.networks, forbidden, last_good, self.facts.pool.prefers_internal_network,
                                         loopback)
            whose = f"The guest tools of VM {vm.label} report no address that may be used"
        if found.usable:
            return found.usable
        if found.refused:
            refused = "; ".join(f"{address}: {why}" for address, why in found.refused)
            raise AddressRefused(f"{whose} ({refused}).", _OVERRIDE_HINT if reach.address else "")
        raise AddressUnknown(f"The guest tools of VM {vm.label} report no IP address.")

    def _over_ssh(self, vm: VMRecord, reach: Reach, where: Tuple[str, ...], remembered: Remembered) -> Connection:
        shown: List[Tuple[str, str]] = []  # the guest's host key, if it is the first time that we see one
        target = ssh_target(vm, reach, where, remembered)
        connection = self.pool_key.connect(vm, lambda key: ssh.connect(
            target, key, self.settings.ssh, self.settings.engine,
            on_host_key=lambda base64, fingerprint: shown.append((base64, fingerprint))))
        try:
            # Only now: what answers at the address has shown that it is prepared for this pool.
            for base64, fingerprint in shown[-1:]:
                credentials.pin(self.sessions, vm, base64, fingerprint)
            return connection
        except BaseException:
            connection.close()
            raise

    def _over_tls(self, vm: VMRecord, reach: Reach, where: Tuple[str, ...]) -> Connection:
        from xscontainer.engine import tls

        found = credentials.of_tls(self.sessions, vm, reach)
        target = tls.Target(where, reach.port, reach.name, vm.uuid)
        return tls.connect(target, found, self.settings.ssh, self.settings.engine)


def ssh_target(vm: VMRecord, reach: Reach, where: Tuple[str, ...], remembered: Remembered = Remembered()) -> ssh.Target:
    """:param where: numeric addresses that were judged. What a clone carried in is no pin of its own."""
    pinned = vm.other_config.get(keys.HOST_KEY) if vm.is_owner else None
    return ssh.Target(where, reach.port, reach.user, reach.socket, pinned or None, remembered.method,
                      remembered.socket, reach.engine)


def remembered_of(connection: Connection, reach: Optional[Reach]) -> Remembered:
    """What is worth trying first the next time, now that a connection has served."""
    return Remembered(connection.address, connection.method, connection.socket, reach)


def require_running_here(vm: VMRecord, this_host: str) -> None:
    """:raises VMNotRunning: it does not run. VMElsewhere: not on this host."""
    if vm.power_state != "Running":
        raise VMNotRunning(f"VM {vm.label} is {vm.power_state.lower()}: its containers cannot be reached.")
    if vm.resident_on != this_host:
        raise VMElsewhere(f"VM {vm.label} does not run on this host (any more).")


def hang_up(engine: Engine) -> None:
    """End an engine that :meth:`Access.open` gave, and the connection under it; waits for no guest."""
    engine.close(hang_up=True)


def login(settings: Settings, timeout: Optional[float] = None) -> Session:
    """A session on this host's xapi with our own originator."""
    xapi = settings.xapi
    return Session.login(xapi.socket, xapi.originator, timeout or xapi.timeout, xapi.login_timeout)


def session_pool(settings: Settings, most: int = 0) -> SessionPool:
    """:param most: sessions at once; 0: as the settings say."""
    return SessionPool(lambda: login(settings), most or settings.xapi.sessions, settings.xapi.timeout)
