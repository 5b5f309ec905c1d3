"""The command unprepare on a simulated pool."""

from typing import Any, Iterator

import pytest

from tests.cli.shown import Commands
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from xscontainer import keys
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

SPECS = tuple(GuestSpec(name, (ContainerSpec("web"),), host=number % 2)
              for number, name in enumerate(("one", "two", "three", "four")))


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), guests=SPECS, parts=Parts(ssh="embedded", engine="embedded")) as made:
        made.wait_all_published()
        yield made


def test_several_vms_are_unprepared_and_one_that_is_off_does_not_stop_them(world: World, run: Commands) -> None:
    world.vm("two").guest.stop()
    shown = run("unprepare", "one", "two", "three")
    assert shown.code == 1
    assert shown.out == ("one: no longer prepared; the pool's key was removed from the guest.\n"
                         "three: no longer prepared; the pool's key was removed from the guest.\n")
    assert shown.err.startswith("xscontainer: two: GUEST_REFUSED: ") and "unprepare --forget" in shown.err
    assert keys.HOST_KEY not in world.vm("one").other_config and keys.HOST_KEY in world.vm("two").other_config
    shown = run("unprepare", "--forget", "two")
    assert (shown.code, shown.out) == (0, "two: no longer prepared; the guest was left alone.\n")
    assert "Remove this key" in shown.err and "ssh-rsa " in shown.err and shown.err.count("\n") == 1
    assert keys.HOST_KEY not in world.vm("two").other_config


def test_the_exit_code_of_one_vm_is_that_of_its_error(world: World, run: Commands) -> None:
    world.vm("four").guest.stop()
    assert run("unprepare", "four").code == 5
    assert run("unprepare", "nobody").code == 4
    assert run("unprepare", "o", "thr").code == 0  # beginnings; a second time changes nothing
