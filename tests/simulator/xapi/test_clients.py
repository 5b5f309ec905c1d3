"""Real clients against the simulator: the XenAPI module of PyPI and Vates' xen-api of npm."""

import json
import os
import sys
from typing import Any, Iterator

import pytest

from tests.clients.following import Follower
from tests.simulator.xapi.scenes import LABECHO, install
from xscontainer.simulator.xapi import ROOT_PASSWORD, Pool

XenAPI = pytest.importorskip("XenAPI")
FOLLOW = os.path.join(os.path.dirname(os.path.abspath(__file__)), "follow_pool.mjs")


@pytest.fixture
def pool(tmp_path: Any) -> Iterator[Pool]:
    """Make two hosts with a plugin, and a user with all rights."""
    with Pool(str(tmp_path), hosts=2) as made:
        made.add_user("admin", "admin-pw", "pool-admin")
        for host in made.hosts:
            install(host.plugin_dir, "labecho", "#!" + sys.executable + LABECHO)
        yield made


@pytest.fixture
def session(pool: Pool) -> Iterator[Any]:
    """Return a XenAPI session over TCP."""
    made = XenAPI.Session("http://127.0.0.1:{}/".format(pool.coordinator.tcp_port))
    made.xenapi.login_with_password("root", ROOT_PASSWORD, "1.0", "python")
    yield made
    made.xenapi.session.logout()
    made("close")()


def test_a_python_client_reads_and_writes_records(pool: Pool, session: Any) -> None:
    """Failures are exceptions."""
    ref = pool.create_vm("one", other_config={"a": "1"}, networks={"0/ip": "127.7.0.2"})
    record = session.xenapi.VM.get_record(ref)
    assert (record["name_label"], record["power_state"], record["VCPUs_max"]) == ("one", "Running", "1")
    metrics = session.xenapi.VM_guest_metrics.get_record(record["guest_metrics"])
    assert metrics["networks"] == {"0/ip": "127.7.0.2"}
    session.xenapi.VM.add_to_other_config(ref, "b", "2")
    assert pool.other_config(ref)["b"] == "2"
    with pytest.raises(XenAPI.Failure) as caught:
        session.xenapi.VM.add_to_other_config(ref, "b", "3")
    assert caught.value.details == ["MAP_DUPLICATE_KEY", "VM", "other_config", ref, "b"]
    assert set(session.xenapi.VM.get_all_records()) == set(pool.records("VM"))


def test_a_python_client_follows_events(pool: Pool, session: Any) -> None:
    """A local superuser may call event_from, too. A change arrives as one event with the whole record."""
    ref = pool.create_vm("one")
    batch = session.xenapi.event_from(["vm", "vm_guest_metrics"], "", 1.0)
    assert {e["ref"] for e in batch["events"] if e["class"] == "vm"} == set(pool.records("VM"))
    pool.set_networks(ref, {"0/ip": "127.7.0.9"})
    pool.set_key(ref, "k", "v")
    seen = session.xenapi.event_from(["vm", "vm_guest_metrics"], batch["token"], 1.0)
    assert {(e["class"], e["operation"]) for e in seen["events"]} == {("vm", "mod"), ("vm_guest_metrics", "mod")}
    assert seen["valid_ref_counts"]["vm"] == 3


@pytest.mark.parametrize("number", [0, 1])
def test_a_python_client_calls_a_plugin(pool: Pool, session: Any, number: int) -> None:
    """The plugin gets the caller's session on the coordinator, another one on a member."""
    told = json.loads(session.xenapi.host.call_plugin(pool.hosts[number].ref, "labecho", "fn", {"é": "<&>"}))
    assert (told["fn"], told["args"], told["cwd"]) == ("fn", {"é": "<&>"}, "/")
    assert (told["session"] == session.handle) == (number == 0)
    assert set(told["env"]) <= {"PATH", "LC_CTYPE"}


@pytest.fixture
def vm(pool: Pool) -> str:
    """Make a running VM."""
    return pool.create_vm("one", other_config={"xscontainer-monitor": "True"})


@pytest.fixture
def follower(pool: Pool, vm: str) -> Iterator[Follower]:
    url = "http://127.0.0.1:{}".format(pool.coordinator.tcp_port)
    made = Follower(FOLLOW, url, pool.vm(vm)["uuid"], pool.hosts[1].uuid, "labecho")
    yield made
    made.close()


@pytest.mark.real
def test_a_node_client_follows_the_pool(pool: Pool, vm: str, follower: Follower) -> None:
    """xen-api connects, fetches every object, sees a key change and a plugin's answer, watches a task."""
    first = follower.next()
    assert (first["saw"], first["name"], first["pool"]) == ("fetched", "one", "pool")
    assert first["objects"] >= len(pool.records("VM")) + len(pool.records("host"))
    pool.set_key(vm, "docker_ps", "<docker_ps/>")
    assert follower.next() == {"saw": "change", "value": "<docker_ps/>"}
    pool.remove_key(vm, "docker_ps")
    assert follower.next() == {"saw": "change", "value": None}
    follower.order("call")
    called = follower.next()
    assert (called["saw"], json.loads(called["value"])["args"]) == ("called", {"a": "1"})
    assert follower.next() == {"saw": "refused", "code": "XENAPI_MISSING_PLUGIN", "params": ["nosuch"]}
    follower.order("task")
    assert json.loads(follower.next()["result"])["fn"] == "hello"
    follower.order("write")
    assert follower.next() == {"saw": "written"}
    assert pool.other_config(vm)["from-node"] == "é"
