"""The pool's key in a guest's authorized_keys, by real sshds, shells and file systems."""

import os
import socket
import stat
import threading
import time
from typing import Any, Callable, List

import paramiko
import pytest

from tests.engine.peers import Server
from tests.need import need_program
from tests.prepare.guests import INSIDE, PASSWORD, UID, USER, FreshGuest
from xscontainer.engine import install_key
from xscontainer.engine.keypair import public_line
from xscontainer.engine.login import Guest
from xscontainer.engine.transport import GuestTransport
from xscontainer.errors import GuestSilent, KeyInstallFailed
from xscontainer.settings import SSHSettings

pytestmark = pytest.mark.real
Make = Callable[..., FreshGuest]

QUICK = SSHSettings(connect_timeout=5.0, banner_timeout=5.0, auth_timeout=10.0)
OLD = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKc0X5mB3kWZ3n4pQp1WJt0kY0f7q7m3l5r9s1t3u5v7 me@home"


def meet(guest: FreshGuest) -> Guest:
    return Guest([guest.address], guest.port, QUICK)


def by_password(guest: FreshGuest, act: "Callable[[GuestTransport], Any]") -> Any:
    with meet(guest) as met:
        met.by_password(USER, PASSWORD)
        return act(met.transport)


def install(guest: FreshGuest, key: paramiko.PKey) -> bool:
    return bool(by_password(guest, lambda transport: install_key.install(transport, key)))


def accepts(guest: FreshGuest, key: paramiko.PKey) -> bool:
    with meet(guest) as met:
        return met.by_key(USER, key)


def line(key: paramiko.PKey) -> bytes:
    return f"restrict,port-forwarding {public_line(key)} xscontainer\n".encode()


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_user_without_any_key(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    assert not accepts(guest, pool_key)
    assert install(guest, pool_key) is True
    assert guest.keys() == line(pool_key)
    assert (mode(guest.home + "/.ssh"), mode(guest.keys_path)) == (0o700, 0o600)
    assert os.stat(guest.keys_path).st_uid == UID
    assert accepts(guest, pool_key)
    before = os.stat(guest.keys_path)
    assert install(guest, pool_key) is False
    after = os.stat(guest.keys_path)
    assert (before.st_ino, before.st_mtime) == (after.st_ino, after.st_mtime)
    assert os.listdir(guest.home + "/.ssh") == ["authorized_keys"]


@pytest.mark.parametrize("before, kept", [
    (OLD, OLD + b"\n"),
    (OLD + b"\n", OLD + b"\n"),
    (b"", b""),
    (b"# mine\r\n\n\xff\xfe odd\n  " + OLD + b"\n\n", b"# mine\r\n\n\xff\xfe odd\n  " + OLD + b"\n\n"),
])
def test_other_lines_stay_byte_for_byte(make_guest: Make, pool_key: paramiko.PKey, before: bytes, kept: bytes) -> None:
    guest = make_guest()
    guest.write_keys(before)
    assert install(guest, pool_key) is True
    assert guest.keys() == kept + line(pool_key)
    assert accepts(guest, pool_key)


def test_a_key_in_a_comment_is_none_and_one_with_other_options_is(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    guest.write_keys(b"  # " + public_line(pool_key).encode() + b"\n")
    assert install(guest, pool_key) is True
    guest.write_keys(b'no-pty ' + public_line(pool_key).encode() + b" somebody\n")
    assert install(guest, pool_key) is False


@pytest.mark.parametrize("directory, file", [(0o777, 0o666), (0o775, 0o664), (0o500 | 0o200, 0o640)])
def test_modes_that_sshd_would_not_take_are_mended(make_guest: Make, pool_key: paramiko.PKey,
                                                   directory: int, file: int) -> None:
    guest = make_guest()
    guest.write_keys(OLD + b"\n", file)
    os.chmod(guest.home + "/.ssh", directory)
    assert install(guest, pool_key) is True
    assert accepts(guest, pool_key)
    assert (mode(guest.home + "/.ssh"), mode(guest.keys_path)) == (directory & ~0o022, file & ~0o022)


def test_a_link_stays_a_link(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    guest.write_keys(OLD)
    os.makedirs(guest.home + "/dot files")
    os.chown(guest.home + "/dot files", UID, UID)
    os.rename(guest.keys_path, guest.home + "/dot files/keys")
    os.symlink("../dot files/keys", guest.keys_path)
    assert install(guest, pool_key) is True
    assert os.readlink(guest.keys_path) == "../dot files/keys"
    assert guest.keys() == OLD + b"\n" + line(pool_key)
    assert os.listdir(guest.home + "/dot files") == ["keys"]
    assert by_password(guest, lambda transport: install_key.remove(transport, pool_key)) is True
    assert os.path.islink(guest.keys_path) and guest.keys() == OLD + b"\n"


def test_a_home_that_is_not_ones_own(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    os.chown(guest.home, 0, 0)
    with pytest.raises(KeyInstallFailed, match="Permission denied"):
        install(guest, pool_key)
    os.makedirs(guest.home + "/.ssh")
    with pytest.raises(KeyInstallFailed, match="Operation not permitted"):
        install(guest, pool_key)


def test_a_home_that_is_missing(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    os.rmdir(guest.home)
    with pytest.raises(KeyInstallFailed, match="(?i)can't cd|no such file"):
        install(guest, pool_key)


def test_a_failure_leaves_the_file_as_it_was(make_guest: Make, pool_key: paramiko.PKey) -> None:
    """The directory may not be written to, the file may."""
    guest = make_guest()
    guest.write_keys(OLD)
    os.makedirs(guest.home + "/elsewhere")
    os.rename(guest.keys_path, guest.home + "/elsewhere/keys")
    os.symlink("../elsewhere/keys", guest.keys_path)
    with pytest.raises(KeyInstallFailed, match="Permission denied"):
        install(guest, pool_key)
    assert guest.keys() == OLD


@pytest.mark.parametrize("name", ["dash", "bash", "busybox", "tcsh", "zsh", "fish"])
def test_every_login_shell_passes_it_on(make_guest: Make, pool_key: paramiko.PKey, name: str) -> None:
    path = need_program(name, "busybox-static" if name == "busybox" else name)
    guest = make_guest(shell=path)
    if name == "busybox":
        os.symlink(path, guest.directory + "/sh")
        replace_shell(guest, path, INSIDE + "/sh")
    guest.write_keys(OLD)
    assert install(guest, pool_key) is True
    assert guest.keys() == OLD + b"\n" + line(pool_key)
    assert accepts(guest, pool_key)


@pytest.mark.parametrize("name", ["bash", "busybox"])
def test_other_programs_do_as_well(make_guest: Make, pool_key: paramiko.PKey, next_key: paramiko.PKey,
                                   name: str) -> None:
    """Beside Debian's dash and the GNU tools."""
    guest = make_guest(sh=need_program(name, "busybox-static" if name == "busybox" else name))
    for before in (b"", OLD, b"# mine\n" + OLD + b"\n"):
        guest.write_keys(before)
        kept = before + b"\n" if before.endswith(OLD) else before
        assert install(guest, pool_key) is True and install(guest, pool_key) is False
        assert install(guest, next_key) is True
        assert guest.keys() == kept + line(pool_key) + line(next_key)
        assert by_password(guest, lambda transport: install_key.remove(transport, pool_key)) is True
        assert by_password(guest, lambda transport: install_key.remove(transport, pool_key)) is False
        assert guest.keys() == kept + line(next_key)
    os.unlink(guest.keys_path)
    os.rmdir(os.path.dirname(guest.keys_path))
    assert install(guest, pool_key) is True and accepts(guest, pool_key)


def replace_shell(guest: FreshGuest, old: str, new: str) -> None:
    path = os.path.join(guest.etc, "passwd")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(f":{old}\n", f":{new}\n"))


def test_start_up_files_may_talk(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest(shell=need_program("bash", "bash"))
    with open(guest.home + "/.bashrc", "w", encoding="utf-8") as file:
        file.write("echo Welcome to this machine; echo some complaint >&2\n")
    assert install(guest, pool_key) is True
    assert accepts(guest, pool_key)


def test_a_shell_that_is_none(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest(options={"ForceCommand": "echo This account is closed."})
    with pytest.raises(KeyInstallFailed, match="This account is closed"):
        install(guest, pool_key)


def test_removing_leaves_the_rest(make_guest: Make, pool_key: paramiko.PKey, next_key: paramiko.PKey) -> None:
    guest = make_guest()
    comment = b"# was: " + public_line(pool_key).encode() + b"\n"
    guest.write_keys(OLD + b"\n" + comment + line(pool_key) + b"\xff\x00 odd\n" + line(next_key) + b"end")
    with meet(guest) as met:
        assert met.by_key(USER, next_key)
        assert install_key.remove(met.transport, pool_key) is True
        assert install_key.remove(met.transport, pool_key) is False
    assert guest.keys() == OLD + b"\n" + comment + b"\xff\x00 odd\n" + line(next_key) + b"end"
    assert not accepts(guest, pool_key) and accepts(guest, next_key)


def test_the_label_is_restored_where_there_are_labels(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    tools = guest.directory + "/tools"
    os.makedirs(tools)
    with open(tools + "/restorecon", "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\necho "$@" >>{INSIDE}/user/restored\n')
    os.chmod(tools + "/restorecon", 0o755)
    guest.set_options({**guest._options, "SetEnv": f"PATH={INSIDE}/tools:/usr/bin:/bin"})
    assert install(guest, pool_key) is True
    with open(guest.home + "/restored", encoding="utf-8") as file:
        assert file.read() == f"-F .ssh {INSIDE}/user/.ssh/authorized_keys\n"


GREETINGS = [
    ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", "restrict,port-forwarding "),
    ("SSH-2.0-OpenSSH_7.2", "restrict,port-forwarding "),
    ("SSH-2.0-OpenSSH_10.0", "restrict,port-forwarding "),
    ("SSH-2.0-OpenSSH_6.6.1p1", "no-pty,no-X11-forwarding,no-agent-forwarding "),
    ("SSH-2.0-dropbear_2022.83", ""),
    ("SSH-2.0-OpenSSH", ""),
    ("", ""),
]


@pytest.mark.parametrize("greeting, words", GREETINGS)
def test_restrictions_that_the_server_knows(greeting: str, words: str) -> None:
    assert install_key.options(greeting) == words


def test_windows_is_left_to_a_person() -> None:
    with pytest.raises(KeyInstallFailed, match="administrators_authorized_keys"):
        install_key.options("SSH-2.0-OpenSSH_for_Windows_8.1")


def test_the_command_line_is_plain(make_guest: Make) -> None:
    inside = install_key.COMMAND.split("'")
    assert len(inside) == 3 and not set("!\\\n`") & set(install_key.COMMAND)
    assert "\n" not in install_key._PROGRAM


def test_refused_ways(make_guest: Make, pool_key: paramiko.PKey) -> None:
    texts: List[str] = []
    guest = make_guest(options={"MaxSessions": "0"})
    with pytest.raises(KeyInstallFailed) as failure:
        install(guest, pool_key)
    texts.append(str(failure.value))
    assert "runs no commands" in texts[0]


class _Lets(paramiko.ServerInterface):
    """Everybody in, with any command; reads on channels as slowly as may be."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def sip() -> None:
            while not self.over.wait(0.1) and channel.recv(1):
                pass

        self.sips = threading.Thread(target=sip)
        self.sips.start()
        return True


def test_a_guest_that_takes_it_byte_by_byte(pool_key: paramiko.PKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_key, "SECONDS", 1.0)
    lets = _Lets()

    def serve(peer: socket.socket) -> None:
        transport = paramiko.Transport(peer, default_window_size=1)
        transport.add_server_key(paramiko.ECDSAKey.generate())
        try:
            transport.start_server(server=lets, event=threading.Event())
            transport.join(20.0)
        finally:
            transport.close()

    with Server(serve) as server:
        try:
            with Guest(["127.0.0.1"], server.port, QUICK) as met:
                met.by_password(USER, PASSWORD)
                began = time.monotonic()
                with pytest.raises(GuestSilent, match="did not install"):
                    install_key.install(met.transport, pool_key)
                assert time.monotonic() - began < 5.0
        finally:
            lets.over.set()
            lets.sips.join(5.0)
