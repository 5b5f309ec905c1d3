"""The plugin's process: what reaches the daemon, what comes back, and when it serves a call itself."""

import errno
import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.need import need
from tests.plugin.conftest import Dom0
from tests.plugin.process import Process, call, run, wait_until
from xscontainer import settings
from xscontainer.core import wire as calls
from xscontainer.core.verb import LONG
from xscontainer.errors import SettingsError
from xscontainer.plugin import dispatch, forward
from xscontainer.simulator.install import PLUGIN, install_plugin
from xscontainer.verbs.table import VERBS

NOBODY = 65534

UNKNOWN = {"Status": "Failure", "ErrorDescription": ["UNKNOWN_XENAPI_PLUGIN_FUNCTION", "nonesuch"]}


def code_of(reply: Dict[str, Any]) -> str:
    return reply["ErrorDescription"][0]


# --- a daemon that serves -----------------------------------------------------------------------


@pytest.mark.parametrize("argument", [
    b"plain",
    "h\u00e9llo \u4f60\u597d \U0001f600".encode(),
    b"\xff\xfe\x80 not UTF-8",
    b"\x01\x1b\x7f control \r\n\t",
    call("start", vmuuid="x", container="\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace")),
    b"x" * 131071,  # the longest the kernel passes
], ids=["plain", "scripts", "not-utf8", "control", "surrogate", "longest"])
def test_the_argument_reaches_the_daemon_byte_for_byte(dom0: Dom0, argument: bytes) -> None:
    received: List[bytes] = []

    def handler(got: bytes) -> bytes:
        received.append(got)
        return calls.success("fine")

    dom0.serve(handler)
    assert run(dom0.plugin, argument).reply == {"Status": "Success", "Value": "fine"}
    assert received == [argument]


@pytest.mark.parametrize("reply", [
    b"",
    "\U0001f600 \u00e9 \x1b".encode() + b"\xff\x00",
    os.urandom(1 << 16) * 64,
], ids=["empty", "bytes", "4-MiB"])
def test_the_reply_is_printed_byte_for_byte(dom0: Dom0, reply: bytes) -> None:
    dom0.serve(lambda argument: reply)
    answer = run(dom0.plugin, b"x")
    assert (answer.stdout, answer.stderr, answer.code) == (reply, b"", 0)


def test_ten_calls_at_once_are_served_at_once(dom0: Dom0) -> None:
    together = threading.Barrier(10)

    def handler(argument: bytes) -> bytes:
        together.wait(20)  # breaks, and fails the call, unless all ten are inside
        return calls.success(argument.decode())

    dom0.serve(handler)
    processes = [Process(dom0.plugin, str(number)) for number in range(10)]
    assert [process.wait().reply["Value"] for process in processes] == [str(number) for number in range(10)]


def test_a_call_waits_while_all_workers_are_busy(dom0: Dom0) -> None:
    release, entered = threading.Event(), threading.Event()

    def handler(argument: bytes) -> bytes:
        entered.set()
        release.wait(20)
        return calls.success(argument.decode())

    dom0.serve(handler, workers=1)
    first = Process(dom0.plugin, "first")
    assert entered.wait(20)
    second = Process(dom0.plugin, "second")
    release.set()
    assert [first.wait().reply["Value"], second.wait().reply["Value"]] == ["first", "second"]


def test_a_call_without_an_argument_is_answered(dom0: Dom0) -> None:
    dom0.serve(lambda argument: dispatch.handle(argument, None))  # type: ignore[arg-type]
    assert code_of(run(dom0.plugin).reply) == "ARGUMENT_INVALID"


# --- no daemon ----------------------------------------------------------------------------------


def test_without_a_daemon_the_call_is_served_in_process(dom0: Dom0) -> None:
    assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN


def test_a_call_is_served_in_process_if_the_daemon_is_dead(dom0: Dom0) -> None:
    os.mkdir(os.path.dirname(dom0.socket), 0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(dom0.socket)
    assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN


def test_a_call_is_served_in_process_if_the_daemon_sends_nothing(dom0: Dom0) -> None:
    os.mkdir(os.path.dirname(dom0.socket), 0o700)
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(dom0.socket)
        hung.listen(1)
        started = time.monotonic()
        assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN
        assert time.monotonic() - started < forward.READY_TIMEOUT + 5
        hung.setblocking(False)
        with hung.accept()[0] as channel:
            assert channel.recv(100) == b"", "the call was given to a daemon that did not take it"


def test_a_call_is_served_in_process_if_the_queue_of_the_socket_stays_full(dom0: Dom0) -> None:
    os.mkdir(os.path.dirname(dom0.socket), 0o700)
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as waiting:
        hung.bind(dom0.socket)
        hung.listen(0)
        waiting.connect(dom0.socket)
        assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN


def test_a_call_fails_with_a_code_if_the_settings_are_bad(dom0: Dom0) -> None:
    dom0.write_settings("timeout = soon\n")
    reply = run(dom0.plugin, call("register", vmuuid="0" * 36)).reply
    assert code_of(reply) == SettingsError.code
    assert dom0.settings_path in reply["ErrorDescription"][1]


def test_a_call_fails_with_a_code_if_the_settings_file_is_missing(dom0: Dom0) -> None:
    os.unlink(dom0.settings_path)
    reply = run(dom0.plugin, call("nonesuch")).reply
    assert code_of(reply) == SettingsError.code


def test_a_call_fails_with_a_code_if_xapi_is_out_of_reach(dom0: Dom0) -> None:
    reply = run(dom0.plugin, call("register", vmuuid="4a1b2c3d-0000-4000-8000-123456789abc")).reply
    assert code_of(reply) == "XAPI_UNAVAILABLE"
    assert "no-xapi" in reply["ErrorDescription"][1]


# --- how many at once ---------------------------------------------------------------------------


def run_at_once(executable: str, count: int, argument: bytes) -> List[Dict[str, Any]]:
    processes = [Process(executable, argument) for _ in range(count)]
    return [process.wait().reply for process in processes]


def test_a_daemon_without_a_free_thread_is_busy_and_not_absent(dom0: Dom0) -> None:
    release, entered = threading.Event(), threading.Event()

    def handler(argument: bytes) -> bytes:
        entered.set()
        release.wait(60)
        return calls.success("first")

    dom0.serve(handler, workers=1)
    first = Process(dom0.plugin, "first")
    try:
        assert entered.wait(20)
        for reply in run_at_once(dom0.plugin, 3, call("nonesuch")):
            code, sentence, seconds = reply["ErrorDescription"]
            assert code == "BUSY" and f"Repeat the call in {seconds} s." in sentence
    finally:
        release.set()
    assert first.wait().reply["Value"] == "first"


def test_more_callers_than_the_sockets_queue_holds_are_all_served(dom0: Dom0) -> None:
    os.mkdir(os.path.dirname(dom0.socket), 0o700)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as before:
        listener.bind(dom0.socket)
        listener.listen(0)
        before.connect(dom0.socket)
        process = Process(dom0.plugin, call("nonesuch"))
        listener.accept()[0].close()
        listener.settimeout(20)
        channel = listener.accept()[0]
        with channel:
            channel.sendall(forward.BUSY)
        assert code_of(process.wait().reply) == "BUSY"


@contextmanager
def locked(directory: str, *names: str) -> Iterator[None]:
    """Hold these locks, as other processes would."""
    os.makedirs(directory, 0o700, exist_ok=True)
    files = [open(os.path.join(directory, name), "w", encoding="ascii") for name in names]
    try:
        for file in files:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        for file in files:
            file.close()


def lock_names(kind: str, count: int) -> List[str]:
    return [f"{kind}-{number}.lock" for number in range(count)]


@pytest.mark.parametrize("works_for", [0, 1, forward.MOST_ALONE + 1])
def test_a_file_system_without_locks_costs_no_descriptor(
        dom0: Dom0, monkeypatch: pytest.MonkeyPatch, works_for: int) -> None:
    """ENOLCK at the first lock, at a later one, and while the call waits for its turn."""
    taken = []

    def flock(descriptor: int, operation: int) -> None:
        taken.append(descriptor)
        if len(taken) > works_for:
            raise OSError(errno.ENOLCK, "No locks available")
        if works_for == 1 or len(taken) <= forward.MOST_ALONE:
            raise BlockingIOError(errno.EWOULDBLOCK, "held by another process")

    monkeypatch.setattr(fcntl, "flock", flock)
    before = os.listdir("/proc/self/fd")
    with forward._Alone(os.path.dirname(dom0.socket), call("nonesuch"), "does not run"):
        pass
    assert len(taken) == works_for + 1 and len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("daemon", ["absent", "hung"])
def test_without_the_daemon_calls_above_the_limit_get_busy(dom0: Dom0, daemon: str) -> None:
    directory = os.path.dirname(dom0.socket)
    serving, waiting = lock_names("serving", forward.MOST_ALONE), lock_names("waiting", forward.MOST_WAITING)
    with socket.socket(socket.AF_UNIX) as hung, locked(directory, *serving, *waiting):
        if daemon == "hung":
            hung.bind(dom0.socket)
            hung.listen(5)
        code, sentence, seconds = run(dom0.plugin, call("nonesuch")).reply["ErrorDescription"]
    assert code == "BUSY" and f"Repeat the call in {seconds} s." in sentence
    assert ("does not answer" if daemon == "hung" else "does not run") in sentence


def test_without_the_daemon_a_call_waits_for_its_turn(dom0: Dom0) -> None:
    directory = os.path.dirname(dom0.socket)
    with locked(directory, *lock_names("serving", forward.MOST_ALONE)):
        process = Process(dom0.plugin, call("nonesuch"))
        held = os.path.join(directory, f"waiting-{forward.MOST_WAITING - 1}.lock")
        wait_until(lambda: os.path.exists(held), "it waits")
        assert process.process.poll() is None
    assert process.wait().reply == UNKNOWN


def test_a_dead_process_holds_no_place(dom0: Dom0) -> None:
    directory = os.path.dirname(dom0.socket)
    program = ("import fcntl, os, sys, time\nfor path in sys.argv[1:]:\n"
               "    fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)\nprint('held', flush=True)\n"
               "time.sleep(60)")
    os.makedirs(directory, 0o700)
    paths = [os.path.join(directory, name) for kind, count in (
        ("serving", forward.MOST_ALONE), ("waiting", forward.MOST_WAITING)) for name in lock_names(kind, count)]
    holder = subprocess.Popen([sys.executable, "-c", program, *paths], stdout=subprocess.PIPE)
    assert holder.stdout
    try:
        assert holder.stdout.readline() == b"held\n"
        assert code_of(run(dom0.plugin, call("nonesuch")).reply) == "BUSY"
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN


def test_without_the_daemon_calls_that_take_minutes_leave_room_for_others(dom0: Dom0) -> None:
    directory = os.path.dirname(dom0.socket)
    waiting = lock_names("waiting", forward.MOST_WAITING)
    with locked(directory, *lock_names("serving", forward.MOST_LONG_ALONE), *waiting):
        long = sorted(name for name, verb in VERBS.items() if verb.lane == LONG)
        assert sorted(name.decode() for name in forward.LONG_CALLS) == long
        for name in long:
            assert code_of(run(dom0.plugin, call(name)).reply) == "BUSY"
        assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN


def test_a_run_directory_that_cannot_be_made_refuses_no_call(dom0: Dom0) -> None:
    with open(os.path.dirname(dom0.socket), "w", encoding="ascii"):
        pass
    answer = run(dom0.plugin, call("nonesuch"))
    assert answer.reply == UNKNOWN and b"not counted" in answer.stderr


def test_a_stopped_daemon_serves_again_after_it_continues(dom0: Dom0) -> None:
    """SIGSTOP stops the daemon; the kernel still takes connections for it."""
    program = ("import time; from xscontainer.core import wire; from xscontainer.service.server import Server\n"
               f"Server({dom0.socket!r}, lambda argument: wire.success('daemon'), 4).start()\n"
               "print('ready', flush=True); time.sleep(120)")
    daemon = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE,
                              env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(PLUGIN))))
    assert daemon.stdout
    try:
        assert daemon.stdout.readline() == b"ready\n"
        assert run(dom0.plugin, call("nonesuch")).reply["Value"] == "daemon"
        daemon.send_signal(signal.SIGSTOP)
        assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN
        daemon.send_signal(signal.SIGCONT)
        assert run(dom0.plugin, call("nonesuch")).reply["Value"] == "daemon"
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()


def test_a_daemon_of_an_earlier_release_reads_a_call_of_this_one_and_is_understood(dom0: Dom0) -> None:
    """The daemon's half of the exchange: silent until a worker is free, then ready, then the reply."""
    with daemon_that(dom0, lambda channel: channel.sendall(forward.MAGIC + b"5\nreply")) as taken:
        assert run(dom0.plugin, b"call").stdout == b"reply"
    assert taken == [b"XSCONTAINER/1 4\ncall"]


def test_a_plugin_of_an_earlier_release_takes_a_busy_daemon_for_none() -> None:
    """The plugin of an earlier release reads as many bytes as READY has, or up to the end."""
    assert len(forward.BUSY) <= len(forward.READY) and forward.BUSY != forward.READY


# --- a daemon that takes the call and fails -----------------------------------------------------


@contextmanager
def daemon_that(dom0: Dom0, behaves: Callable[[socket.socket], None]) -> Iterator[List[bytes]]:
    """A listener that takes every call and then behaves; yields the calls."""
    calls: List[bytes] = []
    os.mkdir(os.path.dirname(dom0.socket), 0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(dom0.socket)
    listener.listen(10)

    def serve() -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            with channel:
                channel.sendall(forward.READY)
                with channel.makefile("rb") as incoming:
                    calls.append(incoming.read())
                behaves(channel)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield calls
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize("said", [
    b"",
    forward.MAGIC,
    forward.MAGIC + b"100\nhalf a reply",
    forward.MAGIC + b"4\nlonger",
    forward.MAGIC + b"-1\n",
    forward.MAGIC + b"\xb2\nxx",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"\n\n\n",
], ids=["nothing", "header", "half", "more", "negative", "digit", "http", "lines"])
def test_a_lost_reply_is_a_failure_and_the_call_is_not_repeated(dom0: Dom0, said: bytes) -> None:
    with daemon_that(dom0, lambda channel: channel.sendall(said)) as calls:
        reply = run(dom0.plugin, call("nonesuch")).reply
    assert code_of(reply) == "DAEMON_LOST"
    assert "may have happened" in reply["ErrorDescription"][1]
    assert len(calls) == 1


def test_a_daemon_killed_during_a_call_is_a_failure_of_the_call(dom0: Dom0) -> None:
    program = ("import sys, time; from xscontainer.service.server import Server\n"
               "def handler(argument): print('taken', flush=True); time.sleep(60)\n"
               f"Server({dom0.socket!r}, handler, 4).start(); print('ready', flush=True); time.sleep(60)")
    daemon = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE,
                              env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(PLUGIN))))
    assert daemon.stdout
    try:
        assert daemon.stdout.readline() == b"ready\n"
        process = Process(dom0.plugin, call("nonesuch"))
        assert daemon.stdout.readline() == b"taken\n"
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
    assert code_of(process.wait().reply) == "DAEMON_LOST"


# --- a socket that is not the daemon's ----------------------------------------------------------


def test_a_socket_of_another_owner_is_not_trusted(dom0: Dom0) -> None:
    need(os.geteuid() == 0, "root, to give a socket away")
    with daemon_that(dom0, lambda channel: None) as calls:
        os.chown(dom0.socket, NOBODY, NOBODY)
        answer = run(dom0.plugin, call("nonesuch"))
    assert answer.reply == UNKNOWN
    assert b"not used" in answer.stderr
    assert calls == []


def test_a_listener_of_another_user_is_not_trusted(dom0: Dom0) -> None:
    """The file is root's, the process behind it is not: as when a directory was swapped in between."""
    need(os.geteuid() == 0, "root, to run a process as another user")
    directory = os.path.dirname(dom0.socket)
    os.mkdir(directory)
    program = ("import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.chdir(sys.argv[1]); "
               f"os.setgid({NOBODY}); os.setuid({NOBODY}); s.bind('daemon.sock'); s.listen(5); "
               "print('ready', flush=True); c, _ = s.accept()\n"
               f"try: c.sendall({forward.READY!r}); taken = c.recv(9)\n"
               "except OSError: taken = b''\n"
               "print('taken' if taken else 'refused', flush=True)")
    os.chown(directory, NOBODY, NOBODY)
    planter = subprocess.Popen([sys.executable, "-IS", "-c", program, directory], stdout=subprocess.PIPE)
    assert planter.stdout
    try:
        assert planter.stdout.readline() == b"ready\n"
        os.chown(dom0.socket, 0, 0)
        assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN
        assert planter.stdout.readline() == b"refused\n"
    finally:
        planter.kill()
        planter.wait()
        planter.stdout.close()


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_a_file_that_is_not_a_socket_is_not_trusted(dom0: Dom0, kind: str) -> None:
    os.mkdir(os.path.dirname(dom0.socket), 0o700)
    if kind == "file":
        open(dom0.socket, "w").close()
    elif kind == "link":
        os.symlink("/dev/null", dom0.socket)
    else:
        os.mkdir(dom0.socket)
    assert run(dom0.plugin, call("nonesuch")).reply == UNKNOWN


# --- where the package is -----------------------------------------------------------------------


def copied_tree(directory: str) -> str:
    """A copy of the package and the executable in ``directory``; returns the executable."""
    root = os.path.dirname(os.path.dirname(PLUGIN))
    shutil.copytree(os.path.join(root, "xscontainer"), os.path.join(directory, "xscontainer"),
                    ignore=shutil.ignore_patterns("simulator", "__pycache__"))
    os.mkdir(os.path.join(directory, "xapi-plugins"))
    return shutil.copy(PLUGIN, os.path.join(directory, "xapi-plugins"))


def with_this_python(executable: str) -> str:
    """Run by the interpreter of the tests, with the options that its first line gives."""
    with open(executable, encoding="utf-8") as script:
        first, rest = script.readline(), script.read()
    assert re.match(r"#!/usr/bin/python3 -\w+\n$", first)
    with open(executable, "w", encoding="utf-8") as script:
        script.write(first.replace("/usr/bin/python3", sys.executable) + rest)
    return executable


def test_the_plugin_is_executable() -> None:
    assert os.access(PLUGIN, os.X_OK)
    assert stat.S_IMODE(os.stat(PLUGIN).st_mode) & 0o022 == 0


def test_installed_in_the_plugin_directory_it_finds_the_packs_private_directory(tmp_path: Any) -> None:
    copied_tree(str(tmp_path / "private"))
    installed = str(tmp_path / "xapi.d" / "plugins" / "xscontainer")
    os.makedirs(os.path.dirname(installed))
    shutil.copy(PLUGIN, installed)
    with_this_python(installed)
    with open(installed, encoding="utf-8") as script:
        text = script.read()
    constant = 'PRIVATE_DIRECTORY = "/usr/lib/xscontainer"'
    assert constant in text
    with open(installed, "w", encoding="utf-8") as script:
        script.write(text.replace(constant, f"PRIVATE_DIRECTORY = {str(tmp_path / 'private')!r}"))
    assert run(installed, call("nonesuch")).reply == UNKNOWN


def test_linked_into_the_plugin_directory_it_finds_its_tree(tmp_path: Any) -> None:
    link = str(tmp_path / "xscontainer")
    os.symlink(with_this_python(copied_tree(str(tmp_path / "tree"))), link)
    assert run(link, call("nonesuch")).reply == UNKNOWN


def test_a_missing_dependency_is_a_failure_and_its_output_stays_out_of_the_reply(tmp_path: Any) -> None:
    executable = with_this_python(copied_tree(str(tmp_path)))
    (tmp_path / "paramiko.py").write_text("print('noise')\nimport os; os.system('echo more noise')\n"
                                        "raise ImportError('paramiko is not what it was')\n")
    answer = run(executable, call("nonesuch"))
    assert code_of(answer.reply) == "PLUGIN_INCOMPLETE"
    assert "paramiko is not what it was" in answer.reply["ErrorDescription"][1]
    assert b"noise" in answer.stderr


def test_a_broken_package_is_a_failure_that_xapi_can_read(tmp_path: Any) -> None:
    executable = with_this_python(copied_tree(str(tmp_path)))
    (tmp_path / "xscontainer" / "plugin" / "forward.py").write_text("raise RuntimeError('half written')\n")
    answer = run(executable, call("nonesuch"))
    assert code_of(answer.reply) == "PLUGIN_INCOMPLETE"
    assert b"half written" in answer.stderr


def test_the_shim_quotes_its_arguments(tmp_path: Any) -> None:
    odd = tmp_path / "it's $HOME `odd`; \u00e9"
    odd.mkdir()
    conf = odd / "x.conf"
    conf.write_text("[daemon]\n")
    executable = install_plugin(str(odd), str(conf))
    assert run(executable, call("nonesuch")).reply == UNKNOWN


# --- start-up time ------------------------------------------------------------------------------


def test_handing_a_call_on_imports_next_to_nothing(dom0: Dom0) -> None:
    """Each of these costs milliseconds at every call: socket 8, typing 11, configparser 9, re 4."""
    dom0.serve(lambda argument: b"")
    program = ("import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]); sys.argv[1:] = ['x']; "
               "from xscontainer.plugin import forward; forward.main(); "
               "sys.stderr.write(' '.join(sorted(set(sys.modules) - before)))")
    process = subprocess.run(
        [sys.executable, "-IS", "-c", program, os.path.dirname(os.path.dirname(PLUGIN))],
        env={"XSCONTAINER_CONF": dom0.settings_path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    cheap = {"_collections_abc", "_socket", "_stat", "errno", "genericpath", "os", "os.path", "posixpath", "stat",
             "time", "xscontainer", "xscontainer.plugin", "xscontainer.plugin.forward"}
    assert set(process.stderr.decode().split()) <= cheap


# --- settings without settings.py ---------------------------------------------------------------


def test_the_constants_are_those_of_the_settings() -> None:
    assert forward.DEFAULT_SOCKET == settings.Settings().daemon.socket
    assert forward.DEFAULT_SETTINGS == settings.DEFAULT_PATH


def test_the_sample_as_we_ship_it_is_read_without_settings() -> None:
    assert forward.plain_socket(settings.sample()) == forward.DEFAULT_SOCKET


@pytest.mark.parametrize("text", [
    "[daemon]\nsocket = /run/x y\n",
    "[daemon]\nsocket =\n  /run/x\n",
    "[daemon]\nsocket = /run/x\n  more\n",
    "\ufeff[daemon]\nsocket = /run/x\n",
    "[daemon] \u00e9]\nsocket = /run/x\n",
])
def test_a_settings_file_that_is_not_plain_is_left_to_settings_py(text: str) -> None:
    assert forward.plain_socket(text) is None


fragments = st.sampled_from([
    "[daemon]", "[xapi]", "[DEFAULT]", "[", "]", "[]", "socket", "Socket", "workers", "=", " = ", ":", "/a/b",
    "/run/x.sock", "3", "\n", "\n\n", "\n ", "\n\t", " ", "#", ";", "%(x)s", "\r", "\x0b", "\x1c",
    "\u2028", "\u00a0", "\ufeff", '"',
])


@given(st.lists(fragments, max_size=14).map("".join))
def test_both_readers_of_a_settings_text_agree(text: str) -> None:
    agrees_with_settings(text)


lines = st.lists(st.sampled_from([
    "[daemon]", "[xapi]", "[other]", "[daemon] ", " [daemon]", "[Daemon]", "socket = /a/b", "socket=/c", "SOCKET =/d ",
    "socket : /e", " socket = /f", "socket = /g h", "socket", "socket =", "socket = relative", "# socket = /i",
    "  ; socket = /j", "", " ", "workers = 3", "unknown = = x", "  continued", "socket = /k # no comment",
    "socket\t=\t/l", "= /m",
]), max_size=8).map("\n".join)


@given(lines)
def test_both_readers_of_settings_lines_agree(text: str) -> None:
    agrees_with_settings(text)


def agrees_with_settings(text: str) -> None:
    plain = forward.plain_socket(text)
    try:
        properly = settings.parse(text).settings.daemon.socket
    except SettingsError:
        return  # no daemon runs with such settings, and in-process the error is told
    assert plain in (None, properly)
