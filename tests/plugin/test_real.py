"""Every function of the contract on a real engine behind a real sshd, called as clients call it, on the other host."""

import gc
import json
import statistics
import threading
import time
import warnings
from contextlib import contextmanager
from typing import Dict, Iterator, List, NamedTuple
from xml.etree import ElementTree

import pytest

from tests.need import need
from tests.plugin.pool import PluginPool
from xscontainer import keys
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest

pytestmark = pytest.mark.real

# Ends when asked to: the first process of a container ignores a plain SIGTERM, and is given ten seconds.
OBEDIENT = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


class Scene(NamedTuple):
    pool: PluginPool
    engine: RealEngine
    vm_uuid: str

    def call(self, function: str, container: str, host: int = 0) -> str:
        name = "object" if function.startswith("get_") else "container"
        return self.pool.call(self.pool.hosts[host], function, **{"vmuuid": self.vm_uuid, name: container})

    def failure(self, function: str, container: str) -> List[str]:
        name = "object" if function.startswith("get_") else "container"
        found = self.pool.failure(self.pool.hosts[0], function, **{"vmuuid": self.vm_uuid, name: container})
        return list(found)

    def state(self, container: str) -> str:
        return str(self.engine.client().inspect_container(container)["State"]["Status"])


@contextmanager
def running(directory: str) -> "Iterator[RealEngine]":
    engine = RealEngine(directory)
    try:
        with warnings.catch_warnings():
            # docker's client drops its socket unclosed each time dockerd is not up yet.
            warnings.simplefilter("ignore", ResourceWarning)
            engine.start()
            gc.collect()
        yield engine
    finally:
        engine.close()


def enter(directory: str, daemons: bool) -> "Iterator[Scene]":
    """Two hosts; the VM runs on the second, the member."""
    need(not RealEngine.missing(), f"a real engine: {RealEngine.missing()}")
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    with running(directory + "/e") as engine:
        sshd = OpenSSHGuest(directory + "/g", engine_socket=engine.socket_path)
        with sshd as guest, PluginPool(directory + "/p", hosts=2, daemons=daemons) as pool:
            ref = pool.pool.create_vm("real", host=pool.pool.hosts[1], networks={"0/ip": guest.address}, other_config={
                keys.MONITOR: "True", keys.SSH_PORT: str(guest.port), keys.USERNAME: guest.user,
                keys.ENGINE_SOCKET: guest.engine_socket})
            uuid = pool.uuid(ref)
            # The first call makes the pool's key pair, which the guest does not know yet.
            pool.failure(pool.hosts[1], "get_top", vmuuid=uuid, object="none")
            public = pool.pool.other_config(pool.pool.db.rows("pool")[0].ref, "pool")[keys.PUBLIC_SECRET]
            secret = pool.pool.record("secret", pool.pool.uuid_to_ref(public, "secret"))["value"]
            guest.authorize(secret if secret.startswith("ssh-rsa ") else f"ssh-rsa {secret}")
            # A guest that refused a login is left alone for a while, unless somebody has a look.
            assert "The engine can be reached" in pool.call(pool.hosts[1], "diagnose", vmuuid=uuid)
            yield Scene(pool, engine, uuid)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield from enter(str(tmp_path_factory.mktemp("r")), daemons=True)


@pytest.fixture
def scene(lasting: Scene) -> Iterator[Scene]:
    yield lasting
    for host in lasting.pool.hosts:
        host.sessions.forget()
        host.forwarding.forget()
    lasting.engine.client().close()  # only its idle connections


@pytest.mark.parametrize("host", [0, 1])
def test_the_life_of_a_container(scene: Scene, host: int) -> None:
    full = scene.engine.run(f"life-{host}", OBEDIENT, start=False)
    steps = [("start", "running"), ("start", "running"), ("pause", "paused"), ("unpause", "running"),
             ("restart", "running"), ("stop", "exited"), ("stop", "exited"), ("start", "running")]
    for function, state in steps:
        assert scene.call(function, full, host) == "True"
        assert scene.state(full) == state, function
    scene.engine.do("remove", full)


def test_a_container_is_named_by_id_short_id_or_name(scene: Scene) -> None:
    full = scene.engine.run("Named_1.x-Y", OBEDIENT)
    for name in (full, full[:12], full[:10], "Named_1.x-Y"):
        assert scene.call("get_inspect", name).count(full) >= 1
        assert scene.call("restart", name) == "True"
    scene.engine.do("remove", full)


def test_inspect_and_top_give_json_and_mask_the_environment(scene: Scene) -> None:
    full = scene.engine.run("asjson", OBEDIENT, Env=["PLAIN=x\u00e9", "DB_PASSWORD=hunter2"])

    def call(function: str, **more: str) -> str:
        return scene.pool.call(scene.pool.hosts[0], function, vmuuid=scene.vm_uuid, object=full, **more)

    theirs = scene.engine.client().inspect_container(full)
    assert json.loads(call("get_inspect", format="json")[4:]) == theirs
    for form in ("xml", "json"):
        masked = call("get_inspect", format=form, environment="masked")
        assert "DB_PASSWORD=***" in masked and "PLAIN=***" in masked and "hunter2" not in masked
    top = json.loads(call("get_top", format="json")[4:])
    assert set(top) == {"titles", "processes"} and len(top["processes"][0]) == len(top["titles"])
    assert call("get_inspect") == call("get_inspect", format="xml", environment="shown")
    scene.engine.do("remove", full)


def test_inspect_and_top_are_documents_after_the_word_true(scene: Scene) -> None:
    command = ["sh", "-c", "sleep 1000; echo '<&>\u00e9\x1b[31m'"]
    full = scene.engine.run("shown", command, Labels={"a b/<&": "\x1b\u4f60", "": "x"})
    inspect, top = scene.call("get_inspect", full), scene.call("get_top", full)
    assert inspect.startswith("True<?xml") and top.startswith("True<?xml")
    document = ElementTree.fromstring(inspect[4:])
    assert document.tag == "docker_inspect" and document.findtext("Id") == full
    rows = ElementTree.fromstring(top[4:]).findall("item/Process")
    assert len(rows) >= 1
    for row in rows:
        assert all((row.findtext(name) or "").strip() for name in ("PID", "CMD", "TIME"))
    scene.engine.do("remove", full)


def test_an_impossible_action_is_a_failure_with_a_code(scene: Scene) -> None:
    full = scene.engine.run("stopped", start=False)
    codes: Dict[str, str] = {}
    for function, container in (("start", "nonesuch"), ("get_inspect", "nonesuch"), ("pause", full), ("get_top", full)):
        code, sentence = scene.failure(function, container)
        codes[f"{function} {container[:8]}"] = code
        assert len(sentence) > 10
    scene.engine.do("remove", full)
    assert codes == {"start nonesuch": "CONTAINER_NOT_FOUND", "get_inspect nonesuch": "CONTAINER_NOT_FOUND",
                     f"pause {full[:8]}": "CONTAINER_CONFLICT", f"get_top {full[:8]}": "CONTAINER_CONFLICT"}


def test_ten_calls_at_once_succeed(scene: Scene) -> None:
    full = scene.engine.run("busy")
    results: List[str] = []
    sessions = [scene.pool.new_client() for _ in range(10)]
    host = scene.pool.hosts[1].sim.ref

    def ask(number: int) -> None:
        results.append(sessions[number].xenapi.host.call_plugin(
            host, "xscontainer", "get_top", {"vmuuid": scene.vm_uuid, "object": full})[:9])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for session in sessions:
        session("close")()
    scene.engine.do("remove", full)
    assert results == ["True<?xml"] * 10


def test_without_a_daemon_the_results_are_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    for scene in enter(str(tmp_path_factory.mktemp("n")), daemons=False):
        full = scene.engine.run("alone", start=False)
        times = []
        for host, function, state in ((1, "start", "running"), (0, "pause", "paused"), (1, "unpause", "running")):
            started = time.monotonic()
            assert scene.call(function, full, host) == "True"
            times.append(time.monotonic() - started)
            assert scene.state(full) == state
        assert scene.call("get_inspect", "alone").startswith("True<?xml")
        # A wide bound: two processes that each load paramiko and docker, and a login to the guest.
        assert statistics.median(times) < 5
