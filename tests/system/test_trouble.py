"""Trouble of every kind in any order: whatever came first, everything is right again soon after."""

import random
import time
from typing import Callable, Dict, Iterator, List

import pytest

from tests.bench.scene import VM
from tests.system.world import World
from xscontainer import keys
from xscontainer.xapi.session import Session

pytestmark = pytest.mark.real

ROUNDS = 8
RIGHT_AGAIN = 10.0  # seconds; mostly it takes one or two


class Trouble:
    """Troubles of a pool. Each is over when its function returns; its consequences are not."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.pool, self.choice = world, world.pool, random.Random(seed)
        self.kinds: Dict[str, Callable[[VM], None]] = {
            name: getattr(self, name) for name in dir(Trouble) if not name.startswith("_")}

    def _login(self) -> None:
        self.world.session.logout()
        self.world.session = Session.login(self.pool.coordinator.socket_path, "bench", 60.0, 10.0)

    def _host(self) -> str:
        return str(self.choice.choice(self.pool.hosts).ref)

    def change(self, vm: VM) -> None:
        vm.engine.run(f"changed-{self.choice.getrandbits(40):x}")

    def stop_one(self, vm: VM) -> None:
        vm.engine.do("kill", vm.engine.run(f"killed-{self.choice.getrandbits(40):x}"))

    def migrate(self, vm: VM) -> None:
        self.world.session.xenapi.VM.pool_migrate(vm.ref, self._host(), {})

    def reboot(self, vm: VM) -> None:
        vm.guest.restart()
        self.world.session.xenapi.VM.hard_reboot(vm.ref)

    def stop_and_start(self, vm: VM) -> None:
        self.world.session.xenapi.VM.hard_shutdown(vm.ref)
        vm.guest.restart()
        self.world.session.xenapi.VM.start_on(vm.ref, self._host(), False, False)

    def suspend_and_resume(self, vm: VM) -> None:
        self.world.session.xenapi.VM.suspend(vm.ref)
        self.world.session.xenapi.VM.resume_on(vm.ref, self._host(), False, False)

    def crash_xapi(self, vm: VM) -> None:
        host = self.choice.choice(self.pool.hosts)
        host.crash()
        self.change(vm)
        time.sleep(self.choice.uniform(0.0, 0.3))
        host.start()
        self._login()

    def forget_writes(self, vm: VM) -> None:
        host = self.pool.coordinator
        # Not so much that a power operation is forgotten: those reach the disk.
        self.world.wait_right(vm, seconds=RIGHT_AGAIN)
        saved = time.monotonic()
        self.change(vm)
        self.world.wait_right(vm, seconds=RIGHT_AGAIN)
        host.crash(lose_writes_since=saved)
        host.start()
        self._login()

    def change_coordinator(self, vm: VM) -> None:
        self.pool.change_coordinator(self.choice.choice(self.pool.hosts))
        self._login()

    def restart_guest(self, vm: VM) -> None:
        vm.guest.restart(self.choice.uniform(0.0, 0.3))

    def restart_engine(self, vm: VM) -> None:
        vm.engine.restart(self.choice.uniform(0.0, 0.3))

    def kill_engine(self, vm: VM) -> None:
        vm.engine.kill()
        vm.engine.start()

    def kill_daemon(self, vm: VM) -> None:
        number = self.choice.randrange(2)
        self.world.kill_daemon(number)
        self.world.start_daemon(number)

    def lose_address(self, vm: VM) -> None:
        self.pool.set_networks(vm.ref, {})
        time.sleep(self.choice.uniform(0.0, 0.2))
        self.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})

    def write_over(self, vm: VM) -> None:
        self.pool.set_key(vm.ref, self.choice.choice([keys.PS, keys.INFO, keys.VERSION]), "<x/>")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(5) as made:
        made.wait_right()
        yield made


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_list_is_right_again_after_any_trouble(world: World, seed: int) -> None:
    trouble = Trouble(world, seed)
    for _ in range(ROUNDS):
        done: List[str] = []
        for _ in range(trouble.choice.randrange(1, 6)):
            kind, vm = trouble.choice.choice(sorted(trouble.kinds)), trouble.choice.choice(world.vms)
            done.append(f"{kind} {vm.name}")
            trouble.kinds[kind](vm)
        try:
            world.wait_right(seconds=RIGHT_AGAIN)
        except AssertionError as error:
            raise AssertionError(f"after {', '.join(done)}: {error}") from error
