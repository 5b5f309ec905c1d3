"""A simulated pool whose VMs have engines of different kinds."""

from typing import Any, Dict, Iterator

from xscontainer.simulator.engines import EmbeddedEngine, Identity
from xscontainer.simulator.engines.container import Load
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

IDENTITIES = {
    "old": Identity(),  # Docker 20.10, which collects once a second
    "new": Identity("29.0.0", "1.52", "1.44"),
    "podman": Identity("4.3.1", "1.41", "1.24", product="Podman Engine"),
}
ONE, ALL = "GET /containers/{}/stats", "GET /libpod/containers/stats"
BUSY = Load(cores=1.5, memory=100 << 20, pids=7)


def pool(directory: str, daemons: bool = True) -> Iterator[World]:
    """Yield a pool with a VM for each of IDENTITIES. Each has three containers: busy, idle, and one that does not run.
    """
    containers = tuple(ContainerSpec(name, state=state) for name, state in (
        ("busy", "running"), ("idle", "running"), ("ended", "exited")))
    guests = tuple(GuestSpec(name, (), 0) for name in IDENTITIES)
    with World(directory, hosts=2, guests=guests, parts=Parts(engine="embedded", daemons=False)) as made:
        engines: Dict[str, Any] = {}
        try:
            for name, identity in IDENTITIES.items():
                vm = made.vm(name)
                vm.engine.stop()
                engine = EmbeddedEngine(vm.engine.directory, vm.engine.socket_path, identity)
                engines[name] = engine
                engine.start()
                vm.engine = vm.guest.engine = engine
                for spec in containers:
                    engine.run(spec.name, spec.command)
                engine.do("stop", "ended")
                with engine.life.lock:
                    engine.life.find("busy").load = BUSY
                    for spec in containers:  # docker's first figure is that of the second before
                        engine.life.find(spec.name).started -= 60.0
            if daemons:
                made.start_daemons()
                for name in IDENTITIES:
                    made.wait_published(name, lambda listed: "busy" in listed)
            yield made
        finally:
            for engine in engines.values():
                engine.close()


def readings(engine: Any) -> int:
    """Return how often the engine was asked for stats."""
    return int(engine.requests[ONE] + engine.requests[ALL])
