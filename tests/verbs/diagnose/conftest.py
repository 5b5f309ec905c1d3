"""One VM, its guest, and everything that may be wrong with them."""

import copy
import json
import socket
import time
from typing import Any, Callable, Dict, Iterator, Optional

import pytest

from tests.need import need
from xscontainer import keys
from xscontainer.access.opener import Access, session_pool
from xscontainer.core.diagnosis import Diagnosis
from xscontainer.engine.ssh import keypair
from xscontainer.plugin.context import LocalContext
from xscontainer.settings import Settings
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.guests import Guest, OpenSSHGuest
from xscontainer.simulator.xapi import Pool
from xscontainer.verbs.diagnose import diagnose
from xscontainer.xapi import secret
from xscontainer.xapi.session import Session

PROMISED = 15.0


@pytest.fixture(scope="session")
def pair() -> secret.KeyPair:
    return secret.KeyPair(*keypair.new_key_pair(2048))


class Scene:
    """:ivar ref: the VM, running on the coordinator, registered, with a list; its guest lets the pool in."""

    def __init__(self, pool: Pool, directory: str, pair: secret.KeyPair) -> None:
        self.pool, self.directory, self.pair = pool, directory, pair
        conf = Settings()
        self.settings = conf._replace(
            daemon=conf.daemon._replace(inventory=pool.coordinator.inventory_path, socket=f"{directory}/daemon"),
            xapi=conf.xapi._replace(socket=pool.coordinator.socket_path),
            address=conf.address._replace(allow_loopback=True))
        self.daemon = socket.socket(socket.AF_UNIX)
        self.daemon.bind(self.settings.daemon.socket)
        self.daemon.listen(16)  # as far as anybody can tell who does not ask it anything
        self.guest: Guest = None  # type: ignore[assignment]
        self.engine: Any = None
        self.ref = ""

    def setup(self, guest: Guest, engine: Any) -> None:
        self.guest, self.engine = guest, engine
        guest.authorize(self.pair.public)
        self.ref = self.pool.create_vm("web", self.pool.coordinator, networks={"0/ip": guest.address}, other_config={
            keys.MONITOR: "True", keys.USERNAME: guest.user, keys.SSH_PORT: str(guest.port),
            keys.ENGINE_SOCKET: guest.engine_socket, keys.PS: "<docker_ps/>"})

    def put(self, **values: Optional[str]) -> None:
        """Keys of the VM's other_config by their names in xscontainer.keys; None removes."""
        for name, value in values.items():
            if value is None:
                self.pool.remove_key(self.ref, getattr(keys, name))
            else:
                self.pool.set_key(self.ref, getattr(keys, name), value)

    def tune(self, section: str, **values: Any) -> None:
        self.settings = self.settings._replace(**{section: getattr(self.settings, section)._replace(**values)})

    def address(self, address: str, port: int) -> None:
        """The VM is there from now on."""
        self.pool.set_networks(self.ref, {"0/ip": address})
        self.put(SSH_PORT=str(port), TLS_PORT=str(port))

    def another(self, address: str, port: int) -> "Scene":
        """Another VM with all that is set for this one, which answers there; the guest stays this one's."""
        other = copy.copy(self)
        other.ref = self.pool.create_vm("another", self.pool.coordinator, networks={"0/ip": address}, other_config={
            **self.pool.other_config(self.ref), keys.SSH_PORT: str(port)})
        return other

    def diagnose(self) -> Diagnosis:
        """With the promises that hold for every diagnosis."""
        before = self.pool.other_config(self.ref)
        sessions = session_pool(self.settings)
        try:
            context = LocalContext(self.settings, Access(self.settings, sessions), sessions)
            began = time.monotonic()
            answer = diagnose(context, self.pool.vm(self.ref)["uuid"])
            took = time.monotonic() - began
        finally:
            sessions.close()
        assert took < PROMISED
        assert self.pool.other_config(self.ref) == before, "it changes nothing"
        assert answer.startswith("True{") and answer.encode("ascii")
        found = Diagnosis.from_json(answer[4:])
        check(found, json.loads(answer[4:]))
        return found


def check(found: Diagnosis, document: Dict[str, Any]) -> None:
    """Check the form of a diagnosis, which is the same for every cause."""
    assert document["vm"] and document["steps"] and document["ms"] >= 0
    assert found.message.endswith(".")
    failed = [step for step in found.steps if not step.ok]
    if found.code == "OK":
        assert not failed and not found.next
    else:
        # One cause, at the end of the way; and there is always something to do about it.
        assert failed == [found.steps[-1]] and found.next.endswith(".")
    assert len({step.step for step in found.steps}) == len(found.steps)


@pytest.fixture
def make_scene(tmp_path_factory: pytest.TempPathFactory, pair: secret.KeyPair) -> Iterator[Callable[..., Scene]]:
    """(kind of guest, its options) -> Scene; one a test."""
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    directory = str(tmp_path_factory.mktemp("d"))
    with Pool(f"{directory}/p", hosts=2, tcp=False) as pool:
        pool.step_delay = 0.001
        session = Session.login(pool.coordinator.socket_path, "test", 10.0, 10.0)
        try:
            secret.key_pair(session, session.xenapi.pool.get_all()[0], {}, lambda: pair)
        finally:
            session.logout()
        scene = Scene(pool, directory, pair)

        def make(kind: Any = OpenSSHGuest, **options: Any) -> Scene:
            guest = kind(f"{directory}/g", **options)
            guest.start()
            engine = EmbeddedEngine(f"{directory}/e", guest.engine_socket)
            engine.start()
            scene.setup(guest, engine)
            return scene

        yield make
        scene.daemon.close()
        if scene.engine:
            scene.engine.close()
            scene.guest.close()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene()
