"""Config drives in plugin processes of their own, without the daemon."""

import pytest

from tests.configdrive.conftest import sr_of
from tests.configdrive.test_verbs import PINNING, config, drives, new_vm, sr_uuid, user_data
from tests.plugin.pool import PluginPool
from tests.waiting import until
from xscontainer import keys


def test_config_drives_are_written_without_the_daemon(tmp_path_factory: pytest.TempPathFactory) -> None:
    with PluginPool(str(tmp_path_factory.mktemp("n")), hosts=2, daemons=False) as pool:
        pool.pool.add_storage()
        vm = pool.pool.create_vm("web", power_state="Halted")
        sr = pool.uuid(sr_of(pool.pool, "Local storage on " + pool.hosts[1].sim.name_label), "SR")
        text = "#cloud-config\nhostname: %XSVMNAMETOHOSTNAME%\nkey: \"%XSHOSTKEYPRIVATEJSON%\"\n"
        vdi = pool.call(pool.hosts[0], "create_config_drive", vmuuid=pool.uuid(vm), sruuid=sr, configuration=text)[4:]
        assert pool.call(pool.hosts[0], "get_config_drive_configuration", vdiuuid=vdi) == "True" + text
        again = pool.call(pool.hosts[1], "create_config_drive", vmuuid=pool.uuid(vm), sruuid=sr, configuration=text)[4:]
        assert [record["uuid"] for record in pool.pool.records("VDI").values()] == [again] != [vdi]


def test_calls_for_one_vm_wait_for_each_other_on_all_hosts(
        tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each call is a process. The pinned key belongs to the drive that stays, and no call loses its disk."""
    with PluginPool(str(tmp_path_factory.mktemp("n")), hosts=3, daemons=False) as pool:
        pool.pool.add_storage()
        pool.pool.transfer_delay = 0.5
        vm, uuid = new_vm(pool)
        arguments = {"vmuuid": uuid, "sruuid": sr_uuid(pool), "configuration": PINNING}
        task, call_plugin = pool.client.xenapi.task, pool.client.xenapi.Async.host.call_plugin
        calls = [call_plugin(host.sim.ref, "xscontainer", "create_config_drive", arguments) for host in pool.hosts]
        until(lambda: all(task.get_status(call) != "pending" for call in calls), "calls still run", 60)
        assert [task.get_error_info(call) for call in calls] == [[]] * 3
        drive, = drives(pool, vm)
        assert list(pool.pool.records("VDI")) == [drive["VDI"]]
        assert f"ssh-ed25519 {config(pool, vm)[keys.HOST_KEY]}" in user_data(pool, drive["VDI"])
