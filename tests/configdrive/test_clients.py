"""The calls of XenCenter, Xen Orchestra and xe, replayed as these clients send them."""

import json
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
import XenAPI

from tests.clients import node_packages
from tests.configdrive.cloud import SYSTEM, Cloud
from tests.configdrive.test_create import ROOT, emptied, templates  # noqa: F401 - emptied is a fixture
from tests.need import need_program
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves several tests
from xscontainer import keys

DEADLINE = 60
USER, PASSWORD = "pool-admin", "secret"
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    need_program("cloud-init")
    with Cloud(str(tmp_path_factory.mktemp("c"))) as world:
        world.pool.step_delay = 0.0
        world.coreos = templates(world, tmp_path_factory.mktemp("t"))["CoreOS"]  # type: ignore[attr-defined]
        world.pool.add_user(USER, PASSWORD, "pool-admin")
        yield world


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Any]:
    """Yield a client that speaks XML-RPC over TCP to the coordinator, like XenCenter and xe."""
    made = XenAPI.Session(f"http://127.0.0.1:{cloud.pool.coordinator.tcp_port}/")
    made.xenapi.login_with_password(USER, PASSWORD, "1.0", "client")
    yield made
    made.xenapi.session.logout()
    made("close")()


def listed(cloud: Cloud, vm: str, given_key: bool = False) -> None:
    """The VM booted what its drive says, and its container is shown.

    :param given_key: it was found by the key that was pinned before; else by its own, for its disk may have run before.
    """
    cloud.wait(lambda: keys.PS in cloud.pool.other_config(vm), "the list")
    config = cloud.pool.other_config(vm)
    assert "hello" in config[keys.PS] and config[keys.MONITOR] == "True"
    assert bool(cloud.wanted[vm].private) == given_key and keys.HOST_KEY in config


def test_the_new_vm_wizard_of_xencenter_gets_a_listed_vm(cloud: Cloud, client: Any) -> None:
    """The wizard calls the coordinator only, and edits and sends the text that follows exactly ``True``."""
    xapi = client.xenapi
    coreos = cloud.coreos  # type: ignore[attr-defined]
    (pool,) = xapi.pool.get_all_records().values()

    def plugin(function: str, **arguments: str) -> str:
        answer = xapi.host.call_plugin(pool["master"], "xscontainer", function, arguments)
        assert answer.startswith("True")
        return str(answer[4:])

    text = plugin("get_config_drive_default", templateuuid=xapi.VM.get_uuid(coreos))
    vm = xapi.VM.clone(coreos, "from XenCenter")
    disks = xapi.VM.get_other_config(vm)["disks"].replace('sr=""', f'sr="{xapi.SR.get_uuid(pool["default_SR"])}"')
    xapi.VM.remove_from_other_config(vm, "disks")
    xapi.VM.add_to_other_config(vm, "disks", disks)
    xapi.VM.provision(vm)
    with open(cloud.pool.disk_path(cloud.disks(vm)[0]["VDI"]), "r+b") as stream:
        stream.write(SYSTEM)  # the user installs a system
    # The wizard's text box ends lines like Windows; XML-RPC turns that into one newline.
    edited = text.replace("\n", "\r\n")
    vdi = plugin("create_config_drive", vmuuid=xapi.VM.get_uuid(vm), sruuid=xapi.SR.get_uuid(pool["default_SR"]),
                 configuration=edited)
    plugin("register", vmuuid=xapi.VM.get_uuid(vm))
    xapi.VM.start(vm, False, False)
    listed(cloud, vm)
    # The page with the VM's properties finds the drive by its mark, and shows the given text.
    marked = [vbd for vbd in xapi.VM.get_VBDs(vm) if xapi.VBD.get_other_config(vbd).get("config-drive") == "True"]
    assert [xapi.VDI.get_uuid(xapi.VBD.get_VDI(vbd)) for vbd in marked] == [vdi]
    assert plugin("get_config_drive_configuration", vdiuuid=vdi) == text
    # The user edits the text there, while the VM runs.
    second = plugin("create_config_drive", vmuuid=xapi.VM.get_uuid(vm), sruuid=xapi.SR.get_uuid(pool["default_SR"]),
                    configuration=text + "\n")
    assert second != vdi and plugin("get_config_drive_configuration", vdiuuid=second) == text + "\n"
    assert len(xapi.VM.get_VBDs(vm)) == 2


@pytest.mark.parametrize("configuration", [
    None, "#cloud-config\nhostname: %VMNAMETOHOSTNAME%\nusers:\n  - name: core\n    ssh_authorized_keys:\n"
          "      - ssh-rsa %CONTAINERRSAPUB%\nssh_keys:\n  ed25519_private: \"%XSHOSTKEYPRIVATEJSON%\"\n"],
    ids=["default", "a user's own"])
def test_a_new_vm_of_xen_orchestra_is_listed(cloud: Cloud, configuration: Any) -> None:
    library = str(node_packages() / "node_modules" / "xen-api" / "index.mjs")
    script = str(Path(__file__).parent / "orchestra.mjs")
    given = {"template": cloud.uuid("VM", cloud.coreos),  # type: ignore[attr-defined]
             "image": cloud.uuid("VDI", cloud.image), "sr": cloud.uuid("SR", cloud.storage["Local storage on host2"]),
             "network": cloud.uuid("network", cloud.network)}
    if configuration:
        given["configuration"] = configuration
    done = subprocess.run(
        [need_program("node", "nodejs"), script, library, f"http://127.0.0.1:{cloud.pool.coordinator.tcp_port}", USER,
         PASSWORD], input=json.dumps(given).encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout.decode())
    assert told["fallback"].encode() == (ROOT / "guest-config" / "ignition" / "flatcar.ign").read_bytes()
    assert told["back"] == (configuration or told["fallback"])
    assert cloud.pool.uuid_to_ref(told["vdi"], "VDI") == told["vdiRef"]
    listed(cloud, cloud.pool.uuid_to_ref(told["vm"]), given_key=configuration is not None)


def test_br_stands_for_a_newline_in_calls_of_xe(cloud: Cloud, client: Any) -> None:
    """The call is xe host-call-plugin host-uuid=... plugin=xscontainer fn=create_config_drive args:configuration=..."""
    host, = (ref for ref in client.xenapi.host.get_all() if ref == cloud.pool.hosts[1].ref)
    vm = cloud.pool.create_vm("from xe", power_state="Halted")
    cloud.pool.add_drive(vm, cloud.add_image(), userdevice="0")
    answer = client.xenapi.host.call_plugin(host, "xscontainer", "create_config_drive", {
        "vmuuid": cloud.uuid("VM", vm), "sruuid": cloud.uuid("SR", cloud.storage["Shared storage"]),
        "configuration": "#cloud-config%BR%hostname: %XSVMNAMETOHOSTNAME%%BR%users:%BR%  - name: core%BR%"})
    read = client.xenapi.host.call_plugin(
        host, "xscontainer", "get_config_drive_configuration", {"vdiuuid": answer[4:]})
    assert read == "True#cloud-config\nhostname: %XSVMNAMETOHOSTNAME%\nusers:\n  - name: core\n"
    client.xenapi.VM.start(vm, False, False)
    assert cloud.wanted[vm].hostname == "from-xe" and list(cloud.wanted[vm].keys) == ["core"]
