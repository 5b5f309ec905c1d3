"""Options select containers; a wrong word gets a suggestion."""

from typing import Any, Dict, List

import pytest

from tests.cli.listing.pools import container, pool, vm
from xscontainer.cli.listing.selection import Filter, narrow, project, select, with_matching
from xscontainer.core.groups import Group
from xscontainer.errors import NotFound

POOL = pool(
    vm("web01", container("nginx", health="healthy", project="shop"), container("cron", "restarting"),
       container("old", "exited", exit_code=1, project="shop")),
    vm("db", container("postgres", health="unhealthy", project="data"), container("admin", "paused")),
    vm("web02", container("nginx", project="shop"), container("fresh", "created")),
    nowhere=[vm("off", power_state="Halted")])


@pytest.mark.parametrize("chosen, labels, hidden", [
    ({}, ["db/admin", "db/postgres", "web01/cron", "web01/nginx", "web02/nginx"], 2),
    ({"every": True}, ["db/admin", "db/postgres", "web01/cron", "web01/nginx", "web01/old", "web02/fresh",
                       "web02/nginx"], 0),
    ({"states": ("exited",)}, ["web01/old"], 0),
    ({"states": ("exited", "paused")}, ["db/admin", "web01/old"], 0),
    ({"healths": ("unhealthy",)}, ["db/postgres"], 0),
    ({"healths": ("none",)}, ["db/admin", "web01/cron", "web02/nginx"], 2),
    ({"projects": ("shop",)}, ["web01/nginx", "web02/nginx"], 1),
    ({"projects": ("shop",), "every": True}, ["web01/nginx", "web01/old", "web02/nginx"], 0),
    ({"names": ("n*",)}, ["web01/nginx", "web02/nginx"], 0),
    ({"names": ("n*", "admin")}, ["db/admin", "web01/nginx", "web02/nginx"], 0),
    ({"names": ("web01/*",)}, ["web01/cron", "web01/nginx"], 1),
    ({"names": ("N*",)}, [], 0),
    ({"names": ("nginx",), "healths": ("healthy",)}, ["web01/nginx"], 0),
])
def test_options_select_containers_in_the_order_of_their_names(chosen: Dict[str, Any], labels: List[str],
                                                               hidden: int) -> None:
    found = select(POOL, Filter(**chosen))
    assert [row.label for row in found.rows] == labels
    assert found.hidden == hidden


def test_documents_hold_matching_containers_whether_they_run_or_not() -> None:
    found = with_matching(POOL, Filter(projects=("shop",)))
    assert [[container.name for container in vm.containers] for host in found.hosts for vm in host.vms] == [
        ["nginx", "old"], ["nginx"], []]
    assert [vm.name for vm in found.vms] == ["off"]


@pytest.mark.parametrize("vms, hosts, names", [
    (["web01"], [], ["web01"]), (["web"], [], ["web01", "web02"]), (["w", "db"], [], ["db", "web01", "web02"]),
    ([], ["host2"], ["db"]), ([], ["HOST2".lower()], ["db"]), ([], ["0000000"], ["db", "web01", "web02"]),
    (["web"], ["host1"], ["web01", "web02"]), (["off"], [], ["off"])])
def test_hosts_and_vms_are_chosen_by_beginnings(vms: List[str], hosts: List[str], names: List[str]) -> None:
    found = narrow(POOL, hosts, vms)
    assert sorted([vm.name for host in found.hosts for vm in host.vms] + [vm.name for vm in found.vms]) == names


def test_a_whole_name_is_preferred_to_a_beginning() -> None:
    found = narrow(pool(vm("web"), vm("web01")), [], ["web"])
    assert [vm.name for host in found.hosts for vm in host.vms] == ["web"]


@pytest.mark.parametrize("vms, hosts, hint", [
    (["wbe01"], [], "Did you mean 'web01' or 'web02'?"), ([], ["hots1"], "Did you mean 'host1'"),
    (["db"], ["host1"], "Give its name"), (["zzz"], [], "Give its name"), ([""], [], "Give its name")])
def test_a_wrong_host_or_vm_is_not_found(vms: List[str], hosts: List[str], hint: str) -> None:
    with pytest.raises(NotFound) as raised:
        narrow(POOL, hosts, vms)
    assert raised.value.hint.startswith(hint)


def test_a_unit_stands_for_the_project_of_a_container_without_one() -> None:
    assert project(container("x", group=Group(unit="web.service"))) == "web.service"
    assert project(container("x", group=Group("pod", "mine", unit="web.service"))) == "mine"
