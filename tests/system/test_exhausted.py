"""A daemon that gets no more file descriptors says so once, and goes on by itself when there are some again."""

import resource
from typing import Iterator

import pytest

from tests.waiting import until
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

pytestmark = pytest.mark.real

COUNT = 8


@pytest.fixture
def world() -> Iterator[World]:
    guests = [GuestSpec(f"vm{number}", (ContainerSpec("web"),)) for number in range(COUNT)]
    with World(hosts=1, guests=guests, parts=Parts(settings={"publish": {"stale_after": 1}})) as made:
        made.wait_all_published()
        yield made


def limit(pid: int, descriptors: int) -> None:
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def state(world: World, number: int) -> str:
    shown = (world.vm(f"vm{number}").containers or {}).get("web")
    return shown.state if shown else ""


def test_exhausted_descriptors_are_reported_once_and_recovered_from(world: World) -> None:
    daemon = world.daemons[0]
    limit(daemon.pid, 3)  # what is open stays open
    for number in range(COUNT):
        world.vm(f"vm{number}").guest.stop()  # and every connection has to be made again
        world.vm(f"vm{number}").guest.start()
    until(lambda: "HOST_EXHAUSTED" in daemon.log_tail(100000), "the daemon says what it lacks", 30.0)
    until(lambda: sum("HOST_EXHAUSTED" in (world.vm(f"vm{number}").other_config.get("xscontainer-status") or "")
                      for number in range(COUNT)) >= COUNT // 2, "clients are told", 60.0)
    said = daemon.log_tail(200000)
    assert "Traceback" not in said
    assert said.count("HOST_EXHAUSTED") == 1, said
    limit(daemon.pid, 1024)
    for number in range(COUNT):
        world.vm(f"vm{number}").engine.do("pause", "web")
    until(lambda: all(state(world, number) == "paused" for number in range(COUNT)), "all are shown again", 90.0)
