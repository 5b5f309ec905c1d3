"""Crashes, blocked calls, lost writes, migrations, faults and counters of the simulated pool."""

import http.client
import os
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from tests.simulator.xapi.scenes import install, later
from tests.simulator.xapi.wireclient import Client
from xscontainer.simulator.xapi import ROOT_PASSWORD, Pool, SimHost
from xscontainer.simulator.xapi.state.session_store import LIMIT_PER_ORIGINATOR
from xscontainer.simulator.xapi.wire.encode import to_json, xml

DEADLINE = 10.0
BROKEN = (OSError, http.client.HTTPException)


@pytest.fixture
def pool(tmp_path: Any) -> Iterator[Pool]:
    """Make two hosts whose power operations take no time."""
    with Pool(str(tmp_path), hosts=2) as made:
        made.step_delay = 0.0
        made.migrate_copy = 0.0
        yield made


class Door:
    """A client with a session."""

    def __init__(self, host: SimHost, originator: str = "test") -> None:
        self.client = Client(host)
        self.session = self.client.call("session.login_with_password", "root", "", "1.0", originator)

    def __call__(self, method: str, *params: Any) -> Any:
        return self.client.call(method, self.session, *params)

    def fails(self, method: str, *params: Any) -> List[str]:
        """Return the ErrorDescription of a call that must fail."""
        reply, _response = self.client.xml(method, [self.session] + list(params))
        assert reply["Status"] == "Failure", reply
        description: List[str] = reply["ErrorDescription"]
        return description


@pytest.fixture
def doors(pool: Pool) -> Iterator[Callable[..., Door]]:
    """Make clients; close them at the end."""
    made: List[Door] = []

    def make(host: SimHost, originator: str = "test") -> Door:
        made.append(Door(host, originator))
        return made[-1]

    yield make
    for door in made:
        door.client.close()


Doors = Callable[..., Door]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another thread makes true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_host_has_an_inventory_and_a_pool_conf_as_dom0_has(pool: Pool) -> None:
    for host in pool.hosts:
        with open(host.inventory_path) as stream:
            assert f"INSTALLATION_UUID='{host.uuid}'" in stream.read()
    with open(pool.hosts[0].pool_conf_path) as stream:
        assert stream.read() == "master"
    with open(pool.hosts[1].pool_conf_path) as stream:
        assert stream.read() == "slave:" + pool.coordinator.address


def test_a_pool_in_a_long_directory_still_has_a_socket(tmp_path: Any) -> None:
    """Unix socket paths are short. The socket's other directory is removed in the end."""
    directory = tmp_path / ("x" * 120)
    with Pool(str(directory), hosts=1, tcp=False) as pool:
        path = pool.coordinator.socket_path
        with Client(pool.coordinator) as client:
            client.call("session.login_with_password", "root", "")
        assert os.path.exists(path)
    assert not os.path.exists(os.path.dirname(path))


def test_stop_ends_calls_that_wait(tmp_path: Any) -> None:
    """Neither a reader nor a plugin in mid-call keeps the pool from stopping."""
    pool = Pool(str(tmp_path), hosts=1).start()
    install(pool.coordinator.plugin_dir, "sleeper", "#!/bin/sh\nsleep 60\n")
    outcomes: List[str] = []

    def run(method: str, *params: Any) -> None:
        door = Door(pool.coordinator)
        try:
            door(method, *params)
        except BROKEN:
            outcomes.append(method)
        finally:
            door.client.close()

    threads = [
        threading.Thread(target=run, args=("event.from", ["vm/OpaqueRef:none"], "", 60.0)),
        threading.Thread(target=run, args=("host.call_plugin", pool.coordinator.ref, "sleeper", "f", {})),
    ]
    for thread in threads:
        thread.start()
    until(lambda: pool.plugin_runner.running == 1 and len(pool.events._waiters) == 1)
    started = time.monotonic()
    pool.stop()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(outcomes) == ["event.from", "host.call_plugin"]
    assert time.monotonic() - started < 5.0


def test_a_crash_of_a_member_ends_its_connections_and_sessions_only(pool: Pool, doors: Doors) -> None:
    """Sessions of the coordinator stay."""
    member, coordinator = doors(pool.hosts[1]), doors(pool.hosts[0])
    pool.hosts[1].crash()
    with pytest.raises(BROKEN):
        member("host.get_all")
    with pytest.raises(BROKEN), Client(pool.hosts[1]) as refused:
        refused.call("session.login_with_password", "root", "")
    assert pool.hosts[1].ref in coordinator("host.get_all")
    pool.hosts[1].restart()
    member.client.close()
    again = Client(pool.hosts[1])
    reply, _response = again.xml("host.get_all", [member.session])
    assert reply["ErrorDescription"] == ["SESSION_INVALID", member.session]
    again.close()


def test_a_crash_of_the_coordinator_ends_all_sessions(pool: Pool, doors: Doors) -> None:
    """Sessions of members end, too; their calls block until the coordinator is back."""
    member = doors(pool.hosts[1])
    pool.coordinator.restart(after=0.3)
    started = time.monotonic()
    assert member.fails("host.get_all") == ["SESSION_INVALID", member.session]
    assert time.monotonic() - started > 0.2


def test_a_crash_of_the_coordinator_ends_event_from_on_a_member(pool: Pool, doors: Doors) -> None:
    """The call ends without an answer, or with SESSION_INVALID."""
    member = doors(pool.hosts[1])
    thread = later(0.1, lambda: pool.coordinator.restart(after=0.1))
    try:
        description = member.fails("event.from", ["vm/OpaqueRef:none"], "", 30.0)
        assert description[0] == "SESSION_INVALID"
    except BROKEN:
        pass
    thread.join()
    until(lambda: pool.coordinator.up)


def test_a_killed_coordinator_forgets_its_newest_writes(pool: Pool, doors: Doors) -> None:
    """Values, objects and the generation go back; an old token hides the next writes then."""
    kept, gone = pool.create_vm("kept"), pool.create_vm("gone", power_state="Halted")
    door = doors(pool.coordinator)
    pool.set_key(kept, "k", "old")
    moment = time.monotonic()
    pool.set_key(kept, "k", "new")
    door("VM.destroy", gone)
    made = pool.create_vm("made")
    token = door("event.from", ["vm"], "", 0.0)["token"]
    pool.coordinator.restart(lose_writes_since=moment)
    assert pool.other_config(kept)["k"] == "old"
    assert pool.vm(gone)["name_label"] == "gone"
    assert made not in pool.records("VM")
    door = doors(pool.coordinator)
    pool.set_key(kept, "k", "later")
    assert door("event.from", ["vm"], token, 0.1)["events"] == []
    assert len(door("event.from", ["vm"], "", 0.1)["events"]) == 4


def test_members_block_while_the_coordinator_is_cut_off(pool: Pool, doors: Doors) -> None:
    """Blocked calls go on with the same session afterwards."""
    member = doors(pool.hosts[1])
    pool.set_coordinator_down(True)
    answers: List[Any] = []
    thread = threading.Thread(target=lambda: answers.append(member("host.get_all")))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    pool.set_coordinator_down(False)
    thread.join(DEADLINE)
    assert len(answers[0]) == 2


def test_a_new_coordinator_ends_sessions_and_is_named_in_pool_conf(pool: Pool, doors: Doors) -> None:
    """The pool's record names the new coordinator, too; the old one is a member now."""
    old = doors(pool.hosts[0])
    pool.change_coordinator(pool.hosts[1])
    old.client.close()
    assert old.fails("host.get_all")[0] == "SESSION_INVALID"
    door = doors(pool.hosts[0])
    assert [r["master"] for r in door("pool.get_all_records").values()] == [pool.hosts[1].ref]
    with open(pool.hosts[0].pool_conf_path) as stream:
        assert stream.read() == "slave:" + pool.hosts[1].address
    with Client(pool.hosts[0], local=False) as remote:
        reply, _response = remote.xml("session.login_with_password", ["root", "x"])
    assert reply["ErrorDescription"] == ["HOST_IS_SLAVE", pool.hosts[1].address]
    plugin = "#!/bin/sh\nexit 3\n"
    for host in pool.hosts:
        install(host.plugin_dir, "p", plugin)
    assert door.fails("host.call_plugin", pool.hosts[1].ref, "p", "f", {})[0] == "XENAPI_PLUGIN_FAILURE"


def test_rejoin_renews_references_and_keeps_uuids(pool: Pool, doors: Doors) -> None:
    """References within records are renewed, too."""
    vm = pool.create_vm("one", host=pool.hosts[1], networks={"0/ip": "127.7.0.2"})
    uuids = {r["uuid"] for r in pool.records("VM").values()}
    old_hosts = {h.ref for h in pool.hosts}
    pool.rejoin()
    door = doors(pool.hosts[1])
    assert door.fails("VM.get_record", vm) == ["HANDLE_INVALID", "VM", vm]
    assert {r["uuid"] for r in door("VM.get_all_records").values()} == uuids
    assert not old_hosts & set(door("host.get_all"))
    ref = door("VM.get_by_name_label", "one")[0]
    record = door("VM.get_record", ref)
    assert record["resident_on"] == pool.hosts[1].ref
    assert door("VM_guest_metrics.get_networks", record["guest_metrics"]) == {"0/ip": "127.7.0.2"}
    assert ref in door("host.get_resident_VMs", pool.hosts[1].ref)


def test_resident_on_names_the_target_after_the_vm_runs_there(pool: Pool, doors: Doors) -> None:
    """The power callback is called first, resident_on follows, and power_state stays Running."""
    vm = pool.create_vm("one", host=pool.hosts[0])
    pool.migrate_lag = 0.2
    door = doors(pool.coordinator)
    told: List[Tuple[str, str, str]] = []
    pool.on_power(lambda ref, event: told.append((ref, event, pool.vm(ref)["resident_on"])))
    before = pool.vm(vm)["domid"]
    token = door("event.from", ["vm/" + vm], "", 0.0)["token"]
    started = time.monotonic()
    door("VM.pool_migrate", vm, pool.hosts[1].ref, {"live": "true"})
    assert time.monotonic() - started >= 0.2
    assert told == [(vm, "migrate", pool.hosts[0].ref)]
    record = pool.vm(vm)
    assert (record["resident_on"], record["power_state"]) == (pool.hosts[1].ref, "Running")
    assert record["domid"] != before
    assert vm in pool.record("host", pool.hosts[1].ref)["resident_VMs"]
    assert vm not in pool.record("host", pool.hosts[0].ref)["resident_VMs"]
    events = door("event.from", ["vm/" + vm], token, 1.0)["events"]
    assert [e["operation"] for e in events] == ["mod"]


def test_power_operations_are_reported_to_the_guests_in_order(pool: Pool, doors: Doors) -> None:
    """Networks come and go with the guest's agent."""
    vm = pool.create_vm("one", networks={"0/ip": "127.7.0.2"})
    door = doors(pool.coordinator)
    told: List[str] = []
    pool.on_power(lambda ref, event: told.append(event))
    first = pool.vm(vm)["guest_metrics"]
    door("VM.clean_reboot", vm)
    second = pool.vm(vm)["guest_metrics"]
    assert second != first
    assert pool.record("VM_guest_metrics", second)["networks"] == {"0/ip": "127.7.0.2"}
    door("VM.suspend", vm)
    assert (pool.vm(vm)["power_state"], pool.vm(vm)["resident_on"]) == ("Suspended", "OpaqueRef:NULL")
    door("VM.resume", vm, False, False)
    door("VM.pause", vm)
    assert pool.vm(vm)["power_state"] == "Paused"
    door("VM.unpause", vm)
    door("VM.clean_shutdown", vm)
    door("VM.start_on", vm, pool.hosts[1].ref, False, False)
    assert pool.vm(vm)["resident_on"] == pool.hosts[1].ref
    door("VM.hard_shutdown", vm)
    assert told == ["reboot", "suspend", "resume", "pause", "unpause", "stop", "start", "stop"]


def test_a_guest_without_an_agent_cannot_be_shut_down_or_migrated(pool: Pool, doors: Doors) -> None:
    vm = pool.create_vm("one")
    pool.remove_agent(vm)
    door = doors(pool.coordinator)
    for method, params in (("VM.clean_shutdown", ()), ("VM.pool_migrate", (pool.hosts[1].ref, {}))):
        assert door.fails(method, vm, *params) == ["VM_LACKS_FEATURE", vm]
    assert pool.vm(vm)["current_operations"] == {}
    door("VM.hard_shutdown", vm)


def test_the_least_recently_used_session_of_an_originator_ends_beyond_500(pool: Pool, doors: Doors) -> None:
    """Sessions of other originators stay."""
    other, first = doors(pool.coordinator, "other"), doors(pool.coordinator, "many")
    for _number in range(LIMIT_PER_ORIGINATOR - 1):
        first.client.call("session.login_with_password", "root", "", "1.0", "many")
    assert len(first("host.get_all")) == 2
    second = pool.sessions.count("many")
    assert second == LIMIT_PER_ORIGINATOR
    newest = doors(pool.coordinator, "many")
    assert pool.sessions.count("many") == LIMIT_PER_ORIGINATOR
    assert len(newest("host.get_all")) == len(first("host.get_all")) == len(other("host.get_all")) == 2


def test_unused_sessions_expire(pool: Pool, doors: Doors) -> None:
    """Sessions expire after the pool's timeout."""
    door = doors(pool.coordinator)
    pool.sessions.timeout = 0.05
    time.sleep(0.1)
    assert door.fails("host.get_all") == ["SESSION_INVALID", door.session]


@pytest.mark.parametrize("times", [1, 2])
def test_a_fault_strikes_the_named_method_as_often_as_requested(pool: Pool, doors: Doors, times: int) -> None:
    door = doors(pool.coordinator)
    pool.faults("VM.get_all", "fail", times, description=["HOST_STILL_BOOTING"])
    for _number in range(times):
        assert door.fails("VM.get_all") == ["HOST_STILL_BOOTING"]
    assert door("VM.get_all")
    pool.faults("VM.get_all", "error-500", times)
    for _number in range(times):
        assert door.client.xml("VM.get_all", [door.session])[1].status == 500
    assert door("VM.get_all")
    pool.faults("VM.get_all", "drop", times)
    for _number in range(times):
        with pytest.raises(BROKEN):
            door("VM.get_all")
        door.client.close()
    pool.faults("VM.get_all", "delay", times, seconds=0.1)
    started = time.monotonic()
    for _number in range(times):
        assert door("VM.get_all")
    assert time.monotonic() - started >= 0.1 * times


def test_drop_after_does_the_work_and_breaks_the_connection(pool: Pool, doors: Doors) -> None:
    vm = pool.create_vm("one")
    door = doors(pool.coordinator)
    pool.faults("VM.add_to_other_config", "drop-after", 1)
    with pytest.raises(BROKEN):
        door("VM.add_to_other_config", vm, "k", "v")
    assert pool.other_config(vm)["k"] == "v"


def test_calls_and_bytes_are_counted_by_method_and_originator(pool: Pool, doors: Doors) -> None:
    vm = pool.create_vm("one")
    door, other = doors(pool.coordinator, "one"), doors(pool.hosts[1], "two")
    pool.stats.reset()
    for number in range(3):
        door("VM.add_to_other_config", vm, str(number), "x" * 1000)
    other("VM.get_record", vm)
    assert pool.stats.calls("VM.add_to_other_config") == pool.stats.calls(originator="one") == 3
    assert pool.stats.calls(originator="two") == pool.stats.calls("VM.get_record", "two") == 1
    assert 3000 < pool.stats.bytes(originator="one") < 6000
    assert pool.stats.by_method() == {"VM.add_to_other_config": 3, "VM.get_record": 1}


def test_concurrent_writers_lose_nothing(pool: Pool, doors: Doors) -> None:
    """Four clients on two hosts write single keys."""
    vm = pool.create_vm("one")

    def write(name: str, host: SimHost) -> None:
        door = Door(host)
        for number in range(50):
            door("VM.remove_from_other_config", vm, name)
            door("VM.add_to_other_config", vm, name, str(number))
        door.client.close()

    threads = [threading.Thread(target=write, args=(f"k{n}", pool.hosts[n % 2])) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    config = pool.other_config(vm)
    assert [config[f"k{n}"] for n in range(4)] == ["49"] * 4


def test_events_followed_from_the_start_end_in_the_pool_s_state(pool: Pool, doors: Doors) -> None:
    """The reader starts with the token "" and applies additions, changes and removals."""
    door = doors(pool.hosts[1])
    seen: Dict[str, Any] = {}
    batch = door("event.from", ["vm"], "", 0.0)
    refs = [pool.create_vm(f"vm{n}", power_state="Halted") for n in range(20)]

    def change() -> None:
        writer = Door(pool.coordinator)
        for number, ref in enumerate(refs):
            writer("VM.set_name_description", ref, str(number))
            if number % 3 == 0:
                writer("VM.destroy", ref)
        writer("VM.set_name_description", refs[1], "last")
        writer.client.close()

    thread = later(0.0, change)
    deadline = time.monotonic() + DEADLINE
    while seen.get(refs[1], {}).get("name_description") != "last":
        assert time.monotonic() < deadline
        for event in batch["events"]:
            if event["operation"] == "del":
                seen.pop(event["ref"], None)
            else:
                seen[event["ref"]] = event["snapshot"]
        batch = door("event.from", ["vm"], batch["token"], 2.0)
    thread.join()
    assert seen == door("VM.get_all_records")
    assert batch["valid_ref_counts"]["vm"] == str(len(seen))


def test_root_needs_the_right_password_over_tcp(pool: Pool) -> None:
    client = Client(pool.coordinator, local=False)
    assert client.xml("session.login_with_password", ["root", "wrong"])[0]["Status"] == "Failure"
    session = client.call("session.login_with_password", "root", ROOT_PASSWORD)
    assert client.call("session.get_is_local_superuser", session, session) is True
    client.close()


def test_a_second_plugin_call_for_a_vm_waits_as_long_as_the_pool_s_patience(pool: Pool, doors: Doors) -> None:
    """Tests decide with it how the race of two calls ends."""
    install(pool.coordinator.plugin_dir, "slow", "#!/bin/sh\nsleep 0.2\n")
    vm = pool.create_vm("one", host=pool.coordinator)
    for patience, codes in (
        ((5.0, 5.0), ["XENAPI_PLUGIN_FAILURE"] * 2),
        ((0.0, 0.0), ["OTHER_OPERATION_IN_PROGRESS", "XENAPI_PLUGIN_FAILURE"]),
    ):
        pool.plugin_patience = patience
        found: List[str] = []

        def call(found: List[str] = found) -> None:
            door = Door(pool.coordinator)
            found.append(door.fails("VM.call_host_plugin", vm, "slow", "f", {})[0])
            door.client.close()

        threads = [threading.Thread(target=call), later(0.05, call)]
        threads[0].start()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(found) == codes
    assert pool.vm(vm)["current_operations"] == {}


def test_plugins_inherit_no_descriptor(pool: Pool, doors: Doors) -> None:
    """Ten plugins run at once while sockets are open."""
    source = "#!/bin/sh\nls /proc/self/fd >&2; exit 9\n"
    install(pool.coordinator.plugin_dir, "fds", source)
    found: List[str] = []

    def call() -> None:
        door = Door(pool.coordinator)
        found.append(door.fails("host.call_plugin", pool.coordinator.ref, "fds", "f", {})[3])
        door.client.close()

    threads = [threading.Thread(target=call) for _n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert [text.split() for text in found] == [["0", "1", "2", "3"]] * 10


def test_every_host_of_a_large_pool_answers_for_the_whole_pool(tmp_path: Any) -> None:
    """The pool is as large as XAPI allows."""
    with Pool(str(tmp_path), hosts=64, tcp=False) as pool:
        for host in pool.hosts[::9]:
            door = Door(host)
            assert len(door("host.get_all")) == 64
            assert door("session.get_this_host", door.session) == host.ref
            door.client.close()


def test_a_client_that_hangs_up_in_mid_request_disturbs_nobody(pool: Pool, doors: Doors) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(pool.coordinator.socket_path)
    sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc")
    sock.close()
    assert len(doors(pool.coordinator)("host.get_all")) == 2


def test_writes_between_two_polls_are_one_event(pool: Pool, doors: Doors) -> None:
    """Many writes on one VM make as few events as the reader has polls."""
    vm = pool.create_vm("one")
    door = doors(pool.coordinator)
    token = door("event.from", ["vm/" + vm], "", 0.0)["token"]
    ended = []

    def storm() -> None:
        deadline = time.monotonic() + 0.5
        number = 0
        while time.monotonic() < deadline:
            number += 1
            pool.set_key(vm, "n", str(number))
        ended.append(number)

    thread = later(0.0, storm)
    batches, last = 0, ""
    while not ended or last != str(ended[0]):
        reply = door("event.from", ["vm/" + vm], token, 2.0)
        token, batches = reply["token"], batches + 1
        last = reply["events"][-1]["snapshot"]["other_config"]["n"]
    thread.join()
    # Their number depends on how the machine schedules the two threads.
    assert 2 <= batches < ended[0] / 3


def test_a_poll_wakes_between_the_removal_and_the_addition_of_a_key(pool: Pool, doors: Doors) -> None:
    vm = pool.create_vm("one", other_config={"docker_ps": "old"})
    door = doors(pool.coordinator)
    token = door("event.from", ["vm/" + vm], "", 0.0)["token"]
    thread = later(0.2, lambda: pool.remove_key(vm, "docker_ps"))
    reply = door("event.from", ["vm/" + vm], token, 20.0)
    thread.join()
    assert "docker_ps" not in reply["events"][-1]["snapshot"]["other_config"]
    pool.set_key(vm, "docker_ps", "new")
    reply = door("event.from", ["vm/" + vm], reply["token"], 20.0)
    assert reply["events"][-1]["snapshot"]["other_config"]["docker_ps"] == "new"


class Slow:
    """A value whose encoding sets another field."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = [meanwhile]

    def json(self) -> str:
        if self._meanwhile:
            self._meanwhile.pop()()
        return '"slow"'

    xml = json


@pytest.mark.parametrize("encode", [to_json, xml])
@pytest.mark.parametrize("encoded_before", [False, True])
def test_a_write_during_the_encoding_of_a_record_is_shown(pool: Pool, encode: Callable[[Any], str],
                                                            encoded_before: bool) -> None:
    row = pool.db.find("VM", pool.create_vm("web"))
    if encoded_before:
        encode(row)
    # The last of all fields: the others are encoded by then.
    row.put("groups", Slow(lambda: pool.set_key(row.ref, "docker_ps", "new")))
    encode(row)
    assert "docker_ps" in encode(row)
