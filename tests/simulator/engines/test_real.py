"""A real dockerd starts, shows every state, starts again after SIGKILL, and leaves nothing behind."""

import os
import socket
import subprocess
import time
from typing import Dict, Iterator

import pytest

from tests.need import need
from xscontainer.simulator.engines import SimulatorError, processes
from xscontainer.simulator.engines.image import busybox_tar, is_static
from xscontainer.simulator.engines.real import RealEngine

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def _possible() -> None:
    need(not RealEngine.missing(), RealEngine.missing() or "dockerd")


@pytest.fixture
def engine(place: str) -> Iterator[RealEngine]:
    with RealEngine(place + "/e") as running:
        yield running


def _states(engine: RealEngine) -> Dict[str, str]:
    return {entry["Names"][0].lstrip("/"): entry["State"] for entry in engine.list()}


def _until(engine: RealEngine, name: str, words: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        status = {entry["Names"][0].lstrip("/"): entry["Status"] for entry in engine.list()}[name]
        if words in status:
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.02)


def test_a_real_container_can_be_put_into_every_state(engine: RealEngine) -> None:
    engine.run("running", image="example/web:1.0")
    engine.run("created", start=False)
    engine.run("paused")
    engine.do("pause", "paused")
    engine.run("exited", ["sh", "-c", "exit 3"])
    engine.run("restarting", ["false"], HostConfig={"RestartPolicy": {"Name": "always"}})
    probe = {"Test": ["CMD", "false"], "Interval": 100000000, "Timeout": 5000000000, "Retries": 1}
    engine.run("sick", Healthcheck=probe)
    engine.run("dead")
    engine.make_dead("dead")
    _until(engine, "exited", "Exited (3)")
    _until(engine, "sick", "unhealthy")
    _until(engine, "restarting", "Restarting (1)")
    expected = {"running": "running", "created": "created", "paused": "paused", "exited": "exited", "dead": "dead",
                "sick": "running"}
    states = _states(engine)
    assert {name: states[name] for name in expected} == expected


def test_a_killed_dockerd_starts_again(engine: RealEngine) -> None:
    engine.run("one")
    engine.kill()
    assert not engine.running
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError):
        sock.connect(engine.socket_path)
    engine.start()
    assert _states(engine) == {"one": "exited"}
    engine.do("start", "one")
    assert _states(engine) == {"one": "running"}


def test_restart_with_live_restore_keeps_containers(place: str) -> None:
    with RealEngine(place + "/e", live_restore=True) as engine:
        engine.run("one")
        engine.restart()
        assert _states(engine) == {"one": "running"}


def _traces(path: str) -> Dict[str, object]:
    return {
        "processes": {pid for pid in processes.mentioning(path) if not processes.gone(pid)},
        "mounts": processes.mounts_below(path),
        "files": os.path.exists(path),
    }


def test_close_leaves_no_process_mount_or_file(place: str) -> None:
    engine = RealEngine(place + "/e")
    with engine:
        engine.run("running")
        engine.run("paused")
        engine.do("pause", "paused")
        engine.run("dead")
        engine.make_dead("dead")
        sleepers = {entry["Id"] for entry in engine.list()}
        # containerd keeps them outside the engine's directory, beside those of all other containers.
        sockets = engine._leftovers.shim_sockets()
        assert len(sockets) >= 2 and all(map(os.path.exists, sockets))
    assert _traces(place + "/e") == {"processes": set(), "mounts": [], "files": False}
    groups = subprocess.run(["find", "/sys/fs/cgroup", "-maxdepth", "4", "-type", "d"], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, check=False).stdout.decode()
    assert not [name for name in sleepers if name in groups]
    assert not any(map(os.path.exists, sockets))


def test_a_start_that_fails_says_why_and_leaves_nothing(place: str) -> None:
    with pytest.raises(SimulatorError, match="no-such-flag"):
        with RealEngine(place + "/e", flags=["--no-such-flag"]):
            pass
    assert _traces(place + "/e") == {"processes": set(), "mounts": [], "files": False}


def test_the_image_is_made_without_a_download() -> None:
    assert len(busybox_tar()) > 500000
    assert not is_static("/proc/self/exe")
