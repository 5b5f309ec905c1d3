"""``xscontainer wipe``, which the package runs when it is removed."""

from pathlib import Path
from typing import Dict

import pytest

from xscontainer import cli, keys
from xscontainer.simulator.xapi import Pool

PUBLISHED = {keys.MONITOR: "True", keys.PS: "<docker_ps/>", keys.INFO: "<docker_info/>", keys.HOST_KEY: "AAAA",
             "somebody-elses": "key"}
KEPT = {keys.MONITOR: "True", keys.HOST_KEY: "AAAA", "somebody-elses": "key"}


def test_each_host_wipes_its_own_vms_and_the_coordinator_those_that_run_on_no_host(
        tmp_path_factory: pytest.TempPathFactory, capsys: "pytest.CaptureFixture[str]") -> None:
    directory = tmp_path_factory.mktemp("w")
    with Pool(str(directory / "p"), hosts=2, tcp=False) as pool:
        first = pool.create_vm("first", host=pool.hosts[0], other_config=PUBLISHED)
        second = pool.create_vm("second", host=pool.hosts[1], other_config=PUBLISHED)
        halted = pool.create_vm("halted", power_state="Halted", other_config=PUBLISHED)

        def wiped(*refs: str) -> Dict[str, bool]:
            for ref in refs:
                config = pool.other_config(ref)
                assert {key: config.get(key) for key in KEPT} == KEPT
            return {pool.vm(ref)["name_label"]: keys.PS not in pool.other_config(ref) for ref in refs}

        def wipe(host: int) -> int:
            conf = Path(directory, f"{host}.conf")
            conf.write_text(f"[daemon]\ninventory = {pool.hosts[host].inventory_path}\n"
                            f"[xapi]\nsocket = {pool.hosts[host].socket_path}\n")
            return cli.main(["--config", str(conf), "wipe"])

        assert wipe(1) == 0
        assert wiped(first, second, halted) == {"first": False, "second": True, "halted": False}
        assert wipe(0) == 0
        assert wiped(first, second, halted) == {"first": True, "second": True, "halted": True}
        assert capsys.readouterr().out.splitlines()[-1] == "Removed the published data of 2 VMs."


def test_an_absent_xapi_is_reported_in_one_sentence(tmp_path: Path, capsys: "pytest.CaptureFixture[str]") -> None:
    conf = tmp_path / "c.conf"
    conf.write_text(f"[xapi]\nsocket = {tmp_path}/none\nlogin_timeout = 1\n")
    assert cli.main(["--config", str(conf), "wipe"]) == 5
    assert capsys.readouterr().err.startswith("xscontainer: ")
