"""The command xscontainer starts, ends and reports errors as a command should."""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import termios
import unicodedata
from pathlib import Path
from typing import Any, List, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xscontainer
from tests.cli.place import ROOT, Place, container, docker_ps
from xscontainer import __version__, cli, keys
from xscontainer.cli import program
from xscontainer.cli.ui import columns
from xscontainer.cli.ui.columns import Note, Row
from xscontainer.errors import ArgumentError, GuestSilent


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("list", "--nonsense"), ("list", "--vm")])
def test_a_wrong_command_line_exits_with_2(place: Place, arguments: Sequence[str]) -> None:
    answer = place.run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "usage: xscontainer" in answer.err


def test_unusable_settings_exit_with_2(place: Place, capsys: "pytest.CaptureFixture[str]") -> None:
    for arguments in (["--config", str(place.directory / "absent")],
                      ["--config", place.config(more="timeout = never\n")]):
        assert cli.main(arguments + ["list"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("xscontainer: ") and err.count("\n") == 1


@pytest.mark.parametrize("kind, code", [(GuestSilent, 5), (ArgumentError, 2)])
def test_control_characters_in_an_error_are_replaced(capsys: "pytest.CaptureFixture[str]", tmp_path: Path, kind: Any,
                                                   code: int) -> None:
    """Error messages may quote a guest."""
    config = tmp_path / "conf"
    config.write_text("")

    def run(*_: object) -> int:
        raise kind("It says:\na\x9b2J\x1b[2J\u202eb" + "x" * 3000 + "end.")

    assert program.guarded("program", argparse.Namespace(config=str(config), run=run)) == code
    said = capsys.readouterr().err
    assert said.startswith("program: It says: a\ufffd2J\ufffd[2J\ufffdbxxx") and "end." in said
    assert said.count("\n") == 1


def test_version_prints_name_version_and_commit(capsys: "pytest.CaptureFixture[str]") -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (
        0, f"xscontainer {__version__} (commit unknown, run from its sources)\n")


def test_the_version_of_a_built_package_names_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xscontainer, "__commit__", "0123456789abcdef" * 2 + "01234567")
    assert xscontainer.version_text("xscontainer") == f"xscontainer {__version__} (commit 0123456789ab)"


def test_an_absent_xapi_prints_one_sentence_and_exits_with_5(place: Place) -> None:
    place.pool.coordinator.crash()
    answer = place.run("list")
    assert (answer.code, answer.out) == (5, "")
    assert answer.err.startswith("xscontainer: XAPI does not run on this machine: ") and answer.err.count("\n") == 1


def test_a_member_gives_up_when_its_coordinator_does_not_answer(place: Place) -> None:
    place.pool.set_coordinator_down(True)
    answer = place.run("list", host=1)
    assert (answer.code, answer.out) == (5, "")
    assert "did not answer session.login_with_password" in answer.err


def test_every_command_logs_out(place: Place, classic: str) -> None:
    before = len(place.pool.records("session"))
    place.run("list")
    place.run("list", "--vm", "nobody")
    assert len(place.pool.records("session")) == before


def test_a_reader_that_closes_the_pipe_is_no_error(place: Place) -> None:
    for number in range(20):
        place.pool.create_vm(f"vm{number}", host=place.pool.hosts[0], other_config={
            keys.MONITOR: "True", keys.PS: docker_ps(*(container(f"c{n}", Image="i" * 200) for n in range(50)))})
    reader, writer = os.pipe()
    process = subprocess.Popen(place.command("list"), cwd=str(ROOT), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_the_command_starts_without_importing_paramiko_or_docker() -> None:
    code = "import sys, xscontainer.cli; print(sorted({'paramiko', 'docker', 'requests'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE,
                          timeout=60, check=True)
    assert done.stdout == b"[]\n"


# --- the table ---------------------------------------------------------------

cells = st.text(max_size=30)
lines_of_a_table = st.lists(st.one_of(
    st.builds(Row, st.integers(0, 6), st.lists(cells, min_size=1, max_size=5).map(tuple)),
    st.builds(Note, st.integers(0, 6), st.text(max_size=200))), max_size=8)


def control_free(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
                   for character in text if character not in "\n\u200c\u200d")


@given(lines_of_a_table)
def test_no_control_character_reaches_the_terminal(lines: List[columns.Line]) -> None:
    drawn = columns.lay_out(lines)
    assert control_free(drawn)
    assert drawn.count("\n") == len(lines)


@given(lines_of_a_table, st.integers(60, 200))
def test_no_row_is_wider_than_the_terminal(lines: List[columns.Line], most: int) -> None:
    for line in columns.lay_out([line for line in lines if isinstance(line, Row)], most).splitlines():
        assert columns.width(line) <= most


@given(st.lists(st.tuples(cells, cells, cells), min_size=2, max_size=6))
def test_columns_line_up(rows: List[Any]) -> None:
    """A mark in the last cell stands in the same terminal column on every line."""
    marked = [Row(0, (*row[:2], "#" + row[2])) for row in rows]
    wide = columns.lay_out([row._replace(cells=tuple(cell.replace("#", "") for cell in row.cells[:2]) + ("#",))
                            for row in marked])
    assert len({columns.width(line[:line.index("#")]) for line in wide.splitlines()}) == 1


@given(st.text(max_size=40), st.integers(1, 40))
def test_a_text_that_was_cut_fits_and_ends_in_an_ellipsis(text: str, room: int) -> None:
    shown = columns.cut(text, room)
    assert columns.width(shown) <= room
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]))


@pytest.mark.parametrize("text, wide", [("abc", 3), ("世界", 4), ("e\u0301", 1), ("", 0), ("\u200d", 0)])
def test_the_width_of_a_text_counts_terminal_columns(text: str, wide: int) -> None:
    assert columns.width(text) == wide


@pytest.mark.parametrize("text, shown", [
    ("a\x1b[31mb", "a\ufffd[31mb"), ("a\nb\r\tc", "a\ufffdb\ufffd\ufffdc"), ("\u202eabc", "\ufffdabc"),
    ("a\x9bb", "a\ufffdb"), ("نام", "نام"), ("a\ud800", "a\ufffd")])
def test_control_characters_are_replaced(text: str, shown: str) -> None:
    assert columns.neutral(text) == shown


def test_a_note_is_wrapped_with_its_indent() -> None:
    drawn = columns.lay_out([Note(6, "word " * 30)], 40).splitlines()
    assert len(drawn) > 3 and all(line.startswith(" " * 6 + "word") and len(line) <= 40 for line in drawn)
    assert sum(line.count("word") for line in drawn) == 30




# --- output that nobody reads


DEAD = """
import argparse, contextlib, signal, sys, time
from xscontainer.cli import program

def run(*_):
    print("begun", flush=True)
    try:
        signal.pause()
    finally:  # the clean-up, whose output nobody reads any more
        program.say("called off")
        sys.stdout.write("taken back: ")

with program.orderly_exit():
    code = program.guarded("program", argparse.Namespace(config=sys.argv[1], run=run))
sys.exit(code)
"""


def on_dying_terminal(argv: Sequence[str], until: bytes, terminate: bool) -> int:
    """Return the exit code on a terminal that is closed after the text ``until``, or just after a SIGTERM."""
    ours, theirs = os.openpty()

    def own() -> None:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=own, cwd=str(ROOT))
    os.close(theirs)
    try:
        shown = b""
        while until not in shown:
            shown += os.read(ours, 4096)
        if terminate:
            process.terminate()
        os.close(ours)
        return process.wait(60)
    finally:
        process.kill()
        process.wait()


# Either of the two signals may come first.
@pytest.mark.parametrize("terminate, codes", [(False, [129]), (True, [129, 143])])
def test_a_command_keeps_its_exit_code_when_its_terminal_is_gone(tmp_path: Path, terminate: bool,
                                                             codes: List[int]) -> None:
    """Output that cannot be written must not turn the exit code into 120 or 1."""
    config = tmp_path / "conf"
    config.write_text("")
    argv = [sys.executable, "-W", "ignore", "-c", DEAD, str(config)]
    assert on_dying_terminal(argv, b"begun", terminate) in codes


LATE = """
import os, signal, sys
from xscontainer.cli import program

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):  # after Python has restored the default actions
        kill(pid, 1)

with program.orderly_exit():
    late = sys.late = Late()
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""


def test_a_second_signal_does_not_replace_the_exit_code_while_python_ends() -> None:
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", LATE], cwd=str(ROOT), timeout=60).returncode == 143


@pytest.mark.parametrize("module, words, code", [
    ("xscontainer.cli", "list", 0), ("xscontainer.cli", "--help", 0), ("xscontainer.cli", "--version", 0),
    ("xscontainer.cli", "list --vm nobody", 4),
    ("xscontainer.cli.prepare_vm", "--help", 0), ("xscontainer.cli.prepare_vm", "-v nobody --mode tls", 4)])
def test_no_command_exits_with_120_when_the_pipe_is_closed(place: Place, classic: str, module: str, words: str,
                                                     code: int) -> None:
    """Neither stream can be written: the reader has closed the pipe."""
    settings = ["--config", place.config()]
    words_first = module == "xscontainer.cli.prepare_vm"
    argv = [sys.executable, "-W", "ignore", "-m", module] + (
        words.split() + settings if words_first else settings + words.split())
    reader, writer = os.pipe()
    process = subprocess.Popen(argv, cwd=str(ROOT), stdout=writer, stderr=writer)
    os.close(writer)
    os.close(reader)
    assert process.wait(60) == code
