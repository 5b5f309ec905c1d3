"""Logs through the daemon, from either host of a simulated pool."""

import contextlib
import json
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.verbs.logs.scene import texts
from tests.waiting import until
from xscontainer.errors import XapiError
from xscontainer.simulator.engines.log_api import write
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

HOME = 1  # the VM's host


class Logs:
    def __init__(self, world: World) -> None:
        self.world = world
        self.vm = world.vm("web")

    def write(self, *lines: str) -> None:
        for text in lines:
            write(self.vm.engine.life, "alpha", text + "\n")

    def call(self, host: int = HOME, **arguments: str) -> Dict[str, Any]:
        result = self.world.call(host, "get_logs", **{"vmuuid": self.vm.uuid, "container": "alpha", **arguments})
        assert result.startswith("True{")
        found: Dict[str, Any] = json.loads(result[4:])
        return found

    def failure(self, host: int = HOME, **arguments: str) -> List[str]:
        with pytest.raises(XapiError) as caught:
            self.call(host, **arguments)
        return list(caught.value.details)

    def follow(self, host: int = HOME) -> str:
        return str(self.call(host, follow="new", tail="0")["follow"])

    def switch_off_and_on(self) -> None:
        """Switch container management off for the VM, which drops its followers, and on again."""
        assert self.world.call(HOME, "deregister", vmuuid=self.vm.uuid) == "True"
        until(lambda: self.vm.guest.sessions == 0, "it is still connected")
        assert self.world.call(HOME, "register", vmuuid=self.vm.uuid) == "True"
        self.world.wait_all_published()

    def gather(self, token: str, wanted: List[str], host: int = HOME) -> None:
        """Follow until these lines have come, and no others."""
        seen: List[str] = []
        deadline = time.monotonic() + 30.0
        while len(seen) < len(wanted) and time.monotonic() < deadline:
            seen += texts(self.call(host, follow=token, wait="5"))
        assert seen == wanted


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    guests = [GuestSpec("web", (ContainerSpec("alpha"),), host=HOME)]
    with World(str(tmp_path_factory.mktemp("w")) + "/w", guests=guests,
               parts=Parts(ssh="embedded", engine="embedded")) as made:
        yield made


@pytest.fixture
def logs(world: World) -> Iterator[Logs]:
    world.wait_all_published()
    made = Logs(world)
    yield made
    made.switch_off_and_on()


@pytest.mark.parametrize("host", [0, HOME])
def test_a_log_is_read_and_followed_on_any_host(logs: Logs, host: int) -> None:
    logs.write(f"read by {host}")
    found = logs.call(host)
    assert texts(found)[-1] == f"read by {host}" and found["container"]["name"] == "alpha"
    token = logs.follow(host)
    logs.write("one", "two")
    logs.gather(token, ["one", "two"], host)
    assert texts(logs.call(host, follow=token, wait="0")) == []


def test_a_host_that_does_not_know_a_token_says_so(logs: Logs) -> None:
    assert logs.failure(follow="0" * 32)[0] == "FOLLOW_LOST"


def test_followers_that_nobody_asks_cost_no_call(logs: Logs, world: World) -> None:
    token = logs.follow()
    logs.write("seen")
    logs.gather(token, ["seen"])
    requests = logs.vm.engine.requests
    # Until the monitor has asked for the list that is due a second after it has connected.
    listed = requests["GET /containers/json"]
    with contextlib.suppress(AssertionError):
        until(lambda: requests["GET /containers/json"] > listed, seconds=1.5)
    before = dict(requests)
    world.pool.stats.reset()
    quiet = time.monotonic() + 2.0
    while time.monotonic() < quiet:
        logs.write("noise")
        time.sleep(0.01)
    assert requests == before
    calls = world.pool.stats.by_method("xscontainer")
    assert not {name: count for name, count in calls.items() if name != "event.from" and count}


def test_a_log_is_followed_over_a_restart_of_the_guests_ssh_server(logs: Logs) -> None:
    token = logs.follow()
    logs.write("before")
    logs.gather(token, ["before"])
    logs.vm.guest.stop()
    logs.write("meanwhile")
    logs.vm.guest.start()
    logs.write("after")
    seen: List[str] = []

    def complete() -> bool:
        try:
            seen.extend(texts(logs.call(follow=token, wait="5")))
        except XapiError as error:
            assert error.details[0] not in ("FOLLOW_LOST", "XSCONTAINER_ERROR")
        return len(seen) >= 2

    until(complete, lambda: f"only {seen} have come", 30.0)
    assert seen == ["meanwhile", "after"]


def test_a_vm_that_is_switched_off_loses_its_followers(logs: Logs) -> None:
    tokens = [logs.follow() for _ in range(4)]
    assert logs.failure(follow="new")[0] == "BUSY"
    logs.switch_off_and_on()
    assert logs.failure(follow=tokens[0])[0] == "FOLLOW_LOST"
    assert [logs.follow() for _ in range(4)]


def with_daemon_stopped(world: World, check: "Callable[[], None]") -> None:
    world.daemon(HOME).stop()
    try:
        check()
    finally:
        world.daemon(HOME).start()


def test_a_daemon_that_was_restarted_is_asked_anew_with_the_time_of_the_last_line(logs: Logs, world: World) -> None:
    token = logs.follow()
    logs.write("before")
    last = logs.call(follow=token)["lines"][-1]
    world.daemon(HOME).restart()
    logs.write("meanwhile")
    assert logs.failure(follow=token)[0] == "FOLLOW_LOST"
    again = logs.call(follow="new", since=last["time"])
    assert again["lines"][0] == last and texts(again)[1:] == ["meanwhile"]
    logs.write("after")
    logs.gather(again["follow"], ["after"])


def test_without_a_daemon_a_log_is_read_and_not_followed(logs: Logs, world: World) -> None:
    logs.write("read")

    def check() -> None:
        assert texts(logs.call())[-1] == "read"
        code, sentence = logs.failure(follow="new")
        assert code == "FOLLOW_UNAVAILABLE" and "xscontainer-monitor" in sentence
        assert logs.failure(follow="0" * 32)[0] == "FOLLOW_LOST"

    with_daemon_stopped(world, check)
