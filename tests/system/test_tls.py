"""VMs whose engines are reached over TLS: shown, steered, and what goes wrong with certificates told apart."""

import time
from functools import partial
from typing import Any, Dict, Iterator, List

import pytest

from tests.bench.scene import VM
from tests.bench.tls import OverTLS
from tests.system.world import OBEDIENT, World
from tests.waiting import until
from xscontainer import certificates, keys
from xscontainer.certificates import making
from xscontainer.engine.tls import certs
from xscontainer.xapi import stored_certificate
from xscontainer.xapi import vm as xapi_vm

pytestmark = pytest.mark.real

DAY = 86400.0
COMES_BACK = 10.0  # seconds; mostly it takes one, and `make bench` measures it
CONF = "[publish]\ninterval = 0\nstale_after = 1.0\n[monitor]\nbackoff_max = 0.5\n"
SECRETS = (keys.TLS_CA_CERT, keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY)


class TLSWorld(OverTLS, World):
    """Scene first: its way of making VMs."""


@pytest.fixture(scope="module")
def world() -> Iterator[TLSWorld]:
    with TLSWorld(1, containers=0, real=True, conf=CONF) as made:
        made.vms[0].engine.run("web", OBEDIENT)
        made.wait_right()
        yield made


@pytest.fixture
def vm(world: TLSWorld) -> Iterator[VM]:
    """One that is shown, and is again afterwards."""
    vm = world.vms[0]
    before = {key: world.key(vm, key) for key in (keys.MODE, keys.TLS_PORT) + SECRETS}
    world.wait_right(vm)
    yield vm
    for key, value in before.items():
        assert value
        put(world, vm, key, value)
    world.wait_right(vm)


def put(world: TLSWorld, vm: VM, key: str, value: str) -> None:
    xapi_vm.put_key(world.session, vm.ref, key, value, present=True)


def secret(world: TLSWorld, value: str) -> str:
    """A new one; its uuid."""
    xapi = world.session.xenapi.secret
    return str(xapi.get_uuid(xapi.create({"value": value, "other_config": {}})))


def value(world: TLSWorld, uuid: str) -> str:
    return str(world.session.xenapi.secret.get_value(world.session.xenapi.secret.get_by_uuid(uuid)))


def messages(world: TLSWorld) -> List[Dict[str, Any]]:
    return [found for found in world.session.xenapi.message.get_all_records().values()
            if found["name"] == "TLS_CERTIFICATE_ENDS"]


def shows(world: TLSWorld, vm: VM, status: str) -> bool:
    return world.shown(vm).get("web") == status


@pytest.mark.parametrize("host", [0, 1], ids=["coordinator", "member"])
def test_a_vm_is_shown_and_controlled_from_any_host(world: TLSWorld, vm: VM, host: int) -> None:
    for verb, status in (("pause", "Up (Paused)"), ("unpause", "Up"), ("restart", "Up"), ("stop", "Exited (0)"),
                         ("start", "Up")):
        assert world.call(host, verb, vmuuid=vm.uuid, container="web").startswith("True")
        until(partial(shows, world, vm, status), f"not {status}", COMES_BACK)
    assert "<docker_inspect>" in world.call(host, "get_inspect", vmuuid=vm.uuid, object="web")
    assert "<Process>" in world.call(host, "get_top", vmuuid=vm.uuid, object="web")


def test_a_vm_is_controlled_without_the_daemon(world: TLSWorld, vm: VM) -> None:
    world.kill_daemon(1)
    try:
        assert "<docker_inspect>" in world.call(1, "get_inspect", vmuuid=vm.uuid, object="web")
    finally:
        world.start_daemon(1)


def test_the_list_is_right_after_an_engine_restart(world: TLSWorld, vm: VM) -> None:
    vm.engine.stop()
    world.wait_status(vm, "GUEST_REFUSED")
    assert world.failure(0, "start", vmuuid=vm.uuid, container="web")[0] == "GUEST_REFUSED"
    vm.engine.start()
    world.wait_right(vm, seconds=COMES_BACK)
    vm.engine.do("start", "web")


@pytest.mark.parametrize("wrong", ["TLS_CERTIFICATE_INVALID", "TLS_CLIENT_REFUSED", "TLS_CREDENTIALS_MISSING",
                                   "TLS_CREDENTIALS_INVALID", "ARGUMENT_INVALID", "MODE_UNSUPPORTED"])
def test_a_wrong_setting_is_published_until_it_is_corrected(world: TLSWorld, vm: VM, wrong: str) -> None:
    """Each change ends the connection, also the one that corrects the setting."""
    other = making.new_ca("another CA", time.time())
    another_client = making.new_client(other, "x", time.time())
    changes = {
        "TLS_CERTIFICATE_INVALID": {keys.TLS_CA_CERT: secret(world, other.certificate)},
        "TLS_CLIENT_REFUSED": {keys.TLS_CLIENT_CERT: secret(world, another_client.certificate),
                               keys.TLS_CLIENT_KEY: secret(world, another_client.key)},
        "TLS_CREDENTIALS_MISSING": {keys.TLS_CLIENT_KEY: "4a1b2c3d-0000-4000-8000-123456789abc"},
        "TLS_CREDENTIALS_INVALID": {keys.TLS_CLIENT_CERT: secret(world, "no certificate")},
        "ARGUMENT_INVALID": {keys.TLS_CA_CERT: "no uuid"},
        "MODE_UNSUPPORTED": {keys.MODE: "pigeon"},
    }[wrong]
    for key, changed in changes.items():
        put(world, vm, key, changed)
    world.wait_status(vm, wrong)
    assert world.failure(0, "get_top", vmuuid=vm.uuid, object="web")[0] == wrong


def test_a_missing_secret_is_reported(world: TLSWorld, vm: VM) -> None:
    world.session.xenapi.VM.remove_from_other_config(vm.ref, keys.TLS_CA_CERT)
    world.wait_status(vm, "TLS_CREDENTIALS_MISSING")


def test_a_port_where_another_server_answers_is_reported(world: TLSWorld, vm: VM) -> None:
    guest = world.guest("sshd", address=vm.guest.address)
    try:
        guest.start()
        put(world, vm, keys.TLS_PORT, str(guest.port))
        world.wait_status(vm, "TLS_PROTOCOL")
    finally:
        guest.close()


def test_the_client_certificate_is_renewed_by_the_coordinator(world: TLSWorld, vm: VM) -> None:
    """Nobody is told: no admin has anything to do."""
    xapi = world.session.xenapi
    config = xapi.pool.get_other_config(xapi.pool.get_all()[0])
    ca, client = (stored_certificate.read(world.session, config[key])
                  for key in (keys.TLS_CA_SECRET, keys.TLS_CLIENT_SECRET))
    old = making.new_client(making.Pair(ca.certificate, ca.key), "x", time.time() - 800 * DAY)
    for host in (0, 1):
        world.kill_daemon(host)
    stored_certificate.replace(world.session, client, old.certificate, old.key)
    vm.engine.run("renewed")
    world.start_daemon(1)
    world.wait_right(vm)  # with what ends soon
    world.start_daemon(0)
    until(lambda: stored_certificate.read(world.session, client.key_uuid).certificate != old.certificate)
    new = stored_certificate.read(world.session, client.key_uuid)
    assert certs.validity(certs.load(new.certificate))[1] > time.time() + 800 * DAY
    # The standing connection need not know; the next one has the new pair.
    vm.engine.run("still")
    world.wait_right(vm)
    world.kill_daemon(1)
    vm.engine.run("anew")
    world.start_daemon(1)
    world.wait_right(vm)
    assert messages(world) == []


def test_a_certificate_that_expires_soon_is_reported_once(world: TLSWorld, vm: VM) -> None:
    xapi = world.session.xenapi
    ca = stored_certificate.read(world.session, xapi.pool.get_other_config(xapi.pool.get_all()[0])[keys.TLS_CA_SECRET])
    old = making.new_server(making.Pair(ca.certificate, ca.key), "x", [vm.guest.address], time.time() - 800 * DAY,
                            vm.uuid)
    issued = certificates.Issued({}, {"ca.pem": ca.certificate.encode(), "server-cert.pem": old.certificate.encode(),
                                      "server-key.pem": old.key.encode()}, "", 0.0)
    assert messages(world) == []
    guest: Any = vm.guest
    guest.certify(issued)
    vm.engine.restart()
    vm.engine.do("start", "web")
    until(lambda: messages(world))
    world.wait_right(vm)
    (found,) = messages(world)
    assert found["obj_uuid"] == vm.uuid and vm.uuid in found["body"] and "expires at 20" in found["body"]
    mark = world.key(vm, keys.TLS_WARNED)
    world.kill_daemon(1)
    vm.engine.run("another")
    world.start_daemon(1)
    world.wait_right(vm)
    assert len(messages(world)) == 1 and world.key(vm, keys.TLS_WARNED) == mark


def test_another_vms_engine_is_not_shown(world: TLSWorld, vm: VM) -> None:
    """Addresses are what a guest says they are: here one says that it has another's."""
    wanted = [keys.MONITOR, keys.MODE, keys.TLS_PORT, *SECRETS]
    ref = world.pool.create_vm("liar", host=world.pool.hosts[1], networks={"0/ip": vm.guest.address},
                               other_config={key: str(world.key(vm, key)) for key in wanted})
    liar = VM("liar", ref, world.pool.vm(ref)["uuid"], vm.guest, vm.engine)
    world.wait_status(liar, "TLS_CERTIFICATE_INVALID")
    assert f"is for VM {vm.uuid}, not for this VM" in str(world.key(liar, keys.STATUS))
    for host in (0, 1):
        assert world.failure(host, "stop", vmuuid=liar.uuid, container="web")[0] == "TLS_CERTIFICATE_INVALID"
    assert world.key(liar, keys.PS) is None and shows(world, vm, "Up")
    world.session.xenapi.VM.hard_shutdown(ref)
    world.session.xenapi.VM.destroy(ref)


def test_no_secret_is_logged_or_published(world: TLSWorld, vm: VM) -> None:
    told = "".join(world.log(number) for number in (0, 1))
    told += repr(world.session.xenapi.VM.get_all_records()) + repr(world.session.xenapi.pool.get_all_records())
    assert "PRIVATE" not in told and "BEGIN" not in told
    key = value(world, str(world.key(vm, keys.TLS_CLIENT_KEY)))
    assert "PRIVATE" in key and key.splitlines()[1] not in told
