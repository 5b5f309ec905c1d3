"""The interface through which an action reaches the world; plugin/context.py implements it twice."""

import threading
from typing import TYPE_CHECKING, ContextManager, List, Optional

from xscontainer.clients.shown import Shown
from xscontainer.core.kept_answers import KeptAnswers
from xscontainer.core.vm_record import VMRecord
from xscontainer.settings import Settings
from xscontainer.xapi.session import SessionPool

if TYPE_CHECKING:
    from typing import Protocol  # novm

    # Importing these loads paramiko and docker.
    from xscontainer.access.event_record import EventRecord
    from xscontainer.access.opener import Access
    from xscontainer.engine.api import Engine
    from xscontainer.verbs.followers import Followers
else:
    Protocol = object


class Context(Protocol):
    """The daemon has one context for all calls; without the daemon each call has its own.

    A protocol instead of a base class, because the implementations lie in a layer above. Several threads may call the
    methods at once. Every method may raise XapiUnavailable.

    :ivar access: opens engines; has the pool's state and key pair.
    :ivar sessions: our own logins, for short calls, because monitors wait for them, too.
    :ivar forwarding: logins for calls that may last as long as an action does, apart from the others so
        that slow actions never keep the monitors waiting. A caller that sets another timeout sets it back.
    :ivar drive_reader: held while a config drive is read: the daemon's memory is bounded, and such a call holds all
        of the drive.
    :ivar answers: of the function list, while nothing has changed.
    :ivar followers: the logs that clients follow from call to call; None without the daemon.
    :ivar stopping: set when the process is about to end: a call that waits for a person then ends and cleans up.
    """

    settings: Settings
    access: "Access"
    sessions: SessionPool
    forwarding: SessionPool
    stopping: threading.Event
    drive_reader: threading.Lock
    answers: KeptAnswers
    followers: "Optional[Followers]"

    def this_host_ref(self) -> str:
        """The ref of this host; after a pool join it is another one."""
        ...

    def vm(self, vm_uuid: str) -> VMRecord:
        """The VM as the last event told it; may lag behind XAPI by one event.

        :raises ObjectGone: there is no VM of that uuid.
        """
        ...

    def shown(self, vm_uuid: str) -> Shown:
        """Return what clients are shown of a VM.

        :raises ObjectGone: there is no VM of that uuid.
        """
        ...

    def shown_here(self) -> "List[Shown]":
        """Return what clients are shown of each VM that runs on this host and is registered."""
        ...

    def engine(self, vm_uuid: str) -> "ContextManager[Engine]":
        """Open the engine of a VM that runs here: its standing connection, or one made for this call.

        :raises VMElsewhere: the VM runs on another host by now.
        :raises ConnectError, VMError, KeyPairError, EngineError: the engine cannot be reached.
        """
        ...

    def acting(self, vm_uuid: str, container: str, action: str) -> "ContextManager[object]":
        """Mark the events that an action within the block causes.

        :param container: whole id or name, as Engine.resolved returns it.
        :param action: start, stop, restart, pause or unpause.
        """
        ...

    def record(self, vm_uuid: str) -> "EventRecord":
        """The record of the last container events of a VM that runs here.

        :raises VMNotRegistered: the VM is not monitored here.
        :raises ConnectError, VMError, KeyPairError, EngineError: without the daemon, the engine cannot be asked.
        """
        ...

    def standing_engine(self, vm_uuid: str) -> "ContextManager[Engine]":
        """Lend the engine of a VM on the connection that lasts; never makes one.

        :raises VMNotRegistered: no monitor keeps a connection to the VM.
        :raises XSContainerError: there is none at the moment; says why.
        """
        ...

    def crowded(self) -> bool:
        """Tell whether a call that reads waits for a worker: one that only waits for news is to end soon."""
        ...

    def watched(self, vm_uuid: str) -> bool:
        """Tell whether a monitor keeps the list of this VM, which runs here, up to date."""
        ...

    def retry_now(self, vm_uuid: str) -> None:
        """Have the monitor of this VM, which runs here, try again at once: its guest accepts our login."""
        ...
