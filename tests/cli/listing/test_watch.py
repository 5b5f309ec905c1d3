"""``ps --watch`` as a process: on a terminal it redraws, on a pipe it prints lines; it ends cleanly."""

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from tests.cli.place import ROOT, Place, container, docker_ps
from xscontainer import keys

CURSOR_BACK = b"\x1b[?25h"
ALTERNATE, USUAL = b"\x1b[?1049h", b"\x1b[?1049l"


class Watching:
    """The command on a terminal or a pipe, and what it has written."""

    def __init__(self, place: Place, *options: str, terminal: bool = True, term: str = "xterm") -> None:
        self.written = b""
        self.ours, theirs = os.openpty() if terminal else os.pipe()
        if terminal:
            self.resize(100, 24, theirs)
        environment = dict(os.environ, TERM=term, PYTHONIOENCODING="utf-8", NO_COLOR="1")
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        self.process = subprocess.Popen(
            place.command("ps", "--watch", *options), cwd=str(ROOT), stdout=theirs, env=environment,
            stdin=theirs if terminal else subprocess.DEVNULL, stderr=theirs if terminal else subprocess.PIPE,
            start_new_session=True)
        os.close(theirs)

    def resize(self, columns: int, rows: int, descriptor: Optional[int] = None) -> None:
        fcntl.ioctl(self.ours if descriptor is None else descriptor, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, matches: Callable[[bytes], Any], seconds: float = 15.0) -> bytes:
        """Read until what was written since the last call matches; return it."""
        found = b""
        deadline = time.monotonic() + seconds
        while not matches(found):
            assert select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))[0], found[-2000:]
            try:
                piece = os.read(self.ours, 65536)
            except OSError:  # Linux: the last writer has closed it
                piece = b""
            if not piece:
                break
            found += piece
        self.written += found
        return found

    def rest(self) -> bytes:
        return self.until(lambda _: False)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        os.close(self.ours)


@pytest.fixture
def watch(place: Place) -> Iterator[Callable[..., Watching]]:
    started: List[Watching] = []

    def start(*options: str, **more: Any) -> Watching:
        started.append(Watching(place, *options, **more))
        return started[-1]

    yield start
    for each in started:
        each.close()


def publish(place: Place, ref: str, *names: str, **fields: Any) -> None:
    place.pool.set_key(ref, keys.PS, docker_ps(*(container(name, **fields) for name in names)))


def shows(*words: str) -> Callable[[bytes], bool]:
    return lambda found: all(word.encode() in found for word in words)


def test_a_change_is_drawn_on_the_terminal(place: Place, classic: str, watch: Callable[..., Watching]) -> None:
    view = watch()
    first = view.until(shows("classic/tomcat", "not shown"))
    assert ALTERNATE in first and "classic/mysql" not in first.decode()
    publish(place, classic, "changed")
    view.until(shows("classic/changed"))
    place.pool.set_key(classic, keys.STATUS, json.dumps({"code": "GUEST_SILENT", "message": "It sleeps."}))
    place.pool.remove_key(classic, keys.PS)
    view.until(shows("GUEST_SILENT: It sleeps."))


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_view_and_gives_the_terminal_back(place: Place, classic: str, number: int, code: int,
                                                           watch: Callable[..., Watching]) -> None:
    before = len(place.pool.records("session"))
    view = watch()
    view.until(shows("classic/tomcat"))
    view.process.send_signal(number)
    last = view.rest()
    assert view.process.wait(15) == code
    assert CURSOR_BACK in last and USUAL in last
    assert b"Traceback" not in view.written
    assert "classic/tomcat" in last.partition(USUAL)[2].decode()  # the last view stays on the screen
    assert len(place.pool.records("session")) == before


def test_a_resized_terminal_is_drawn_anew(place: Place, classic: str, watch: Callable[..., Watching]) -> None:
    view = watch()
    view.until(shows("IMAGE", "classic/tomcat"))
    view.resize(30, 24)
    view.process.send_signal(signal.SIGWINCH)
    found = view.until(lambda found: b"classic/tomcat" in found and b"NAME" in found)
    assert b"IMAGE" not in found.rpartition(b"NAME")[2]


def test_a_restarted_xapi_is_reported_and_followed_again(place: Place, classic: str,
                                                         watch: Callable[..., Watching]) -> None:
    view = watch()
    view.until(shows("classic/tomcat"))
    place.pool.hosts[0].crash()
    view.until(shows("OUT OF DATE", "Trying again"))
    place.pool.hosts[0].restart()
    view.until(shows("XAPI answers again"))
    publish(place, classic, "later")
    view.until(shows("classic/later"))


def test_a_window_too_small_says_what_is_missing(place: Place, watch: Callable[..., Watching]) -> None:
    ref = place.pool.create_vm("many", host=place.pool.hosts[0], other_config={keys.MONITOR: "True"})
    publish(place, ref, *(f"c{number:03}" for number in range(200)))
    view = watch()
    found = view.until(shows("of 200 containers"))
    assert b"c000" in found and b"c199" not in found


def test_uptimes_grow_without_an_event(place: Place, watch: Callable[..., Watching]) -> None:
    ref = place.pool.create_vm("young", host=place.pool.hosts[0], other_config={keys.MONITOR: "True"})
    publish(place, ref, "baby", StartedAt=int(time.time()), State="running")
    place.pool.stats.reset()
    view = watch()
    view.until(lambda found: re.search(rb"baby +running +\d+s", found))
    view.until(lambda found: re.search(rb"baby +running +([3-9]|\d\d)s", found))
    polls = place.pool.stats.by_method("xscontainer").get("event.from", 0)
    assert polls <= 2


@pytest.mark.parametrize("terminal, term", [(False, "xterm"), (True, "dumb")])
def test_a_table_is_not_watched_where_the_cursor_cannot_move(place: Place, watch: Callable[..., Watching],
                                                             terminal: bool, term: str) -> None:
    view = watch(terminal=terminal, term=term)
    said = view.rest()
    assert view.process.wait(15) == 2
    if view.process.stderr is not None:
        assert said == b""
        said = view.process.stderr.read()
    assert b"--watch --format ndjson" in said


# --- lines for programs


def lines(view: Watching, count: int) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in view.until(lambda found: found.count(b"\n") >= count).splitlines()]


def test_changes_are_lines_on_a_pipe(place: Place, classic: str, watch: Callable[..., Watching]) -> None:
    view = watch("--format", "ndjson", terminal=False)
    assert [(line["change"], line["name"]) for line in lines(view, 4)] == [
        ("listed", "hadoop"), ("listed", "tomcat"), ("listed", "mysql"), ("listed", "apache")]
    publish(place, classic, "hadoop", "new")
    found = {(line["change"], line["name"]) for line in lines(view, 5)}
    assert found == {("changed", "hadoop"), ("listed", "new"), ("unlisted", "tomcat"), ("unlisted", "mysql"),
                     ("unlisted", "apache")}
    view.process.send_signal(signal.SIGINT)
    assert view.process.wait(15) == 130


def test_lines_end_when_nobody_reads_them(place: Place, classic: str, watch: Callable[..., Watching]) -> None:
    view = watch("--format", "ndjson", terminal=False)
    lines(view, 4)
    os.dup2(os.open(os.devnull, os.O_RDONLY), view.ours)  # the reader ends
    assert view.process.wait(15) == 0


def test_lines_go_on_after_xapi_was_restarted(place: Place, classic: str, watch: Callable[..., Watching]) -> None:
    view = watch("--format", "ndjson", "--name", "one", terminal=False)
    place.pool.hosts[0].restart()
    publish(place, classic, "one")
    assert [line["change"] for line in lines(view, 1)] == ["listed"]


def test_a_wrong_vm_is_an_error_before_the_view(place: Place, classic: str, watch: Callable[..., Watching]) -> None:
    view = watch("--vm", "clasic")
    said = view.rest()
    assert view.process.wait(15) == 4
    assert b"Did you mean 'classic'" in said and ALTERNATE not in said
