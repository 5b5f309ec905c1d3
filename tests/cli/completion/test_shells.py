"""Real shells complete command lines on a simulated pool."""

import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from tests.cli.place import container, docker_ps
from tests.need import need_program
from xscontainer import keys
from xscontainer.simulator.xapi import Pool

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 30.0  # s
# Each begins with a capital letter of its own, which is typed. Uuids have none.
HOSTILE = [
    "A$(touch PWNED)", "B`touch PWNED`", "C; touch PWNED", "D'q", 'E"q', "F\nline", "G\x1b[2J", "H*", "I[a]", "J:k",
    "K=l", "L@m", "M!!", "N#x", "O&", "P|q", "Q>PWNED", "R\\", "S\tt", "T\x0bu", "U(prod)", "V~", "W日本", "X{1,2}",
    "Y <z>", "Z%s"]
# A program that answers completions and prints the arguments that it gets.
PROGRAM = """#!{python}
import json, os, sys
sys.path.insert(0, {root!r})
if "_ARGCOMPLETE" in os.environ:
    from xscontainer.cli import main
    sys.exit(main())
print("ARGV" + json.dumps(sys.argv[1:]) + "END")
"""


class Place:
    """A directory with the program xscontainer, beside a pool."""

    def __init__(self, pool: Pool, directory: Path) -> None:
        self.pool = pool
        self.directory = directory
        conf = directory / "conf"
        conf.write_text(f"[xapi]\nsocket = {pool.coordinator.socket_path}\n")
        program = directory / "xscontainer"
        program.write_text(PROGRAM.format(python=sys.executable, root=str(ROOT)))
        program.chmod(0o755)
        self.environment: Dict[str, str] = {
            "PATH": f"{directory}:{os.environ['PATH']}", "XSCONTAINER_CONF": str(conf), "HOME": str(directory),
            "TERM": "dumb", "INPUTRC": "/dev/null", "LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "ignore"}

    def script(self, shell: str) -> str:
        made = subprocess.run([sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "completion", shell],
                              cwd=str(ROOT), stdout=subprocess.PIPE, timeout=60, check=True)
        path = self.directory / f"script.{shell}"
        path.write_bytes(made.stdout)
        return str(path)

    def answer(self, line: str, shell: str = "bash", **more: str) -> List[str]:
        """Return the candidates for a line, as a shell asks for them."""
        out = self.directory / "out"
        out.write_bytes(b"")
        done = subprocess.run([str(self.directory / "xscontainer")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=60, env=dict(
            self.environment, _ARGCOMPLETE="1", _ARGCOMPLETE_SHELL=shell, COMP_LINE=line,
            _ARGCOMPLETE_STDOUT_FILENAME=str(out), **{"COMP_POINT": str(len(line)), **more}))
        assert (done.returncode, done.stdout) == (0, b"")
        text = out.read_text("utf-8")
        return re.split("[\013\n]", text) if text else []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Place]":
    directory = tmp_path_factory.mktemp("c")
    with Pool(str(directory / "p"), hosts=1, tcp=False) as pool:
        for name in ("web", "db one"):
            pool.create_vm(name, host=pool.hosts[0], other_config={keys.MONITOR: "True", keys.PS: docker_ps(
                container("nginx"), container(f"only-{name[:2]}", State="exited", Status="Exited (1) 1 hour ago"))})
        for name in HOSTILE:
            pool.create_vm(name, host=pool.hosts[0])
        yield Place(pool, directory)


class OnTerminal:
    """A shell on a terminal."""

    def __init__(self, place: Place, argv: List[str], set_up: List[str]) -> None:
        self._ours, theirs = os.openpty()
        self.process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=str(place.directory),
                                        env=place.environment, start_new_session=True)
        os.close(theirs)
        self.text = ""
        for command in set_up:
            self.type(command + "\n")
        self.type("echo rea''dy\n")
        self.until("ready")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode("utf-8"))

    def until(self, pattern: str) -> Any:
        """Read until the pattern is found, and forget the text before its end."""
        deadline = time.monotonic() + DEADLINE
        while True:
            found = re.search(pattern, self.text)
            if found:
                self.text = self.text[found.end():]
                return found
            ready = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{pattern} is not in {self.text!r}"
            self.text += os.read(self._ours, 65536).decode("utf-8", "replace")

    def completed(self, text: str) -> List[str]:
        """Type a text, complete it, run it, and return the arguments of the program."""
        self.type(text + "\t\n")
        arguments: List[str] = json.loads(self.until(r"ARGV(\[.*\])END").group(1))
        return arguments

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def bash(place: Place) -> "Iterator[OnTerminal]":
    program = need_program("bash", "bash")
    made = OnTerminal(place, [program, "--norc", "--noprofile", "-i"], [f"source {place.script('bash')}"])
    yield made
    made.close()


@pytest.fixture
def zsh(place: Place) -> "Iterator[OnTerminal]":
    program = need_program("zsh", "zsh")
    made = OnTerminal(place, [program, "-f", "-i"], [
        "unsetopt prompt_cr zle_bracketed_paste beep", "autoload -Uz compinit && compinit -D -u",
        f"source {place.script('zsh')}"])
    yield made
    made.close()


LINES = [
    ("xscontainer diag", ["diagnose"]), ("xscontainer diagnose --js", ["diagnose", "--json"]),
    ("xscontainer diagnose we", ["diagnose", "web"]), ("xscontainer stop web/ng", ["stop", "web/nginx"]),
    ("xscontainer stop we\tng", ["stop", "web/nginx"]), ("xscontainer diagnose db", ["diagnose", "db one"]),
    ("xscontainer diagnose 'db", ["diagnose", "db one"]), ('xscontainer diagnose "db', ["diagnose", "db one"]),
    ("xscontainer stop db\\ one/n", ["stop", "db one/nginx"]), ("xscontainer start only-d", ["start", "only-db"]),
    ("true; xscontainer diagnose we", ["diagnose", "web"]), ("xscontainer diagnose nobody", ["diagnose", "nobody"])]


@pytest.mark.parametrize("text, arguments", LINES)
def test_bash_completes_commands_options_vms_and_containers(bash: OnTerminal, text: str, arguments: List[str]) -> None:
    assert bash.completed(text) == arguments


@pytest.mark.parametrize("text, arguments", LINES)
def test_zsh_completes_commands_options_vms_and_containers(zsh: OnTerminal, text: str, arguments: List[str]) -> None:
    assert zsh.completed(text) == arguments


def hostile(shell: OnTerminal, place: Place) -> List[str]:
    """Complete each hostile name from its first letter; return the names that the shell offered."""
    offered = []
    for name in HOSTILE:
        _, found = shell.completed("xscontainer diagnose " + name[0])
        assert found in (name, name[0])
        if found == name:
            offered.append(name)
    assert not (place.directory / "PWNED").exists()
    return offered


def test_a_hostile_name_is_quoted_or_left_out_by_bash(bash: OnTerminal, place: Place) -> None:
    assert {"A$(touch PWNED)", "D'q", "U(prod)", "W日本", "J:k", "Y <z>"} <= set(hostile(bash, place))


def test_a_hostile_name_is_quoted_or_left_out_by_zsh(zsh: OnTerminal, place: Place) -> None:
    assert {"A$(touch PWNED)", "D'q", "U(prod)", "W日本", "J:k", "Y <z>"} <= set(hostile(zsh, place))


def test_fish_completes_with_notes(place: Place) -> None:
    program = need_program("fish", "fish")

    def completed(text: str) -> Dict[str, str]:
        done = subprocess.run(
            [program, "--no-config", "-c", f"source {place.script('fish')}; complete -C $argv[1]", text],
            cwd=str(place.directory), env=place.environment, stdout=subprocess.PIPE, timeout=60, check=True)
        return dict(row.split("\t") for row in done.stdout.decode("utf-8").splitlines())

    assert completed("xscontainer diag") == {"diagnose": "find out why a VM's containers are not shown"}
    assert completed("xscontainer stop web/") == {"web/nginx": "Up, busybox"}
    assert completed("xscontainer diagnose db") == {"db one": "Running"}
    assert set(completed("xscontainer diagnose A")) == {"A$(touch PWNED)"}
    assert not (place.directory / "PWNED").exists()


@pytest.mark.parametrize("line, more", [
    ("", {}), ("xscontainer 'a\"b", {}), ("other x", {}), ("xscontainer diagnose ", {
        "XSCONTAINER_CONF": "/dev/full"}), ("xscontainer diagnose ", {"XSCONTAINER_CONF": "/nonexistent"}),
    ("xscontainer --server h diagnose ", {}), ("xscontainer diagnose ", {"XSCONTAINER_SERVER": "h"}),
    ("xscontainer --config /nonexistent/x", {}), ("xscontainer diagnose w", {"COMP_POINT": "x"})])
def test_nothing_is_printed_when_nothing_can_be_completed(place: Place, line: str, more: Dict[str, str]) -> None:
    assert place.answer(line, **more) == []


def test_completing_logs_out(place: Place) -> None:
    before = len(place.pool.records("session"))
    assert "web" in place.answer("xscontainer diagnose ")
    assert len(place.pool.records("session")) == before


def test_the_answer_imports_no_command_and_no_library(place: Place) -> None:
    code = ("import sys\nfrom xscontainer.cli.completion import answer\nanswer.main()\n"
            "print(sorted(set(sys.modules) & {'argparse', 'argcomplete', 'rich', 'xscontainer.settings', 'XenAPI', "
            "'http.client', 'xscontainer.cli.program', 'xscontainer.errors'}))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE,
                          timeout=60, check=True, env=dict(
        place.environment, _ARGCOMPLETE="1", COMP_LINE="xscontainer diagnose ", COMP_POINT="21",
        _ARGCOMPLETE_STDOUT_FILENAME=str(place.directory / "out")))
    assert done.stdout == b"[]\n"
    assert "web" in (place.directory / "out").read_text("utf-8")
