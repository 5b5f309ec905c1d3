"""The commands stats, top and inspect on a simulated pool."""

import json
from typing import Any, Iterator

import pytest

from tests.cli.shown import Commands
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from xscontainer import keys
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

SPECS = (GuestSpec("web", tuple(map(ContainerSpec, ("nginx", "cache", "web-2"))), host=0),
         GuestSpec("db", (ContainerSpec("postgres"),), host=1), GuestSpec("web-1", (ContainerSpec("one"),), host=1),
         GuestSpec("off", monitored=False, host=1))
HEAD = "NAME\tCPU %\tMEM USAGE / LIMIT\tMEM %\tNET I/O\tBLOCK I/O\tPIDS"


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), guests=SPECS, parts=Parts(ssh="embedded", engine="embedded")) as made:
        made.wait_all_published()
        made.vm("web").engine.run("keys", Env=["DB_PASSWORD=hunter2"])
        made.wait_published("web", lambda listed: "keys" in listed)
        yield made


def names(out: str) -> Any:
    return [line.split("\t")[0] for line in out.splitlines()[1:]]


def test_one_reading_has_dockers_columns_and_a_sum_for_each_vm(run: Commands) -> None:
    shown = run("stats", "--no-stream")
    assert shown.code == 0 and shown.out.startswith(HEAD + "\n")
    assert sorted(names(shown.out)) == ["db/postgres", "web-1/one", "web/cache", "web/keys", "web/nginx", "web/web-2"]
    assert "web: 4 containers use 0.0" in shown.err and " of 1 vCPUs (" in shown.err
    assert shown.err.count("\n") == 3


@pytest.mark.parametrize("words, expected", [
    (("db",), ["db/postgres"]), (("web-1",), ["web-1/one"]), (("web-2",), ["web/web-2"]),
    (("web/nginx",), ["web/nginx"]), (("nginx", "cache", "db"), ["web/cache", "web/nginx", "db/postgres"]),
    (("web/nginx", "web"), ["web/cache", "web/keys", "web/nginx", "web/web-2"])])
def test_a_word_means_a_vm_or_a_container(run: Commands, words: Any, expected: Any) -> None:
    shown = run("stats", "--no-stream", *words)
    assert (shown.code, names(shown.out)) == (0, expected), shown.err


def test_programs_get_the_answers_of_the_function(world: World, run: Commands) -> None:
    found = json.loads(run("stats", "--format", "json", "db", "web/nginx").out)
    assert [(each["vm"]["name"], [one["name"] for one in each["containers"]]) for each in found] == [
        ("db", ["postgres"]), ("web", ["nginx"])]
    assert found[0]["vm"]["uuid"] == world.vm("db").uuid and set(found[0]) >= {"time", "total", "left_out"}
    lines = run("stats", "--no-stream", "--format", "ndjson", "web").out.splitlines()
    assert {json.loads(line)["name"] for line in lines} == {"nginx", "cache", "keys", "web-2"}


def test_a_vm_that_cannot_be_read_does_not_hide_the_others(run: Commands) -> None:
    shown = run("stats", "--no-stream", "off", "db")
    assert shown.code == 1 and names(shown.out) == ["db/postgres"]
    assert "xscontainer: off: VM_NOT_REGISTERED: " in shown.err
    assert run("stats", "off").code == 1, "a live view of nothing ends"
    assert run("stats", "nobody").code == 4


def test_top_prints_the_processes(world: World, run: Commands) -> None:
    shown = run("top", "web/nginx", host=1)
    head, *rows = [line.split("\t") for line in shown.out.splitlines()]
    assert shown.code == 0 and {"PID", "CMD"} <= set(head) and rows[0][head.index("CMD")] == "sleep 1000000"
    assert json.loads(run("top", "--format", "json", "nginx").out)["titles"] == head
    world.vm("web").engine.do("stop", "cache")
    assert "CONTAINER_CONFLICT" in run("top", "web/cache").err
    world.vm("web").engine.do("start", "cache")


def test_inspect_prints_dockers_array(run: Commands) -> None:
    shown = run("inspect", "web/keys", "postgres")
    assert shown.code == 0
    assert [each["Name"] for each in json.loads(shown.out)] == ["/keys", "/postgres"]
    assert "hunter2" in shown.out
    masked = run("inspect", "--mask-environment", "--format", "json", "keys")
    assert "hunter2" not in masked.out and json.loads(masked.out)[0]["Config"]["Env"] == ["DB_PASSWORD=***"]


def test_inspect_prints_the_containers_that_it_finds(world: World, run: Commands) -> None:
    world.pool.set_key(world.vm("web-1").ref, keys.MONITOR, "False")
    try:
        shown = run("inspect", "web-1/one", "postgres")
        assert shown.code == 1 and shown.err.startswith("xscontainer: web-1/one: VM_NOT_REGISTERED")
        assert [each["Name"] for each in json.loads(shown.out)] == ["/postgres"]
    finally:
        world.pool.set_key(world.vm("web-1").ref, keys.MONITOR, "True")
