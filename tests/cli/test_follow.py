"""logs -f, events -f and stats on a simulated pool, as programs that go on until they are interrupted."""

import json
import os
import re
import signal
from typing import Any, Iterator

import pytest

from tests.cli.shown import Running
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from tests.waiting import until
from xscontainer.simulator.engines.log_api import write
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

SPECS = (GuestSpec("web", tuple(map(ContainerSpec, ("nginx", "cache", "short"))), host=0),
         GuestSpec("db", (ContainerSpec("postgres"),), host=1))


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), guests=SPECS, parts=Parts(ssh="embedded", engine="embedded")) as made:
        made.wait_all_published()
        yield made


def say(world: World, name: str, text: str, stream: int = 1) -> None:
    vm, container = name.split("/")
    write(world.vm(vm).engine.life, container, text + "\n", stream)


def test_a_log_on_another_host_is_followed_until_an_interrupt(world: World) -> None:
    say(world, "db/postgres", "before")
    with Running(world, "logs", "-f", "postgres") as shown:
        shown.until("before")
        say(world, "db/postgres", "one")
        shown.until("before", "one")
        say(world, "db/postgres", "wrong", stream=2)
        until(lambda: shown.errors == ["wrong"], lambda: str(shown.errors), 10.0)
        assert shown.end() == 130
    assert shown.lines == ["before", "one"]


def test_a_log_ends_with_its_container_and_the_others_go_on(world: World) -> None:
    with Running(world, "logs", "--follow", "web/short", "web/cache") as shown:
        until(lambda: world.vm("web").engine.requests["GET /containers/{}/logs"] >= 2, "logs are not read", 10.0)
        say(world, "web/short", "last words")
        shown.until("web/short | last words")
        world.vm("web").engine.do("stop", "short")
        say(world, "web/cache", "still here")
        shown.until("web/short | last words", "web/cache | still here")
        world.vm("web").engine.do("stop", "cache")
        assert shown.wait() == 0
    world.vm("web").engine.do("start", "cache")


@pytest.mark.real
def test_a_log_is_followed_over_a_restart_of_the_daemon_without_a_line_twice(world: World) -> None:
    say(world, "web/nginx", "one")
    with Running(world, "logs", "-f", "nginx") as shown:
        shown.until("one")
        world.daemons[0].stop()
        say(world, "web/nginx", "two")
        world.daemons[0].start()
        say(world, "web/nginx", "three")
        shown.until("one", "two", "three")
        say(world, "web/nginx", "four")
        shown.until("one", "two", "three", "four")
        shown.end()
    assert shown.lines == ["one", "two", "three", "four"]


def test_a_noisy_container_has_its_dropped_lines_counted(world: World) -> None:
    with Running(world, "logs", "-f", "--tail", 0, "--format", "ndjson", "postgres") as shown:
        until(lambda: any("dropped" in line for line in shown.lines) or write_many(world), "no line is dropped", 20.0)
        shown.end()
    found = [json.loads(line) for line in shown.lines]
    assert sum(line.get("dropped", 0) for line in found) > 0


def write_many(world: World) -> bool:
    for number in range(500):
        say(world, "db/postgres", f"noise {number}")
    return False


def test_events_are_followed_on_all_hosts(world: World) -> None:
    def texts(lines: Any) -> Any:
        return [line.split("  ", 1)[1] for line in lines]

    with Running(world, "events", "web", "db") as recorded:
        assert recorded.wait() == 0
    with Running(world, "events", "-f", "web", "db") as shown:
        until(lambda: len(shown.lines) >= len(recorded.lines), lambda: str(shown.errors), 20.0)
        assert {"web/nginx  start", "db/postgres  start"} <= set(texts(shown.lines))
        before = len(shown.lines)
        world.vm("db").engine.do("pause", "postgres")
        until(lambda: texts(shown.lines[before:]) == ["db/postgres  pause"], lambda: str(shown.lines[before:]), 20.0)
        world.act(1, "unpause", "db", "postgres")
        world.vm("web").engine.do("stop", "nginx")
        until(lambda: {"db/postgres  unpause by xscontainer (unpause)", "web/nginx  die (exit code 137)"}
              <= set(texts(shown.lines[before:])), lambda: str(shown.lines[before:]), 20.0)
        assert shown.end() == 130
    world.vm("web").engine.do("start", "nginx")


def test_stats_go_on_until_an_interrupt(world: World) -> None:
    with Running(world, "stats", "--format", "ndjson", "web/nginx", "db") as shown:
        until(lambda: len({line for line in shown.lines}) >= 3, lambda: f"{shown.lines} {shown.errors}", 20.0)
        assert shown.end() == 130
    found = [json.loads(line) for line in shown.lines]
    assert {(line["vm"]["name"], line["name"]) for line in found} == {("web", "nginx"), ("db", "postgres")}


def test_the_live_view_of_stats_stays_on_the_terminal_after_an_interrupt(world: World) -> None:
    ours, theirs = os.openpty()
    try:
        with Running(world, "stats", "web", stdout=theirs, stderr=theirs,
                     env=dict(os.environ, TERM="xterm", COLUMNS="100", LINES="30", PYTHONIOENCODING="utf-8")) as shown:
            os.close(theirs)
            text = ""
            while "web/nginx" not in text:
                text += os.read(ours, 65536).decode()
            shown._process.send_signal(signal.SIGINT)
            with_end = text + all_of(ours)
            assert shown.wait() == 130
    finally:
        os.close(ours)
    left = with_end.rpartition("\x1b[?1049l")[2]
    assert "web/nginx" in left and re.search(r"web: \d containers use 0\.\d\d of 1 vCPUs", left)


def all_of(descriptor: int) -> str:
    text = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # the last writer has closed it
            return text.decode()
        if not piece:
            return text.decode()
        text += piece
