"""The record of events: how soon a caller that waits has an event, and what the record costs if nobody looks."""

import json
import threading
import time
from typing import Any, Dict, List

from tests.bench.figures import Report, quantile
from tests.bench.scene import Scene, status
from xscontainer.core.event_log import MOST_EVENTS

EVENTS = 40
VMS = 20


def measure_events(report: Report) -> None:
    report.title("get_events: from a container event to the answer of a call that waits for it, on the other host")
    with Scene(1, containers=2) as scene:
        scene.wait_published()
        vm = scene.vms[0]

        def get_events(**arguments: str) -> Dict[str, Any]:
            found: Dict[str, Any] = json.loads(scene.call(0, "get_events", vmuuid=vm.uuid, **arguments)[4:])
            return found

        latencies: List[float] = []
        for number in range(EVENTS):
            answers: List[float] = []
            last = str(get_events()["last"])

            def ask(last: str = last, answers: "List[float]" = answers) -> None:
                assert len(get_events(after=last, wait="20")["events"]) == 1
                answers.append(time.monotonic())

            thread = threading.Thread(target=ask)
            thread.start()
            time.sleep(0.3)
            began = time.monotonic()
            vm.engine.do("unpause" if number % 2 else "pause", "container-0000")
            thread.join(25)
            latencies.append(1000 * (answers[0] - began))
        report.figure("median", quantile(latencies, 0.5), "ms", 100)
        report.note("slowest", f"{max(latencies):10.4g} ms")


def measure_unwatched_events(report: Report) -> None:
    report.title(f"Nobody looks: {VMS} VMs with {2 * MOST_EVENTS} signals to containers, which change no list")
    with Scene(VMS, containers=2) as scene:
        scene.wait_published()
        time.sleep(3.0)
        for vm in scene.vms:
            vm.engine.requests.clear()
        scene.pool.stats.reset()
        pid = scene.daemons[1].pid
        before = status(pid, "VmRSS")
        for _ in range(2 * MOST_EVENTS):
            for vm in scene.vms:
                vm.engine.do("kill", "container-0000", signal="SIGHUP")
        time.sleep(1.0)
        others = {name: calls for name, calls in scene.pool.stats.by_method("xscontainer").items()
                  if name != "event.from"}
        report.figure("requests to engines", sum(sum(vm.engine.requests.values()) for vm in scene.vms), "", 0)
        report.figure("calls to XAPI, but event.from", sum(others.values()), "", 0)
        report.figure("memory of a full record", (status(pid, "VmRSS") - before) / VMS, "KB", 60)
