"""Measure two hundred simultaneous calls to hung guests: their cost for dom0, and the delay of a healthy VM's call."""

import contextlib
import os
import shlex
import sys
import tempfile
import threading
import time
import xmlrpc.client
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Counter as CounterType
from typing import Iterator, List, Tuple

from tests.bench.figures import Report
from tests.bench.scene import VM, Scene, status
from xscontainer.errors import XapiError
from xscontainer.plugin import forward
from xscontainer.xapi.session import Session

CALLS = 200
ALONE = 40  # calls without a daemon
HUNG = 20  # guests
LOOK = 0.02  # s between two samples of the memory
V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
MB = 1e6


class Memory:
    """Measure the memory of all processes in a control group of their own. A context manager.

    Without control groups the private memory of the processes with ``mark`` on their command line is added up.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self.directory = ""
        self.peak = 0.0  # bytes
        self.most = 0  # processes at once
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Memory":
        for root, control in ((V1, "memory.limit_in_bytes"), (V2, "memory.max")):
            with contextlib.suppress(OSError):
                directory = tempfile.mkdtemp(prefix="xsbench", dir=root)
                if os.path.exists(os.path.join(directory, control)):
                    self.directory = directory
                    break
                os.rmdir(directory)
        return self

    def __exit__(self, *_: object) -> None:
        if self.directory:
            os.rmdir(self.directory)

    @contextlib.contextmanager
    def watched(self) -> "Iterator[None]":
        self.peak, self.most = 0.0, 0
        self._ended.clear()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK):
            count, size = self._in_group() if self.directory else self._by_process()
            self.most, self.peak = max(self.most, count), max(self.peak, size)

    def _in_group(self) -> "Tuple[int, float]":
        """Return the memory without the page cache, which the kernel can drop."""
        counted = dict(line.split() for line in self._read("memory.stat").splitlines())
        used = int(self._read("memory.usage_in_bytes" if "cache" in counted else "memory.current"))
        return len(self._read("cgroup.procs").split()), used - int(counted.get("cache", counted.get("file", 0)))

    def _read(self, name: str) -> str:
        with open(os.path.join(self.directory, name), encoding="ascii") as stream:
            return stream.read()

    def _by_process(self) -> "Tuple[int, float]":
        count, size = 0, 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{pid}/cmdline", "rb") as stream:
                    ours = self._mark in stream.read()
                if ours:
                    with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
                        fields = stream.read().split()
                    count, size = count + 1, size + (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
        return count, float(size)


class Flood:
    """Simultaneous calls to hung guests, with a call to a healthy VM now and then.

    :param memory: of the plugin's processes.
    """

    def __init__(self, scene: Scene, memory: Memory) -> None:
        self.scene, self.memory = scene, memory
        self.codes: CounterType[str] = Counter()
        self.healthy: List[float] = []  # seconds; through XAPI, where each call is a process
        self.direct: List[float] = []  # the same without XAPI and that process
        self.refused: List[str] = []  # the healthy calls that failed

    def run(self, count: int, function: str, hung: "List[VM]") -> float:
        """Return the seconds until the last call is answered."""
        self.codes, self.healthy, self.direct, self.refused = Counter(), [], [], []
        ended = threading.Event()
        watcher = threading.Thread(target=self._call_healthy, args=(ended,))
        sessions = [self._session() for _ in range(count)]
        began = time.monotonic()
        with self.memory.watched(), ThreadPoolExecutor(count) as callers:
            watcher.start()
            for code in callers.map(lambda number: self._call(
                    function, hung[number % len(hung)], sessions[number]), range(count)):
                self.codes[code] += 1
            ended.set()
        watcher.join()
        seconds = time.monotonic() - began
        for session in sessions:
            session.logout()
        return seconds

    def _session(self) -> Session:
        return Session.login(self.scene.pool.coordinator.socket_path, "bench", 300.0, 60.0)

    def _call(self, function: str, vm: VM, session: Session) -> str:
        try:
            session.xenapi.host.call_plugin(self.scene.pool.hosts[1].ref, "xscontainer", function, {
                "vmuuid": vm.uuid, "container": "container-0000", "object": "container-0000"})
            return "answered"
        except XapiError as error:
            return (error.details or [error.code])[0]

    def _ask_daemon(self) -> None:
        """Call the daemon like the plugin's process, without that process and XAPI."""
        argument = xmlrpc.client.dumps(("OpaqueRef:session", {
            "vmuuid": self.scene.vms[0].uuid, "object": "container-0000"}), "get_top").encode("utf-8")
        began = time.monotonic()
        path = os.path.join(self.scene.pool.hosts[1].directory, "run", "daemon.sock")
        answer = forward.ask_daemon(path, argument, 10.0)
        self.direct.append(time.monotonic() - began)
        if b"docker_top" not in answer:
            self.refused.append(answer.decode("utf-8", "replace")[:200])

    def _call_healthy(self, ended: threading.Event) -> None:
        session = self.scene.session
        while not ended.wait(0.1):
            if self.scene.daemons:
                self._ask_daemon()
            began = time.monotonic()
            code = self._call("get_top", self.scene.vms[0], session)
            self.healthy.append(time.monotonic() - began)
            if code != "answered":
                self.refused.append(code)


def _enter_group(scene: Scene, memory: Memory) -> None:
    """Start the plugin's processes of the second host in the control group."""
    path = os.path.join(scene.pool.hosts[1].plugin_dir, "xscontainer")
    with open(path, encoding="utf-8") as stream:
        first, rest = stream.readline(), stream.read()
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(f"{first}echo $$ > {shlex.quote(memory.directory)}/cgroup.procs\n{rest}")


def measure_busy(report: Report) -> None:
    report.title(f"{CALLS} calls at once to hung guests")
    with Memory("xapi-plugins/xscontainer") as memory, Scene(HUNG + 1) as scene:
        if memory.directory:
            _enter_group(scene, memory)
        report.note("memory is measured", "in a control group" if memory.directory else "process by process")
        scene.wait_published()
        flood, hung = Flood(scene, memory), scene.vms[1:]
        monitor = scene.daemons[1].pid
        for vm in hung:
            vm.engine.freeze()
        for function, vms, what in (("get_top", hung[:1], "1 hung engine"), ("get_top", hung, f"{HUNG} hung engines")):
            _flood(report, flood, monitor, function, vms, what)
        for vm in hung:
            vm.guest.freeze()
        for function, vms, what in (("diagnose", hung[:1], "1 frozen guest"),
                                    ("diagnose", hung, f"{HUNG} frozen guests")):
            _flood(report, flood, monitor, function, vms, what)
        scene.stop_daemons()
        took = flood.run(ALONE, "diagnose", hung[:1])
        report.note(f"{ALONE} x diagnose without a daemon", f"{dict(flood.codes)} in {took:.3g} s")
        report.figure("memory of the processes, without a daemon", memory.peak / MB, "MB", 250)
        for vm in hung:
            vm.guest.thaw()
            vm.engine.thaw()


def _flood(report: Report, flood: Flood, monitor: int, function: str, vms: "List[VM]", what: str) -> None:
    before = status(monitor, "VmRSS")
    took = flood.run(CALLS, function, vms)
    grown = max(0, status(monitor, "VmRSS") - before) * 1024
    name = f"{function}, {what}"
    report.note(f"{name}: answers", f"{dict(flood.codes)} in {took:.3g} s, {flood.memory.most} processes at once")
    report.figure(f"{name}: memory of dom0's processes", (flood.memory.peak + grown) / MB, "MB", 100)
    report.figure(f"{name}: call to a healthy VM, worst", max(flood.healthy), "s", 1.0)
    report.figure(f"{name}: of this in the daemon, worst", max(flood.direct), "s", 0.7)
    report.figure(f"{name}: calls to a healthy VM refused", len(flood.refused), "", 0)
    sys.stdout.flush()
