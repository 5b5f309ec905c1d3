"""Commands in a guest work with each login shell and start-up file; a program that runs instead is recognized."""

import os
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import paramiko
import pytest

from tests.engine.conftest import QUICK
from tests.need import need_program
from tests.verbs.prepare.guests import PASSWORD, UID, USER, FreshGuest
from xscontainer.engine.ssh import commands
from xscontainer.engine.ssh.login import Guest
from xscontainer.engine.ssh.transport import GuestTransport
from xscontainer.errors import ScriptNotRun, ScriptSilent, XSContainerError

TALKS = 'echo "$1"; id -u; echo complaint >&2; exit 3'
ANSWER = f"a b\n{UID}\ncomplaint".encode()

Make = Callable[..., FreshGuest]


@pytest.fixture
def make_guest(tmp_path: Any) -> Iterator[Make]:
    made: List[FreshGuest] = []

    def make(startup: str = "", **parameters: Any) -> FreshGuest:
        guest = FreshGuest(str(tmp_path / f"g{len(made)}"), **parameters)
        made.append(guest)
        guest.start()
        if startup:
            path = os.path.join(guest.home, ".bashrc")
            with open(path, "w", encoding="utf-8") as file:
                file.write(startup)
            os.chown(path, UID, UID)
        return guest

    yield make
    for guest in made:
        guest.close()


def inside(guest: FreshGuest, act: "Callable[[GuestTransport], Any]") -> Any:
    with Guest([guest.address], guest.port, QUICK) as met:
        met.by_password(USER, PASSWORD)
        return act(met.transport)


def run(transport: GuestTransport, script: str = TALKS, seconds: float = 20.0) -> commands.Answer:
    return commands.run(transport, script, "a b", deadline=time.monotonic() + seconds)


def echo(transport: GuestTransport, seconds: float = 20.0) -> bytes:
    """Return the output of a script that copies its input."""
    deadline = time.monotonic() + seconds
    started = commands.start(transport, 'read -r first; echo "$1: $first"; exec cat', "a b", deadline=deadline)
    try:
        started.channel.settimeout(seconds)
        started.channel.sendall(b"one\ntwo\x00\xff")
        started.channel.shutdown_write()
        said = b""
        while True:
            piece = started.channel.recv(1000)
            if not piece:
                return said
            said += piece
    finally:
        started.channel.close()


SHELLS = ["dash", "bash", "rbash", "mksh", "busybox", "tcsh", "zsh", "fish"]


@pytest.mark.real
@pytest.mark.parametrize("name", SHELLS)
def test_every_login_shell_runs_a_script(make_guest: Make, name: str) -> None:
    path = need_program(name, "busybox-static" if name == "busybox" else name)
    if name == "busybox":  # a guest without any other program
        guest = make_guest(sh=path)
    else:
        guest = make_guest(shell=path)
    assert inside(guest, run) == commands.Answer(3, ANSWER)
    assert inside(guest, echo) == b"a b: one\ntwo\x00\xff"


# Start-up files of bash after which a command still runs.
PASSING = {
    "prints": "echo Welcome; echo complaint >&2; printf 'no line end'\n",
    "prints 20 KB": "for i in $(seq 400); do echo 'a line of the message of the day that is fifty long'; done\n",
    "prints 20 KB of errors": "for i in $(seq 400); do echo 'a line of the message of the day, fifty long' >&2; done\n",
    "reads a line": "read -r answer\n",
    "reads two lines": "read -r answer; read -r answer\n",
    "prompts": "read -t 30 -p 'Key passphrase: ' x\n",
    "fails": "tput bold\nstty -ixon\nbind '\"x\":y'\nfalse\n",
    "aliases": "alias ls='ls -F' test=false exec='echo no' sh='echo no'\nshopt -s expand_aliases\n",
    "functions": "".join(f"{name}() {{ echo no; false; }}; export -f {name}\n"
                         for name in ("test", "[", "echo", "read", "id", "env", "sh", "exec", "case_")),
    "elsewhere": "cd /tmp\nexport HOME=/nonexistent PATH=/nonexistent LC_ALL=de_DE.UTF-8 ENV=/nonexistent IFS=abc\n",
    "a typescript": "exec() { builtin exec script -qc \"$*\" /dev/null; }\n",
    "background noise": "(sleep 0.05; echo late; echo late >&2) &\nsleep 0.2\n",
}


@pytest.mark.real
@pytest.mark.parametrize("startup", list(PASSING))
def test_output_of_start_up_files_is_not_part_of_the_answer(make_guest: Make, startup: str) -> None:
    guest = make_guest(PASSING[startup], shell=need_program("bash"))
    assert inside(guest, run) == commands.Answer(3, ANSWER)
    assert inside(guest, echo) == b"a b: one\ntwo\x00\xff"


# Programs that run instead, and the part of their output in the message.
INSTEAD: Dict[str, Tuple[Dict[str, Any], str]] = {
    "exec fish": (dict(startup="exec fish\n"), "without output"),
    "exec zsh": (dict(startup="exec zsh\n"), "without output"),
    "exits": (dict(startup="[[ $- == *i* ]] || exit 7\n"), "exit status 7"),
    "stops at an error": (dict(startup="set -e\nfalse\n"), "exit status 1"),
    "prints much and exits": (
        dict(startup="for i in $(seq 2000); do echo line $i; done\necho Account expired.\nexit 1\n"),
        "Account expired"),
    "prints without end": (dict(startup="yes\n"), "y y y"),
    "nologin": (dict(shell="/usr/sbin/nologin"), "not available"),
    "git-shell": (dict(shell="/usr/bin/git-shell"), "unrecognized command"),
    "sftp": (dict(options={"ForceCommand": "internal-sftp"}), "sftp connections only"),
    "forced": (dict(options={"ForceCommand": "echo This account is closed."}), "This account is closed"),
    "echoes the command": (dict(options={"ForceCommand": 'echo "unknown: $SSH_ORIGINAL_COMMAND"'}), "unknown"),
    "no sessions": (dict(options={"MaxSessions": "0"}), "refuses"),
}


@pytest.mark.real
@pytest.mark.parametrize("way", list(INSTEAD))
def test_a_program_that_runs_instead_is_quoted(make_guest: Make, way: str) -> None:
    parameters, words = INSTEAD[way]
    parameters = dict({"shell": need_program("bash")}, **parameters)
    if parameters["shell"] == "/usr/bin/git-shell":
        need_program("git-shell", "git")
    guest = make_guest(**parameters)
    with pytest.raises(ScriptNotRun) as caught:
        inside(guest, run)
    assert words in caught.value.message and USER in caught.value.message
    assert "~/.bashrc" in caught.value.hint


@pytest.mark.real
@pytest.mark.parametrize("act", [run, echo])
def test_a_start_up_file_that_waits_forever_is_reported(make_guest: Make, act: Callable[..., Any]) -> None:
    guest = make_guest("echo Waiting for the network.\nsleep 600\n", shell=need_program("bash"))
    with pytest.raises(ScriptSilent, match="Waiting for the network"):
        inside(guest, lambda transport: act(transport, seconds=2.0))


@pytest.mark.real
def test_a_process_left_in_the_background_does_not_delay_the_answer(make_guest: Make) -> None:
    """The process keeps the streams open, but the answer is complete."""
    guest = make_guest()
    assert inside(guest, lambda transport: run(transport, "sleep 60 & echo done")) == commands.Answer(0, b"done")


@pytest.mark.real
def test_an_answer_that_is_too_long_is_refused(make_guest: Make) -> None:
    with pytest.raises(ScriptNotRun, match="more than 65536 bytes"):
        inside(make_guest(), lambda transport: run(transport, "while :; do echo endless; done"))


@pytest.mark.real
@pytest.mark.parametrize("options, words", [
    ('command="echo hello" ', "command="), ('no-port-forwarding,command="/usr/bin/rsync --server" ', "command=")])
def test_a_forced_command_of_the_key_is_reported_with_its_line(make_guest: Make, private_key: paramiko.PKey,
                                                               key_pair: Any, options: str, words: str) -> None:
    guest = make_guest()
    guest.write_keys(f"# mine\n{options}{key_pair.public}\n".encode())
    with Guest([guest.address], guest.port, QUICK) as met:
        assert met.by_key(USER, private_key)
        with pytest.raises(XSContainerError) as caught:
            run(met.transport)
        assert met.transport.key_line is not None and met.transport.key_line.number == 2
    assert words in caught.value.hint and "Line 2 of " in caught.value.hint and "authorized_keys" in caught.value.hint


@pytest.mark.parametrize("word", ["it's", "a\\b", "wow!", "`id`", "a\nb", "\x00", "\xe4", "\x7f"])
def test_a_word_with_special_characters_is_refused(word: str) -> None:
    for script, argument in ((word, "x"), ("echo", word)):
        with pytest.raises(ValueError):
            commands.command_line("/bin/sh", script, (argument,))


def test_the_command_line_does_not_contain_the_mark() -> None:
    """Otherwise a program that prints its command line would look like the script."""
    line = commands.command_line("/bin/sh", commands._RUN % "id", ("abc", "def"))
    assert "abcdef" not in line
