"""From a VM record to an open engine: choose addresses, get credentials, connect, check the identity.

The only place where XAPI's side (addresses, secrets, other_config) and the engine's side (SSH, TLS, Docker) meet.
Called by monitors and by plugin calls; the connections are made by engine.ssh and engine.tls.
"""

import math
from typing import List, Optional, Tuple

from xscontainer import keys
from xscontainer.access import credentials
from xscontainer.access.event_record import EventRecords
from xscontainer.access.guest_identity import IdentityCheck, OtherVMs, explain, labels
from xscontainer.access.pool_state import CurrentPool
from xscontainer.access.refusals import Circumstances, Refusals
from xscontainer.core import addresses, current_call, eligibility
from xscontainer.core.budget import Budgets
from xscontainer.core.identity import Census
from xscontainer.core.target import TLS, Reach, Remembered
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine import reachability
from xscontainer.engine.api import Engine
from xscontainer.engine.connection import Connection
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import (
    AddressRefused,
    AddressUnknown,
    ArgumentError,
    ConnectError,
    HostKeyChanged,
    ModeUnsupported,
    VMElsewhere,
    VMNotRunning,
    XSContainerError,
)
from xscontainer.host import resolver as names
from xscontainer.settings import Settings
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

__all__ = ["Access", "explain", "hang_up", "labels", "login", "remembered_of", "require_running_here", "session_pool",
           "ssh_target"]

LOOK = 2.0  # s for checking whether a VM answers again
LOOK_AT = 4  # of its addresses, the first ones

_OVERRIDE_HINT = ("Set another address there, or remove the key from the VM's other_config: then the addresses that "
                  "the guest tools report are used.")


class Access:
    """Opens engines. Thread-safe.

    :param sessions: XAPI logins, for the key pair and for pinning host keys.
    :param budgets: of the guests; None: budgets of its own.
    :param census: the pool's VMs, if the event stream is followed.
    :ivar pool: the state of the pool.
    :ivar refusals: logins that guests refused.
    :ivar records: of the VMs' last container events.
    :ivar other_vms: the VMs that an address or host key may belong to instead.
    """

    def __init__(self, settings: Settings, sessions: SessionPool, budgets: Optional[Budgets] = None,
                 census: Optional[Census] = None) -> None:
        self.settings = settings
        self.sessions = sessions
        self.budgets = budgets or Budgets()
        self.census = census
        self.other_vms = OtherVMs(sessions, census)
        self.refusals = Refusals()
        self.records = EventRecords()
        self.pool = CurrentPool(sessions, settings.daemon.inventory)
        self.pool_key = credentials.PoolKey(sessions, self.pool)

    def forget(self, vm_uuid: str) -> None:
        """Drop what is kept about a VM that does not exist any more."""
        self.budgets.forget(vm_uuid)
        self.refusals.forget(vm_uuid)
        self.records.forget(vm_uuid)

    def open(self, vm: VMRecord, remembered: Remembered = Remembered(),
             insist: bool = False) -> Tuple[Engine, Remembered]:
        """Connect to the engine in a VM; the caller ends the connection with :func:`hang_up`.

        Keys that a clone inherited are removed first, so that it neither shows the list of its original nor requires
        the original's host key.

        :param insist: log in even if the guest refused a login recently.
        :raises VMError: the VM has no usable address. ConnectError: no address leads to its engine.
        """
        if not vm.is_owner:
            vm = self.sessions.run(lambda session: xapi_vm.adopt(session, vm))
        reach = Reach.of(vm.other_config, self.settings)
        circumstances = self.circumstances(vm, reach)
        if not insist:
            self.refusals.check(vm.uuid, circumstances)
        try:
            connection = self._connect(vm, reach, remembered)
        except ConnectError as error:
            if error.login_refused:
                logins = 2 if reach.mode != TLS and self.pool_key.previous() is not None else 1
                raise self.refusals.refused(vm.uuid, circumstances, error, logins) from error
            if error.may_be_ban:
                self.refusals.unreachable(vm.uuid, error)
            raise
        self.refusals.forget(vm.uuid)
        return Engine(connection, self.settings.engine), remembered_of(connection, reach)

    def _connect(self, vm: VMRecord, reach: Reach, remembered: Remembered) -> Connection:
        where = self.addresses(vm, reach, remembered.address)
        judge = self.identity_check(vm, reach, served=remembered.address)
        if remembered.reach != reach:
            remembered = Remembered()
        if reach.mode == TLS:
            return self._over_tls(vm, reach, where, judge)
        target = ssh_target(vm, reach, where, remembered)._replace(
            budget=self.budgets.of(vm.uuid), judge=judge.over_ssh)
        try:
            return self._over_ssh(vm, target)
        except HostKeyChanged as error:
            explain(self.other_vms, error, vm)
            raise

    def circumstances(self, vm: VMRecord, reach: Reach) -> Circumstances:
        """Return all that a guest's answer to a login may depend on; a change of it allows a login at once."""
        pool, config = self.pool.state.record.other_config, vm.other_config
        where = () if reach.address else tuple(sorted(vm.networks.items()))
        return (vm.domid, reach, where, *(config.get(key) for key in (keys.HOST_KEY, keys.ACCEPTED, keys.POOL_KEY)),
                *(pool.get(key) for key in (keys.PRIVATE_SECRET, keys.PREVIOUS_PRIVATE_SECRET)))

    def held(self, vm: VMRecord) -> bool:
        """Return whether the next login has to wait because the guest refused the last one."""
        try:
            return self.refusals.held(vm.uuid, self.circumstances(vm, Reach.of(vm.other_config, self.settings)))
        except (ArgumentError, ModeUnsupported):
            return False

    def answers(self, vm: VMRecord, remembered: Remembered) -> bool:
        """Return whether the VM's SSH server, or its engine over TLS, seems to answer.

        It takes about LOOK seconds and no login.
        """
        try:
            reach = Reach.of(vm.other_config, self.settings)
            where = self.addresses(vm, reach, remembered.address, LOOK)
        except XSContainerError:
            return False
        return reachability.answers(where[:LOOK_AT], reach.port, reach.mode == TLS, LOOK)

    def addresses(self, vm: VMRecord, reach: Reach, last_good: str = "",
                  seconds: float = math.inf) -> Tuple[str, ...]:
        """Return the numeric addresses at which to try the VM, in order of preference.

        :param seconds: for resolving a name, if that is less than a connection may take.
        :raises AddressUnknown: the VM has none. AddressRefused: none of its addresses may be used.
            NameUnresolved: the name in the VM's settings has no address.
        """
        pool, loopback = self.pool.state, self.settings.address.allow_loopback
        if reach.address:
            patience = current_call.remaining(min(seconds, self.settings.guest.connect_timeout))
            given = names.resolve(reach.name, patience) if reach.name else (reach.address,)
            found = addresses.judge(given, pool.host_addresses, last_good, loopback)
            whose = f"{keys.ADDRESS} of the VM {vm.label} is {reach.address}, which may not be used"
        else:
            found = addresses.candidates(vm.networks, pool.host_addresses, last_good,
                                         pool.record.prefers_internal_network, loopback)
            whose = f"The guest tools of the VM {vm.label} report no address that may be used"
        if found.usable:
            return found.usable
        if found.refused:
            refused = "; ".join(f"{address}: {why}" for address, why in found.refused)
            raise AddressRefused(f"{whose} ({refused}).", _OVERRIDE_HINT if reach.address else "")
        raise AddressUnknown(f"The guest tools of the VM {vm.label} report no IP address.")

    def identity_check(self, vm: VMRecord, reach: Reach, served: str = "", confirmed: bool = False) -> IdentityCheck:
        """Return the check whether a peer is this VM."""
        return IdentityCheck(self.other_vms, vm, reach, served, confirmed)

    def _over_ssh(self, vm: VMRecord, target: ssh.Target) -> Connection:
        shown: List[Tuple[str, str]] = []  # the guest's host key, if none is pinned yet
        connection = self.pool_key.connect(vm, lambda key: ssh.connect(
            target, key, self.settings.guest, self.settings.engine,
            on_host_key=lambda base64, fingerprint: shown.append((base64, fingerprint))))
        try:
            # Only now is it known that the guest is prepared for this pool and is this VM.
            for base64, fingerprint in shown[-1:]:
                credentials.pin(self.sessions, vm, base64, fingerprint)
            return connection
        except BaseException:
            connection.close()
            raise

    def _over_tls(self, vm: VMRecord, reach: Reach, where: Tuple[str, ...], judge: IdentityCheck) -> Connection:
        from xscontainer.engine.tls import connection as tls

        found = credentials.of_tls(self.sessions, vm, reach)
        target = tls.Target(where, reach.port, reach.name, vm.uuid, judge.over_tls)
        return tls.connect(target, found, self.settings.guest, self.settings.engine)


def ssh_target(vm: VMRecord, reach: Reach, where: Tuple[str, ...], remembered: Remembered = Remembered()) -> ssh.Target:
    """Return the SSH target for a VM. A host key that a clone inherited does not count as pinned.

    :param where: numeric addresses that may be used.
    """
    pinned = vm.other_config.get(keys.HOST_KEY) if vm.is_owner else None
    return ssh.Target(where, reach.port, reach.user, reach.socket, pinned or None, remembered.method,
                      remembered.socket, reach.engine, weak=reach.weak)


def remembered_of(connection: Connection, reach: Optional[Reach]) -> Remembered:
    """Return what to try first the next time, after a connection has worked."""
    return Remembered(connection.address, connection.method, connection.socket, reach)


def require_running_here(vm: VMRecord, this_host: str) -> None:
    """Check that the VM runs on this host.

    :raises VMNotRunning: the VM does not run. VMElsewhere: the VM runs on another host.
    """
    if vm.power_state != "Running":
        raise VMNotRunning.of(vm.label, vm.power_state)
    if not eligibility.running_here(vm, this_host):
        raise VMElsewhere(f"The VM {vm.label} does not run on this host, or has just left it.")


def hang_up(engine: Engine) -> None:
    """Close an engine that :meth:`Access.open` returned, and its connection; waits for no guest."""
    engine.close(hang_up=True)


def login(settings: Settings, timeout: Optional[float] = None) -> Session:
    """Log in to this host's xapi with our originator."""
    xapi = settings.xapi
    return Session.login(xapi.socket, xapi.originator, timeout or xapi.timeout, xapi.login_timeout)


def session_pool(settings: Settings, most: int = 0) -> SessionPool:
    """Return a pool of logins to this host's xapi.

    :param most: sessions at once; 0: as the settings say.
    """
    return SessionPool(lambda: login(settings), most or settings.xapi.sessions, settings.xapi.timeout)
