"""The command ``xscontainer logs -f``: how soon it prints a line that a container writes."""

import os
import subprocess
import sys
import time
from typing import List

from tests.bench.figures import Report, quantile
from tests.bench.scene import Scene
from xscontainer.simulator.engines.log_api import write

LINES = 60


def measure_log_command(report: Report) -> None:
    report.title("xscontainer logs -f: from a line in a container to the line on the screen, on the other host")
    with Scene(1, containers=1) as scene:
        scene.wait_published()
        vm = scene.vms[0]
        command = [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", scene.configs[0], "logs", "-f",
                   f"{vm.name}/container-0000"]
        write(vm.engine.life, "container-0000", "first\n")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
        try:
            assert process.stdout is not None and process.stdout.readline() == b"first\n"
            latencies: List[float] = []
            for number in range(LINES):
                time.sleep(0.05 * (number % 8))  # at any moment of the call that waits
                began = time.monotonic()
                write(vm.engine.life, "container-0000", f"{number}\n")
                assert process.stdout.readline() == f"{number}\n".encode()
                latencies.append(1000 * (time.monotonic() - began))
        finally:
            process.kill()
            process.communicate()
    report.figure("median", quantile(latencies, 0.5), "ms", 1000)
    report.figure("slowest", max(latencies), "ms", 1000)
