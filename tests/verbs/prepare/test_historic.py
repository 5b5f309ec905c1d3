"""``xscontainer-prepare-vm`` as admins have always called it: over SSH, with given certificates, and with new ones."""

import time
from typing import Any, Iterator, Set, Tuple

import pytest

from tests.need import need
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves the whole module
from tests.verbs.prepare.guests import PASSWORD, USER
from tests.verbs.prepare.test_command import Terminal
from tests.verbs.prepare.tls_vm import SECRETS, TLSVM, argv, given, run
from tests.verbs.prepare.world import VM, Fresh, password_file
from xscontainer import keys
from xscontainer.configdrive import isoread
from xscontainer.engine.tls import certs
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.xapi import disk

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    need(not RealEngine.missing(), RealEngine.missing())
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w") as made:
        made.pool.add_storage()
        yield made


@pytest.fixture
def vm(world: Fresh) -> VM:
    return world.add(f"vm-{len(world.added)}")


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
    assert code == (4 if words == ("-v", "no-such-vm") else 2) and err, err
    assert keys.MONITOR not in vm.config and keys.MODE not in vm.config


# --- TLS ---------------------------------------------------------------------


@pytest.fixture
def tls(world: Fresh) -> Iterator[TLSVM]:
    with TLSVM(world) as made:
        yield made


def test_certificates_are_made_and_handed_over(world: Fresh, tls: TLSVM) -> None:
    world.pool.on_disk(tls.on_disc)
    disks = set(world.pool.records("VDI"))
    code, out, err = run(world, "-v", tls.uuid, "-u", "root", "--mode", "tls", "--generate-certs", "--yes",
                         "--wait", "60", host=1)
    assert code == 0 and f"enable-tls.ps1 -Port {tls.port}\n" in err, err
    world.wait(lambda: "web" in tls.config.get(keys.PS, ""))
    assert tls.config[keys.MODE] == "tls" and tls.config[keys.MONITOR] == "True" and keys.PS in tls.config
    (drive,) = tls.drives()
    assert drive["empty"] is True and set(world.pool.records("VDI")) == disks
    for name in ("enable-tls.sh", "enable-tls.ps1", "README.txt"):
        assert isoread.file_in(tls.images[0], name)
    shown = certs.facts(certs.load((isoread.file_in(tls.images[0], "server-cert.pem") or b"").decode()))
    assert shown.names == (tls.address, "2001:db8::7", f"urn:uuid:{tls.uuid}"), "all addresses that are reported"
    assert f"its certificate is issued for {tls.address}, 2001:db8::7\n" in err
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


def test_secrets_go_when_nothing_names_them(world: Fresh, tls: TLSVM) -> None:
    """Secrets that the VM names stay, and all others go."""
    words = given(world, tls)
    before = len(secrets(world))
    world.pool.faults("host.get_all_records", "fail", description=["INTERNAL_ERROR", "listing"])
    code, _, err = run(world, "-v", tls.uuid, "--mode", "tls", *words, host=1)
    world.pool.faults.clear()
    assert code == 1 and "listing" in err
    assert tls.config[keys.MONITOR] == "True" and {tls.config[key] for key in SECRETS} <= secrets(world)
    assert len(secrets(world)) == before + 3
    # The same again: nothing is left of what it replaces.
    code, _, err = run(world, "-v", tls.uuid, "--mode", "tls", *words, host=1)
    assert code == 0 and {tls.config[key] for key in SECRETS} <= secrets(world), err
    assert len(secrets(world)) == before + 3
    # Secrets that a snapshot or a clone names stay.
    shared = {tls.config[key] for key in SECRETS}
    world.pool.create_vm("clone", other_config={key: tls.config[key] for key in SECRETS})
    code, _, err = run(world, "-v", tls.uuid, "--mode", "tls", *words, host=1)
    assert code == 0 and shared <= secrets(world) and len(secrets(world)) == before + 6, err


def test_interrupted_while_the_list_is_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The VM names the secrets by then, so they stay."""
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w", daemons=False) as world, TLSVM(world) as tls:
        words = argv(world, "-v", tls.uuid, "--mode", "tls", *given(world, tls), host=1)
        with Terminal(words) as terminal:
            world.wait(lambda: keys.MONITOR in tls.config)
            terminal.type("\x03")
            terminal.end()
            assert terminal.process.wait(20) == 130
        assert {tls.config[key] for key in SECRETS} <= secrets(world)


def secrets(world: Fresh) -> Set[str]:
    return {record["uuid"] for record in world.pool.records("secret").values()}


def new(world: Fresh, tls: TLSVM, *words: str, host: int = 1) -> Tuple[int, str, str]:
    return run(world, "-v", tls.uuid, "--mode", "tls", "--generate-certs", *words, host=host)


def test_a_certificate_is_renewed(world: Fresh, tls: TLSVM) -> None:
    """The engine answers with the old one, until somebody runs the script."""
    world.pool.on_disk(tls.on_disc)
    code, _, err = new(world, tls, "--wait", "60")
    assert code == 0, err
    before = tls.served
    tls.after = 4.0
    code, _, err = new(world, tls, "--wait", "60")
    assert code == 0, err
    assert tls.served == (isoread.file_in(tls.images[1], "server-cert.pem") or b"").decode() != before
    assert tls.served_at_eject == [before, tls.served]


def test_a_vm_that_is_off(world: Fresh) -> None:
    """The VM gets a CD drive, because a running VM takes none."""
    vm = world.pool.create_vm("off", power_state="Halted")
    disks = set(world.pool.records("VDI"))
    code, _, err = run(world, "-v", str(world.pool.vm(vm)["uuid"]), "--mode", "tls", "--generate-certs",
                       "--address", "192.0.2.7")
    assert code == 5 and "is halted" in err and "Start the VM" in err
    assert set(world.pool.records("VDI")) == disks
    (drive,) = [record for record in world.pool.records("VBD").values() if record["VM"] == vm]
    assert drive["type"] == "CD" and drive["empty"] is True


def test_nobody_runs_the_script(world: Fresh, tls: TLSVM) -> None:
    before, disks = tls.config, set(world.pool.records("VDI"))
    begun = time.monotonic()
    code, _, err = run(world, "-v", tls.uuid, "--mode", "tls", "--generate-certs", "--yes", "--wait", "1")
    assert code == 5 and "GUEST_REFUSED" in err and time.monotonic() - begun < 20
    assert tls.config == before and set(world.pool.records("VDI")) == disks
    (drive,) = tls.drives()
    assert drive["empty"] is True


@pytest.mark.parametrize("way, code", [("Ctrl-C", 130), ("SIGTERM", 143), ("the terminal goes", 129)])
def test_the_command_can_be_cancelled(world: Fresh, tls: TLSVM, way: str, code: int) -> None:
    """However it ends, the guest's private key is nowhere any more."""
    disks = set(world.pool.records("VDI"))
    with Terminal(argv(world, "-v", tls.uuid, "--mode", "tls", "--generate-certs")) as terminal:
        terminal.until("... run the script")
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


def test_the_command_goes_on_without_its_terminal(world: Fresh, tls: TLSVM) -> None:
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
    assert code == 1 and "Eject it" in err
    assert world.pool.record("VBD", world.pool.vm(tls.ref)["VBDs"][0])["VDI"] == iso


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
    assert code == 5 and "TLS_" in err
    assert {record["uuid"] for record in world.pool.records("secret").values()} == set(stored)
    assert {key: tls.config[key] for key in SECRETS} == {key: before[key] for key in SECRETS}
