"""Plugin calls through a whole pool: XAPI runs the executable, the executable asks its daemon, hosts ask each other."""

import math
import threading
import time
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from tests.plugin.pool import PluginPool
from tests.plugin.process import call, decode
from tests.plugin.verbs import made
from xscontainer import keys
from xscontainer.core import current_call, wire
from xscontainer.core.verb import ENGINE_HOST, LONG, QUICK
from xscontainer.errors import ContainerNotFound, VMElsewhere
from xscontainer.plugin import dispatch, routing
from xscontainer.plugin.routing import longest_action

NOBODYS = "4a1b2c3d-0000-4000-8000-123456789abc"
ON = {keys.MONITOR: "True"}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginPool]:
    with PluginPool(str(tmp_path_factory.mktemp("s") / "x")) as pool:
        yield pool


@pytest.fixture
def shared(lasting: PluginPool) -> Iterator[PluginPool]:
    """For tests that leave hosts as they are."""
    yield lasting
    for host in lasting.hosts:
        host.sessions.forget()
        host.forwarding.forget()


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginPool]:
    """For tests that break something."""
    with PluginPool(str(tmp_path_factory.mktemp("o") / "x")) as pool:
        yield pool


def make_vm(pool: PluginPool, on: int = 1, **more: Any) -> Tuple[str, str]:
    fields: Dict[str, Any] = dict({"other_config": dict(ON)}, **more)
    ref = pool.pool.create_vm("a VM", host=pool.pool.hosts[on], **fields)
    return ref, pool.uuid(ref)


def other_config(pool: PluginPool, ref: str) -> Dict[str, str]:
    """Without what XAPI itself keeps there."""
    of_xapi = ("mac_seed", "base_template_name")
    return {key: value for key, value in pool.pool.other_config(ref).items() if key not in of_xapi}


# --- the host that must serve it ----------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 1, 2])
@pytest.mark.parametrize("resident", [0, 1, 2])
def test_a_call_to_any_host_is_served_where_the_vm_runs(shared: PluginPool, asked: int, resident: int) -> None:
    _, uuid = make_vm(shared, resident)
    assert shared.call(shared.hosts[asked], "where_resident", vmuuid=uuid) == "True" + shared.hosts[resident].sim.ref


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_verb_that_needs_only_xapi_is_served_on_the_called_host(shared: PluginPool, asked: int) -> None:
    assert shared.call(shared.hosts[asked], "where_anywhere") == "True" + shared.hosts[asked].sim.ref


def make_storage(pool: PluginPool, attached: List[int]) -> Tuple[str, str]:
    """uuids of an SR that is attached to these hosts, and of a VDI on it; it has a PBD for every host."""
    database = pool.pool.db
    sr = database.create("SR", {"name_label": "an SR"})
    for number, host in enumerate(pool.pool.hosts):
        database.create("PBD", {"SR": sr.ref, "host": host.ref, "currently_attached": number in attached})
    vdi = database.create("VDI", {"SR": sr.ref, "name_label": "a VDI"})
    return str(sr["uuid"]), str(vdi["uuid"])


@pytest.mark.parametrize("attached,asked,serving", [([0, 1, 2], 1, 1), ([2], 0, 2), ([2], 1, 2), ([1, 2], 1, 1)])
def test_a_storage_verb_is_served_on_a_host_with_the_storage_and_here_if_possible(
        shared: PluginPool, attached: List[int], asked: int, serving: int) -> None:
    sr, vdi = make_storage(shared, attached)
    expected = "True" + shared.hosts[serving].sim.ref
    assert shared.call(shared.hosts[asked], "where_storage", sruuid=sr) == expected
    assert shared.call(shared.hosts[asked], "where_storage", vdiuuid=vdi) == expected


def test_the_vm_decides_before_the_disk_and_the_disk_before_the_storage(shared: PluginPool) -> None:
    asked = shared.hosts[0]
    first, disk = make_storage(shared, [1])
    second, _ = make_storage(shared, [2])
    _, running = make_vm(shared, 2)
    _, halted = make_vm(shared, power_state="Halted")
    where = {name: "True" + host.sim.ref for name, host in zip("abc", shared.hosts)}
    assert shared.call(asked, "where_storage", vmuuid=running, vdiuuid=disk, sruuid=first) == where["c"]
    assert shared.call(asked, "where_storage", vmuuid=halted, vdiuuid=disk, sruuid=second) == where["b"]
    assert shared.call(asked, "where_storage", vmuuid=halted, sruuid=second) == where["c"]
    assert shared.call(asked, "where_storage", vmuuid=halted) == where["a"]


def test_storage_that_is_attached_to_no_host_is_a_failure(shared: PluginPool) -> None:
    sr, _ = make_storage(shared, [])
    code, sentence = shared.failure(shared.hosts[0], "where_storage", sruuid=sr)
    assert code == "STORAGE_NOT_ATTACHED" and sr in sentence


# --- what comes back from another host ----------------------------------------------------------


@pytest.mark.parametrize("value", [
    "True", "True<?xml version=\"1.0\" ?><a>&amp;</a>", "True \u00e9 \u4f60 \U0001f600\ttab", "True" + "x" * 250000,
], ids=["true", "xml", "scripts", "long"])
def test_a_result_from_another_host_comes_back_unchanged(shared: PluginPool, value: str) -> None:
    shared.hosts[1].verbs["say"] = made("say", lambda context, vmuuid: value, "vmuuid", place=ENGINE_HOST)
    shared.hosts[0].verbs["say"] = shared.hosts[1].verbs["say"]
    _, uuid = make_vm(shared, 1)
    assert shared.call(shared.hosts[0], "say", vmuuid=uuid) == value


@pytest.mark.parametrize("error", [
    VMElsewhere("A sentence with \u00e9, <b> and \U0001f600.", "Try this."), KeyError("a key"),
    ImportError("no module"),
])
def test_a_failure_from_another_host_comes_back_unchanged(shared: PluginPool, error: Exception) -> None:
    def fail(context: Any, vmuuid: str) -> str:
        raise error

    for host in shared.hosts:
        host.verbs["fail"] = made("fail", fail, "vmuuid", place=ENGINE_HOST)
    _, uuid = make_vm(shared, 1)
    direct = shared.failure(shared.hosts[1], "fail", vmuuid=uuid)
    assert shared.failure(shared.hosts[0], "fail", vmuuid=uuid) == direct


@pytest.mark.parametrize("asked", [0, 1])
def test_a_failure_is_logged_completely_on_one_line(
        shared: PluginPool, caplog: pytest.LogCaptureFixture, asked: int) -> None:
    def fail(context: Any, vmuuid: str) -> str:
        raise ContainerNotFound("There is no container of that name in the VM. " * 8,
                                "The last word\nis the next step.")

    for host in shared.hosts:
        host.verbs["fail"] = made("fail", fail, "vmuuid", place=ENGINE_HOST)
    _, uuid = make_vm(shared, 1)
    with caplog.at_level("INFO", "xscontainer.plugin.dispatch"):
        shared.failure(shared.hosts[asked], "fail", vmuuid=uuid)
    logged = [record for record in caplog.records if uuid in record.getMessage()]
    assert [record.levelname for record in logged] == ["WARNING"] * (2 - asked)  # each host that had the call
    for record in logged:
        assert "CONTAINER_NOT_FOUND" in record.getMessage() and " took " not in record.getMessage()
        assert "The last word is the next step." in record.getMessage() and "\n" not in record.getMessage()


def test_a_host_without_the_plugin_gives_the_failure_of_xapi(own: PluginPool) -> None:
    _, uuid = make_vm(own, 1)
    for host in own.hosts[:1]:
        host.settings = host.context.settings = host.settings._replace(
            daemon=host.settings.daemon._replace(plugin_name="other"))
    assert own.failure(own.hosts[0], "where_resident", vmuuid=uuid) == ["XENAPI_MISSING_PLUGIN", "other"]


def test_a_host_that_does_not_answer_is_a_failure_and_is_not_asked_twice(own: PluginPool) -> None:
    entered, release, calls = threading.Event(), threading.Event(), []

    def hang(context: Any, vmuuid: str) -> str:
        calls.append(vmuuid)
        entered.set()
        release.wait(30)
        return "True"

    for host in own.hosts:
        host.verbs["hang"] = made("hang", hang, "vmuuid", place=ENGINE_HOST)
    short = own.hosts[1].settings
    own.hosts[1].context.settings = short._replace(
        guest=short.guest._replace(connect_timeout=0.1, handshake_timeout=0.1, login_timeout=0.1),
        engine=short.engine._replace(request_timeout=0.1), xapi=short.xapi._replace(timeout=0.5))
    assert 0.9 < longest_action(own.hosts[1].verbs["hang"], own.hosts[1].context.settings) < 1.1
    _, uuid = make_vm(own, 2)
    try:
        code, sentence = own.failure(own.hosts[1], "hang", vmuuid=uuid)
    finally:
        release.set()
    assert entered.is_set() and calls == [uuid]
    assert code == "XAPI_UNAVAILABLE" and "may have happened" in sentence


@pytest.mark.parametrize("lane,most", [(QUICK, dispatch.ANSWERED_WITHIN), (LONG, math.inf)])
def test_a_call_has_one_id_and_one_deadline_on_whatever_host(own: PluginPool, lane: str, most: float) -> None:
    seen: List[Any] = []

    def look(context: Any, vmuuid: str) -> str:
        seen.append((current_call.call_id(), current_call.deadline() - time.monotonic()))
        return "True"

    for host in own.hosts:
        host.verbs["look"] = made("look", look, "vmuuid", place=ENGINE_HOST, lane=lane)
    _, uuid = make_vm(own, 1)
    call_id = "0a1b2c3d-0000-4000-8000-123456789abc"
    own.call(own.hosts[1], "look", **{"vmuuid": uuid, wire.CALL: call_id, wire.SECONDS: "7.5"})
    own.call(own.hosts[0], "look", **{"vmuuid": uuid, wire.CALL: call_id})
    own.call(own.hosts[0], "look", vmuuid=uuid)
    own.call(own.hosts[1], "look", vmuuid=uuid)
    assert [seen[0][0], seen[1][0]] == [call_id] * 2 and len({found for found, _ in seen}) == 3
    assert seen[0][1] <= (most if most == math.inf else 7.5) and seen[3][1] <= most
    # The host that was asked keeps some time for itself, to say which one did not answer.
    assert seen[1][1] <= most - routing.KEPT and seen[2][1] <= most - routing.KEPT
    if most == math.inf:
        assert all(seconds == math.inf for _, seconds in seen)


@pytest.mark.parametrize("name,value", [(wire.CALL, "x"), (wire.CALL, ""), (wire.SECONDS, "-1"),
                                        (wire.SECONDS, "nan"), (wire.SECONDS, "99999")])
def test_a_malformed_id_or_deadline_is_refused(shared: PluginPool, name: str, value: str) -> None:
    _, uuid = make_vm(shared, 1)
    assert shared.failure(shared.hosts[1], "where_resident", **{"vmuuid": uuid, name: value})[0] == "ARGUMENT_INVALID"


def test_the_host_that_does_not_answer_in_time_is_named(own: PluginPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "ANSWERED_WITHIN", routing.KEPT + 1.0)
    entered, release = threading.Event(), threading.Event()

    def hang(context: Any, vmuuid: str) -> str:
        entered.set()
        release.wait(60)
        return "True"

    for host in own.hosts:
        host.verbs["hang"] = made("hang", hang, "vmuuid", place=ENGINE_HOST)
    _, uuid = make_vm(own, 2)
    name = own.pool.record("host", own.hosts[2].sim.ref)["name_label"]
    try:
        code, sentence = own.failure(own.hosts[1], "hang", vmuuid=uuid)
    finally:
        release.set()
    assert entered.is_set() and code == "XAPI_UNAVAILABLE"
    assert f"The host '{name}' did not answer" in sentence and "may have happened" in sentence


def test_a_xapi_that_does_not_answer_at_all_is_a_failure(own: PluginPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "ANSWERED_WITHIN", routing.KEPT + 1.0)
    _, uuid = make_vm(own, 2)
    own.call(own.hosts[1], "where_resident", vmuuid=uuid)  # from here on it has logins
    argument = call("where_resident", vmuuid=uuid)
    own.pool.faults("host.call_plugin", "delay", seconds=routing.KEPT + 6.0)
    own.pool.faults("host.get_name_label", "delay", seconds=routing.KEPT + 6.0)
    try:
        code, sentence = decode(dispatch.handle(argument, own.hosts[1].context, own.hosts[1].verbs))["ErrorDescription"]
    finally:
        own.pool.faults.clear()
    assert code == "XAPI_UNAVAILABLE" and "XAPI does not answer here" in sentence


# --- hosts that disagree ------------------------------------------------------------------------


def test_a_call_is_not_handed_on_for_ever(own: PluginPool) -> None:
    """Each host believes to be another one, so none ever finds that it must serve the call itself."""
    wrong = [own.hosts[1].sim.ref, own.hosts[2].sim.ref, own.hosts[0].sim.ref]
    for host, ref in zip(own.hosts, wrong):
        host.context.this_host_ref = lambda ref=ref: ref  # type: ignore[method-assign,misc]
    _, uuid = make_vm(own, 0)
    code, _ = own.failure(own.hosts[0], "where_resident", vmuuid=uuid)
    assert code == "VM_ELSEWHERE"
    assert sum(host.calls for host in own.hosts) == 3


def test_a_call_that_comes_with_hops_spent_is_not_handed_on(shared: PluginPool) -> None:
    _, uuid = make_vm(shared, 1)
    details = shared.failure(shared.hosts[0], "where_resident", **{"vmuuid": uuid, wire.HOPS: "2"})
    assert details[0] == "VM_ELSEWHERE"
    assert shared.call(shared.hosts[1], "where_resident", **{"vmuuid": uuid, wire.HOPS: "2"}).startswith("True")


def test_a_stale_record_costs_one_hop_only(own: PluginPool) -> None:
    """Host 0 still believes that the VM runs on host 1, which believes so, too, and is right no longer."""
    ref, uuid = make_vm(own, 1)
    for host in own.hosts[:2]:
        old = host.context.vm(uuid)
        host.context.vm = lambda vm_uuid, old=old: old  # type: ignore[method-assign,misc]

    def act(context: Any, vmuuid: str) -> str:
        if context.this_host_ref() != own.pool.record("VM", ref)["resident_on"]:
            raise VMElsewhere("It left.")  # as context.engine does
        return "True" + str(context.this_host_ref())

    for host in own.hosts:
        host.verbs["act"] = made("act", act, "vmuuid", place=ENGINE_HOST)
    assert own.call(own.hosts[0], "act", vmuuid=uuid) == "True" + own.hosts[1].sim.ref
    own.pool.set_field("VM", ref, "resident_on", own.hosts[2].sim.ref)
    assert own.call(own.hosts[0], "act", vmuuid=uuid) == "True" + own.hosts[2].sim.ref
    own.pool.set_field("VM", ref, "resident_on", own.hosts[0].sim.ref)
    assert own.call(own.hosts[0], "act", vmuuid=uuid) == "True" + own.hosts[0].sim.ref


# --- VMs that cannot be served ------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("state", ["Halted", "Suspended", "Paused"])
def test_a_vm_that_does_not_run_is_a_failure(shared: PluginPool, asked: int, state: str) -> None:
    _, uuid = make_vm(shared, power_state=state)
    code, sentence = shared.failure(shared.hosts[asked], "start", vmuuid=uuid, container="web")
    assert code == "VM_NOT_RUNNING"
    assert "a VM" in sentence and state.lower() in sentence


@pytest.mark.parametrize("other_config", [{}, {keys.MONITOR: "False"}])
def test_a_vm_that_is_not_registered_is_a_failure(shared: PluginPool, other_config: Dict[str, str]) -> None:
    _, uuid = make_vm(shared, other_config=other_config)
    code, sentence = shared.failure(shared.hosts[0], "get_top", vmuuid=uuid, object="web")
    assert code == "VM_NOT_REGISTERED" and "register" in sentence


@pytest.mark.parametrize("function", ["start", "register", "deregister"])
def test_an_unknown_vm_is_a_failure(shared: PluginPool, function: str) -> None:
    code, sentence = shared.failure(shared.hosts[0], function, vmuuid=NOBODYS, container="web")
    assert code == "OBJECT_GONE" and NOBODYS in sentence


@pytest.mark.parametrize("function", ["start", "register"])
def test_a_template_or_snapshot_is_refused(shared: PluginPool, function: str) -> None:
    _, template = make_vm(shared, power_state="Halted", template=True)
    snapshot = shared.uuid(shared.client.xenapi.VM.snapshot(make_vm(shared)[0], "a snapshot"))
    domain = shared.hosts[0].sim.control_domain_uuid
    for uuid in (template, snapshot, domain):
        code, sentence = shared.failure(shared.hosts[0], function, vmuuid=uuid, container="web")
        assert code == "ARGUMENT_INVALID" and "template" in sentence


def test_a_vm_that_was_started_a_moment_ago_is_served(own: PluginPool) -> None:
    ref, uuid = make_vm(own, 1, power_state="Halted")
    old = own.hosts[1].context.vm(uuid)
    own.hosts[1].context.vm = lambda vm_uuid: old  # type: ignore[method-assign] # the event is still under way
    own.client.xenapi.VM.start_on(ref, own.hosts[1].sim.ref, False, False)
    assert own.call(own.hosts[1], "where_resident", vmuuid=uuid).startswith("True")


# --- register and deregister --------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 2])
@pytest.mark.parametrize("state", ["Running", "Halted", "Suspended"])
def test_register_switches_on_and_deregister_off(shared: PluginPool, asked: int, state: str) -> None:
    ref, uuid = make_vm(shared, power_state=state, other_config={"another's": "key"})
    host = shared.hosts[asked]
    assert shared.call(host, "register", vmuuid=uuid) == "True"
    assert other_config(shared, ref) == {"another's": "key", keys.MONITOR: "True", keys.OWNER: uuid}
    for key in keys.PUBLISHED:
        shared.pool.set_key(ref, key, "<x/>")
    assert shared.call(host, "deregister", vmuuid=uuid) == "True"
    assert other_config(shared, ref) == {"another's": "key", keys.MONITOR: "False", keys.OWNER: uuid}


def test_registering_again_writes_nothing(shared: PluginPool) -> None:
    _, uuid = make_vm(shared, other_config={})
    for function in ("register", "deregister"):
        shared.call(shared.hosts[0], function, vmuuid=uuid)
        shared.pool.stats.reset()
        shared.call(shared.hosts[0], function, vmuuid=uuid)
        counted = shared.pool.stats.by_method()
        assert counted["VM.get_record"] and not [method for method in counted if "other_config" in method]


def test_register_takes_over_what_a_clone_carried_in(shared: PluginPool) -> None:
    ref, uuid = make_vm(shared, other_config={})
    shared.call(shared.hosts[0], "register", vmuuid=uuid)
    carried = {keys.PS: "<docker_ps/>", keys.HOST_KEY: "QUJD", keys.USERNAME: "admin", "another's": "key"}
    for key, value in carried.items():
        shared.pool.set_key(ref, key, value)
    clone = shared.client.xenapi.VM.copy(shared.client.xenapi.VM.snapshot(ref, "s"), "c", "OpaqueRef:NULL")
    shared.client.xenapi.VM.set_is_a_template(clone, False)
    assert shared.pool.other_config(clone)[keys.PS] == "<docker_ps/>"
    shared.call(shared.hosts[0], "register", vmuuid=shared.uuid(clone))
    assert other_config(shared, clone) == {
        keys.MONITOR: "True", keys.OWNER: shared.uuid(clone), keys.USERNAME: "admin", "another's": "key"}
    shared.call(shared.hosts[0], "register", vmuuid=uuid)
    assert shared.pool.other_config(ref)[keys.HOST_KEY] == "QUJD"


def test_a_vm_that_the_original_plugin_registered_keeps_its_pin(shared: PluginPool) -> None:
    ref, uuid = make_vm(shared, other_config={keys.MONITOR: "True", keys.HOST_KEY: "QUJD", keys.PS: "<docker_ps/>"})
    shared.call(shared.hosts[0], "register", vmuuid=uuid)
    assert other_config(shared, ref) == {
        keys.MONITOR: "True", keys.HOST_KEY: "QUJD", keys.PS: "<docker_ps/>", keys.OWNER: uuid}


def test_no_other_writers_key_is_lost(shared: PluginPool) -> None:
    ref, uuid = make_vm(shared, other_config={})
    stop = threading.Event()
    written: List[str] = []

    def write() -> None:
        while not stop.is_set():
            shared.pool.set_key(ref, f"key {len(written)}", "value")
            written.append(f"key {len(written)}")
            stop.wait(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            shared.call(shared.hosts[0], "register", vmuuid=uuid)
            shared.call(shared.hosts[1], "deregister", vmuuid=uuid)
    finally:
        stop.set()
        writer.join(10)
    assert set(written) <= set(shared.pool.other_config(ref)) and len(written) > 10


# --- trouble ------------------------------------------------------------------------------------


def test_sessions_that_a_restart_of_xapi_ended_do_not_fail_a_call(own: PluginPool) -> None:
    ref, uuid = make_vm(own, 1, other_config={})
    host = own.hosts[1]
    together = threading.Barrier(3)

    def hold(context: Any) -> str:
        with context.sessions.lease(), context.forwarding.lease():
            together.wait(10)
        return "True"

    holders = [threading.Thread(target=hold, args=(host.context,)) for _ in range(3)]
    for holder in holders:
        holder.start()
    for holder in holders:
        holder.join(10)
    own.pool.sessions.end_of_host(None)
    own.client.xenapi.login_with_password("root", "root-pw", "1.0", "test")
    assert own.call(host, "register", vmuuid=uuid) == "True"
    other, other_uuid = make_vm(own, 2)
    assert own.call(host, "where_resident", vmuuid=other_uuid) == "True" + own.hosts[2].sim.ref


def test_without_any_daemon_calls_are_served_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    with PluginPool(str(tmp_path_factory.mktemp("n") / "x"), hosts=2, daemons=False) as pool:
        ref, uuid = make_vm(pool, 1, other_config={})
        for host in pool.hosts:
            assert pool.call(host, "register", vmuuid=uuid) == "True"
            assert pool.failure(host, "nonesuch") == ["UNKNOWN_XENAPI_PLUGIN_FUNCTION", "nonesuch"]
            # The VM's host gets as far as looking for an address, whichever host was called.
            assert pool.failure(host, "stop", vmuuid=uuid, container="web")[0] == "ADDRESS_UNKNOWN"
        assert other_config(pool, ref) == {keys.MONITOR: "True", keys.OWNER: uuid}
        assert all(host.calls == 0 for host in pool.hosts)
