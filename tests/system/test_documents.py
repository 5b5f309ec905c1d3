"""Documents and plugin results about a real dockerd, as the parsers of both clients read them."""

import json
from typing import Any, Dict, Iterator, List, NamedTuple

import pytest

from tests.clients import Reader
from tests.clients.engine_json import NASTY_TEXTS, nasty_entries
from tests.system.rules import check_flat, check_inspect, check_ps, check_top, labels_of
from tests.system.world import OBEDIENT, World, entries, truth
from tests.waiting import until
from xscontainer import keys

pytestmark = pytest.mark.real

# Commands that dockerd takes; those with a NUL it creates but cannot start.
COMMANDS = [text for text in NASTY_TEXTS if text and len(text) < 20000]
LABELS = {
    "plain": "value", "com.example.a-b": "x", "a/b c@d:e": "<b>&amp;</b>", "1digit": "\x1b[0m", "": "empty key",
    "xmlns": "xmlns", "\u540d": "\u0438\u043c\u044f", "quote\"'": "]]>", "__proto__": "p", "entry": "e",
    "ctrl\x01key": "nul\x00value", "lone\ud800": "\udfff", "long": "y" * 70000,
}


class Scene(NamedTuple):
    world: World
    ids: Dict[str, str]  # name -> id

    def ps(self) -> str:
        return self.world.ps(self.world.vms[0])

    def call(self, function: str, name: str) -> str:
        vm = self.world.vms[0]
        return self.world.call(1, function, vmuuid=vm.uuid, object=name)


def second(number: float) -> int:
    """Nanoseconds, as Docker counts."""
    return int(number * 1e9)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with World(1, containers=0, real=True) as world:
        engine = world.vms[0].engine
        wanted: Dict[str, Dict[str, Any]] = {
            "running": {"Labels": LABELS},
            "obedient_UPPER.case-1": {"command": OBEDIENT},
            "paused": {}, "killed": {}, "dead": {"start": False}, "created": {"start": False},
            "exited-0": {"command": ["true"]}, "exited-1": {"command": ["sh", "-c", "exit 1"]},
            "restarting": {"command": ["false"], "HostConfig": {"RestartPolicy": {"Name": "always"}}},
            "unhealthy": {"Healthcheck": {"Test": ["CMD", "false"], "Interval": second(0.2), "Timeout": second(5),
                                          "Retries": 1}},
            "healthy": {"Healthcheck": {"Test": ["CMD", "true"], "Interval": second(0.2), "Timeout": second(5)}},
        }
        ids = {name: engine.run(name, **options) for name, options in wanted.items()}
        for number, command in enumerate(COMMANDS):
            name = f"nasty-{number}"
            ids[name] = engine.run(name, command=["echo", command], start=False, Labels={command[:100]: command})
        engine.do("pause", "paused")
        engine.do("kill", "killed")
        engine.make_dead("dead")
        yield Scene(world, ids)
        engine.do("remove", "restarting")


def by_name(scene: Scene, orchestra: Reader, center: Reader) -> Dict[str, Dict[str, str]]:
    return {entry["names"]: entry for entry in check_ps(scene.ps(), orchestra, center).values()}


def steady(shown: Dict[str, str]) -> Dict[str, str]:
    """Without the one that is never at rest."""
    return {name: status for name, status in shown.items() if name != "restarting"}


def test_every_state_is_shown_in_the_clients_words(scene: Scene, orchestra: Reader, center: Reader) -> None:
    vm = scene.world.vms[0]
    until(lambda: steady(entries(scene.ps())) == steady(truth(vm)) and "restarting" in entries(scene.ps()))
    until(lambda: entries(scene.ps()).get("restarting", "").startswith("Restarting (1"))
    until(lambda: all(f"<health>{health}</health>" in scene.ps() for health in ("healthy", "unhealthy")))
    found = by_name(scene, orchestra, center)
    wanted = {
        "running": "Up", "obedient_UPPER.case-1": "Up", "paused": "Up (Paused)", "exited-0": "Exited (0)",
        "exited-1": "Exited (1)", "killed": "Exited (137)", "created": "Created", "dead": "Dead",
        "healthy": "Up", "unhealthy": "Up",
    }
    assert {name: found[name]["status"] for name in wanted} == wanted
    assert (found["healthy"]["health"], found["unhealthy"]["health"]) == ("healthy", "unhealthy")
    assert "health" not in found["running"]
    assert {name: entry["id"] for name, entry in found.items()} == scene.ids
    assert "stop" in found["running"]["actions"].split() and "unpause" in found["paused"]["actions"].split()
    assert "start" in found["exited-0"]["actions"].split()


def test_commands_in_every_writing_system_are_shown(scene: Scene, orchestra: Reader, center: Reader) -> None:
    until(lambda: len(entries(scene.ps())) == len(scene.ids))
    found = by_name(scene, orchestra, center)
    for number, command in enumerate(COMMANDS):
        shown = found[f"nasty-{number}"]["command"]
        assert shown.startswith("echo")
        if command.isprintable() and "<" not in command and len(command) < 100 and "'" not in command:
            assert command.strip() in shown
    assert "</entry><entry>" not in scene.ps()


@pytest.mark.parametrize("kind", [keys.INFO, keys.VERSION])
def test_info_and_version_are_the_engines_own(scene: Scene, orchestra: Reader, center: Reader, kind: str) -> None:
    vm = scene.world.vms[0]
    until(lambda: scene.world.key(vm, kind))
    fields = check_flat(kind, scene.world.key(vm, kind) or "", orchestra, center)
    client = vm.engine.client()
    own: Dict[str, Any] = client.info() if kind == keys.INFO else client.version()
    for name in ("ID", "Name", "OperatingSystem", "Driver", "KernelVersion", "NCPU", "MemTotal", "ServerVersion",
                 "Version", "ApiVersion", "GitCommit", "GoVersion", "Os", "Arch"):
        if name in own:
            assert fields[name] == str(own[name]), name
    read_by_center: List[str] = (
        ["Driver", "IndexServerAddress", "ExecutionDriver", "IPv4Forwarding", "Containers", "Images"]
        if kind == keys.INFO else ["ApiVersion", "Version", "GitCommit"])
    assert set(read_by_center) <= set(fields)


def test_inspect_is_read_by_both_with_labels_of_any_shape(scene: Scene, orchestra: Reader, center: Reader) -> None:
    tree = check_inspect(scene.call("get_inspect", "running"), orchestra, center)
    assert tree["Id"] == scene.ids["running"] and tree["Name"] == "/running"
    assert tree["State"]["Running"] == "true" and tree["Config"]["Cmd"]["item"] == ["sleep", "1000000"]
    labels = labels_of(tree)
    assert len(labels) == len(LABELS)
    assert labels["plain"] == "value" and labels["a/b c@d:e"] == "<b>&amp;</b>" and labels["__proto__"] == "p"
    assert labels["\u540d"] == "\u0438\u043c\u044f" and labels["quote\"'"] == "]]>" and labels[""] == "empty key"
    assert labels["ctrl\ufffdkey"] == "nul\ufffdvalue" and labels["lone\ufffd"] == "\ufffd"


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=lambda number: ascii(COMMANDS[number][:12]))
def test_inspect_of_every_hostile_container_is_read_by_both(
        scene: Scene, newer_orchestra: Reader, center: Reader, number: int
) -> None:
    tree = check_inspect(scene.call("get_inspect", f"nasty-{number}"), newer_orchestra, center)
    assert tree["Id"] == scene.ids[f"nasty-{number}"]


@pytest.mark.parametrize("name", ["paused", "exited-1", "dead", "restarting", "unhealthy"])
def test_inspect_is_read_in_every_state(scene: Scene, orchestra: Reader, center: Reader, name: str) -> None:
    tree = check_inspect(scene.call("get_inspect", name), orchestra, center)
    assert tree["Id"] == scene.ids[name] and tree["State"]["Status"] in (name.partition("-")[0], "running")


@pytest.mark.parametrize("by", ["name", "id", "short id"])
def test_top_is_read_by_both(scene: Scene, orchestra: Reader, center: Reader, by: str) -> None:
    whole = scene.ids["obedient_UPPER.case-1"]
    named = {"name": "obedient_UPPER.case-1", "id": whole, "short id": whole[:10]}[by]
    processes = check_top(scene.call("get_top", named), orchestra, center)
    assert len(processes) == 2 and any(OBEDIENT[2] in process["CMD"] for process in processes)


def test_top_of_a_stopped_container_fails_with_its_code(scene: Scene) -> None:
    vm = scene.world.vms[0]
    assert scene.world.failure(0, "get_top", vmuuid=vm.uuid, object="exited-0")[0] == "CONTAINER_CONFLICT"


def test_names_and_states_that_no_dockerd_sends_are_shown_as_well(
        scene: Scene, orchestra: Reader, newer_orchestra: Reader, center: Reader
) -> None:
    """Names and states with anything in them, NULs and lone surrogates, through the whole path."""
    world = scene.world
    vm = world.add_vm("light")
    # An entry of more than 2 MiB is none that an engine gives.
    body = json.dumps([{name: value[:100000] if isinstance(value, str) else value for name, value in entry.items()}
                       for entry in nasty_entries()]).encode("ascii")
    vm.engine.faults.set("body", match="/containers/json", body=body)
    vm.engine.run("an-event")
    until(lambda: len(check_ps(world.ps(vm) or "<docker_ps/>", orchestra, center, own_words=True)) == len(NASTY_TEXTS))
    assert len(check_ps(world.ps(vm) or "", newer_orchestra, center, own_words=True)) == len(NASTY_TEXTS)
    assert world.key(vm, keys.STATUS) is None
