"""The measurements, one function each; the targets are those of the project."""

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, List

from tests.bench.figures import Report, quantile
from tests.bench.scene import VM, Scene, cpu, status, wakeups
from tests.bench.tls import OverTLS
from xscontainer import keys
from xscontainer.core.pacing import Backoff
from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.engines.real import RealEngine

EVENTS = 40
PACE = 0.9  # seconds between events of one VM, so that none waits for the pacing of writes


def _toggle(scene: Scene, vm: VM, number: int) -> float:
    """Pause or resume a container; return the milliseconds from the engine's event to the new list in XAPI."""
    verb, shown = (("pause", "Up (Paused)"), ("unpause", "Up"))[number % 2]
    before = scene.ps(vm)
    events = vm.engine.new_client().events(decode=True) if isinstance(vm.engine, RealEngine) else None
    started = time.time()
    done: List[float] = []
    watcher = threading.Thread(target=lambda: done.append(_when_changed(scene, vm, before)))
    watcher.start()
    vm.engine.do(verb, "container-0000")
    if events is not None:
        for event in events:
            if event.get("Action") == verb:
                started = event["timeNano"] / 1e9
                break
        events.close()
    watcher.join()
    assert f"<status>{shown}</status>" in scene.ps(vm)
    return (done[0] - started) * 1000


def _when_changed(scene: Scene, vm: VM, before: str) -> float:
    scene.wait(lambda: scene.ps(vm) not in ("", before), 10.0)
    return time.time()


def _latencies(report: Report, what: str, scene: Scene) -> None:
    latencies = []
    for number in range(2 * EVENTS):
        vm = scene.vms[(number // 2) % len(scene.vms)]
        latencies.append(_toggle(scene, vm, number))
        time.sleep(PACE if len(scene.vms) == 1 else PACE / 4)
    report.figure(f"event -> list in XAPI, {what}, median", quantile(latencies, 0.5), "ms", 15)
    report.figure(f"event -> list in XAPI, {what}, p95", quantile(latencies, 0.95), "ms", 40)


def measure_latency(report: Report) -> None:
    report.title("A container changes: when can clients read it?")
    why_not = RealEngine.missing()
    if why_not:
        report.note("a real dockerd", f"not measured: {why_not}")
    else:
        with Scene(1, real=True) as scene:
            scene.wait_published()
            _latencies(report, "1 VM, real dockerd", scene)
    with Scene(100) as scene:
        scene.wait_published()
        _latencies(report, "100 VMs, light engines", scene)


def measure_tls(report: Report) -> None:
    report.title("The same over TLS: the engine's own port instead of SSH")
    if RealEngine.missing():
        report.note("a real dockerd", f"not measured: {RealEngine.missing()}")
        return
    with OverTLS(1) as scene:
        scene.wait_published()
        _latencies(report, "1 VM, dockerd over TLS", scene)
        report.figure("pause, get_inspect, get_top; with the daemon, median",
                      quantile(_overheads(scene, 1, 10), 0.5), "ms", 40)
        scene.stop_daemons()
        report.figure("pause, get_inspect, get_top; without the daemon, median",
                      quantile(_overheads(scene, 1, 4), 0.5), "ms", 600)


class OverPodman(Scene):
    REAL = PodmanEngine


def measure_podman(report: Report) -> None:
    report.title("Podman instead of dockerd")
    if PodmanEngine.missing():
        report.note("a real podman", f"not measured: {PodmanEngine.missing()}")
        return
    with OverPodman(1, real=True) as scene:
        scene.wait_published()
        # This Podman keeps its events in a file, and reads that four times a second.
        own = _told_after(scene.vms[0])
        report.note("podman's own delay until it tells an event, median", f"{quantile(own, 0.5):10.4g} ms")
        latencies = []
        for number in range(EVENTS):
            latencies.append(_toggle(scene, scene.vms[0], number))
            time.sleep(PACE)
        report.figure("event -> list in XAPI, podman, median", quantile(latencies, 0.5), "ms", 300)
        report.figure("event -> list in XAPI, podman, p95", quantile(latencies, 0.95), "ms", 400)
        report.figure("pause, get_inspect, get_top; with the daemon, median",
                      quantile(_overheads(scene, 1, 10), 0.5), "ms", 40)


def _told_after(vm: VM) -> "List[float]":
    """Return the milliseconds from an event until a client at the engine's own socket reads it."""
    client, delays = vm.engine.new_client(), []
    events = client.events(decode=True)
    for number in range(EVENTS):
        vm.engine.do(("pause", "unpause")[number % 2], "container-0000")
        happened = next(events)["timeNano"]
        delays.append(time.time() * 1000 - happened / 1e6)
        time.sleep(PACE)
    events.close()
    client.close()
    return delays


def _overheads(scene: Scene, host: int, rounds: int) -> "List[float]":
    """Return the milliseconds that plugin calls take longer than the engine's own work."""
    vm, name = scene.vms[0], "container-0000"
    client = vm.engine.new_client()
    pairs: List[Any] = [
        ("pause", lambda: client.pause(name), lambda: client.unpause(name)),
        ("get_inspect", lambda: client.inspect_container(name), None),
        ("get_top", lambda: client.top(name), None),
    ]
    overheads = []
    try:
        for _ in range(rounds):
            for function, own, undo in pairs:
                alone = _timed(own)
                if undo:
                    undo()
                through = _timed(functools.partial(
                    scene.call, host, function, vmuuid=vm.uuid, container=name, object=name))
                if undo:
                    undo()
                overheads.append((through - alone) * 1000)
                time.sleep(0.05)
    finally:
        client.close()
    return overheads


def _timed(work: "Callable[[], Any]") -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _start_stop(scene: Scene, host: int, rounds: int) -> "List[float]":
    """Return the same as _overheads for a container that stops immediately, so that only the engine's work remains."""
    vm, name = scene.vms[0], "obedient"
    vm.engine.run(name, ("sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"))
    client = vm.engine.new_client()
    overheads = []
    try:
        for _ in range(rounds):
            for own, function in ((client.stop, "stop"), (client.start, "start")):
                undo = client.start if function == "stop" else client.stop
                alone = _timed(partial(own, name))
                undo(name)
                through = _timed(partial(scene.call, host, function, vmuuid=vm.uuid, container=name))
                overheads.append((through - alone) * 1000)
    finally:
        client.close()
    return overheads


def measure_plugin(report: Report) -> None:
    report.title("host.call_plugin: how much longer than the engine's own work?")
    if RealEngine.missing():
        report.note("a real dockerd", f"not measured: {RealEngine.missing()}")
        return
    with Scene(1, real=True) as scene:
        scene.wait_published()
        report.figure("pause, get_inspect, get_top; with the daemon, median",
                      quantile(_overheads(scene, 1, 10), 0.5), "ms", 40)
        report.figure("start, stop; with the daemon, median", quantile(_start_stop(scene, 1, 15), 0.5), "ms", 40)
        # Two plugin processes, and twice through XAPI.
        report.figure("pause, get_inspect, get_top sent to the other host, median",
                      quantile(_overheads(scene, 0, 10), 0.5), "ms", 80)
        rounds = [_ten(scene) for _ in range(5)]
        report.note("ten get_inspect at once, five rounds", " ".join(f"{seconds:.3g}" for seconds in rounds))
        report.figure("ten get_inspect at once, until the last is answered, median", quantile(rounds, 0.5), "s", 0.4)
        scene.stop_daemons()
        report.figure("pause, get_inspect, get_top; without the daemon, median",
                      quantile(_overheads(scene, 1, 4), 0.5), "ms", 600)


def _ten(scene: Scene) -> float:
    """Return the seconds until ten clients, each with a session of its own, have their answers."""
    from xscontainer.xapi.session import Session

    vm = scene.vms[0]
    sessions = [Session.login(scene.pool.coordinator.socket_path, "bench", 60.0, 10.0) for _ in range(10)]
    try:
        started = time.monotonic()
        with ThreadPoolExecutor(10) as executor:
            for result in executor.map(lambda session: session.xenapi.host.call_plugin(
                    scene.pool.hosts[1].ref, "xscontainer", "get_inspect",
                    {"vmuuid": vm.uuid, "object": "container-0000"}), sessions):
                assert result.startswith("True<?xml")
        return time.monotonic() - started
    finally:
        for session in sessions:
            session.logout()


def measure_start(report: Report) -> None:
    report.title("100 VMs: the monitor starts, and then nothing happens")
    with Scene(100, daemon=False) as scene:
        process = scene.start_daemon()
        seconds = scene.wait_published()
        report.figure("until all are published", seconds, "s", 6)
        report.figure("CPU of the monitor until then", cpu(process.pid), "s", 4)
        report.figure("SSH connections for each VM", sum(vm.guest.accepted for vm in scene.vms) / 100.0, "", 1)
        time.sleep(8)
        report.figure("memory (RSS)", status(process.pid, "VmRSS") / 1000.0, "MB", 55)
        report.note("threads", status(process.pid, "Threads"))
        scene.pool.stats.reset()
        spent, waited, started = cpu(process.pid), wakeups(process.pid), time.monotonic()
        time.sleep(30)
        elapsed = time.monotonic() - started
        report.figure("CPU while idle", (cpu(process.pid) - spent) / elapsed * 100, "%", 0.5)
        report.figure("wake-ups of a VM's threads while idle",
                      (wakeups(process.pid) - waited) / elapsed / 100, "/s", 0.5)
        others = {name: calls for name, calls in scene.pool.stats.by_method("xscontainer").items()
                  if name != "event.from"}
        report.figure("XAPI calls while idle, but event.from", sum(others.values()), "", 0)


def measure_writes(report: Report) -> None:
    report.title("What a change costs XAPI")
    with Scene(1, containers=50) as scene:
        scene.wait_published()
        vm = scene.vms[0]
        time.sleep(2.5)
        calls, sizes = [], []
        for number in range(10):
            scene.pool.stats.reset()
            _toggle(scene, vm, number)
            time.sleep(2.0)
            counted = {name: count for name, count in scene.pool.stats.by_method("xscontainer").items()
                       if name != "event.from"}
            calls.append(sum(counted.values()))
            sizes.append(sum(scene.pool.stats.bytes(name, "xscontainer") for name in counted) / 1000.0)
        report.figure("XAPI calls of one event", quantile(calls, 0.95), "", 2)
        report.figure("bytes written by one event, 50 containers", quantile(sizes, 0.95), "KB", 26)
        _burst(report, scene, vm)


def _burst(report: Report, scene: Scene, vm: VM) -> None:
    scene.pool.stats.reset()
    started = time.monotonic()
    for number in range(200):
        vm.engine.do(("pause", "unpause")[number % 2], "container-0000")
        time.sleep(max(0.0, started + (number + 1) * 0.025 - time.monotonic()))
    vm.engine.do("stop", "container-0001")
    last = scene.wait(lambda: scene.ps(vm).count("<status>Exited") == 1, 10.0)
    writes = scene.pool.stats.calls("VM.add_to_other_config", "xscontainer")
    report.figure("200 events in 5 s: writes", writes, "", 12)
    report.figure("200 events in 5 s: the last state is shown after", last, "s", 1.2)
    time.sleep(4)
    report.figure("writes after that", scene.pool.stats.calls("VM.add_to_other_config", "xscontainer") - writes, "", 0)


def measure_thousand(report: Report) -> None:
    report.title("600 containers in one VM")
    with Scene(1, containers=600) as scene:
        scene.wait_published()
        text = scene.ps(scene.vms[0])
        report.figure("containers that are not listed", 600 - text.count("<entry>"), "", 0)
        report.note("bytes for each container", f"{len(text) / 600.0:10.4g}")
        report.note("fields dropped", text.partition("<dropped>")[2].partition("<")[0] or "none")


def measure_other_writer(report: Report) -> None:
    report.title("Another client writes its own key while events flow")
    with Scene(1) as scene:
        scene.wait_published()
        vm, xapi, lost = scene.vms[0], scene.session.xenapi, 0
        for number in range(500):
            if number % 5 == 0:
                vm.engine.do(("pause", "unpause")[number // 5 % 2], "container-0000")
            xapi.VM.remove_from_other_config(vm.ref, "theirs")
            xapi.VM.add_to_other_config(vm.ref, "theirs", str(number))
            lost += xapi.VM.get_other_config(vm.ref).get("theirs") != str(number)
        report.figure("of 500 updates lost", lost, "", 0)


def measure_recovery(report: Report) -> None:
    report.title("Something goes away and comes back: until the list is right again")
    with Scene(1, containers=9) as scene:
        vm = scene.vms[0]
        scene.wait_published()
        running = 0

        def start_some(more: int) -> None:
            """Start more containers than the list before the outage has."""
            nonlocal running
            running += more
            for number in range(running):
                vm.engine.do("start", f"container-{number:04}")

        def shown() -> bool:
            return scene.ps(vm).count("<status>Up<") == running

        for container in range(9):
            vm.engine.do("stop", f"container-{container:04}")
        scene.wait(lambda: scene.ps(vm).count("<status>Up<") == 0)
        for down in (1.0, 8.0):
            vm.engine.stop()
            time.sleep(down)
            vm.engine.start()
            start_some(2)
            report.figure(f"engine down for {down:g} s", scene.wait(shown, 30.0), "s", 3)
        for down in (0.0, 1.0, 8.0):
            time.sleep(2 * Backoff.STEADY)  # otherwise it would count as a part of the previous failure
            vm.guest.stop()
            time.sleep(down)
            vm.guest.start()
            start_some(1)
            report.figure(f"sshd down for {down:g} s" if down else "sshd restarted", scene.wait(shown, 30.0), "s", 3)
        hosts = ((scene.pool.hosts[1], "xapi of the host"), (scene.pool.coordinator, "xapi of the coordinator"))
        for host, what in hosts:
            host.crash()
            start_some(1)
            time.sleep(1.0)
            seconds = _timed(host.restart) + scene.wait(shown, 30.0)
            report.figure(f"{what} restarted, with an event meanwhile", seconds, "s", 3)
        assert keys.STATUS not in scene.pool.other_config(vm.ref)
