"""The command logs on a simulated pool of two hosts."""

import json
import re
from typing import Any, Iterator

import pytest

from tests.cli.shown import Commands
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from xscontainer.simulator.engines.log_api import write
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

SPECS = (GuestSpec("web", (ContainerSpec("nginx"), ContainerSpec("cache")), host=0),
         GuestSpec("db", (ContainerSpec("postgres"),), host=1))
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), guests=SPECS, parts=Parts(ssh="embedded", engine="embedded")) as made:
        made.wait_all_published()
        for number in range(3):
            for vm, container in (("web", "nginx"), ("db", "postgres")):
                write(made.vm(vm).engine.life, container, f"{container} {number}\n")
        write(made.vm("web").engine.life, "nginx", "failed \x1b[31mred\x1b[0m \x1b[2J\u202e\tend\n", stream=2)
        made.vm("web").engine.run("mute", HostConfig={"LogConfig": {"Type": "none"}})
        made.wait_published("web", lambda listed: "mute" in listed)
        yield made


def test_each_stream_is_printed_on_its_own(run: Commands) -> None:
    for host in (0, 1):
        shown = run("logs", "nginx", host=host)
        assert (shown.code, shown.out) == (0, "nginx 0\nnginx 1\nnginx 2\n")
        assert shown.err == "failed red \u241b[2J\ufffd\tend\n"


def test_colours_stay_where_they_are_wanted(run: Commands) -> None:
    shown = run("--color", "always", "logs", "web/cache", "web/nginx")
    assert "\x1b[33mweb/nginx | \x1b[0mnginx 2\n" in shown.out
    assert "\x1b" not in shown.err, "standard error is no terminal"


def test_tail_since_and_timestamps_choose_and_mark_lines(run: Commands) -> None:
    assert run("logs", "-n", 2, "postgres").out == "postgres 1\npostgres 2\n"
    shown = run("logs", "-t", "--tail", 1, "postgres")
    stamp = shown.out.split(" ")[0]
    assert re.match(rf"{STAMP} postgres 2\n\Z", shown.out)
    assert run("logs", "--since", stamp, "postgres").out == "postgres 2\n"
    assert run("logs", "--until", "2020-01-01", "postgres").out == ""
    assert run("logs", "--tail", "all", "--since", "1h", "postgres").out.count("\n") == 3


def test_several_logs_are_merged_in_the_order_of_time(run: Commands) -> None:
    shown = run("logs", "nginx", "db/postgres")
    assert shown.code == 0
    assert shown.out.splitlines() == [f"{label} | {label.split('/')[1]} {number}" for number in range(3)
                                      for label in ("web/nginx", "db/postgres")]
    assert shown.err.startswith("web/nginx | failed red")


def test_programs_get_an_object_for_each_line(world: World, run: Commands) -> None:
    shown = run("logs", "--format", "ndjson", "nginx")
    found = [json.loads(line) for line in shown.out.splitlines()]
    assert shown.err == "" and [line["text"] for line in found[:3]] == ["nginx 0", "nginx 1", "nginx 2"]
    assert found[3]["stream"] == "stderr" and found[3]["container"] == "nginx"
    assert found[3]["vm"] == {"uuid": world.vm("web").uuid, "name": "web"} and re.match(STAMP, found[3]["time"])


def test_a_log_that_cannot_be_read_does_not_hide_the_others(run: Commands) -> None:
    shown = run("logs", "web/mute", "postgres")
    assert shown.code == 1 and shown.out.count("db/postgres | ") == 3
    assert shown.err.startswith("xscontainer: web/mute: LOGS_UNREADABLE: ")


@pytest.mark.parametrize("words, code", [
    (("--tail", "many", "nginx"), 2), (("--tail", "5001", "nginx"), 2), (("--since", "yesterday", "nginx"), 2),
    (("-f", "--until", "1h", "nginx"), 2), (("nobody",), 4), (("web",), 4)])
def test_wrong_words_are_refused(run: Commands, words: Any, code: int) -> None:
    shown = run("logs", *words)
    assert (shown.code, shown.out) == (code, "") and shown.err.startswith("xscontainer: ")
