"""The rules of tests/conftest.py, applied to small suites that break them; each runs in a process, for seconds."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest

from tests import conftest
from xscontainer.simulator.engines import processes
from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"


class Ran(NamedTuple):
    code: int
    order: List[str]
    problems: Dict[str, str]
    output: str


def run(directory: Path, ci: bool = False, **modules: str) -> Ran:
    """Run a suite of ``modules`` (name: text) with tests/conftest.py.

    ``problems`` maps each test to its failure, an empty text if it passed.
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
    child.returncode = 0  # so that Popen does not wait for it

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


@pytest.mark.real
def test_everything_that_a_test_leaves_behind_is_named(tmp_path: Path) -> None:
    ran = run(tmp_path, test_leaks=LEAKS)
    assert "thread 'left alone'" in ran.problems["test_thread"], ran.output
    assert "sleep 4.20" in ran.problems["test_child"], ran.output
    assert "sleep 4.21" in ran.problems["test_orphan"], ran.output
    assert "nobody waited for it" in ran.problems["test_zombie"], ran.output
    assert "AF_UNIX" in ran.problems["test_socket"], ran.output
    assert "-left" in ran.problems["test_file"], ran.output
    assert ran.code == 1
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.real
def test_objects_of_wider_fixtures_or_that_end_soon_are_no_leak(tmp_path: Path) -> None:
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


@pytest.mark.real
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


@pytest.mark.real
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


@pytest.mark.real
def test_a_skip_is_a_failure_under_ci_only(tmp_path: Path) -> None:
    ran = run(tmp_path, test_skips=SKIPS)
    assert ran.code == 0, ran.output
    assert ran.problems["test_skips"].startswith("skipped")
    ran = run(tmp_path, ci=True, test_skips=SKIPS)
    assert ran.code == 1
    assert "no such part" in ran.problems["test_skips"] and ran.problems["test_skips"].startswith("failure")
    assert "never here" in ran.problems["test_marked"], ran.output
    assert not ran.problems["test_expected_failure"].startswith("failure"), ran.output


@pytest.mark.real
def test_a_module_that_skips_itself_is_a_failure_under_ci(tmp_path: Path) -> None:
    ran = run(tmp_path, test_module=MODULE_SKIPS, test_other="def test_other():\n    pass\n")
    assert ran.code == 0, ran.output
    ran = run(tmp_path, ci=True)
    assert ran.code != 0
    assert "no such module" in ran.output


MIXED = """
@pytest.mark.real
def test_real_{0}():
    pass

def test_quick_{0}():
    pass
"""


@pytest.mark.real
def test_quick_tests_of_every_directory_run_before_the_real_ones(tmp_path: Path) -> None:
    ran = run(tmp_path, tests__area__test_a=MIXED.format("area"), tests__room__deep__test_b=MIXED.format("deep"),
              tests__test_c=MIXED.format("top"))
    quick, real = ran.order[:3], ran.order[3:]
    assert sorted(quick) == ["test_quick_area", "test_quick_deep", "test_quick_top"], ran.output
    assert real == [name.replace("quick", "real") for name in quick], "within each half in the order of collection"


SERVERS = """
def start(tmp_path, name="sshd", *words):
    program = tmp_path / name
    program.write_text("#!/bin/sh\\n")
    program.chmod(0o755)
    subprocess.run([str(program)] + list(words), check=True)

def test_starts_one(tmp_path):
    start(tmp_path)

def test_checks_a_configuration(tmp_path):
    start(tmp_path, "sshd", "-T")

def test_starts_something_else(tmp_path):
    start(tmp_path, "ssh-keygen")

def test_children_are_told():
    assert "@pytest.mark.real" in os.environ["XSCONTAINER_NO_SERVERS"]

@pytest.mark.real
def test_really_starts_one(tmp_path):
    start(tmp_path, "podman")
    assert "XSCONTAINER_NO_SERVERS" not in os.environ
"""


@pytest.mark.real
def test_only_a_real_test_starts_a_server(tmp_path: Path) -> None:
    ran = run(tmp_path, test_servers=SERVERS)
    assert "sshd without @pytest.mark.real" in ran.problems.pop("test_starts_one"), ran.output
    assert set(ran.problems.values()) == {""} and len(ran.problems) == 4, ran.output


def test_the_simulator_starts_no_server_for_a_test_that_is_not_real() -> None:
    assert conftest.NO_SERVERS == processes.NO_SERVERS
    assert {RealEngine.absent(), PodmanEngine.absent(), OpenSSHGuest.missing()} & {processes.servers_off()} or not (
        processes.find_program("sshd") or processes.find_program("dockerd"))
    for kind in (RealEngine, PodmanEngine, OpenSSHGuest):
        assert kind.missing(), kind


@pytest.mark.real
def test_a_part_that_may_be_absent_is_skipped_under_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = 'from tests.need import need\ndef test_lacks():\n    need(False, "CPython 3.6 (anywhere)")\n'
    monkeypatch.setenv("PYTHONPATH", str(CONFTEST.parent.parent))
    monkeypatch.delenv("XSCONTAINER_MAY_LACK", raising=False)
    ran = run(tmp_path, ci=True, test_lacks=lacks)
    assert ran.code == 1 and "missing here: CPython 3.6" in ran.problems["test_lacks"], ran.output
    monkeypatch.setenv("XSCONTAINER_MAY_LACK", "dnf|CPython 3.6")
    ran = run(tmp_path, ci=True)
    assert ran.code == 0 and ran.problems["test_lacks"].startswith("skipped"), ran.output
