"""diagnose as people call it: by any client on any host, and as the command; beside a monitor that is at work."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest

from tests.system.world import World, change
from tests.waiting import until
from xscontainer import keys

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(2, containers=2) as made:
        made.wait_right()
        yield made


def ask(world: World, uuid: str, host: int = 0) -> Dict[str, Any]:
    """Call diagnose as Xen Orchestra or xe does. The VMs run on host 1."""
    answer = world.login("pool-admin").xenapi.host.call_plugin(
        world.pool.hosts[host].ref, "xscontainer", "diagnose", {"vmuuid": uuid})
    assert answer.startswith("True{")
    found: Dict[str, Any] = json.loads(answer[4:])
    return found


def command(world: World, *arguments: str, host: int = 0) -> Tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", world.configs[host],
                           "diagnose", *arguments], cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, env=dict(os.environ, PYTHONIOENCODING="utf-8"))
    return done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")


def test_a_vm_without_a_monitor_is_diagnosed() -> None:
    """The plugin serves the call by itself, and finds what is missing.

    Comes first: the older pytest ends a module's fixtures in another order after a test that does not use them all.
    """
    with World(1, daemon=False) as world:
        vm = world.vms[0]
        assert ask(world, vm.uuid)["code"] == "NOT_PUBLISHED"
        world.start_daemon(1)
        until(lambda: world.right(vm))
        assert ask(world, vm.uuid)["code"] == "OK"
        world.kill_daemon()
        change(vm)
        found = ask(world, vm.uuid)
        # The published list is the old one, and no monitor updates it.
        assert keys.PS in world.pool.other_config(vm.ref) and not world.right(vm)
        assert found["code"] == "NOT_PUBLISHED" and found["published"] is False, found
        assert world.pool.hosts[1].name_label in found["message"] and "systemctl" in found["next"]
        prepared = world.login("pool-admin").xenapi.host.call_plugin(
            world.pool.hosts[0].ref, "xscontainer", "prepare", {"vmuuid": vm.uuid})
        assert json.loads(prepared[4:])["published"] is False


def test_a_diagnosis_from_any_host_does_not_disturb_the_monitor(world: World) -> None:
    vm = world.vms[0]
    before, accepted, log = world.pool.other_config(vm.ref), vm.guest.accepted, world.log(1)
    for host in (0, 1):
        began = time.monotonic()
        found = ask(world, vm.uuid, host)
        assert found["code"] == "OK", found
        assert found["containers"] == 2 and found["address"] == vm.guest.address
        assert time.monotonic() - began < 3.0
    assert world.pool.other_config(vm.ref) == before
    assert vm.guest.accepted == accepted + 2, "one connection each, and the standing one stands"
    assert "WARNING" not in world.log(1)[len(log):]


def test_the_monitor_names_the_same_cause(world: World) -> None:
    vm = world.vms[1]
    vm.guest.stop()
    world.wait_status(vm, "GUEST_REFUSED")
    assert ask(world, vm.uuid)["code"] == "GUEST_REFUSED"
    vm.guest.start()
    vm.engine.kill()
    world.wait_status(vm, "ENGINE_STOPPED")
    assert ask(world, vm.uuid)["code"] == "ENGINE_STOPPED"
    vm.engine.start()
    world.wait_right(vm)
    assert ask(world, vm.uuid)["code"] == "OK"


def test_the_command_prints_each_step_for_people(world: World) -> None:
    vm = world.vms[0]
    code, out, err = command(world, vm.name)
    assert (code, err) == (0, ""), out
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 15
    assert lines[-1].startswith("OK: All works: Docker ")
    vm.engine.kill()
    try:
        code, out, err = command(world, vm.uuid.upper(), host=1)
        assert (code, err) == (3, ""), out
        lines = out.splitlines()
        assert [line.split()[0] for line in lines[:-2]] == ["ok"] * 9 + ["FAILED"]
        assert lines[-2].startswith("ENGINE_STOPPED: No engine listens on ") and lines[-1].startswith("Next: ")
        code, out, err = command(world, vm.name, "--json")
        assert code == 3 and json.loads(out)["code"] == "ENGINE_STOPPED"
    finally:
        vm.engine.start()
    world.wait_right(vm)


def test_an_unregistered_vm_is_diagnosed_as_such(world: World) -> None:
    vm = world.vms[0]
    ref = world.pool.create_vm("fresh", host=world.pool.hosts[1], networks={"0/ip": vm.guest.address}, other_config={
        key: world.pool.other_config(vm.ref)[key] for key in (keys.USERNAME, keys.SSH_PORT, keys.ENGINE_SOCKET)})
    before = world.pool.other_config(ref)
    code, out, _ = command(world, "fresh")
    assert code == 3 and "ANOTHER_VM" in out and vm.uuid in out, "it reports the address of one that is shown"
    vm.guest.hypervisor.says(world.pool.vm(ref)["uuid"])
    code, out, _ = command(world, "fresh")
    vm.guest.hypervisor.says(None)
    assert code == 3 and "VM_NOT_REGISTERED" in out and "Container management is off for this VM." in out
    assert world.pool.other_config(ref) == before, "nothing is pinned, nothing published"


def test_a_vm_that_does_not_run_is_diagnosed_anywhere(world: World) -> None:
    uuid = world.pool.vm(world.pool.create_vm("off", power_state="Halted"))["uuid"]
    for host in (0, 1):
        found = ask(world, uuid, host)
        assert found["code"] == "VM_NOT_RUNNING" and found["next"] == "Start the VM first."


def test_templates_and_unknown_names_are_refused(world: World) -> None:
    template = world.pool.vm(world.pool.create_vm("template", template=True, power_state="Halted"))["uuid"]
    code, out, _ = command(world, template)
    assert code == 3 and "ARGUMENT_INVALID" in out
    code, out, err = command(world, "nobody")
    assert (code, out) == (4, "") and "no VM 'nobody'" in err
    for _ in range(2):
        world.pool.create_vm("twins", power_state="Halted")
    code, _, err = command(world, "twins")
    assert code == 4 and "2 VMs are named 'twins'" in err
    failure = world.failure(0, "diagnose", vmuuid="11111111-2222-4333-8444-555555555555")
    assert failure[0] == "OBJECT_GONE"
