"""The pool's key in a guest's authorized_keys, by real sshds, shells and file systems."""

import os
import socket
import stat
import subprocess
import threading
import time
from typing import Any, Callable, Tuple

import paramiko
import pytest

from tests.engine.peers import Server
from tests.need import need_program
from tests.verbs.prepare.guests import INSIDE, PASSWORD, UID, USER, FreshGuest
from xscontainer.engine.ssh import install_key, keys_file
from xscontainer.engine.ssh.keypair import public_line
from xscontainer.engine.ssh.login import Guest
from xscontainer.engine.ssh.shell import Shell
from xscontainer.errors import GuestSilent, KeyInstallFailed, KeyLineRestricted, ScriptNotRun
from xscontainer.settings import GuestSettings

pytestmark = pytest.mark.real
Make = Callable[..., FreshGuest]

QUICK = GuestSettings(connect_timeout=5.0, handshake_timeout=5.0, login_timeout=10.0)
OLD = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKc0X5mB3kWZ3n4pQp1WJt0kY0f7q7m3l5r9s1t3u5v7 me@home"


def meet(guest: FreshGuest) -> Guest:
    return Guest([guest.address], guest.port, QUICK)


def by_password(guest: FreshGuest, act: "Callable[[Shell], Any]") -> Any:
    with meet(guest) as met:
        met.by_password(USER, PASSWORD)
        return act(met.shell)


def install(guest: FreshGuest, key: paramiko.PKey) -> bool:
    return bool(by_password(guest, lambda shell: install_key.install(shell, key)))


def accepts(guest: FreshGuest, key: paramiko.PKey) -> bool:
    with meet(guest) as met:
        return met.by_key(USER, key)


def line(key: paramiko.PKey) -> bytes:
    return f"restrict,port-forwarding {public_line(key)} xscontainer\n".encode()


def with_line(text: bytes, key: paramiko.PKey) -> bytes:
    """The file with our line, which stands before a last line without a line end."""
    whole = text.rfind(b"\n") + 1
    return text[:whole] + line(key) + text[whole:]


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


@pytest.mark.parametrize("before", [
    OLD, OLD + b"\n", b"", b"# mine\r\n\n\xff\xfe odd\n  " + OLD + b"\n\n", b"# mine\n  " + OLD + b"\r"])
def test_other_lines_stay_byte_for_byte(make_guest: Make, pool_key: paramiko.PKey, before: bytes) -> None:
    guest = make_guest()
    guest.write_keys(before)
    assert install(guest, pool_key) is True
    assert guest.keys() == with_line(before, pool_key)
    assert accepts(guest, pool_key)
    changed = by_password(guest, lambda shell: install_key.remove(shell, pool_key))
    assert changed == [INSIDE + "/user/.ssh/authorized_keys"]
    assert guest.keys() == before


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
    assert guest.keys() == with_line(OLD, pool_key)
    assert os.listdir(guest.home + "/dot files") == ["keys"]
    assert by_password(guest, lambda shell: install_key.remove(shell, pool_key)) == [INSIDE + "/user/dot files/keys"]
    assert os.path.islink(guest.keys_path) and guest.keys() == OLD


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
    assert guest.keys() == with_line(OLD, pool_key)
    assert accepts(guest, pool_key)


@pytest.mark.parametrize("name", ["bash", "busybox"])
def test_other_programs_do_as_well(make_guest: Make, pool_key: paramiko.PKey, next_key: paramiko.PKey,
                                   name: str) -> None:
    """Beside Debian's dash and the GNU tools."""
    guest = make_guest(sh=need_program(name, "busybox-static" if name == "busybox" else name))
    for before in (b"", OLD, b"# mine\n" + OLD + b"\n"):
        guest.write_keys(before)
        assert install(guest, pool_key) is True and install(guest, pool_key) is False
        assert install(guest, next_key) is True
        assert guest.keys() == with_line(with_line(before, pool_key), next_key)
        assert by_password(guest, lambda shell: install_key.remove(shell, pool_key))
        assert by_password(guest, lambda shell: install_key.remove(shell, pool_key)) == []
        assert guest.keys() == with_line(before, next_key)
    os.unlink(guest.keys_path)
    os.rmdir(os.path.dirname(guest.keys_path))
    assert install(guest, pool_key) is True and accepts(guest, pool_key)


def replace_shell(guest: FreshGuest, old: str, new: str) -> None:
    replace_in_passwd(guest, f":{old}\n", f":{new}\n")


def replace_in_passwd(guest: FreshGuest, old: str, new: str) -> None:
    path = os.path.join(guest.etc, "passwd")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new))


# --- options of lines

UNUSABLE = {
    'from="192.0.2.0/24" ': 'from="192.0.2.0/24" does not include 127.',
    'no-pty,from="10.*,!127.0.0.0/8,127.*" ': "does not include",
    'expiry-time="20200101" ': 'expiry-time="20200101" has passed',
    "cert-authority ": "cert-authority",
    'command="say \\"a, b\\" # no",from="192.0.2.1" ': 'from="192.0.2.1"',
    "no-such-option ": "no-such-option",
}


@pytest.mark.parametrize("options", list(UNUSABLE))
def test_a_line_that_cannot_serve_is_named(make_guest: Make, pool_key: paramiko.PKey, options: str) -> None:
    guest = make_guest()
    text = OLD + b"\n# ours:\n" + options.encode() + public_line(pool_key).encode() + b" from-puppet\r\n"
    guest.write_keys(text)
    assert not accepts(guest, pool_key)
    with pytest.raises(KeyLineRestricted) as caught:
        install(guest, pool_key)
    assert UNUSABLE[options] in caught.value.message and "line 3" in caught.value.message
    assert f"{INSIDE}/user/.ssh/authorized_keys" in caught.value.message
    assert guest.keys() == text


def test_a_line_that_serves_beside_one_that_cannot_is_enough(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    key = public_line(pool_key).encode()
    guest.write_keys(b'from="192.0.2.1" ' + key + b'\nfrom="127.0.0.0/8",no-pty ' + key + b"\n")
    assert accepts(guest, pool_key) and install(guest, pool_key) is False


@pytest.mark.parametrize("head, tail, end", [
    (b'from="127.0.0.0/8,10.0.0.0/8",restrict,port-forwarding ', b" the pool's", b"\n"),
    (b'  command="echo \\"a b\\", c",environment="A=b c" ', b"\tby puppet: do not edit \r", b"\n"),
    (b"restrict,port-forwarding ", b" xscontainer", b"\n"),
    (b"", b"", b"\n"),
    (b"no-pty ", b" last line", b""),
])
def test_a_new_key_gets_the_options_of_the_one_that_it_replaces(
        make_guest: Make, pool_key: paramiko.PKey, next_key: paramiko.PKey, head: bytes, tail: bytes,
        end: bytes) -> None:
    guest = make_guest()
    old, new = (head + public_line(key).encode() + tail + end for key in (pool_key, next_key))
    around = (OLD + b"\n", b"" if not end else b"# end, without a line feed")
    guest.write_keys(around[0] + old + around[1])
    assert by_password(guest, lambda shell: install_key.install(shell, next_key, pool_key)) is True
    assert guest.keys() == around[0] + old + (b"" if end else b"\n") + new + around[1]
    assert by_password(guest, lambda shell: install_key.install(shell, next_key, pool_key)) is False
    assert by_password(guest, lambda shell: install_key.remove(shell, pool_key))
    assert guest.keys() == around[0] + new + around[1]
    assert accepts(guest, next_key)


# --- the file itself


def owned(path: str) -> Tuple[int, int, int]:
    found = os.stat(path)
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@pytest.mark.parametrize("shell", ["", "busybox"])
def test_owner_group_and_mode_stay(make_guest: Make, pool_key: paramiko.PKey, shell: str) -> None:
    guest = make_guest(sh=need_program(shell, "busybox-static") if shell else "")
    for file in (0o600, 0o640, 0o644, 0o400, 0o440):
        guest.write_keys(OLD + b"\n", file)
        before = owned(guest.keys_path)
        assert install(guest, pool_key) is True
        assert owned(guest.keys_path) == before and guest.keys() == OLD + b"\n" + line(pool_key)
        assert by_password(guest, lambda shell: install_key.remove(shell, pool_key))
        assert owned(guest.keys_path) == before and guest.keys() == OLD + b"\n"


@pytest.mark.parametrize("uid, gid", [(0, 0), (0, UID), (UID, 0)])
def test_a_file_of_another_user_stays_that_ones(make_guest: Make, pool_key: paramiko.PKey, uid: int, gid: int) -> None:
    guest = make_guest()
    guest.write_keys(OLD + b"\n", 0o644)
    os.chown(guest.keys_path, uid, gid)
    before = owned(guest.keys_path)
    with pytest.raises(KeyInstallFailed, match="belongs to another"):
        install(guest, pool_key)
    assert owned(guest.keys_path) == before and guest.keys() == OLD + b"\n"
    assert os.listdir(guest.home + "/.ssh") == ["authorized_keys"]


def test_a_file_that_cannot_be_changed_is_an_error(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    guest.write_keys(OLD + b"\n")
    chattr = need_program("chattr", "e2fsprogs")
    if subprocess.run([chattr, "+i", guest.keys_path], stderr=subprocess.DEVNULL, timeout=20).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        with pytest.raises(KeyInstallFailed, match="Operation not permitted"):
            install(guest, pool_key)
        assert guest.keys() == OLD + b"\n" and os.listdir(guest.home + "/.ssh") == ["authorized_keys"]
    finally:
        subprocess.run([chattr, "-i", guest.keys_path], check=True, timeout=20)


def test_a_change_in_the_meantime_is_not_overwritten(make_guest: Make, pool_key: paramiko.PKey,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    guest = make_guest()
    guest.write_keys(OLD + b"\n")
    added = install_key.authorized_keys.added

    def slowly(*args: Any) -> bytes:
        guest.write_keys(OLD + b"\n# somebody else's\n")
        return added(*args)

    monkeypatch.setattr(install_key.authorized_keys, "added", slowly)
    with pytest.raises(KeyInstallFailed, match="changed in the meantime"):
        install(guest, pool_key)
    assert guest.keys() == OLD + b"\n# somebody else's\n"


def test_a_file_that_is_too_large_is_left_alone(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest()
    guest.write_keys(b"#" * (keys_file.MOST_FILE + 1))
    with pytest.raises(KeyInstallFailed, match="more than"):
        install(guest, pool_key)
    guest.write_keys(b"#" * (keys_file.MOST_FILE - 1) + b"\n")
    assert install(guest, pool_key) is True
    assert guest.keys().endswith(b"#\n" + line(pool_key))


def test_a_home_with_any_name(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest(options={"AuthorizedKeysFile": "%h/.ssh/authorized_keys"})
    odd = "it's \u00fcber! $x"
    os.mkdir(os.path.join(guest.home, odd))
    os.chown(os.path.join(guest.home, odd), UID, UID)
    replace_in_passwd(guest, f":{INSIDE}/user:", f":{INSIDE}/user/{odd}:")
    assert install(guest, pool_key) is True
    with open(os.path.join(guest.home, odd, ".ssh", "authorized_keys"), "rb") as file:
        assert file.read() == line(pool_key)
    assert accepts(guest, pool_key)


def test_the_accounts_home_is_used_if_start_up_files_set_another(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest(shell=need_program("bash", "bash"))
    with open(guest.home + "/.bashrc", "w", encoding="utf-8") as file:
        file.write("cd /tmp\nexport HOME=/nonexistent\n"
                   "for i in $(seq 400); do echo 'a line of the message of the day that is fifty long'; done\n")
    assert install(guest, pool_key) is True
    assert accepts(guest, pool_key)


def test_start_up_files_may_talk(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest(shell=need_program("bash", "bash"))
    with open(guest.home + "/.bashrc", "w", encoding="utf-8") as file:
        file.write("echo Welcome to this machine; echo some complaint >&2\n")
    assert install(guest, pool_key) is True
    assert accepts(guest, pool_key)


def test_a_forced_command_instead_of_a_shell_is_an_error(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest(options={"ForceCommand": "echo This account is closed."})
    with pytest.raises(ScriptNotRun, match="This account is closed") as caught:
        install(guest, pool_key)
    assert "~/.bashrc" in caught.value.hint and "by hand" in caught.value.hint


def test_removing_leaves_the_rest(make_guest: Make, pool_key: paramiko.PKey, next_key: paramiko.PKey) -> None:
    guest = make_guest()
    comment = b"# was: " + public_line(pool_key).encode() + b"\n"
    guest.write_keys(OLD + b"\n" + comment + line(pool_key) + b"\xff\x00 odd\n" + line(next_key) + b"end")
    with meet(guest) as met:
        assert met.by_key(USER, next_key)
        assert install_key.remove(met.shell, pool_key) == [INSIDE + "/user/.ssh/authorized_keys"]
        assert install_key.remove(met.shell, pool_key) == []
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


def test_refused_ways(make_guest: Make, pool_key: paramiko.PKey) -> None:
    guest = make_guest(options={"MaxSessions": "0"})
    with pytest.raises(ScriptNotRun, match="runs no commands"):
        install(guest, pool_key)


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


def test_a_guest_that_takes_it_byte_by_byte(pool_key: paramiko.PKey) -> None:
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
                with pytest.raises(GuestSilent, match="does not start"):
                    install_key.install(met.shell, pool_key, seconds=1.0)
                assert time.monotonic() - began < 5.0
        finally:
            lets.over.set()
            lets.sips.join(5.0)
