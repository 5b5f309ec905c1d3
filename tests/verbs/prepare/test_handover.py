"""Certificates on a CD: how long somebody is waited for, what passes meanwhile, and that nothing stays behind."""

import os
import subprocess
import sys
import threading
import time
from typing import Any, Iterator, List

import pytest

from tests.need import need
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves the whole module
from tests.verbs.prepare.tls_vm import TLSVM, given, run
from tests.verbs.prepare.world import Fresh
from xscontainer import keys
from xscontainer.core import wire as calls
from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import (
    AddressUnknown,
    DriveBusy,
    EngineRefused,
    EngineTooOld,
    GuestRefused,
    TLSCertificateInvalid,
    TLSCredentialsInvalid,
    VMElsewhere,
    VMNotRunning,
    XSContainerError,
)
from xscontainer.plugin.context import local_context
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.verbs import awaiting, handover
from xscontainer.xapi import disk, task
from xscontainer.xapi import vm as xapi_vm

pytestmark = pytest.mark.real

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

LOCKED = ["VBD_TRAY_LOCKED", "OpaqueRef:drive"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    need(not RealEngine.missing(), RealEngine.missing())
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w") as made:
        made.pool.add_storage()
        yield made


@pytest.fixture
def tls(world: Fresh) -> Iterator[TLSVM]:
    with TLSVM(world) as made:
        yield made
        world.pool.faults.clear()


@pytest.fixture
def context(world: Fresh) -> Iterator[Any]:
    with local_context(world.daemons[1].settings) as made:
        yield made


def new(world: Fresh, tls: TLSVM, wait: str = "") -> Any:
    return world.told("prepare", vmuuid=tls.uuid, mode="tls", generatecerts="yes", wait=wait)


def disks(world: Fresh) -> List[str]:
    return [ref for ref, record in world.pool.records("VDI").items() if record["name_label"] == "xscontainer TLS"]


def step_of(world: Fresh, tls: TLSVM) -> str:
    return next((record["other_config"].get(task.STEP, "") for record in world.pool.records("task").values()
                 if record["other_config"].get(task.VM) == tls.uuid and record["status"] == "pending"), "")


def test_from_a_client(world: Fresh, tls: TLSVM) -> None:
    """One call of the plugin does all of it, on whichever host."""
    world.pool.on_disk(tls.on_disc)
    told = new(world, tls, wait="60")
    assert told["mode"] == "tls" and told["published"] is True and told["left"] == []
    assert tls.drives()[0]["empty"] is True and not disks(world)


def test_prepare_survives_a_restart_of_the_guest(world: Fresh, tls: TLSVM) -> None:
    """For some seconds it has no address: the disc stays, and somebody is waited for."""
    networks = {"0/ip": tls.address}

    def on_disc(ref: str, event: str, vbd: str) -> None:
        if ref == tls.ref and event == "insert":
            world.pool.set_networks(ref, {})
        tls.on_disc(ref, event, vbd)

    world.pool.on_disk(on_disc)
    tls.after = 1.0
    late = threading.Timer(5.0, lambda: world.pool.set_networks(tls.ref, networks))
    late.start()
    try:
        assert new(world, tls, wait="60")["mode"] == "tls"
    finally:
        late.join()
    assert not disks(world)


def test_a_client_cancels_prepare(world: Fresh, tls: TLSVM) -> None:
    failed: List[List[str]] = []
    thread = threading.Thread(target=lambda: failed.append(world.failure(new, world, tls, wait="60")))
    thread.start()
    world.wait(lambda: step_of(world, tls).startswith(calls.SCRIPT_STEP))
    (ref,) = [ref for ref, record in world.pool.records("task").items()
              if record["other_config"].get(task.VM) == tls.uuid]
    assert world.failure(new, world, tls)[0] == "DRIVE_BUSY", "one at a time"
    with world.session() as session:
        session.xenapi.task.cancel(ref)
    thread.join(20.0)
    assert failed and failed[0][0] == "CALLED_OFF"
    assert world.pool.record("task", ref)["status"] == "cancelled"
    assert not disks(world) and keys.MODE not in tls.config


def test_the_daemon_is_stopped_meanwhile(world: Fresh, tls: TLSVM) -> None:
    failed: List[List[str]] = []
    thread = threading.Thread(target=lambda: failed.append(world.failure(new, world, tls, wait="60")))
    thread.start()
    world.wait(lambda: step_of(world, tls).startswith(calls.SCRIPT_STEP))
    world.daemons[1].restart()
    thread.join(20.0)
    assert failed and failed[0][0] == "CALLED_OFF" and "Repeat" in failed[0][1]
    assert not disks(world) and tls.drives()[0]["empty"] is True


def test_a_tray_that_is_locked_for_a_while(world: Fresh, tls: TLSVM) -> None:
    world.pool.on_disk(tls.on_disc)
    world.pool.faults("VBD.eject", "fail", times=3, description=LOCKED)
    assert new(world, tls, wait="60")["left"] == [] and not disks(world)


def test_a_tray_that_stays_locked(world: Fresh, tls: TLSVM, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is told, and the next hand-over clears it away."""
    monkeypatch.setattr(handover, "LET_GO_WITHIN", 1.0)
    world.pool.faults("VBD.eject", "fail", description=LOCKED)
    vm = context.vm(tls.uuid)
    with handover.offered(context, vm, "") as offer:
        assert len(disks(world)) == 1
    (left,) = offer.left
    assert "Unmount" in left and f"xe vm-cd-eject uuid={tls.uuid}" in left
    with pytest.raises(DriveBusy, match="Unmount"), handover.offered(context, vm, ""):
        pass
    world.pool.faults.clear()
    with pytest.raises(GuestRefused, match="Nobody there.*vm-cd-eject"), handover.offered(context, vm, ""):
        world.pool.faults("VBD.eject", "fail", description=LOCKED)
        raise GuestRefused("Nobody there.")
    world.pool.faults.clear()
    with handover.offered(context, vm, "") as offer:
        assert len(disks(world)) == 1
    assert offer.left == [] and not disks(world)


@pytest.mark.parametrize("wrong", [{"mode": "ssh"}, {"cacertsecret": "00000000-0000-0000-0000-000000000000"},
                                   {"wait": "1801"}, {"wait": "-1"}, {"wait": "soon"},
                                   {"generatecerts": "no"}], ids=str)
def test_calls_that_make_no_sense(world: Fresh, tls: TLSVM, wrong: Any) -> None:
    arguments = dict({"vmuuid": tls.uuid, "generatecerts": "yes"}, **wrong)
    assert world.failure(world.call, 0, "prepare", **arguments)[0] == "ARGUMENT_INVALID"
    assert not disks(world)


def test_a_repository_by_name(world: Fresh, tls: TLSVM) -> None:
    with world.session() as session:
        sr = session.xenapi.pool.get_default_SR(session.xenapi.pool.get_all()[0])
        name = session.xenapi.SR.get_name_label(sr)
    world.pool.on_disk(tls.on_disc)
    code, _, err = run(world, "-v", tls.uuid, "--mode", "tls", "--generate-certs", "--sr", "no such")
    assert code == 4 and "storage repository" in err
    done = world.command("prepare", tls.uuid, "--mode", "tls", "--generate-certs", "--sr", name)
    out, err = (text.decode() for text in done.communicate(timeout=60))
    assert done.returncode == 0 and "The engine has its new certificate" in out and "enable-tls.sh" in err, err


def test_certificates_of_ones_own_ca_are_stored(world: Fresh, tls: TLSVM) -> None:
    """``xscontainer prepare VM --mode tls --ca-cert FILE --client-cert FILE --client-key FILE``."""
    done = world.command("prepare", tls.uuid, "--mode", "tls", *given(world, tls))
    out, err = (text.decode() for text in done.communicate(timeout=60))
    assert done.returncode == 0 and "Nothing had to be installed" in out, err
    assert {keys.TLS_CA_CERT, keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY} <= set(tls.config)


# --- waiting --------------------------------------------------------------------------------------------------------


class Answers:
    """A stand-in for Access.open with an answer for each call; the last answer is repeated."""

    def __init__(self, *errors: XSContainerError) -> None:
        self._errors = list(errors)
        self.asked = 0

    def open(self, _vm: Any, insist: bool = False) -> Any:
        self.asked += 1
        raise self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]


def waited(context: Any, tls: TLSVM, monkeypatch: pytest.MonkeyPatch, wait: float, *errors: XSContainerError,
           **seen: Any) -> Any:
    """Wait for an engine; returns how often it was opened, and the error in the end.

    :param seen: of the VM at first.
    """
    answers = Answers(*errors)
    monkeypatch.setattr(context.access, "open", answers.open)
    with context.forwarding.lease() as session, pytest.raises(XSContainerError) as caught, \
            task.running(session, "waiting") as progress:
        awaiting.opened(context, xapi_vm.record(session, tls.uuid)._replace(**seen), {}, wait, "", progress, "waiting")
    return answers.asked, caught.value


NOT_YET = [GuestRefused("x"), TLSCertificateInvalid("x"), AddressUnknown("x")]


def test_the_engine_is_asked_once_per_interval(tls: TLSVM, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    asked, error = waited(context, tls, monkeypatch, 2 * awaiting.RETRY_SECONDS + 1.0, *NOT_YET)
    assert asked == 4 and isinstance(error, AddressUnknown), "the last one at the very end"
    assert time.monotonic() - begun < 2 * awaiting.RETRY_SECONDS + 3.0


@pytest.mark.parametrize("error", [EngineTooOld("x"), EngineRefused("x"), TLSCredentialsInvalid("x")], ids=repr)
def test_an_error_that_waiting_cannot_mend_is_raised_at_once(tls: TLSVM, context: Any, monkeypatch: pytest.MonkeyPatch,
                                            error: XSContainerError) -> None:
    assert waited(context, tls, monkeypatch, 60.0, error) == (1, error)


@pytest.mark.parametrize("seen", [{"power_state": "Halted", "resident_on": NULL_REF}, {"resident_on": NULL_REF}],
                         ids=["off", "starting"])
def test_a_vm_that_runs_again(tls: TLSVM, context: Any, monkeypatch: pytest.MonkeyPatch, seen: Any) -> None:
    error = EngineTooOld("x")
    assert waited(context, tls, monkeypatch, 60.0, error, **seen) == (1, error)
    asked, error = waited(context, tls, monkeypatch, 0.0, error, **seen)
    assert asked == 0 and isinstance(error, VMNotRunning)


def test_a_vm_that_left(tls: TLSVM, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, error = waited(context, tls, monkeypatch, 60.0, EngineTooOld("x"), resident_on="OpaqueRef:other")
    assert asked == 0 and isinstance(error, VMElsewhere), "the plugin hands the call on to where it is"


def test_without_patience(tls: TLSVM, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert waited(context, tls, monkeypatch, 0.0, *NOT_YET) == (1, NOT_YET[0])


# --- processes that die, and others beside


def _disc(world: Fresh, tls: TLSVM, context: Any, **mark: str) -> str:
    """A disc in the VM's drive, as a process leaves it that dies while somebody is waited for."""
    with world.session() as session:
        vm = xapi_vm.record(session, tls.uuid)
        drive = disk.cd_drive(session, vm.ref, running=True)
        marks = {**handover._mark(session, vm, context.this_host_ref()), **mark}
        ref = disk.create(session, handover._repository(session, context.this_host_ref(), ""), 65536, handover.NAME, "",
                          marks)
        disk.insert(session, drive, ref)
    assert disks(world) == [ref] and not tls.drives()[0]["empty"]
    return ref


def test_a_disc_whose_process_died_is_swept(world: Fresh, tls: TLSVM, context: Any) -> None:
    _disc(world, tls, context)
    handover.sweep(context)
    assert not disks(world) and tls.drives()[0]["empty"] is True


def test_the_daemon_sweeps_after_its_start(world: Fresh, tls: TLSVM, context: Any) -> None:
    _disc(world, tls, context)
    world.daemon(1).restart()
    world.wait(lambda: not disks(world) and tls.drives()[0]["empty"] is True, "the disc is gone")


def test_a_disc_of_a_call_at_work_is_neither_swept_nor_replaced(world: Fresh, tls: TLSVM, context: Any) -> None:
    with world.session() as session:
        vm = xapi_vm.record(session, tls.uuid)
    with handover.offered(context, vm, ""):
        (ref,) = disks(world)
        # Another process of this host, and the daemon.
        code = ("import sys; from xscontainer import settings; from xscontainer.verbs import handover;"
                "from xscontainer.plugin.context import local_context; from xscontainer.errors import DriveBusy\n"
                "from xscontainer.xapi import vm as xapi_vm\n"
                "with local_context(settings.load(sys.argv[1]).settings) as context:\n"
                "    handover.sweep(context)\n"
                "    vm = context.sessions.run(lambda session: xapi_vm.record(session, sys.argv[2]))\n"
                "    try:\n"
                "        with handover.offered(context, vm, ''): print('taken')\n"
                "    except DriveBusy as error: print(error.code)\n")
        path = os.path.join(world.directory, "other.conf")
        conf = context.settings
        with open(path, "w") as out:
            out.write(f"[daemon]\nsocket = {conf.daemon.socket}\ninventory = {conf.daemon.inventory}\n"
                      f"[xapi]\nsocket = {conf.xapi.socket}\n[address]\nallow_loopback = yes\n")
        said = subprocess.run([sys.executable, "-W", "ignore", "-c", code, path, tls.uuid], stdout=subprocess.PIPE,
                              check=True, cwd=ROOT, timeout=60).stdout
        assert said == b"DRIVE_BUSY\n"
        assert disks(world) == [ref] and not tls.drives()[0]["empty"]
    assert not disks(world)


@pytest.mark.parametrize("until, swept", [(600, False), (-5, True), (10 ** 8, True)])
def test_a_disc_of_another_host_is_left_to_that_host_while_its_call_may_be_at_work(
        world: Fresh, tls: TLSVM, context: Any, until: int, swept: bool) -> None:
    ref = _disc(world, tls, context, **{handover.DISC_HOST: "11111111-2222-3333-4444-555555555555",
                                        handover.DISC_UNTIL: str(int(time.time()) + until)})
    with world.session() as session:
        vm = xapi_vm.record(session, tls.uuid)
    if not swept:
        with pytest.raises(DriveBusy, match="another host"), handover.offered(context, vm, ""):
            pass
    handover.sweep(context)
    assert (ref not in disks(world)) is swept
    if not swept:
        with world.session() as session:
            handover._destroy(session, ref)


def test_a_disc_of_somebody_else_is_not_touched(world: Fresh, tls: TLSVM, context: Any) -> None:
    ref = _disc(world, tls, context, **{handover.DISC_FOR: "somebody's own"})
    handover.sweep(context)
    assert disks(world) == [ref]
    with world.session() as session:
        handover._destroy(session, ref)
