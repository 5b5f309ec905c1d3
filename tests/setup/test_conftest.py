"""The rules of tests/conftest.py, tried on small suites that break them."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Dict, List, NamedTuple

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"


class Ran(NamedTuple):
    code: int
    order: List[str]
    problems: Dict[str, str]
    output: str


def run(directory: Path, ci: bool = False, **modules: str) -> Ran:
    """Run a suite of ``modules`` (name: text) under our conftest.

    ``problems`` is what went wrong by test, the empty text where nothing did.
    """
    (directory / "conftest.py").write_text(CONFTEST.read_text())
    for name, text in modules.items():
        path = directory / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import os, socket, subprocess, sys, tempfile, threading, time\nimport pytest\n" + text)
    (directory / "temporary").mkdir(exist_ok=True)
    environ = dict(os.environ, TMPDIR=str(directory / "temporary"))
    environ.pop("CI", None)
    if ci:
        environ["CI"] = "true"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=result.xml", "."]
    done = subprocess.run(
        command, cwd=str(directory), env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    order: List[str] = []
    problems: Dict[str, str] = {}
    if (directory / "result.xml").exists():
        for case in ElementTree.parse(str(directory / "result.xml")).iter("testcase"):
            name = case.get("name", "")
            order.append(name)
            found = [part for part in case if part.tag in ("failure", "error", "skipped")]
            problems[name] = " ".join(part.tag + ": " + part.get("message", "") + (part.text or "") for part in found)
    return Ran(done.returncode, order, problems, done.stdout.decode(errors="replace"))


LEAKS = """
sys.modules["conftest"].SETTLE_SECONDS = 0.3

def test_thread():
    threading.Thread(target=time.sleep, args=(4,), name="left alone", daemon=True).start()

def test_child():
    subprocess.Popen(["sleep", "4.20"])

def test_orphan():
    subprocess.check_call(["sh", "-c", "sleep 4.21 >/dev/null 2>&1 &"])

def test_zombie():
    child = subprocess.Popen(["true"])
    child.returncode = 0  # so that nobody waits for it

def test_file():
    tempfile.mkstemp(suffix="-left")

kept = []

def test_socket():
    kept.append(socket.socket(socket.AF_UNIX))
"""

CLEAN = """
@pytest.fixture(scope="module")
def server():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        child = subprocess.Popen(["sleep", "30"])
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait, args=(30,))
        thread.start()
        yield listener
        stop.set()
        thread.join()
        child.kill()
        child.wait()

@pytest.fixture
def plain():
    with socket.socket() as own:
        yield own

def test_wider_scope(server, plain):
    assert plain.fileno() > 0

def test_wider_scope_again(server):
    assert server.fileno() > 0

def test_ends_a_little_later():
    threading.Thread(target=time.sleep, args=(0.3,)).start()
    subprocess.check_call(["sh", "-c", "sleep 0.3 &"])

def test_garbage():
    cycle = [socket.socket(socket.AF_UNIX)]
    cycle.append(cycle)
    cycle[0].close()
"""


def test_what_a_test_leaves_behind_is_named(tmp_path: Path) -> None:
    ran = run(tmp_path, test_leaks=LEAKS)
    assert "thread 'left alone'" in ran.problems["test_thread"], ran.output
    assert "sleep 4.20" in ran.problems["test_child"], ran.output
    assert "sleep 4.21" in ran.problems["test_orphan"], ran.output
    assert "nobody waited for it" in ran.problems["test_zombie"], ran.output
    assert "AF_UNIX" in ran.problems["test_socket"], ran.output
    assert "-left" in ran.problems["test_file"], ran.output
    assert ran.code == 1
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_belongs_to_wider_fixtures_or_ends_soon_is_no_leak(tmp_path: Path) -> None:
    ran = run(tmp_path, test_clean=CLEAN)
    assert ran.code == 0, ran.output
    assert len(ran.order) == 4


HANGS = """
@pytest.mark.limit(0.5)
def test_waits():
    threading.Event().wait(30)

def test_next():
    pass
"""


def test_a_test_that_hangs_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    ran = run(tmp_path, test_hangs=HANGS)
    assert "took more than 0.5 s" in ran.problems["test_waits"], ran.output
    assert ran.problems["test_next"] == "", ran.output


DEAF = """
import signal

sys.modules["conftest"].ABORT_SECONDS = 0.5

@pytest.mark.limit(0.5)
def test_is_deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    threading.Event().wait(30)
"""


def test_a_test_that_cannot_be_interrupted_ends_the_run_with_its_stack(tmp_path: Path) -> None:
    ran = run(tmp_path, test_deaf=DEAF)
    assert ran.code == 1
    assert "Timeout (0:00:01)!" in ran.output
    assert "in test_is_deaf" in ran.output


SKIPS = """
def test_skips():
    pytest.skip("no such part")

@pytest.mark.skipif(True, reason="never here")
def test_marked():
    pass

@pytest.mark.xfail(strict=True)
def test_expected_failure():
    assert False
"""
MODULE_SKIPS = 'pytest.skip("no such module", allow_module_level=True)\n'


def test_a_skip_is_a_failure_under_ci_only(tmp_path: Path) -> None:
    ran = run(tmp_path, test_skips=SKIPS)
    assert ran.code == 0, ran.output
    assert ran.problems["test_skips"].startswith("skipped")
    ran = run(tmp_path, ci=True, test_skips=SKIPS)
    assert ran.code == 1
    assert "no such part" in ran.problems["test_skips"] and ran.problems["test_skips"].startswith("failure")
    assert "never here" in ran.problems["test_marked"], ran.output
    assert not ran.problems["test_expected_failure"].startswith("failure"), ran.output


def test_a_module_that_skips_itself_is_a_failure_under_ci(tmp_path: Path) -> None:
    ran = run(tmp_path, test_module=MODULE_SKIPS, test_other="def test_other():\n    pass\n")
    assert ran.code == 0, ran.output
    ran = run(tmp_path, ci=True)
    assert ran.code != 0
    assert "no such module" in ran.output


REAL = """
@pytest.mark.real
def test_real():
    pass

def test_outer():
    pass
"""


def test_quick_tests_come_first(tmp_path: Path) -> None:
    inner = "def test_inner():\n    pass\n"
    ran = run(tmp_path, tests__area__test_a=inner, tests__test_b=REAL)
    assert ran.order == ["test_outer", "test_inner", "test_real"], ran.output
