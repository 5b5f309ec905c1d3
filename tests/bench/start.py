"""The start of ``xscontainer``: the help, a list on a pipe, and the answers to a shell that completes a line.

The program runs as the pack starts it: without site-packages and without directories from environment variables.
"""

import os
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List

from tests.bench.figures import Report, quantile
from tests.bench.listing import full_pool
from xscontainer import keys
from xscontainer.clients import xmlform
from xscontainer.core.container import containers_from_api
from xscontainer.simulator.install import ROOT
from xscontainer.simulator.xapi import Pool

ROUNDS = 21
_PROGRAM = "import sys; sys.path[:0] = {paths!r}; from xscontainer.cli import main; sys.exit(main())"


def _seconds(arguments: "List[str]", more: "Dict[str, str]") -> float:
    paths = [ROOT] + [path for path in sys.path if path.endswith("site-packages")]
    started = time.monotonic()
    subprocess.run([sys.executable, "-W", "ignore", "-IS", "-c", _PROGRAM.format(paths=paths), *arguments], check=True,
                   stdout=subprocess.DEVNULL, env=dict(os.environ, **more))
    return time.monotonic() - started


def _figure(report: Report, what: str, most: float, *arguments: str, **more: str) -> None:
    times = [_seconds(list(arguments), more) for _ in range(ROUNDS)]
    report.figure(f"{what}, median", quantile(times, 0.5) * 1000, "ms", most)
    report.note(f"{what}, fastest", f"{min(times) * 1000:10.4g} ms")


def measure_start(report: Report) -> None:
    report.title("xscontainer: from the start of the process to its end")
    with tempfile.TemporaryDirectory(prefix="xsb") as directory:
        with Pool(os.path.join(directory, "p"), hosts=1, tcp=False) as pool:
            entries: List[Any] = [{"Id": f"{number:064x}", "Names": [f"/c{number}"], "Image": "busybox", "Created": 1,
                                   "State": "running", "Status": "Up 1 hour", "Ports": []} for number in range(20)]
            for number in range(5):
                pool.create_vm(f"vm{number}", host=pool.hosts[0], other_config={
                    keys.MONITOR: "True", keys.PS: xmlform.docker_ps(containers_from_api(entries).containers).text})
            config = os.path.join(directory, "conf")
            with open(config, "w", encoding="utf-8") as stream:
                stream.write(f"[xapi]\nsocket = {pool.hosts[0].socket_path}\n")
            _figure(report, "--help", 150, "--help")
            _figure(report, "ps of 100 containers on a pipe", 150, "--config", config, "ps")


def measure_completion(report: Report) -> None:
    report.title("the completion of a line, 2,000 containers in 100 VMs")
    with full_pool() as (_, config):
        answer = os.path.join(os.path.dirname(config), "answer")
        for what, line in (("a command", "xscontainer diagn"), ("a VM", "xscontainer diagnose vm"),
                           ("a container", "xscontainer stop vm042/")):
            _figure(report, what, 100, XSCONTAINER_CONF=config, _ARGCOMPLETE="1", COMP_LINE=line,
                    COMP_POINT=str(len(line)), _ARGCOMPLETE_STDOUT_FILENAME=answer)
            if not os.path.getsize(answer):
                raise RuntimeError(f"there is no answer for {line!r}")
