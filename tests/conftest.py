"""Rules that every test keeps, enforced here.

* A test leaves nothing behind: no thread, no child process (nor one that lost its parent), no open
  socket, no file in the directory for temporary files, which is the run's own. What was there when it
  began, such as what fixtures of a wider scope keep, is not counted.
* A test ends: after 120 seconds it fails, and if it does not even then, the run is aborted with the
  stacks of all threads. ``@pytest.mark.limit(seconds)`` sets another limit. It holds for set-up, call and
  tear-down each.
* Under CI (the environment variable CI is not empty) a skip is a failure: every part must be there.
* Quick answers come first: the tests directly in tests/, then those in its directories, then
  those that carry ``@pytest.mark.real`` (real servers, seconds rather than milliseconds).
"""

import faulthandler
import gc
import glob
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from types import FrameType
from typing import TYPE_CHECKING, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Set, Tuple

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.clients import Reader

CI = bool(os.environ.get("CI"))
LIMIT_SECONDS = 120.0
ABORT_SECONDS = 30.0
SETTLE_SECONDS = 3.0
# Linux's number; Python does not name it. Before 3.7 it does not find the family by itself either.
SO_DOMAIN = 39
# Every process that a test starts inherits this, also one whose parent is gone.
RUN_VARIABLE = "XSCONTAINER_TEST_RUN"
RUN_ID = uuid.uuid4().hex
# pytest's directory among the temporary files; it removes itself what it makes there.
OF_PYTEST = "p"

_examples = 200 if CI else 50
hypothesis.settings.register_profile(
    "xscontainer",
    deadline=None,
    max_examples=_examples,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("xscontainer")

_true_stderr: List[int] = []
# What TMPDIR was, and the directory for temporary files that is the run's own.
_temporary: List[Tuple[Optional[str], str]] = []


# First, so that pytest's own tmp_path comes to lie in our directory.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: runs against real servers and takes seconds; such tests come last")
    config.addinivalue_line("markers", "limit(seconds): the time after which set-up, call or tear-down fails")
    os.environ[RUN_VARIABLE] = RUN_ID
    # At this moment pytest does not capture, so this is the terminal; later descriptor 2 is a file.
    _true_stderr.append(os.dup(2))
    _temporary.append((os.environ.get("TMPDIR"), _own_directory(config)))
    os.environ["TMPDIR"] = tempfile.tempdir = _temporary[-1][1]
    # A worker of pytest-xdist is given one below the first process's: another run's, and too long for sockets.
    if config.option.basetemp is None or hasattr(config, "workerinput"):
        config.option.basetemp = os.path.join(_temporary[-1][1], OF_PYTEST)


def _own_directory(config: pytest.Config) -> str:
    """With a short name, as sockets are made far below; that of a worker of pytest-xdist lies beside the run's."""
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    if not worker:
        return tempfile.mkdtemp(prefix="xt")
    directory = os.environ["TMPDIR"] + worker[len("gw"):]
    os.mkdir(directory, 0o700)
    return directory


def pytest_unconfigure(config: pytest.Config) -> None:
    faulthandler.cancel_dump_traceback_later()
    os.environ.pop(RUN_VARIABLE, None)
    while _temporary:
        before, directory = _temporary.pop()
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(directory, ignore_errors=True)
        if not hasattr(config, "workerinput"):
            for left in glob.glob(glob.escape(directory) + "*"):  # by a worker that died
                shutil.rmtree(left, ignore_errors=True)
    while _true_stderr:
        os.close(_true_stderr.pop())


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> Tuple[bool, bool]:
        directory = os.path.dirname(item.nodeid.split("::")[0])
        return item.get_closest_marker("real") is not None, "/" in directory

    items.sort(key=rank)


# Under CI nothing may be skipped.


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        item.user_properties.append(("failed", report.when))
    # What tests log or fail with can hold halves of characters, which a worker cannot send on.
    report.sections = [(name, _sendable(text)) for name, text in report.sections]
    if report.longrepr and _sendable(str(report.longrepr)) != str(report.longrepr):
        report.longrepr = _sendable(str(report.longrepr))
    # An expected failure is reported as a skip, too; it did run.
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure under CI: {_reason(report.longrepr)}"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure under CI: {_reason(report.longrepr)}"


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _reason(longrepr: object) -> str:
    """A skip is told as (file, line, reason)."""
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)


# A test ends.


class _Limit:
    """Fails the test after its limit, and ends the run if even that has no effect.

    The alarm interrupts what the main thread waits for, so fixtures still tidy up; the abort is for
    code that does not come back to the interpreter or swallows the failure.
    """

    def __init__(self, item: pytest.Item) -> None:
        marker = item.get_closest_marker("limit")
        self._seconds = float(marker.args[0]) if marker else LIMIT_SECONDS

    def __enter__(self) -> None:
        faulthandler.dump_traceback_later(self._seconds + ABORT_SECONDS, exit=True, file=_true_stderr[0])
        self._previous = signal.signal(signal.SIGALRM, self._expired)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._previous)
        faulthandler.cancel_dump_traceback_later()

    def _expired(self, _signal: int, _frame: Optional[FrameType]) -> None:
        pytest.fail(f"took more than {self._seconds:g} s")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _Limit(item):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _Limit(item):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with _Limit(item):
        yield


# A test leaves nothing behind.


class _Process(NamedTuple):
    pid: int
    started: str

    def describe(self) -> str:
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as cmdline:
                words = cmdline.read().decode(errors="replace").split("\0")
        except OSError:
            words = []
        return f"process {self.pid} " + (" ".join(words).strip() or "(ended, but nobody waited for it)")


class _Held(NamedTuple):
    threads: FrozenSet[threading.Thread]
    processes: FrozenSet[_Process]
    sockets: FrozenSet[str]
    files: FrozenSet[str]


# Which processes, ever seen, inherited our environment; an answer does not change.
_inherited: Dict[_Process, bool] = {}


def _processes() -> Set[_Process]:
    """Our descendants, and what descends from us but lost its parent."""
    parents: Dict[int, int] = {}
    processes: Dict[int, _Process] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
        processes[int(name)] = _Process(int(name), fields[19].decode())
    ours = {os.getpid()}
    for pid in sorted(parents):  # A child mostly has the larger number, so one round nearly always does.
        if parents[pid] in ours:
            ours.add(pid)
    while True:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        if not more:
            break
        ours |= more
    ours |= {pid for pid, process in processes.items() if pid not in ours and _is_orphan_of_ours(process)}
    return {processes[pid] for pid in ours - {os.getpid()} if pid in processes}


def _is_orphan_of_ours(process: _Process) -> bool:
    if process not in _inherited:
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as environ:
                _inherited[process] = f"{RUN_VARIABLE}={RUN_ID}".encode() in environ.read()
        except OSError:
            return False
    return _inherited[process]


def _sockets() -> Set[str]:
    """Our open sockets, as /proc names them."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def _describe_socket(name: str) -> str:
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}") != name:
                continue
            with socket.socket(fileno=os.dup(int(descriptor))) as probe:
                family = socket.AddressFamily(probe.getsockopt(socket.SOL_SOCKET, SO_DOMAIN))
            with socket.socket(family, fileno=os.dup(int(descriptor))) as copy:
                return f"{name} {family.name} {copy.getsockname()!r}"
        except (OSError, ValueError):
            continue
    return name


def held() -> _Held:
    """What there is now that a test could leave behind."""
    files = frozenset(os.listdir(tempfile.gettempdir())) - {OF_PYTEST}
    return _Held(frozenset(threading.enumerate()), frozenset(_processes()), frozenset(_sockets()), files)


def _left(before: _Held) -> List[str]:
    after = held()
    left = [f"thread {thread.name!r}" for thread in after.threads - before.threads]
    left += [process.describe() for process in after.processes - before.processes]
    # Counted, so that a fixture of a wider scope may connect anew meanwhile.
    if len(after.sockets) > len(before.sockets):
        left += [_describe_socket(name) for name in after.sockets - before.sockets]
    left += ["file " + os.path.join(tempfile.gettempdir(), name) for name in after.files - before.files]
    return sorted(left)


def left_behind(before: _Held) -> List[str]:
    """What is there that was not ``before``, in words, and stays for SETTLE_SECONDS."""
    left = _left(before)
    deadline = time.monotonic() + SETTLE_SECONDS
    while left and time.monotonic() < deadline:
        # Ends and closings that are under way, in other threads or processes, may take a moment.
        gc.collect()
        time.sleep(0.01)
        left = _left(before)
    return left


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up before any other fixture of a test and torn down after them all."""
    before = held()
    yield
    left = left_behind(before)
    failed = any(name == "failed" for name, _ in request.node.user_properties)
    # A failed test's frames are kept for its report, and all they refer to: that is no leak of its own.
    if left and not failed:
        pytest.fail("left behind: " + ", ".join(left), pytrace=False)


# How clients read, for tests in every directory; imported when used, since these rules are tried on suites elsewhere.


@pytest.fixture(scope="module")
def orchestra() -> "Iterator[Reader]":
    """Xen Orchestra's parser."""
    from tests.clients import FastXmlParser

    with FastXmlParser() as reader:
        yield reader


@pytest.fixture(scope="module")
def center() -> "Iterator[Reader]":
    """XenCenter's parser."""
    from tests.clients import MonoXml

    with MonoXml() as reader:
        yield reader
