"""Scenes of events.json and events_more.json, and the comparison of an operation's events."""

import ast
import json
import re
import threading
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from tests.simulator.xapi.matching import Mismatch
from tests.simulator.xapi.replay import Replay, Step
from tests.simulator.xapi.scenes import agents_on, halted_vm, later, place, second_host, without_run
from tests.simulator.xapi.wireclient import Client

DEADLINE = 20.0
# Classes that the recorded pool had because of its hardware, or that share one placeholder (network).
_OTHERS = ("host_driver", "driver_variant", "network")
_COMPARED = {
    "vm": ("current_operations", "power_state", "resident_on", "domid", "guest_metrics"),
    "host": ("current_operations", "resident_VMs"),
    "vm_guest_metrics": (),
}


def events_scene(replay: Replay) -> None:
    """Prepare events.json."""
    pool = replay.pool
    pool.step_delay = 0.02
    second_host(replay)
    halted_vm(replay, "vm1")
    halted_vm(replay, "vm2")
    agents_on(replay, 1)
    place(replay, 2)
    for event in next(s for s in replay.steps if s["name"] == "first.task-class")["reply"]["Value"]["events"]:
        values = dict(event["snapshot"], resident_on=pool.hosts[0].ref, finished="19700101T00:00:00Z")
        pool.db.create("task", {k: v for k, v in values.items() if k not in ("uuid", "created")})
    replay.before.update(
        {
            "fold.add": zero_token,
            "del-sub.first": make_vm5,
            "mod+destroy.event": end_vm5,
            "secret.destroy.event": lambda r: drop(r, "secret", "secret1"),
            "async.task.events": wait_async,
            "message.create": message_token,
            "pool.add_oc": lambda r: bind_token(r, "<token:7>", "pool", "pool"),
            "life.start": end_copies,
            "life.start-2": lambda r: place(r, 1),
            "tok.write": note_tokens,
            "tok.future": future_token,
            "member.token-from-coordinator": lambda r: r.pool.set_key(r.ref("vm1"), "formember", "1"),
            "destroy-while-waiting": destroy_soon,
        }
    )
    replay.special.update(
        {
            "create+destroy": create_and_destroy,
            "gm.change": guest_reports,
            "session-logout-while-waiting": logout_while_waiting,
            "timing.burst": burst,
        }
    )
    replay.change["tok.unpadded"] = lambda r, p: p[:2] + [unpadded(r.bound.known["<token:45>"])] + p[3:]
    events_common(replay)
    replay.normal += [("^first.(star|message-class)", without_leftovers), ("^async.task.events", without_result)]


def events_more_scene(replay: Replay) -> None:
    """Prepare events_more.json."""
    replay.pool.step_delay = 0.02
    halted_vm(replay, "vm1")
    agents_on(replay, 1)
    replay.session_of["old-api.next"] = "local-root"
    replay.before.update(
        {
            "inject-VM": lambda r: bind_token(r, "<token:1>", "vm1"),
            "destroy-while-waiting.1": destroy_soon,
            "inject-VM-member": lambda r: r.pool.step(),
            "life.start_on-member": lambda r: stop(r, "vm1"),
        }
    )
    events_common(replay)


def events_common(replay: Replay) -> None:
    """Assign the special steps that both recordings have."""
    for step in replay.steps:
        name = step["name"]
        if name.startswith("life.") and name not in replay.skipped:
            replay.special[name] = life
        elif name.startswith("timing.") and name != "timing.burst":
            replay.special[name] = wake_ups
    replay.normal += [("", batch_by_object), ("", without_run)]


def batch_by_object(reply: Any) -> Any:
    """Return an event batch as reference -> event, without ids and numbers of objects."""
    outer = reply if isinstance(reply, dict) else {}
    batch = outer.get("Value", outer.get("result"))
    if not isinstance(batch, dict) or "events" not in batch:
        return reply
    counts = {cls: type(number).__name__ for cls, number in batch["valid_ref_counts"].items()}
    events: Dict[str, Any] = {}
    for event in batch["events"]:
        told = {k: v for k, v in event.items() if k != "id"}
        if event["class"] == "certificate":
            told["snapshot"] = dict(
                told["snapshot"],
                not_before="",
                not_after="",
                fingerprint="",
                type="",
                fingerprint_sha256="",
                fingerprint_sha1="",
            )
        if event["class"] not in _OTHERS:
            events[event["ref"]] = told
    return {"batch": {"events": events, "counts": counts, "token": batch["token"]}}


def drop(replay: Replay, cls: str, name: str) -> None:
    """Destroy an object."""
    replay.pool.db.destroy(replay.pool.db.find(cls, replay.ref(name)))


def stop(replay: Replay, name: str) -> None:
    """Stop a running VM."""
    if replay.pool.vm(replay.ref(name))["power_state"] != "Halted":
        client = Client(replay.pool.hosts[0])
        client.call("VM.hard_shutdown", replay.session({"as": "local-root", "name": ""}), replay.ref(name))
        client.close()


def zero_token(replay: Replay) -> None:
    """Check that the token exists: earlier answers have bound it."""
    assert "<token:9>" in replay.bound.known


def make_vm5(replay: Replay) -> None:
    """Make a VM beside the steps."""
    halted_vm(replay, "vm5")


def _destroy(replay: Replay, name: str) -> None:
    client = Client(replay.pool.hosts[0])
    client.call("VM.destroy", replay.session({"as": "local-root", "name": ""}), replay.ref(name))
    client.close()


def end_vm5(replay: Replay) -> None:
    """Change and destroy vm5 between two polls."""
    replay.pool.set_key(replay.ref("vm5"), "k", "1")
    _destroy(replay, "vm5")


def create_and_destroy(replay: Replay, _step: Step) -> None:
    """Make and destroy a VM between two polls."""
    halted_vm(replay, "vm4")
    _destroy(replay, "vm4")


def destroy_soon(replay: Replay) -> None:
    """Destroy vm6 while the next step waits."""
    halted_vm(replay, "vm6")
    step = replay.steps[[s["name"].split(".")[0] for s in replay.steps].index("destroy-while-waiting")]
    bind_token(replay, step["params"][2], "vm6")

    def destroy() -> None:
        # The reader must see it begin, on a busy machine, too.
        usual, replay.pool.step_delay = replay.pool.step_delay, 0.5
        _destroy(replay, "vm6")
        replay.pool.step_delay = usual

    replay.threads.append(later(0.2, destroy))


def end_copies(replay: Replay) -> None:
    """Destroy snapshot and clone beside the steps."""
    _destroy(replay, "sn")
    _destroy(replay, "cn")


def message_token(replay: Replay) -> None:
    """Bind a token after the last message."""
    client = Client(replay.pool.hosts[0])
    session = replay.session({"as": "local-root", "name": ""})
    replay.bound.known["<token:3>"] = client.call("event.from", session, ["message"], "", 0.0)["token"]
    client.close()


def without_leftovers(reply: Any) -> Any:
    """Return a first batch without objects of other files and without the token of the next event."""
    events = reply["batch"]["events"]
    return [reply["batch"]["counts"], {ref: e for ref, e in events.items() if e["class"] not in ("message", "host")}]


def without_result(reply: Any) -> Any:
    """Return tasks without the plugin's value, which depends on the machine."""
    return {ref: dict(e, snapshot=dict(e["snapshot"], result="")) for ref, e in reply["batch"]["events"].items()}


def bind_token(replay: Replay, token: str, name: str, cls: str = "VM") -> None:
    """Bind a token just after the last change of an object."""
    row = replay.pool.db.find(cls, replay.ref(name))
    replay.bound.known[token] = "{:020d},{:020d}".format(row.modified, 0)


def note_tokens(replay: Replay) -> None:
    """Bind the token before the next write."""
    bind_token(replay, "<token:45>", "vm1")


def future_token(replay: Replay) -> None:
    """Bind a token that no write has reached yet."""
    replay.bound.known["<token:51>"] = "{:020d},{:020d}".format(replay.pool.db.generation + 1000, 0)


def unpadded(token: str) -> str:
    """Return a token without its leading zeros."""
    return ",".join(str(int(part)) for part in token.split(","))


def wait_async(replay: Replay) -> None:
    """Wait for the end of the Async call."""
    deadline = time.monotonic() + DEADLINE
    while replay.pool.record("task", replay.ref("async-task"))["status"] == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.005)


def guest_reports(replay: Replay, step: Step) -> None:
    """Let the guest's agent report addresses."""
    replay.pool.set_networks(replay.ref("vm1"), step["params"][1])


def logout_while_waiting(replay: Replay, step: Step) -> None:
    """End the session through another connection."""
    client, other = Client(replay.pool.hosts[0]), Client(replay.pool.hosts[0])
    session = client.call("session.login_with_password", "root", "", "1.0", "x")
    thread = later(0.2, lambda: other.call("session.logout", session))
    bind_token(replay, "<token:48>", "vm1")
    params = replay.bound.fill([p for p in step["params"] if p != "<session>"])
    started = time.monotonic()
    reply, _response = client.xml("event.from", [session] + params)
    assert reply == {"Status": "Failure", "ErrorDescription": ["SESSION_INVALID", session]}
    assert time.monotonic() - started < params[2]
    thread.join()
    client.close()
    other.close()


# Operations and their events


class Change(NamedTuple):
    """A new value of one field of an object, with its class and batch."""

    batch: int
    key: Tuple[str, str, str]


def _value(field: str, value: Any) -> str:
    if field == "domid":
        return "none" if str(value) == "-1" else "some"
    if field in ("current_operations",):
        return json.dumps(sorted(value.values()))
    if field == "resident_VMs":
        return str(len(value))
    return "NULL" if value == "OpaqueRef:NULL" else "some" if field in ("resident_on", "guest_metrics") else str(value)


def _expected_changes(batches: List[List[Dict[str, Any]]]) -> List[Change]:
    out = []
    for number, batch in enumerate(batches):
        for event in batch:
            fields = _COMPARED.get(event["class"])
            if fields is None:
                continue
            if event["operation"] != "mod":
                out.append(Change(number, (event["class"], event["operation"], "")))
            told = event.get("changed_fields") or event.get("first_seen_fields", {})
            first = "first_seen_fields" in event
            for field in fields:
                if field in told and (not first or (field == "current_operations" and told[field])):
                    out.append(Change(number, (event["class"], field, _value(field, told[field]))))
    return out


def _watch(
    client: Client, session: str, classes: List[str], token: str, batches: List[Any], done: threading.Event
) -> None:
    """Collect batches until `done`, and once more after it."""
    last = False
    while True:
        reply = client.call("event.from", session, classes, token, 0.3)
        token = reply["token"]
        if reply["events"]:
            batches.append(reply["events"])
        elif last:
            return
        last = done.is_set()


def _actual_changes(batches: List[Any], before: Dict[str, Dict[str, Any]], vm: str) -> List[Change]:
    out = []
    for number, events in enumerate(batches):
        for event in events:
            fields = _COMPARED.get(event["class"])
            if fields is None:
                continue
            if event["operation"] != "mod":
                out.append(Change(number, (event["class"], event["operation"], "")))
            old, new = before.get(event["ref"], {}), event.get("snapshot", {})
            for field in fields:
                if field in new and (old.get(field) != new[field]):
                    out.append(Change(number, (event["class"], field, _value(field, new[field]))))
            before[event["ref"]] = new
    return out


def _first_after(changes: List[Change], key: Tuple[str, str, str], start: int) -> Optional[int]:
    return next((c.batch for c in changes if c.key == key and c.batch >= start), None)


def compare_changes(expected: List[Change], actual: List[Change]) -> None:
    """Check that each recorded change is seen, in the recorded order within its class."""
    for cls in _COMPARED:
        ours = [c for c in actual if c.key[0] == cls]
        position = 0
        reached = 0
        for batch in sorted({c.batch for c in expected if c.key[0] == cls}):
            for change in [c for c in expected if c.batch == batch and c.key[0] == cls]:
                found = _first_after(ours, change.key, position)
                if found is None:
                    raise Mismatch("{} is missing or too early in {}".format(change.key, ours))
                reached = max(reached, found)
            position = reached


def life(replay: Replay, step: Step) -> None:
    """Run an operation beside a reader; compare its result and the order of the reader's events."""
    session, client = replay.session(step), replay.client(step)
    classes = [replay.bound.fill(c) for c in step["classes"]]
    vm = replay.ref("vm1")
    watcher = Client(replay.pool.hosts[0])
    start = client.call("event.from", session, classes, "", 0.0)
    before = {e["ref"]: e["snapshot"] for e in start["events"]}
    batches: List[Any] = []
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(watcher, session, classes, start["token"], batches, done))
    thread.start()
    try:
        params = [session] + [replay.bound.fill(p) for p in step["params"][1:]]
        reply, _response = client.xml(step["method"], params)
    finally:
        done.set()
        thread.join(DEADLINE)
        watcher.close()
    result = step["reply"]["call_result"]
    if result:
        replay.bound.same(ast.literal_eval(result), reply.get("ErrorDescription"), step["name"])
        assert not step["reply"]["batches"] or batches
        return
    assert reply["Status"] == "Success", reply
    compare_changes(_expected_changes(step["reply"]["batches"]), _actual_changes(batches, before, vm))
    final = [
        e["changed_fields"]["allowed_operations"]
        for b in step["reply"]["batches"]
        for e in b
        if "allowed_operations" in e.get("changed_fields", {})
    ][-1]
    assert replay.pool.vm(vm)["allowed_operations"] == final
    metrics = replay.pool.vm(vm)["guest_metrics"]
    for found in re.findall("<ref:(?:gm1|vm_guest_metrics_[0-9]+)>", json.dumps(step["reply"]["batches"])):
        replay.bound.known.setdefault(found, metrics)
    if metrics != "OpaqueRef:NULL":
        last = re.findall("<ref:(?:gm1|vm_guest_metrics_[0-9]+)>", json.dumps(step["reply"]["batches"]))
        if last:
            name = last[-1][5:-1]
            replay.bind(name, "VM_guest_metrics", metrics)


def wake_ups(replay: Replay, step: Step) -> None:
    """Check that a waiting reader returns as soon after a write as in the recording."""
    reader_at, writer_at = [0 if "coordinator" in part else 1 for part in step["name"].split(",")]
    reader = Client(replay.pool.hosts[reader_at])
    writer = Client(replay.pool.hosts[writer_at])
    session = reader.call("session.login_with_password", "root", "", "1.0", "timing")
    vm = replay.ref("vm1")
    token = reader.call("event.from", session, ["vm/" + vm], "", 0.0)["token"]
    taken = []
    for number in range(9):
        sent: List[float] = []

        def write(value: str = str(number), sent: List[float] = sent) -> None:
            sent.append(time.monotonic())
            writer.call("VM.set_name_description", session, vm, value + step["name"])

        thread = later(0.05, write)
        token = reader.call("event.from", session, ["vm/" + vm], token, 5.0)["token"]
        taken.append(time.monotonic() - sent[0])
        thread.join()
    reader.close()
    writer.close()
    median = sorted(taken)[len(taken) // 2]
    # It takes a few milliseconds on an idle machine; without a wake-up it would take seconds.
    assert median < 0.5, "median {:.1f} ms, recorded {}".format(median * 1000, step["reply"]["median_ms"])


def burst(replay: Replay, step: Step) -> None:
    """Check that of sixty writes 10 ms apart values are seen in order, the last one always."""
    client, writer = Client(replay.pool.hosts[0]), Client(replay.pool.hosts[0])
    session = client.call("session.login_with_password", "root", "", "1.0", "timing")
    vm = replay.ref("vm1")
    token = client.call("event.from", session, ["vm/" + vm], "", 0.0)["token"]

    def write() -> None:
        for number in range(60):
            writer.call("VM.set_name_description", session, vm, str(number))
            time.sleep(0.01)

    thread = later(0.0, write)
    seen: List[int] = []
    while not seen or seen[-1] != 59:
        reply = client.call("event.from", session, ["vm/" + vm], token, 5.0)
        assert reply["events"], seen
        token = reply["token"]
        seen.append(int(reply["events"][-1]["snapshot"]["name_description"]))
    thread.join()
    client.close()
    writer.close()
    assert seen == sorted(set(seen))
    assert len(seen) <= len([r for r in step["reply"]["returns"] if r["events"]])
