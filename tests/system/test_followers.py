"""Many clients follow the logs of noisy containers and read nothing."""

import json
import time
from typing import Any, Dict, Iterator

import pytest

from tests.bench.scene import status
from tests.noise import noise
from xscontainer.errors import XapiError
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World
from xscontainer.simulator.world.vm import WorldVM

CLIENTS = 24  # tests.bench.logs has 50
ALLOWED = 16
NOISE = 1.0  # s
TEXT = ("x" * 2000 + "\n") * 10  # that a container writes at once
MOST_GROWTH = 2000  # KiB; what the containers write meanwhile is twenty times as much


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    guests = [GuestSpec(f"web-{number}", (ContainerSpec("alpha"),), host=0) for number in range(5)]
    with World(str(tmp_path_factory.mktemp("w")) + "/w", hosts=1, guests=guests,
               parts=Parts(ssh="embedded", engine="embedded")) as made:
        made.wait_all_published()
        yield made


def logs(world: World, vm: WorldVM, **arguments: str) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(world.call(
        0, "get_logs", vmuuid=vm.uuid, container="alpha", **arguments)[len("True"):])
    return found


def test_clients_that_read_nothing_cost_no_memory_and_no_call_of_others(world: World) -> None:
    *noisy, other = world.vms
    pid = world.daemon(0).pid
    tokens, refused = [], []
    with noise(noisy, "alpha", TEXT, 0.001) as count:
        for number in range(CLIENTS):
            vm = noisy[number % len(noisy)]
            try:
                token = logs(world, vm, follow="new", tail="0")["follow"]
                logs(world, vm, follow=token, wait="0")
                tokens.append((vm, token))
            except XapiError as error:
                refused.append(error.details[0])
        assert len(tokens) >= ALLOWED and set(refused) == {"BUSY"}
        before, written, until = status(pid, "VmRSS"), count[0], time.monotonic() + NOISE
        while time.monotonic() < until:
            assert world.call(0, "get_inspect", vmuuid=other.uuid, object="alpha").startswith("True<?xml")
        growth = status(pid, "VmRSS") - before
        assert growth < MOST_GROWTH < (count[0] - written) * len(TEXT) / 1024 / 5, (growth, count[0] - written)
    # A reader that comes back gets what fits, and learns how much it has missed. On a slow machine the first ones have
    # lost their places to later ones.
    alive = 0
    for vm, token in tokens:
        try:
            found = logs(world, vm, follow=token, wait="5")
        except XapiError as error:
            assert error.details[0] == "FOLLOW_LOST"
            continue
        alive += 1
        assert found["lines"] or found["dropped"]
        assert sum(len(line["text"]) for line in found["lines"]) < 300000
    assert alive == ALLOWED
