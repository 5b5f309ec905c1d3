"""``xscontainer-prepare-vm`` as admins have always called it: over SSH, with given certificates, and with new ones."""

import os
import subprocess
import sys
import threading
import time
from typing import Any, Iterator, List, Tuple

import pytest

from tests.need import need
from tests.prepare.guests import PASSWORD, USER
from tests.prepare.test_command import Terminal
from tests.prepare.world import ROOT, VM, Fresh, password_file
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves the whole module
from xscontainer import keys
from xscontainer.certificates import making
from xscontainer.configdrive import isoread
from xscontainer.engine import certs
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests.addresses import AddressBlock
from xscontainer.simulator.guests.tls import Certificates, flags, free_port
from xscontainer.xapi import disk

pytestmark = pytest.mark.real

ON_DISC = ("ca.pem", "server-cert.pem", "server-key.pem")
SECRETS = (keys.TLS_CA_CERT, keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    need(not RealEngine.missing(), RealEngine.missing())
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w") as made:
        made.pool.add_storage()
        yield made


@pytest.fixture
def vm(world: Fresh) -> VM:
    return world.add(f"vm-{len(world.added)}")


def argv(world: Fresh, *words: str, host: int = 0) -> List[str]:
    return [sys.executable, "-W", "ignore", "-m", "xscontainer.prepare_vm", "--config",
            world.daemons[host].config_path, *words]


def run(world: Fresh, *words: str, host: int = 0, **more: Any) -> Tuple[int, str, str]:
    done = subprocess.run(argv(world, *words, host=host), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=ROOT), timeout=90, **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# --- SSH ---------------------------------------------------------------------


def test_without_questions(world: Fresh, vm: VM) -> None:
    with password_file() as descriptor:
        code, out, err = run(world, "-v", vm.uuid, "-u", USER, "--yes", "--password-fd", str(descriptor),
                             pass_fds=(descriptor,))
    assert code == 0 and "c0" in out, err
    assert vm.config[keys.MONITOR] == "True" and vm.config[keys.USERNAME] == USER
    code, out, err = run(world, "-v", vm.uuid, "-u", USER, "--mode", "ssh", "--yes")
    assert code == 0 and "Nothing had to be installed" in out, err


def test_with_a_person(world: Fresh, vm: VM) -> None:
    with Terminal(argv(world, "-v", vm.uuid, "-u", USER)) as terminal:
        terminal.until("[y/N] ")
        terminal.type("yes")
        terminal.until("Password of")
        terminal.type(PASSWORD)
        assert terminal.end() == 0 and "c0" in terminal.text, terminal.text


WRONG = [
    ("-u", "core"),
    ("-v", "no-such-vm"),
    ("-v", "VM", "--mode", "telnet"),
    ("-v", "VM", "--mode", "tls", "--client-cert", "/dev/null"),
    ("-v", "VM", "--mode", "tls", "--generate-certs", "--client-cert", "a", "--client-key", "b", "--ca-cert", "c"),
    ("-v", "VM", "--generate-certs"),
    ("-v", "VM", "--mode", "tls", "--client-cert", "/dev/null", "--client-key", "/dev/null", "--ca-cert", "/nosuch"),
    ("-v", "VM", "--mode", "tls", "--client-cert", "/dev/zero", "--client-key", "/dev/null", "--ca-cert", "/dev/null"),
]


@pytest.mark.parametrize("words", WRONG, ids=range(len(WRONG)))
def test_calls_that_make_no_sense(world: Fresh, vm: VM, words: Any) -> None:
    code, _, err = run(world, *(vm.uuid if word == "VM" else word for word in words))
    assert code == 2 and err, err
    assert keys.MONITOR not in vm.config and keys.MODE not in vm.config


# --- TLS ---------------------------------------------------------------------


class TLSVM:
    """A VM that only its engine answers in, as soon as somebody gives it certificates. A context manager."""

    def __init__(self, world: Fresh) -> None:
        self.world = world
        self.address = AddressBlock().addresses(1)[0]
        self.port = free_port(self.address)
        self.ref = world.pool.create_vm("windows", power_state="Halted", other_config={keys.TLS_PORT: str(self.port)})
        with world.session() as session:
            disk.cd_drive(session, self.ref, running=False)  # as every VM of a usual template has one
            session.xenapi.VM.start_on(self.ref, world.pool.hosts[1].ref, False, False)
        world.pool.set_networks(self.ref, {"0/ip": self.address, "0/ipv6/0": "2001:db8::7"})
        self.uuid = str(world.pool.vm(self.ref)["uuid"])
        self.directory = os.path.join(world.directory, "t" + self.uuid[:6])
        self.images: List[bytes] = []
        self._engines: List[RealEngine] = []
        self._threads: List[threading.Thread] = []
        os.makedirs(self.directory)

    def __enter__(self) -> "TLSVM":
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()
        for engine in self._engines:
            engine.close()

    @property
    def config(self) -> Any:
        return self.world.pool.other_config(self.ref)

    def start(self, files: Certificates) -> None:
        self._engines.append(RealEngine(self.directory + "/e", flags=flags(self.directory, files, self.address,
                                                                           self.port)))
        self._engines[-1].start()
        self._engines[-1].run("web", ("sleep", "1000"))

    def on_disc(self, ref: str, event: str, vbd: str) -> None:
        """Somebody runs the script on the disc."""
        if ref == self.ref and event == "insert":
            with open(self.world.pool.disk_path(self.world.pool.record("VBD", vbd)["VDI"]), "rb") as file:
                self.images.append(file.read())
            self._threads.append(threading.Thread(target=self._install))
            self._threads[-1].start()

    def _install(self) -> None:
        found = [isoread.file_in(self.images[-1], name) for name in ON_DISC]
        self.start(Certificates(*((text or b"").decode() for text in found)))

    def drives(self) -> List[Any]:
        return [record for record in self.world.pool.records("VBD").values()
                if record["VM"] == self.ref and record["type"] == "CD"]


@pytest.fixture
def tls(world: Fresh) -> Iterator[TLSVM]:
    with TLSVM(world) as made:
        yield made


def test_certificates_are_made_and_handed_over(world: Fresh, tls: TLSVM) -> None:
    world.pool.on_disk(tls.on_disc)
    disks = set(world.pool.records("VDI"))
    code, out, err = run(world, "-v", tls.uuid, "-u", "root", "--mode", "tls", "--generate-certs", "--yes",
                         "--wait", "60", host=1)
    assert code == 0 and "enable-tls.ps1" in out and "web" in out, err
    assert tls.config[keys.MODE] == "tls" and tls.config[keys.MONITOR] == "True" and keys.PS in tls.config
    (drive,) = tls.drives()
    assert drive["empty"] is True and set(world.pool.records("VDI")) == disks
    for name in ("enable-tls.sh", "enable-tls.ps1", "README.txt"):
        assert isoread.file_in(tls.images[0], name)
    shown = certs.facts(certs.load((isoread.file_in(tls.images[0], "server-cert.pem") or b"").decode()))
    assert shown.names == (tls.address, "2001:db8::7", f"urn:uuid:{tls.uuid}"), "all addresses that are reported"
    assert f"made out to the VM {tls.uuid} at {tls.address}, 2001:db8::7." in out
    key = (isoread.file_in(tls.images[0], "server-key.pem") or b"").decode()
    assert "PRIVATE KEY" in key
    for cls in ("secret", "VM", "pool", "task"):
        assert key.split("\n")[1] not in repr(world.pool.records(cls))
    assert world.call(0, "pause", vmuuid=tls.uuid, container="web") == "True"
    code, out, err = run(world, "-v", tls.uuid, "--mode", "tls")
    assert code == 0, err
    again = world.command("prepare", tls.uuid)
    out, err = (text.decode() for text in again.communicate(timeout=60))
    assert again.returncode == 0 and "Nothing had to be installed" in out, err


def test_a_vm_that_is_off(world: Fresh) -> None:
    vm = world.pool.create_vm("off", power_state="Halted")
    disks, drives = set(world.pool.records("VDI")), set(world.pool.records("VBD"))
    code, _, err = run(world, "-v", str(world.pool.vm(vm)["uuid"]), "--mode", "tls", "--generate-certs",
                       "--address", "192.0.2.7")
    assert code == 1 and "not running" in err and "Start the VM" in err
    assert set(world.pool.records("VDI")) == disks and set(world.pool.records("VBD")) == drives


def test_nobody_runs_the_script(world: Fresh, tls: TLSVM) -> None:
    before, disks = tls.config, set(world.pool.records("VDI"))
    begun = time.monotonic()
    code, _, err = run(world, "-v", tls.uuid, "--mode", "tls", "--generate-certs", "--yes", "--wait", "1")
    assert code == 1 and "GUEST_REFUSED" in err and time.monotonic() - begun < 20
    assert tls.config == before and set(world.pool.records("VDI")) == disks
    (drive,) = tls.drives()
    assert drive["empty"] is True


@pytest.mark.parametrize("way, code", [("Ctrl-C", 130), ("SIGTERM", 143), ("the terminal goes", 129)])
def test_it_is_called_off(world: Fresh, tls: TLSVM, way: str, code: int) -> None:
    """However it ends, the guest's private key is nowhere any more."""
    disks = set(world.pool.records("VDI"))
    with Terminal(argv(world, "-v", tls.uuid, "--mode", "tls", "--generate-certs")) as terminal:
        terminal.until("waiting for the engine")
        if way == "Ctrl-C":
            terminal.type("\x03")
            terminal.end()
        elif way == "SIGTERM":
            terminal.process.terminate()
            terminal.end()
        else:
            terminal.hang_up()
        assert terminal.process.wait(20) == code
    assert set(world.pool.records("VDI")) == disks and keys.MODE not in tls.config


def test_it_goes_on_without_its_terminal(world: Fresh, tls: TLSVM) -> None:
    """Under nohup what it prints fails, and what it does must not."""
    disks = set(world.pool.records("VDI"))
    with Terminal(argv(world, "-v", tls.uuid, "--mode", "tls", "--generate-certs"), nohup=True) as terminal:
        terminal.until("Ctrl-C")
        terminal.hang_up()
        tls.on_disc(tls.ref, "insert", world.pool.vm(tls.ref)["VBDs"][0])
        terminal.process.wait(60)
    assert tls.config[keys.MODE] == "tls" and tls.config[keys.MONITOR] == "True"
    assert set(world.pool.records("VDI")) == disks and tls.drives()[0]["empty"] is True


def test_a_drive_that_is_taken(world: Fresh, tls: TLSVM) -> None:
    with world.session() as session:
        xapi = session.xenapi
        iso = xapi.VDI.create({
            "name_label": "mine", "name_description": "", "SR": xapi.pool.get_default_SR(xapi.pool.get_all()[0]),
            "virtual_size": "1048576", "type": "user", "sharable": False, "read_only": True, "other_config": {},
            "xenstore_data": {}, "sm_config": {}, "tags": []})
        disk.insert(session, disk.cd_drive(session, tls.ref, running=True), iso)
    code, _, err = run(world, "-v", tls.uuid, "--mode", "tls", "--generate-certs")
    assert code == 2 and "Eject it" in err
    assert world.pool.record("VBD", world.pool.vm(tls.ref)["VBDs"][0])["VDI"] == iso


def given(world: Fresh, tls: TLSVM) -> List[str]:
    """The admin's own certificates: arguments. The engine runs with them."""
    now = time.time()
    ca = making.new_ca("An admin's CA", now)
    server, client = making.new_server(ca, "engine", [tls.address], now), making.new_client(ca, "me", now)
    tls.start(Certificates(ca.certificate, server.certificate, server.key))
    words = []
    for name, text in (("client-cert", client.certificate), ("client-key", client.key), ("ca-cert", ca.certificate)):
        path = os.path.join(tls.directory, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        words += ["--" + name, path]
    return words


def test_certificates_of_ones_own(world: Fresh, tls: TLSVM) -> None:
    words = given(world, tls)
    code, out, err = run(world, "-v", tls.uuid, "-u", "root", "--mode", "tls", *words)
    assert code == 0 and "web" in out, err
    assert tls.config[keys.MODE] == "tls"
    stored = {record["uuid"]: record["value"] for record in world.pool.records("secret").values()}
    assert ["CERTIFICATE" in stored[tls.config[key]] for key in SECRETS] == [True, True, False]
    # Back to front they do not serve, and no secret of them is left.
    before = tls.config
    words[1], words[5] = words[5], words[1]
    code, _, err = run(world, "-v", tls.uuid, "--mode", "tls", *words)
    assert code == 1 and "TLS_" in err
    assert {record["uuid"] for record in world.pool.records("secret").values()} == set(stored)
    assert {key: tls.config[key] for key in SECRETS} == {key: before[key] for key in SECRETS}
