"""Measure how much of the daemon's memory hostile guests can use, in a control group with the limit of the unit."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator, List, Optional

from tests.bench.figures import Report
from tests.bench.scene import VM, Scene
from xscontainer import keys
from xscontainer.errors import XapiError
from xscontainer.service.daemon import ENVIRONMENT
from xscontainer.xapi.session import Session

GUESTS = 8  # hostile ones
SECONDS = 20.0
MODES = {"escapes": "lists of 16 MB with escapes", "large": "lists of which all is kept",
         "stall": "such lists that never end", "inspect": "8 inspects at once of what may be decoded"}
UNIT = Path(__file__).resolve().parent.parent.parent / "rpm" / "files" / "xscontainer-monitor.service"
MB = 1e6


class Group:
    """A control group for memory, of either version; a context manager. ``directory`` is "" if there is none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.directory = ""
        self._usage = ""

    def __enter__(self) -> "Group":
        for root, limit, usage in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
                                   ("/sys/fs/cgroup", "memory.max", "memory.current")):
            with contextlib.suppress(OSError):
                directory = tempfile.mkdtemp(prefix="xsbench", dir=root)
                try:
                    Path(directory, limit).write_text(str(self._limit))
                    Path(directory, usage).read_text()
                except OSError:
                    os.rmdir(directory)
                    continue
                self.directory, self._usage = directory, usage
                break
        return self

    def __exit__(self, *_: object) -> None:
        if self.directory:
            os.rmdir(self.directory)

    def join(self) -> None:
        """Put the calling process into the group."""
        if self.directory:
            Path(self.directory, "cgroup.procs").write_text(str(os.getpid()))

    def usage(self, pid: int) -> float:
        """Return the bytes in use; without a group those of the process."""
        if self.directory:
            return float(Path(self.directory, self._usage).read_text())
        return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


class LimitedScene(Scene):
    """A scene whose daemon on the second host runs in a control group and is not restarted."""

    def __init__(self, group: Group, count: int, mode: str) -> None:
        super().__init__(count, daemon=False)
        self.group, self._mode = group, mode
        self._engines: List["subprocess.Popen[bytes]"] = []

    def start_daemon(self, number: int = 1) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "xscontainer.service.daemon", "--config", self.configs[number]],
            env=dict(os.environ, **ENVIRONMENT), preexec_fn=self.group.join)
        self.daemons[number] = process
        return process

    @contextlib.contextmanager
    def attacked(self, guests: "List[VM]") -> "Iterator[None]":
        """Make the engines of these guests hostile for the duration of the block."""
        for vm in guests:
            vm.engine.stop()
            engine = subprocess.Popen([sys.executable, "-m", "tests.bench.hostile_engine", vm.guest.engine_socket,
                                       self._mode], stdout=subprocess.PIPE)
            self._engines.append(engine)
        for engine in self._engines:
            assert engine.stdout is not None
            engine.stdout.readline()
        try:
            yield
        finally:
            for engine in self._engines:
                engine.kill()
                engine.wait()
                engine.stdout.close()  # type: ignore[union-attr]


def unit_limit() -> int:
    """Return the bytes that the unit allows."""
    found = re.search(r"^MemoryLimit=([0-9]+)M$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) << 20


def measure_hostile_memory(report: Report) -> None:
    report.title(f"{GUESTS} hostile guests of 10: memory of the daemon under the unit's limit, {SECONDS:g} s each")
    for mode, what in MODES.items():
        with Group(unit_limit()) as group:
            if not group.directory:
                report.note("no control group for memory here", "the process is measured, without a limit")
            with LimitedScene(group, GUESTS + 2, mode) as scene:
                _measure(report, scene, mode, what)


def _measure(report: Report, scene: LimitedScene, mode: str, what: str) -> None:
    process = scene.start_daemon()
    scene.wait_published()
    time.sleep(3)
    rest = scene.group.usage(process.pid)
    honest, hostile = scene.vms[:2], scene.vms[2:]
    with scene.attacked(hostile):
        peak, refused = 0.0, 0
        calling = _inspecting(scene, hostile) if mode == "inspect" else None
        ends = time.monotonic() + SECONDS
        number, looks = 0, 0
        while time.monotonic() < ends and process.poll() is None:
            peak = max(peak, scene.group.usage(process.pid))
            looks += 1
            if looks % 50 == 0:
                honest[0].engine.do(("pause", "unpause")[number % 2], "container-0000")
                number += 1
            refused += any(keys.STATUS in scene.pool.other_config(vm.ref) for vm in honest)
            time.sleep(0.02)
        if calling is not None:
            calling.shutdown()
        report.figure(f"{what}: peak above rest", (peak - rest) / MB, "MB", 128)
        report.figure("  the daemon was killed", float(process.poll() is not None), "", 0)
        report.figure("  looks at an honest VM that found a status instead of its list", refused, "", 0)


def _inspecting(scene: Scene, hostile: "List[VM]") -> ThreadPoolExecutor:
    """Run eight clients that inspect containers of one guest until the time is over."""
    ends = time.monotonic() + SECONDS

    def one(number: int) -> Optional[str]:
        session = Session.login(scene.pool.coordinator.socket_path, "bench", 60.0, 10.0)
        try:
            while time.monotonic() < ends:
                with contextlib.suppress(XapiError):
                    session.xenapi.host.call_plugin(scene.pool.hosts[1].ref, "xscontainer", "get_inspect",
                                                    {"vmuuid": hostile[number % 2].uuid, "object": "zz"})
        finally:
            session.logout()
        return None

    executor = ThreadPoolExecutor(8)
    for number in range(8):
        executor.submit(one, number)
    return executor
