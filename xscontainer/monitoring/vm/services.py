"""The functions that a monitor gets from the daemon; :mod:`xscontainer.service.daemon` puts them together."""

import threading
from typing import Callable, NamedTuple, Tuple

from xscontainer.access.event_record import EventRecord
from xscontainer.core.budget import Budgets, GuestBudget
from xscontainer.core.target import Remembered
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.api import Engine
from xscontainer.engine.connection import End


class Services(NamedTuple):
    """Functions for all monitors. Thread-safe.

    :ivar open: connects: (VM, what worked last time) -> an open engine and what worked this time.
    :ivar slots: bounds how many monitors connect at once.
    :ivar write_failed: called with the VM's uuid when a write to XAPI failed: somebody has to repeat it.
    :ivar expiring: called with a VM and its certificates that need successors, each time that they are seen; may raise
        XapiError.
    :ivar budget_of: VM uuid -> what the guest may use of this process.
    :ivar login_held: whether a VM must not be logged in to yet, because its guest refused that (ConnectError.retry_in).
    :ivar answers: whether a guest that was out of reach seems to answer again; cheap, and without a login.
    :ivar record_of: VM uuid -> the record of its last container events.
    :ivar stopped: called with the uuid of a VM that is monitored no longer and whose connection was closed; must not
        wait.
    """

    open: "Callable[[VMRecord, Remembered], Tuple[Engine, Remembered]]"
    slots: threading.Semaphore
    write_failed: "Callable[[str], None]"
    expiring: "Callable[[VMRecord, Tuple[End, ...]], None]" = lambda vm, ends: None
    budget_of: "Callable[[str], GuestBudget]" = lambda vm_uuid: Budgets().of(vm_uuid)
    login_held: "Callable[[VMRecord], bool]" = lambda vm: False
    answers: "Callable[[VMRecord, Remembered], bool]" = lambda vm, remembered: False
    record_of: "Callable[[str], EventRecord]" = lambda vm_uuid: EventRecord()
    stopped: "Callable[[str], None]" = lambda vm_uuid: None
