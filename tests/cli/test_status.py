"""The commands status and events on a simulated pool of two hosts."""

import json
import re
from typing import Any, Iterator

import pytest

from tests.cli.shown import Commands
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from xscontainer import keys
from xscontainer.simulator.engines.log_api import write
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

SPECS = (GuestSpec("web", tuple(map(ContainerSpec, ("nginx", "app", "cache"))), host=0),
         GuestSpec("db", (ContainerSpec("postgres"),), host=1), GuestSpec("gone", (ContainerSpec("erp"),), host=1),
         GuestSpec("lab", monitored=False, host=0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), guests=SPECS, parts=Parts(
            ssh="embedded", engine="embedded", settings={"publish": {"stale_after": 1}})) as made:
        made.wait_all_published()
        engine = made.vm("web").engine
        for number in range(20):
            write(engine.life, "app", f"line {number}\n")
        write(engine.life, "app", "cannot \x1b[31mreach\x1b[0m the \x1b[2Jdatabase\n", stream=2)
        engine.do("kill", "app")
        made.act(0, "stop", "web", "cache")
        made.vm("gone").guest.stop()
        made.wait_published("web", lambda listed: {listed[name].state for name in ("app", "cache")} == {"exited"})
        made.wait(lambda: keys.STATUS in made.vm("gone").other_config, "the problem of the VM")
        yield made


def test_a_vm_is_described_on_one_screen(world: World, run: Commands) -> None:
    shown = run("status", "web", host=1)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == f"VM          web {world.vm('web').uuid}"
    assert lines[1] == "State       Running on host1"
    assert re.match(r"Engine      \S+ \(API \S+\) over SSH as root at 127\.", lines[2])
    assert lines[3] == "Containers  1 running, 2 exited"
    assert len(lines) <= 24, "it fits on a small terminal"


def test_a_failed_container_is_explained_and_a_stopped_one_is_not_mentioned(run: Commands) -> None:
    out = run("status", "web").out
    attention = out[out.index("Needs attention"):out.index("Last events")].splitlines()
    assert attention[1:] == [
        "  app  exited (137)  exit code 137: killed", *(f"    | line {number}" for number in range(15, 20)),
        "    | cannot reach the \u241b[2Jdatabase",
        "    Next: xscontainer logs web/app   xscontainer start web/app", ""]
    events = out[out.index("Last events"):].splitlines()
    assert any("\tcache\tdie (exit code" in line and line.endswith("\txscontainer (stop)") for line in events)
    assert any("\tapp\tdie (exit code 137)" in line for line in events)


def test_a_problem_is_shown_with_cause_and_next_step(run: Commands) -> None:
    shown = run("status", "gone")
    assert shown.code == 3
    assert re.search(r"^Problem     GUEST_REFUSED: Nothing listens on TCP port", shown.out, re.MULTILINE)
    assert re.search(r"^Next        Start sshd in the VM", shown.out, re.MULTILINE)


def test_a_vm_without_management_names_the_command_that_prepares_it(run: Commands) -> None:
    shown = run("status", "lab")
    assert shown.code == 3 and "Next        xscontainer prepare lab" in shown.out


def test_the_pool_is_described_in_short(run: Commands) -> None:
    shown = run("status")
    assert (shown.code, shown.err) == (3, "")
    lines = shown.out.splitlines()
    assert lines[:3] == ["Pool        Simulated pool, 2 hosts, 3 VMs", "Containers  2 running, 2 exited",
                         "Problems    1 VM"]
    assert [line.split("\t") for line in lines[4:8]] == [
        ["VM", "STATE", "HOST", "ENGINE", "CONTAINERS", "PROBLEM"],
        ["web", "Running", "host1", lines[5].split("\t")[3], "1 running, 2 exited", ""],
        ["db", "Running", "host2", lines[5].split("\t")[3], "1 running", ""],
        ["gone", "Running", "host2", "", "none", "GUEST_REFUSED"]]
    assert lines[9:] == ["Needs attention", "web/app\texited (137)\texit code 137: killed", "",
                         "Next: xscontainer status gone"]


def test_programs_get_the_same_as_json(world: World, run: Commands) -> None:
    found = json.loads(run("status", "--format", "json", "web").out)
    assert found["vm"]["uuid"] == world.vm("web").uuid and found["host"] == "host1" and found["problem"] is None
    assert found["counts"] == {"running": 1, "exited": 2}
    (app,) = found["attention"]
    assert (app["name"], app["exit_code"], app["log"][-2]) == ("app", 137, "line 19")
    assert found["events"][0]["number"] > found["events"][1]["number"]
    pool = json.loads(run("status", "--format", "json").out)
    assert {vm["name"]: vm["attention"] for vm in pool["vms"]} == {"web": ["app"], "db": [], "gone": []}
    assert (pool["problems"], pool["hosts"]) == (1, 2)


def test_events_of_all_vms_are_printed_in_the_order_of_time(run: Commands) -> None:
    shown = run("events")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert [line[:19] for line in lines] == sorted(line[:19] for line in lines)
    assert {"web/app", "db/postgres"} <= {line.split("  ")[1] for line in lines}
    assert any(line.endswith("  web/cache  stop by xscontainer (stop)") for line in lines)


def test_events_of_some_vms_are_chosen_by_time_and_given_as_json(world: World, run: Commands) -> None:
    shown = run("events", "web", "db", "--since", "1h", "--format", "ndjson")
    found = [json.loads(line) for line in shown.out.splitlines()]
    died = [event for event in found if event["action"] == "die" and event["container"]["name"] == "app"]
    assert died[0]["exit_code"] == 137 and died[0]["vm"] == {"uuid": world.vm("web").uuid, "name": "web"}
    assert run("events", "web", "--since", "2040-01-01").out == ""


@pytest.mark.parametrize("words, code", [(("events", "lab"), 1), (("events", "nobody"), 4), (("status", "nobody"), 4),
                                         (("events", "web", "--since", "never"), 2)])
def test_wrong_words_are_refused(run: Commands, words: Any, code: int) -> None:
    shown = run(*words)
    assert (shown.code, shown.out) == (code, "") and shown.err.startswith("xscontainer: ")
