"""The connection from a monitor to its VM's engine: where that is, opening, ending, and whether it may work again.

The VM comes from XAPI's events (Monitor.update), the engine from access.opener. The monitor's follower and the plugin's
actions use the engine.
"""

import threading
from typing import Optional, Tuple

from xscontainer.access.opener import hang_up, remembered_of
from xscontainer.core import addresses
from xscontainer.core.target import Reach, Remembered
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.api import Engine
from xscontainer.errors import ArgumentError, ConnectError, EngineTimeout, ModeUnsupported, XSContainerError
from xscontainer.monitoring.vm.services import Services
from xscontainer.settings import Settings

# How long a guest that reports another address than the one it is connected at may stay silent, seconds.
SIGN_OF_LIFE = 3.0
# How long an engine that timed out may take to answer the probe that asks whether it works again, seconds.
RECHECK_TIMEOUT = 2.0
# How long a monitor waits for its turn to connect, seconds. Monitors that start together share the CPU in turns; a
# guest that hangs holds nobody up for longer.
SLOT_TIMEOUT = 2.0


class Link:
    """The connection of one monitor. The monitor's thread connects and closes; any thread may call the rest.

    :ivar vm: as XAPI's events showed it last.
    :ivar engine: the connected one, or the last one until it is closed.
    """

    def __init__(self, vm: VMRecord, services: Services, settings: Settings) -> None:
        self.vm = vm
        self.engine: Optional[Engine] = None
        self._services = services
        self._settings = settings
        self._lock = threading.Lock()  # over vm, engine and the next
        self._place_of_engine: Tuple[object, ...] = ()
        self._remembered = Remembered()
        self._was_silent = True  # when it was checked last

    @property
    def open_engine(self) -> Optional[Engine]:
        """The engine, if its connection stands."""
        engine = self.engine
        return None if engine is None or engine.connection.closed else engine

    def update(self, vm: VMRecord) -> bool:
        """The VM has changed: end a connection that leads to another place now. Does not wait.

        :returns: whether a connection may succeed now that failed before.
        """
        with self._lock:
            before, self.vm = self.vm, vm
            if _reach_facts(before) == _reach_facts(vm):
                return False  # such as the events that show our own writes
            engine = self.engine
            elsewhere = engine is not None and self._place_of_engine != self._place(vm)
        if elsewhere and engine is not None:
            engine.hang_up()  # the monitor's own thread closes it: the caller has other VMs to update
        elif engine is not None and before.networks != vm.networks and addresses.left(
                vm.networks, engine.connection.address):
            # The address may also be one that was set, which no guest reports: then the guest answers.
            engine.connection.probe_liveness(SIGN_OF_LIFE)
        return True

    def connect(self) -> Engine:
        """Open a connection; the caller closes it (:meth:`close`).

        :raises XSContainerError: it cannot be opened.
        """
        vm = self.vm
        slot = self._services.slots.acquire(timeout=SLOT_TIMEOUT)
        try:
            engine, self._remembered = self._services.open(vm, self._remembered)
        finally:
            if slot:
                self._services.slots.release()
        with self._lock:
            self.engine, self._place_of_engine = engine, self._place(vm)
            elsewhere = self._place(self.vm) != self._place_of_engine
        if elsewhere:
            hang_up(engine)
        return engine

    def hang_up(self) -> None:
        """End the connection without waiting. A thread that uses it gets an error."""
        engine = self.engine
        if engine is not None:
            engine.hang_up()

    def close(self) -> None:
        """End the connection and forget it."""
        with self._lock:
            engine, self.engine = self.engine, None
        if engine is not None:
            hang_up(engine)

    def remember(self, engine: Engine) -> None:
        """The connection has served: try the same way first the next time."""
        self._remembered = remembered_of(engine.connection, self._remembered.reach)

    def succeeded(self) -> None:
        """The VM's list was read: the next outage is a new one."""
        self._was_silent = True

    def recovered(self, error: XSContainerError) -> bool:
        """Return whether the guest or engine that did not answer (``error``) answers now, at low cost.

        A guest that answers and still serves nobody is not tried more often because it answers: True comes only after
        a False.
        """
        if isinstance(error, ConnectError) and error.no_answer:
            found = self._services.answers(self.vm, self._remembered)
        elif isinstance(error, EngineTimeout) and self.engine is not None:
            found = _probed(self.engine)
        else:
            return False
        before, self._was_silent = self._was_silent, not found
        return found and before

    def _place(self, vm: VMRecord) -> Tuple[object, ...]:
        """Return the place of this VM's engine: it changes with a reboot and with the VM's settings."""
        try:
            return (vm.domid, Reach.of(vm.other_config, self._settings))
        except (ArgumentError, ModeUnsupported) as exc:
            return (vm.domid, str(exc))


def _probed(engine: Engine) -> bool:
    try:
        engine.probe(RECHECK_TIMEOUT)
    except XSContainerError:
        return False
    return True


def _reach_facts(vm: VMRecord) -> Tuple[object, ...]:
    """All that a connection depends on: the VM without the keys that we publish ourselves."""
    return (vm.networks, vm.domid, vm.guest_metrics, vm.power_state, vm.connection_config)
