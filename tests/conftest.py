"""Enforce the rules for all tests.

* A test leaves nothing behind: no thread, no child process (also none that lost its parent), no open socket, and no
  file in the directory for temporary files, which belongs to the run. Objects that existed when the test began, such
  as those of fixtures with a wider scope, do not count.
* A test ends: it fails after 120 seconds. If it does not end even then, the run is aborted with the stacks of all
  threads. ``@pytest.mark.limit(seconds)`` sets another limit. The limit holds for set-up, call and tear-down each.
* Under CI (the environment variable CI is not empty) a skip is a failure: every part must be there, except those that
  XSCONTAINER_MAY_LACK names.
* Only a test that carries ``@pytest.mark.real`` starts real servers, so ``make test-fast`` starts none.
* Quick tests run first, in every directory; then those that carry ``@pytest.mark.real`` (real servers, seconds
  rather than milliseconds).
"""

import faulthandler
import gc
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Set, Tuple

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.clients import Reader
    from tests.clock import Clock

# A shell starts jobs in the background with SIGINT ignored, and so would be the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CI = bool(os.environ.get("CI"))
LIMIT_SECONDS = 120.0
ABORT_SECONDS = 30.0
SETTLE_SECONDS = 3.0
# Linux's number, which Python does not name. Before 3.7 Python cannot find the family by itself.
SO_DOMAIN = 39
# Every process that a test starts inherits this variable, also one whose parent is gone.
RUN_VARIABLE = "XSCONTAINER_TEST_RUN"
RUN_ID = uuid.uuid4().hex
# Equal to that in xscontainer/simulator/engines/processes.py; a test compares them.
NO_SERVERS = "XSCONTAINER_NO_SERVERS"
SERVERS = frozenset(["sshd", "dropbear", "dockerd", "containerd", "podman"])
NEED = os.path.join("tests", "need.py")
# Equal to that in tests/need.py.
MAY_LACK = tuple(filter(None, os.environ.get("XSCONTAINER_MAY_LACK", "").split("|")))
# pytest's directory among the temporary files; pytest removes its own files there.
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
_popen: List[Callable[..., None]] = []
# The previous TMPDIR, and the run's own directory for temporary files.
_temporary: List[Tuple[Optional[str], str]] = []


# First, so that pytest's own tmp_path lies in the run's directory.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: runs against real servers and takes seconds; such tests come last")
    config.addinivalue_line("markers", "limit(seconds): the time after which set-up, call or tear-down fails")
    if getattr(config.option, "loadscopereorder", False):  # newer pytest-xdist: files with few tests come last
        config.option.loadscopereorder = False
    os.environ[RUN_VARIABLE] = RUN_ID
    _popen.append(subprocess.Popen.__init__)
    setattr(subprocess.Popen, "__init__", _starts_no_server)  # noqa: B010 - mypy takes no assignment to a method
    # At this moment pytest does not capture, so this is the terminal; later descriptor 2 is a file.
    _true_stderr.append(os.dup(2))
    _temporary.append((os.environ.get("TMPDIR"), _own_directory(config)))
    os.environ["TMPDIR"] = tempfile.tempdir = _temporary[-1][1]
    # pytest-xdist gives a worker one below that of the first process, which is too long for sockets.
    if config.option.basetemp is None or hasattr(config, "workerinput"):
        config.option.basetemp = os.path.join(_temporary[-1][1], OF_PYTEST)


def _own_directory(config: pytest.Config) -> str:
    """Make the run's directory. Its name is short, because paths of sockets are limited; a worker's lies beside it."""
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    if not worker:
        return tempfile.mkdtemp(prefix="xt")
    directory = os.environ["TMPDIR"] + worker[len("gw"):]
    os.mkdir(directory, 0o700)
    return directory


def pytest_unconfigure(config: pytest.Config) -> None:
    faulthandler.cancel_dump_traceback_later()
    os.environ.pop(RUN_VARIABLE, None)
    os.environ.pop(NO_SERVERS, None)
    while _popen:
        setattr(subprocess.Popen, "__init__", _popen.pop())  # noqa: B010
    while _temporary:
        before, directory = _temporary.pop()
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(directory, ignore_errors=True)
        if not hasattr(config, "workerinput"):
            for left in glob.glob(glob.escape(directory) + "*"):  # of a worker that died
                shutil.rmtree(left, ignore_errors=True)
    while _true_stderr:
        os.close(_true_stderr.pop())


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    # Stable: else in pytest's order. Those of the pack take longest: at the end they would leave other workers idle.
    items.sort(key=lambda item: (item.get_closest_marker("real") is not None, "/pack/" not in item.nodeid))


# Under CI nothing may be skipped.


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        item.user_properties.append(("failed", report.when))
    # Logs and failures can hold lone surrogates, which a worker of pytest-xdist cannot send.
    report.sections = [(name, _sendable(text)) for name, text in report.sections]
    if report.longrepr and _sendable(str(report.longrepr)) != str(report.longrepr):
        report.longrepr = _sendable(str(report.longrepr))
    # pytest reports an expected failure as a skip, too; it did run.
    if CI and report.skipped and not hasattr(report, "wasxfail") and not _may_lack(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure under CI: {_reason(report.longrepr)}"
    elif report.skipped and isinstance(report.longrepr, tuple):
        # At one place, so that the summary has one line for each reason instead of each test.
        report.longrepr = (NEED, 0, _reason(report.longrepr))


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if CI and report.skipped and not _may_lack(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure under CI: {_reason(report.longrepr)}"


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _reason(longrepr: object) -> str:
    """Return the reason of a skip, which pytest reports as (file, line, reason)."""
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)


def _may_lack(longrepr: object) -> bool:
    return bool(MAY_LACK) and _reason(longrepr).startswith(tuple(f"Skipped: needs {part}" for part in MAY_LACK))


# Only tests with the mark start real servers.


def _servers_only_if_real(item: pytest.Item) -> None:
    """Allow or forbid servers, for this process and all that it starts from now on."""
    if item.get_closest_marker("real") is not None:
        os.environ.pop(NO_SERVERS, None)
    else:
        os.environ[NO_SERVERS] = "a server, which only tests with @pytest.mark.real start"


def _starts_no_server(process: "subprocess.Popen[Any]", args: Any, *rest: Any, **options: Any) -> None:
    """Start a process for Popen, unless it is a server that a test without the mark starts by itself."""
    words = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    # sshd -T and -t only read a configuration.
    if os.environ.get(NO_SERVERS) and os.path.basename(os.fsdecode(words[0])) in SERVERS and \
            not {"-T", "-t", "--version"} & set(words):
        pytest.fail(f"starts {os.fsdecode(words[0])} without @pytest.mark.real")
    _popen[0](process, args, *rest, **options)


# A test ends.


class _Limit:
    """Fails the test after its limit, and ends the run if even that has no effect.

    The alarm interrupts the main thread's waiting, so fixtures still clean up. The abort is for code that does not
    return to the interpreter, or that swallows the failure.
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
    _servers_only_if_real(item)
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
        return f"process {self.pid} " + (" ".join(words).strip() or "(a zombie: nobody waited for it)")


class _Held(NamedTuple):
    threads: FrozenSet[threading.Thread]
    processes: FrozenSet[_Process]
    sockets: FrozenSet[str]
    files: FrozenSet[str]


# Process -> True if it inherited the run's environment; this never changes.
_inherited: Dict[_Process, bool] = {}


def _processes() -> Set[_Process]:
    """Return the descendants of this process, also those that lost their parent."""
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
    for pid in sorted(parents):  # A child mostly has the larger number, so one round is nearly always enough.
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
    """Return the threads, processes, sockets and files that exist now."""
    files = frozenset(os.listdir(tempfile.gettempdir())) - {OF_PYTEST}
    return _Held(frozenset(threading.enumerate()), frozenset(_processes()), frozenset(_sockets()), files)


def _left(before: _Held) -> List[str]:
    after = held()
    left = [f"thread {thread.name!r}" for thread in after.threads - before.threads]
    left += [process.describe() for process in after.processes - before.processes]
    # Only the number counts, so that a fixture of a wider scope may reconnect meanwhile.
    if len(after.sockets) > len(before.sockets):
        left += [_describe_socket(name) for name in after.sockets - before.sockets]
    left += ["file " + os.path.join(tempfile.gettempdir(), name) for name in after.files - before.files]
    return sorted(left)


def left_behind(before: _Held) -> List[str]:
    """Return descriptions of the objects that did not exist ``before`` and still exist after SETTLE_SECONDS."""
    left = _left(before)
    deadline = time.monotonic() + SETTLE_SECONDS
    while left and time.monotonic() < deadline:
        # Threads, processes and sockets that are about to end may take a moment.
        gc.collect()
        time.sleep(0.01)
        left = _left(before)
    return left


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check for leaks; set up before all other fixtures of a test, and torn down after them."""
    before = held()
    yield
    left = left_behind(before)
    failed = any(name == "failed" for name, _ in request.node.user_properties)
    # The report of a failed test keeps its frames and all that they refer to: that is no leak.
    if left and not failed:
        pytest.fail("left behind: " + ", ".join(left), pytrace=False)


# Parsers of clients, for tests in every directory. Imported when used: test_conftest.py runs this file elsewhere.


@pytest.fixture(scope="module")
def orchestra() -> "Iterator[Reader]":
    """Xen Orchestra's parser."""
    from tests.clients import FastXmlParser

    with FastXmlParser() as reader:
        yield reader


@pytest.fixture(scope="module")
def newer_orchestra() -> "Iterator[Reader]":
    """Xen Orchestra's parser in a newer release, which refuses more names and counts no entities."""
    from tests.clients import FastXmlParser

    with FastXmlParser("fast-xml-parser-5") as reader:
        yield reader


@pytest.fixture(scope="module")
def center() -> "Iterator[Reader]":
    """XenCenter's parser."""
    from tests.clients import MonoXml

    with MonoXml() as reader:
        yield reader


@pytest.fixture
def clock() -> "Clock":
    """A clock that the test moves."""
    from tests.clock import Clock  # here: tests/setup/test_conftest.py uses this file where there is no tests/
    return Clock()
