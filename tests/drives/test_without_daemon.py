"""The functions in a plugin process of their own, where no daemon runs."""

import pytest

from tests.drives.conftest import sr_of
from tests.plugin.pool import PluginPool


def test_config_drives_need_no_daemon(tmp_path_factory: pytest.TempPathFactory) -> None:
    with PluginPool(str(tmp_path_factory.mktemp("n")), hosts=2, daemons=False) as pool:
        pool.pool.add_storage()
        vm = pool.pool.create_vm("web", power_state="Halted")
        sr = pool.uuid(sr_of(pool.pool, "Local storage on " + pool.hosts[1].sim.name_label), "SR")
        text = "#cloud-config\nhostname: %XSVMNAMETOHOSTNAME%\nkey: \"%XSHOSTKEYPRIVATEJSON%\"\n"
        vdi = pool.call(pool.hosts[0], "create_config_drive", vmuuid=pool.uuid(vm), sruuid=sr, configuration=text)[4:]
        assert pool.call(pool.hosts[0], "get_config_drive_configuration", vdiuuid=vdi) == "True" + text
        again = pool.call(pool.hosts[1], "create_config_drive", vmuuid=pool.uuid(vm), sruuid=sr, configuration=text)[4:]
        assert [record["uuid"] for record in pool.pool.records("VDI").values()] == [again] != [vdi]
