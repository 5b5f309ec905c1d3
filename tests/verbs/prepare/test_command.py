"""``xscontainer prepare``, ``hostkey-*`` as a person and as a script calls them."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from typing import Any, List, Tuple

import pytest

from tests.need import need_program
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves the whole module
from tests.verbs.prepare.guests import PASSWORD, USER
from tests.verbs.prepare.world import ROOT, VM, Fresh, password_file
from xscontainer import keys
from xscontainer.engine.ssh.keypair import load_private_key, new_key_pair, public_line

pytestmark = pytest.mark.real
Run = Tuple[int, str, str]
MARKED = "Pa55-wort-das-nirgends-stehen-darf"


@pytest.fixture
def vm(world: Fresh) -> VM:
    return world.add(f"vm-{len(world.added)}")


def run(world: Fresh, *words: str, **more: Any) -> Run:
    process = world.command(*words, **more)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def with_password(world: Fresh, *words: str, password: str = PASSWORD, **more: Any) -> Run:
    with password_file(password) as descriptor:
        return run(world, *words, "--password-fd", str(descriptor), pass_fds=(descriptor,), **more)


@pytest.mark.parametrize("host", [0, 1])
def test_a_script_prepares_a_vm(world: Fresh, vm: VM, host: int) -> None:
    name = str(world.pool.vm(vm.ref)["name_label"])
    code, out, err = with_password(world, "prepare", name, "-u", USER, "--fingerprint", vm.fingerprint, host=host)
    assert code == 0, err
    assert vm.fingerprint in out and "The pool's key was installed" in out
    assert re.search(r"^\S+/c0\trunning\t\S+\tbusybox", out, re.MULTILINE), out
    code, out, err = run(world, "prepare", vm.uuid, host=host)
    assert code == 0 and "Nothing had to be installed" in out, err
    assert all(line.startswith("... ") for line in err.splitlines()), err  # how far it is, if it takes a moment


def test_scripts_say_what_they_trust(world: Fresh, vm: VM) -> None:
    assert run(world, "prepare", vm.uuid, "-u", USER, "--yes")[0] == 2  # but the pool's key is there from now on
    before = len(world.pool.records("secret"))
    code, _, err = with_password(world, "prepare", vm.uuid, "-u", USER)
    assert code == 2 and "--fingerprint" in err
    code, _, err = with_password(world, "prepare", vm.uuid, "-u", USER, "--fingerprint", "SHA256:" + "x" * 43)
    assert code == 5 and "another host key than" in err
    code, _, err = run(world, "prepare", vm.uuid, "-u", USER, "--yes")
    assert code == 2 and "--password-fd" in err
    code, _, err = with_password(world, "prepare", vm.uuid, "-u", USER, "--yes", password="wrong")
    assert code == 1 and "PASSWORD_NOT_ACCEPTED" in err
    assert not os.path.exists(vm.guest.keys_path) and keys.MONITOR not in vm.config
    assert len(world.pool.records("secret")) == before
    code, out, err = with_password(world, "prepare", vm.uuid, "-u", USER, "--yes")
    assert code == 0, err


def test_no_task_fails_for_a_password_that_is_asked_for(world: Fresh, vm: VM) -> None:
    assert with_password(world, "prepare", vm.uuid, "-u", USER, "--yes", password="wrong")[0] == 1
    assert with_password(world, "prepare", vm.uuid, "-u", USER, "--yes")[0] == 0
    assert [record["status"] for record in world.pool.records("task").values()
            if record["other_config"].get("xscontainer-vm") == vm.uuid] == ["success"]


@pytest.mark.parametrize("words, option", [
    (["--port", "99999"], "--port"), (["--address", "10.0.0.300"], "--address"), (["-u", "a b"], "-u"),
    (["--engine-socket", "relative"], "--engine-socket"),
])
def test_a_wrong_option_is_named_as_the_user_typed_it(world: Fresh, vm: VM, words: List[str], option: str) -> None:
    code, _, err = run(world, "prepare", vm.uuid, "--yes", *words)
    assert code == 2 and f"{option} is '{words[1]}'" in err and "other_config" not in err, err


def test_a_malformed_user_is_named_with_its_option(world: Fresh) -> None:
    code, _, err = run(world, "create", "new", "--template", "x", "--network", "y", "-u", "a b")
    assert code == 2 and "-u is 'a b'" in err, err


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_the_command_for_the_console_shows_the_key(world: Fresh, kind: str, tmp_path_factory: pytest.TempPathFactory,
                                                   ) -> None:
    """In a guest with keys of three kinds, of which it shows one."""
    keygen = need_program("ssh-keygen", "openssh-client")
    console = str(tmp_path_factory.mktemp("etc-ssh"))
    vm = world.add("console", host_key_type=kind)
    for each in ("ed25519", "rsa", "ecdsa"):
        subprocess.run([keygen, "-q", "-t", each, "-N", "", "-f", f"{console}/ssh_host_{each}_key"], check=True,
                       timeout=30)
    with open(f"{console}/ssh_host_{kind}_key.pub", "wb") as public:
        subprocess.run([keygen, "-y", "-f", vm.guest.host_key_path], stdout=public, check=True, timeout=30)
    code, _, err = run(world, "hostkey-accept", vm.uuid, "--fingerprint", "SHA256:" + "x" * 43)
    assert code == 5
    with on_terminal(world, "hostkey-accept", vm.uuid) as terminal:
        terminal.until("[y/N] ")
        asked = terminal.text
        terminal.type("n")
        terminal.end()
    _, refused = world.failure(world.call, 0, "hostkey_accept", vmuuid=vm.uuid, fingerprint="SHA256:" + "x" * 43)
    _, unconfirmed = world.failure(world.prepare, vm, 0, PASSWORD)
    for text in (asked, err, refused, unconfirmed):
        (command,) = re.findall(r"ssh-keygen -l -f /etc/ssh/[a-z0-9_.*]*[a-z0-9_]", text)
        shown = subprocess.run(["sh", "-c", command.replace("/etc/ssh", console)], stdout=subprocess.PIPE, check=True,
                               timeout=30)
        assert vm.fingerprint in shown.stdout.decode()


def test_an_unreadable_pin_is_replaced_by_a_confirmed_key(world: Fresh, vm: VM) -> None:
    def spoil() -> None:
        world.pool.set_key(vm.ref, keys.HOST_KEY, "none of your business")

    spoil()
    code, _, err = with_password(world, "prepare", vm.uuid, "-u", USER)
    assert code == 2 and "--fingerprint" in err
    assert world.failure(world.prepare, vm, 0, PASSWORD)[0] == "HOST_KEY_UNREADABLE"
    code, _, err = with_password(world, "prepare", vm.uuid, "-u", USER, "--yes")
    assert code == 0 and vm.config[keys.HOST_KEY] == vm.guest.host_key_base64, err
    # And where the key opens the door.
    spoil()
    assert world.failure(world.prepare, vm)[0] == "HOST_KEY_UNREADABLE"
    assert vm.config[keys.HOST_KEY] == "none of your business"
    assert world.prepare(vm, fingerprint=vm.fingerprint)["published"]
    assert vm.config[keys.HOST_KEY] == vm.guest.host_key_base64


def test_a_vm_that_was_reached_over_tls(world: Fresh) -> None:
    vm = world.add("former", config={keys.MODE: "tls"})
    code, _, err = with_password(world, "prepare", vm.uuid, "-u", USER, "--mode", "ssh", "--yes")
    assert code == 0, err
    assert vm.config[keys.MODE] == "ssh"


def test_host_keys(world: Fresh, vm: VM) -> None:
    code, out, _ = run(world, "hostkey-show", vm.uuid)
    assert code == 0 and vm.fingerprint in out and "pinned     none" in out
    assert run(world, "hostkey-accept", vm.uuid)[0] == 2
    assert run(world, "hostkey-accept", vm.uuid, "--fingerprint", vm.fingerprint)[0] == 0
    assert vm.config[keys.HOST_KEY] == vm.guest.host_key_base64
    assert with_password(world, "prepare", vm.uuid, "-u", USER)[0] == 0
    vm.guest.rotate_host_key()
    code, out, _ = run(world, "hostkey-show", vm.uuid, "--json")
    assert code == 3 and json.loads(out)["matches"] is False
    code, _, err = run(world, "prepare", vm.uuid)
    assert code == 5 and "HOST_KEY_CHANGED" in err and "hostkey-accept" in err
    code, out, _ = run(world, "hostkey-accept", vm.uuid, "--yes")
    assert code == 0 and "A different host key is pinned" in out
    assert run(world, "prepare", vm.uuid)[0] == 0


class Terminal:
    """A program on a terminal of its own.

    :param nohup: it does not hear that the terminal has gone.
    """

    def __init__(self, argv: List[str], nohup: bool = False) -> None:
        self._master, slave = pty.openpty()

        def own() -> None:
            os.setsid()
            # The tests themselves may have been started under nohup or without a terminal.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own,
                                        env=dict(os.environ, PYTHONPATH=ROOT))
        os.close(slave)
        self.text = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """The terminal goes, as when an SSH connection to the host breaks."""
        if self._master >= 0:
            os.close(self._master)
        self._master = -1

    def until(self, words: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.text:
            assert self._read(deadline), self.text

    def _read(self, deadline: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            piece = os.read(self._master, 4096)
        except OSError:  # the other end is closed
            return False
        self.text += piece.decode("utf-8", "replace")
        return bool(piece)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode() + b"\n")

    def end(self) -> int:
        while self._read(time.monotonic() + 20.0):
            pass
        return self.process.wait(20)


def on_terminal(world: Fresh, *words: str) -> Terminal:
    return Terminal([sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config",
                     world.daemons[0].config_path, *words])


def test_a_person_prepares_a_vm(world: Fresh, vm: VM) -> None:
    with on_terminal(world, "prepare", vm.uuid, "-u", USER) as terminal:
        terminal.until("[y/N] ")
        assert vm.fingerprint in terminal.text
        terminal.type("y")
        terminal.until(f"Password of {USER}")
        terminal.type("wrong")
        terminal.until("PASSWORD_NOT_ACCEPTED")
        terminal.text = terminal.text.split("PASSWORD_NOT_ACCEPTED")[1]
        terminal.until(f"Password of {USER} in the VM: ")
        terminal.text = ""
        terminal.type(PASSWORD)
        begun = time.monotonic()
        assert terminal.end() == 0, terminal.text
        assert time.monotonic() - begun < 5.0
        assert "c0" in terminal.text and PASSWORD not in terminal.text
    with on_terminal(world, "prepare", vm.uuid) as terminal:
        assert terminal.end() == 0 and "Nothing had to be installed" in terminal.text


def test_a_person_says_no(world: Fresh, vm: VM) -> None:
    with on_terminal(world, "prepare", vm.uuid, "-u", USER) as terminal:
        terminal.until("[y/N] ")
        terminal.type("")
        assert terminal.end() == 2 and "not confirmed" in terminal.text
    assert keys.MONITOR not in vm.config


def test_the_keys_of_an_agent_are_enough(world: Fresh, vm: VM) -> None:
    agent, add = need_program("ssh-agent", "openssh-client"), need_program("ssh-add", "openssh-client")
    directory = os.path.join(world.directory, "agent")
    os.makedirs(directory)
    pair = new_key_pair(2048)
    vm.guest.write_keys(public_line(load_private_key(pair.private)).encode())
    path = os.path.join(directory, "key")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(pair.private)
    environment = {"SSH_AUTH_SOCK": os.path.join(directory, "s")}
    process = subprocess.Popen([agent, "-D", "-a", environment["SSH_AUTH_SOCK"]], stdout=subprocess.DEVNULL)
    try:
        world.wait(lambda: os.path.exists(environment["SSH_AUTH_SOCK"]))
        command = ("prepare", vm.uuid, "-u", USER, "--yes", "--agent")
        code, _, err = run(world, *command, host=1, env=environment)
        assert code == 2 and "ssh-add" in err
        for number in range(4):
            other = os.path.join(directory, f"other-{number}")
            with open(os.open(other, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(new_key_pair(2048).private)
            subprocess.run([add, other], env=environment, stderr=subprocess.DEVNULL, check=True, timeout=20)
        subprocess.run([add, path], env=environment, stderr=subprocess.DEVNULL, check=True, timeout=20)
        code, _, err = run(world, *command, host=1, env=environment)
        assert code == 5 and "none of the first 4 of the 5 keys" in err, err
        for words in (["-D"], [path]):
            subprocess.run([add, *words], env=environment, stderr=subprocess.DEVNULL, check=True, timeout=20)
        code, _, err = run(world, *command, host=0, env=environment)
        (name,) = [str(host["name_label"]) for host in world.pool.records("host").values()
                   if host["uuid"] == world.pool.hosts[1].uuid]
        assert code == 1 and name in err and "forwarded" in err, err
        code, out, err = run(world, *command, host=1, env=environment)
        assert code == 0, err
        assert "The pool's key was installed" in out
    finally:
        process.terminate()
        process.wait(20)


class Watch:
    """Looks for a text where nobody may ever see it, as fast as it can."""

    def __init__(self, world: Fresh, text: str) -> None:
        self._world, self._text = world, text
        self._stop = threading.Event()
        self.found: List[str] = []
        self.looks = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        me = str(os.getpid())
        while not self._stop.is_set():
            self.looks += 1
            for name in os.listdir("/proc"):
                if name.isdigit() and name != me:
                    for what in ("cmdline", "environ"):
                        with contextlib.suppress(OSError), open(f"/proc/{name}/{what}", "rb") as file:
                            if self._text.encode() in file.read():
                                self.found.append(f"{what} of {name}")
            for cls in ("task", "VM", "pool", "message"):
                if self._text in repr(self._world.pool.records(cls)):
                    self.found.append(cls)


def files_with(text: str, *directories: str) -> List[str]:
    found = []
    for directory in directories:
        for place, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(place, name)
                if os.path.isfile(path):
                    with contextlib.suppress(OSError), open(path, "rb") as file:
                        if text.encode() in file.read():
                            found.append(path)
    return found


@pytest.mark.parametrize("way", ["right", "wrong"])
def test_the_password_appears_nowhere(world: Fresh, way: str) -> None:
    options = {} if way == "right" else {"PasswordAuthentication": "no", "PubkeyAuthentication": "no"}
    vm = world.add("secretive", options={"LogLevel": "DEBUG3", **options}, password=MARKED)
    with Watch(world, MARKED) as watch:
        code, out, err = with_password(world, "prepare", vm.uuid, "-u", USER, "--yes", password=MARKED)
        assert (code == 0) == (way == "right"), err
    assert watch.found == [] and watch.looks > 3
    assert MARKED not in out + err
    for cls in ("secret", "task", "VM", "pool", "message"):
        assert MARKED not in repr(world.pool.records(cls))
    assert files_with(MARKED, world.directory, "/dev/shm", "/run") == []


def test_without_a_daemon_it_is_prepared_and_not_listed(world: Fresh, tmp_path_factory: pytest.TempPathFactory) -> None:
    del world  # it has to end after this
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w", daemons=False, hosts=1) as alone:
        vm = alone.add(host=0)
        code, out, err = with_password(alone, "prepare", vm.uuid, "-u", USER, "--yes")
        assert code == 3 and "xscontainer-monitor" in err
        assert vm.config[keys.MONITOR] == "True" and " container" in out

