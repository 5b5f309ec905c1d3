"""The description of a world: containers, guests and programs."""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

OWN = "own"
"""For ``GuestSpec.says``: the guest names its own VM, as a guest under Xen does."""


class ContainerSpec(NamedTuple):
    """A container that exists from the start.

    :ivar state: running, paused, exited or created.
    :ivar project: of Compose; "": none. The container's name is that of its service.
    :ivar port: TCP port that the VM publishes; 0: none. An engine without a network does not list it.
    """

    name: str
    image: str = "busybox:latest"
    command: Tuple[str, ...] = ("sleep", "1000000")
    state: str = "running"
    project: str = ""
    port: int = 0

    @property
    def options(self) -> Dict[str, Any]:
        """More of the body of the engine's create call."""
        found: Dict[str, Any] = {}
        if self.project:
            found["Labels"] = {"com.docker.compose.project": self.project, "com.docker.compose.service": self.name}
        if self.port:
            found["HostConfig"] = {"PortBindings": {f"{self.port}/tcp": [{"HostPort": str(self.port)}]}}
        return found


class GuestSpec(NamedTuple):
    """A running VM with an engine in it.

    :param host: the number of the VM's host; None: hosts in turn.
    :param monitored: whether xscontainer-monitor is set from the start.
    :param prepared: whether the pool's key is authorized as soon as it exists.
    :param password: not empty: an embedded SSH server accepts this password.
    :param says: the uuid that the guest gives as its VM's: OWN for the right one, None for no answer, or any text.
    """

    name: str
    containers: Tuple[ContainerSpec, ...] = ()
    host: Optional[int] = None
    monitored: bool = True
    prepared: bool = True
    password: str = ""
    says: Optional[str] = OWN


class Parts(NamedTuple):
    """The programs that a world runs, and their options.

    :param ssh: ``auto``, ``openssh`` or ``embedded``; ``auto`` is sshd where it is installed.
    :param engine: ``auto``, ``real`` or ``embedded``; ``auto`` is dockerd where it can run and the guests are few.
    :param daemons: whether every host has a daemon from the start.
    :param settings: {section: {key: value}} for every host's settings file.
    :param guest_options: more arguments for each guest (see :class:`Guests`).
    :param https: whether every host's XAPI serves over HTTPS, too, at a loopback address.
    """

    ssh: str = "auto"
    engine: str = "auto"
    daemons: bool = True
    settings: Mapping[str, Mapping[str, object]] = {}
    guest_options: Mapping[str, Any] = {}
    https: bool = False


DEFAULT = Parts()
