"""Pools of hosts, VMs and containers as values, for tests of the listing."""

from typing import Any, Optional, Sequence

from xscontainer.clients.inventory import VM, Host, Pool, Problem
from xscontainer.core.container import Container
from xscontainer.core.groups import Group


def container(name: str, state: str = "running", project: str = "", **fields: Any) -> Container:
    container_id = name.encode("utf-8", "surrogatepass").hex().ljust(64, "0")[:64]
    made = Container(container_id, name, "busybox", "sleep", 1, state,
                     group=Group("compose", project) if project else Group())
    return made._replace(**fields)


def vm(name: str, *containers: Container, uuid: str = "", problem: "Optional[Problem]" = None, **fields: Any) -> VM:
    number = sum(map(ord, name))
    made = VM(uuid or f"{number:08x}-0000-4000-8000-{number:012x}", name, "Running", True, "20.10", "1.41", containers,
              problem=problem)
    return made._replace(**fields)


def pool(*vms: VM, nowhere: "Sequence[VM]" = ()) -> Pool:
    """Return a pool of two hosts; the VMs alternate between them."""
    hosts = tuple(Host(f"0000000{number}-0000-4000-8000-000000000000", f"host{number}", f"10.0.0.{number}",
                       number == 1, tuple(vms[number - 1::2])) for number in (1, 2))
    return Pool("99999999-0000-4000-8000-000000000000", "pool", hosts, tuple(nowhere))
