"""start, stop, restart, pause, unpause, register and deregister on a simulated pool of two hosts."""

from typing import Any, Iterator

import pytest

from tests.cli.shown import Commands
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from tests.waiting import until
from xscontainer import keys
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

SPECS = (
    GuestSpec("web", tuple(map(ContainerSpec, ("nginx", "cache", "shared"))), host=0),
    GuestSpec("db", tuple(map(ContainerSpec, ("postgres", "shared"))), host=1),
    GuestSpec("off", monitored=False, host=1),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), guests=SPECS, parts=Parts(ssh="embedded", engine="embedded")) as made:
        made.wait_published("web", lambda listed: "shared" in listed)
        made.wait_published("db", lambda listed: "shared" in listed)
        yield made


def states(world: World, vm: str) -> Any:
    return {entry["Names"][0][1:]: entry["State"] for entry in world.vm(vm).engine.list()}


def test_each_command_changes_the_state_of_its_container(world: World, run: Commands) -> None:
    for command, state in (("pause", "paused"), ("unpause", "running"), ("stop", "exited"), ("start", "running"),
                           ("restart", "running")):
        more = ("-t", "0") if command in ("stop", "restart") else ()
        assert run(command, *more, "web/nginx") == (0, "web/nginx\n", "")
        assert states(world, "web")["nginx"] == state
        assert run(command, *more, "nginx", host=1) == (0, "web/nginx\n", "")  # the state is the wanted one already


def test_several_containers_are_done_in_the_order_of_the_command_line(world: World, run: Commands) -> None:
    every = ["db/shared", "nginx", "postgres", "web/cache", "web/shared"]
    assert run("stop", "--time", 0, *every) == (0, "db/shared\nweb/nginx\ndb/postgres\nweb/cache\nweb/shared\n", "")
    assert set(states(world, "web").values()) | set(states(world, "db").values()) == {"exited"}
    assert run("start", *every).code == 0
    assert set(states(world, "web").values()) | set(states(world, "db").values()) == {"running"}


def test_one_failure_does_not_stop_the_others(world: World, run: Commands) -> None:
    world.vm("web").engine.do("stop", "cache")
    shown = run("pause", "web/cache", "web/nginx")
    assert (shown.code, shown.out) == (1, "web/nginx\n")
    assert shown.err.startswith("xscontainer: web/cache: CONTAINER_CONFLICT: ") and shown.err.count("\n") == 1
    assert run("unpause", "nginx").code == run("start", "cache").code == 0


def test_a_wrong_word_changes_nothing_and_exits_with_4(world: World, run: Commands) -> None:
    shown = run("pause", "web/nginx", "web/ngnix")
    assert (shown.code, shown.out) == (4, "")
    assert "Did you mean 'web/nginx'?" in shown.err
    assert states(world, "web")["nginx"] == "running"


def test_an_ambiguous_name_lists_the_candidates(world: World, run: Commands) -> None:
    shown = run("stop", "shared")
    assert (shown.code, shown.out) == (4, "")
    for vm in ("web", "db"):
        assert f"{vm}/shared" in shown.err and world.vm(vm).uuid in shown.err


@pytest.mark.parametrize("seconds", ["61", "-1", "soon"])
def test_wrong_seconds_are_a_usage_error(run: Commands, seconds: str) -> None:
    shown = run("stop", f"--time={seconds}", "web/nginx")
    assert (shown.code, shown.out) == (2, "") and "'time'" in shown.err


def test_failures_with_a_common_exit_code_keep_it(world: World, run: Commands) -> None:
    """The VM's guest is gone for both containers."""
    world.pool.set_key(world.vm("db").ref, keys.MONITOR, "False")
    try:
        shown = run("stop", "db/postgres", "db/shared")
        assert shown.err.count("VM_NOT_REGISTERED") == 2 and shown.out == ""
        assert shown.code == 1
    finally:
        world.pool.set_key(world.vm("db").ref, keys.MONITOR, "True")
    world.wait_published("db", lambda listed: "shared" in listed)


def test_register_and_deregister_switch_management(world: World, run: Commands) -> None:
    vm = world.vm("off")
    assert run("register", "off") == (0, "off\n", "")
    world.wait_published("off", lambda listed: True)
    assert run("deregister", vm.uuid[:8], "off") == (0, "off\n", "")
    until(lambda: keys.PS not in vm.other_config, lambda: str(vm.other_config), 5.0)
    assert vm.other_config[keys.MONITOR] == "False"


def test_several_acts_share_one_login_that_ends(world: World, run: Commands) -> None:
    before = len(world.pool.records("session"))
    run("start", "web/nginx", "web/cache", "db/postgres")
    until(lambda: len(world.pool.records("session")) <= before, "sessions are left", 5.0)
