"""Twenty and a hundred VMs behind real sshd, hundreds of containers in one, and other writers."""

import random
import signal
import time
from typing import Iterator

import pytest

from tests.bench.scene import VM
from tests.system.world import World
from tests.waiting import until
from xscontainer import keys
from xscontainer.simulator.engines.errors import SimulatorError

pytestmark = pytest.mark.real

CHANGES = 300
ALL_SHOWN = 40.0  # seconds, for a hundred VMs, whatever else the machine has to do
FOLLOWED = 10.0  # seconds after the last change; mostly it takes well below one, and `make bench` measures it


@pytest.fixture(scope="module", params=[20, 100], ids=lambda count: f"{count} VMs")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(request.param) as made:
        made.wait_right(seconds=ALL_SHOWN)
        yield made


def change(vm: VM, choice: random.Random) -> None:
    """Something happens to one of its containers, or nothing where that is not possible."""
    names = [found["Names"][0].lstrip("/") for found in vm.engine.list()]
    verb = choice.choice(["start", "stop", "pause", "unpause", "restart", "kill", "remove", "rename", "run"])
    name = choice.choice(names) if names else ""
    try:
        if verb == "run" or not name:
            vm.engine.run(f"new-{choice.getrandbits(40):x}")
        elif verb == "rename":
            vm.engine.do("rename", name, name=f"renamed-{choice.getrandbits(40):x}")
        else:
            vm.engine.do(verb, name)
    except SimulatorError:
        pass  # it is refused in this state, and nothing has changed


def test_every_vm_is_shown_over_one_connection(world: World) -> None:
    assert world.published() == len(world.vms)
    assert [vm.guest.accepted for vm in world.vms] == [1] * len(world.vms)
    assert [vm.guest.sessions for vm in world.vms] == [1] * len(world.vms)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_last_state_of_every_vm_is_shown(world: World, seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(CHANGES):
        change(choice.choice(world.vms), choice)
        time.sleep(choice.choice([0.0, 0.0, 0.0, 0.005]))
    world.wait_right(seconds=FOLLOWED)
    assert all(vm.guest.accepted == 1 for vm in world.vms)


def test_a_burst_in_one_vm_holds_no_other_up(world: World) -> None:
    busy, quiet = world.vms[0], world.vms[-1]
    name = busy.engine.run("busy")
    busy_id = str(name)
    world.pool.stats.reset()
    for number in range(200):
        busy.engine.do(("pause", "unpause")[number % 2], busy_id)
        if number == 100:
            quiet.engine.run("while-the-other-is-busy")
            world.wait_right(quiet, seconds=FOLLOWED)
    busy.engine.do("kill", busy_id)
    world.wait_right(seconds=FOLLOWED)
    assert world.writes(1) < 40


def test_a_killed_daemon_starts_again_and_nothing_stale_stays(world: World) -> None:
    choice = random.Random(3)
    world.kill_daemon(1, signal.SIGKILL)
    for vm in world.vms[::3]:
        change(vm, choice)
        vm.engine.run("made-while-nobody-looked")
    until(lambda: all(vm.guest.sessions == 0 for vm in world.vms), "connections of a dead daemon stand")
    assert world.published() == len(world.vms)
    world.start_daemon(1)
    world.wait_right(seconds=ALL_SHOWN)
    until(lambda: all(vm.guest.sessions == 1 for vm in world.vms))


def test_a_stopped_daemon_leaves_the_lists_and_starts_from_them(world: World) -> None:
    world.wait_right()
    begun = time.monotonic()
    assert world.kill_daemon(1, signal.SIGTERM).returncode == 0
    assert time.monotonic() - begun < 3.0
    assert all(world.right(vm) for vm in world.vms)
    world.pool.stats.reset()
    world.start_daemon(1)
    until(lambda: all(vm.guest.sessions == 1 for vm in world.vms), seconds=ALL_SHOWN)
    world.vms[-1].engine.run("one-more")
    world.wait_right(seconds=ALL_SHOWN)
    # Lists that were right already have not been written again.
    assert world.writes(1) <= 4, world.pool.stats.by_method("host2")


def test_calls_are_served_while_everything_happens(world: World) -> None:
    choice = random.Random(4)
    for vm in world.vms[:10]:
        vm.engine.run("steady")
        for other in world.vms[-10:]:
            change(other, choice)
        assert world.call(choice.randrange(2), "pause", vmuuid=vm.uuid, container="steady") == "True"
        until(lambda vm=vm: world.shown(vm).get("steady") == "Up (Paused)", seconds=FOLLOWED)  # type: ignore[misc]


def test_five_hundred_updates_by_another_client_are_all_kept(world: World) -> None:
    vm, xapi = world.vms[0], world.session.xenapi
    vm.engine.run("eventful")
    lost = 0
    for number in range(500):
        if number % 5 == 0:
            vm.engine.do(("pause", "unpause")[number // 5 % 2], "eventful")
        xapi.VM.remove_from_other_config(vm.ref, "theirs")
        xapi.VM.add_to_other_config(vm.ref, "theirs", str(number))
        lost += xapi.VM.get_other_config(vm.ref).get("theirs") != str(number)
    world.wait_right(seconds=FOLLOWED)
    assert lost == 0 and world.key(vm, "theirs") == "499"


def test_hundreds_of_containers_are_all_listed(world: World) -> None:
    vm = world.vms[1]
    for number in range(550 - len(vm.engine.list())):
        vm.engine.run(f"a-container-of-{number:04}", ("serve", "--port", str(number)))
    world.wait_right(vm)
    text = world.ps(vm)
    assert text.count("<entry>") == 550 and "<left_out>" not in text
    vm.engine.do("pause", "a-container-of-0500")
    world.wait_right(vm)
    assert world.key(vm, keys.STATUS) is None
