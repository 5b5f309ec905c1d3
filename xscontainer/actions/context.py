"""What a verb may use."""

import threading
from typing import TYPE_CHECKING, ContextManager

from xscontainer.settings import Settings
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi.session import SessionPool

if TYPE_CHECKING:
    from typing import Protocol  # novm

    # Importing these loads paramiko and docker.
    from xscontainer.access import Access
    from xscontainer.engine.api import Engine
else:
    Protocol = object


class Context(Protocol):
    """The daemon has one for all calls; without it each call has its own.

    A matter of shape, not of descent: what implements it lives in a layer above. All methods may be
    called by several threads at once, and all may raise XapiUnavailable.

    :ivar access: the way to engines, with the pool's facts and key pair.
    :ivar sessions: our own logins, for short calls: monitors wait for them, too.
    :ivar forwarding: logins for calls that may last as long as an action does, apart from the others so
        that slow actions never keep the monitors waiting. Whoever sets another timeout sets it back.
    :ivar stopping: set when the process is about to end: who waits for a person ends, and clears up.
    """

    settings: Settings
    access: "Access"
    sessions: SessionPool
    forwarding: SessionPool
    stopping: threading.Event

    def this_host_ref(self) -> str:
        """The host we run on; a new ref after a pool join."""
        ...

    def vm(self, vm_uuid: str) -> VMRecord:
        """The VM as last heard of; may lag behind XAPI by an event.

        :raises ObjectGone: there is none of that uuid.
        """
        ...

    def engine(self, vm_uuid: str) -> "ContextManager[Engine]":
        """The engine of a VM that runs here: over its standing connection, or over one made for this call.

        :raises VMElsewhere: it runs on another host (by now).
        :raises ConnectError, VMError, KeyPairError, EngineError: there is no way to it.
        """
        ...

    def watched(self, vm_uuid: str) -> bool:
        """Whether somebody keeps the list of this VM, which runs here; without that a list is of any age."""
        ...
