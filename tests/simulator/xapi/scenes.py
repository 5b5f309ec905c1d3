"""The set-up beside the recorded steps: objects that existed, and writes between steps."""

import os
import re
import stat
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Set

from tests.simulator.xapi.replay import ROLES, Replay, Step
from tests.simulator.xapi.wireclient import Client

LABECHO = """
import json, os, sys, xmlrpc.client
params, fn = xmlrpc.client.loads(os.fsencode(sys.argv[1]))
value = json.dumps({"fn": fn, "args": params[1], "session": params[0], "uid": os.getuid(), "cwd": os.getcwd(),
                    "argv0": sys.argv[0], "py": sys.version.split()[0], "enc": sys.stdout.encoding,
                    "env": sorted(os.environ)})
sys.stdout.write(xmlrpc.client.dumps(({"Status": "Success", "Value": value},), methodresponse=True))
"""


# Fields whose values differ in each run, with the comparable part.
_SHAPES: Dict[str, Callable[[Any], Any]] = {
    "snapshot_metadata": bool,
    "domid": lambda v: int(v) >= 0,
    "generation_id": lambda v: re.sub("[1-9][0-9]{10,}", "N", v),
}


def install(directory: str, name: str, source: str, mode: int = 0o755) -> None:
    """Put an executable into a plugin directory."""
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(source)
    os.chmod(path, mode)


def recording_plugin(source: str, socket_path: str) -> str:
    """Return the recorded plugin for this machine's interpreter and the host's socket, with UTF-8."""
    source = source.replace("#!/usr/bin/python3", "#!" + sys.executable, 1)
    source = source.replace("/var/lib/xcp/xapi", socket_path)
    source = source.replace("xmlrpc.client.loads(sys.argv[1])", "xmlrpc.client.loads(os.fsencode(sys.argv[1]))", 1)
    source = source.replace(
        "def reply(v)",
        "import io\n"
        "sys.stdout=io.TextIOWrapper(sys.stdout.buffer,'utf-8','strict')\n"
        "sys.stderr=io.TextIOWrapper(sys.stderr.buffer,'utf-8','strict')\n"
        "sys.argv[1]=os.fsencode(sys.argv[1]).decode()\ndef reply(v)",
        1,
    )
    return source


def plugins(replay: Replay, source: str) -> None:
    """Install the plugins of the recordings on both hosts."""
    for host in replay.pool.hosts:
        install(host.plugin_dir, "recplug", recording_plugin(source, host.socket_path))
        install(host.plugin_dir, "labecho", "#!" + sys.executable + LABECHO)
        install(host.plugin_dir, "recnotexec", "#!/bin/sh\n", stat.S_IRUSR | stat.S_IWUSR)
        install(host.plugin_dir, "recbadinterp", "#!/no/such/interpreter\n")


def halted_vm(replay: Replay, name: str, **fields: Any) -> str:
    """Make a halted VM and bind it to its name."""
    return replay.bind(name, "VM", replay.pool.create_vm(fields.pop("label", name), power_state="Halted", **fields))


def place(replay: Replay, host_number: int) -> None:
    """Make every VM.start choose that host."""
    replay.pool.placement = lambda vm: replay.pool.db.find("host", replay.pool.hosts[host_number - 1].ref)


def agents_on(replay: Replay, host_number: int) -> None:
    """Give guest agents to VMs on that host only, as in the recording."""
    ref = replay.pool.hosts[host_number - 1].ref
    replay.pool.has_agent = lambda vm: vm["resident_on"] == ref  # type: ignore[method-assign]


def leftovers(replay: Replay, cls: str, count: int, **values: Any) -> None:
    """Make the objects that earlier recordings left."""
    for _number in range(count):
        replay.pool.db.create(cls, dict(values))


def session_scene(replay: Replay) -> None:
    """Prepare session.json."""
    replay.pool.sessions.users["root"] = replay.pool.sessions.users["root"]._replace(password="root-password")
    replay.session_of.update(
        {
            "odd-originator.": "local-login-odd-originator",
            "empty-originator.": "local-login-empty-originator",
            "json.": "json-local-login",
            "json-logout": "json-local-login",
            "json-call-after": "json-local-login",
            "local.": "local-login",
            "session.": "local-login",
            "other-session.": "local-login",
            "member-session-on": "member-local-login",
            "coordinator-session-on": "local-login",
            "member.": "member-local-login",
            "logout": "local-login",
            "call-after-logout": "local-login",
            "member-logout": "member-local-login",
            "member-call-after": "member-local-login",
            "member-tcp-call": "tcp-login-pool-admin",
        }
    )
    known: Set[str] = set()
    for role in ROLES:
        replay.session_of[role + "."] = "tcp-login-" + role
        replay.special[role + ".get_rbac_permissions"] = permissions
        known.update(
            next(s for s in replay.steps if s["name"] == role + ".get_rbac_permissions")["reply"]["Value"]["sample"]
        )
    replay.sampled = known


def permissions(replay: Replay, step: Step) -> None:
    """Compare the list of permissions with its recorded length, beginning and sample."""
    expected = step["reply"]["Value"]
    session = replay.session(step)
    actual = replay.client(step).call(step["method"], session, session)
    assert actual[:5] == expected["$first5"]
    assert sorted(replay.sampled & set(actual)) == sorted(expected["sample"])
    # The roles of some sixty internal permissions are neither published nor recorded.
    exact = step["as"] in ("pool-admin", "read-only")
    assert abs(len(actual) - expected["$length"]) <= (0 if exact else 0.02 * expected["$length"]), len(actual)


def errors_scene(replay: Replay) -> None:
    """Prepare errors.json."""
    halted_vm(replay, "vm1")
    place(replay, 2)
    agents_on(replay, 1)
    replay.session_of["method-unknown-nosession"] = ""
    replay.before["ctl.xml-raw-01-add"] = lambda r: r.pool.set_field("VM", r.ref("vm1"), "other_config", {})
    leftovers(replay, "secret", 2)
    leftovers(replay, "task", 14)
    for number in range(60):
        replay.pool.messages.add("OLD", 5, "VM", "x", str(number))
    replay.normal.append((r"\.message\.get_all$", lambda reply: {"Status": reply["Status"]}))
    replay.normal.append((r"\.VM\.get_other_config$|type-.*float|\.event\.from$", without_counts))
    replay.normal.append(
        (r"secret\.get_all$", lambda reply: {"Status": reply["Status"]} if reply["Status"] == "Success" else reply)
    )
    replay.normal.append((r"\.host\.call_plugin$", plugin_surroundings))


def other_config_scene(replay: Replay) -> None:
    """Prepare other_config.json."""
    halted_vm(
        replay,
        "vm1",
        name_description="desc",
        tags=["tag1"],
        xenstore_data={"vm-data/x": "1"},
        blocked_operations={"destroy": "x"},
    )
    replay.bind("net1", "network", replay.pool.db.create("network", {"name_label": "net"}).ref)
    place(replay, 2)
    replay.normal.append((r"generation_id$", lambda reply: ":" in reply["Value"]))


def left_by_others(replay: Replay, step_name: str, cls: str) -> None:
    """Make the objects that an answer shows and that no step of the file makes."""
    shown = next(s for s in replay.steps if s["name"] == step_name)["reply"]["Value"]
    convert = {"int": int, "datetime": lambda text: "19700101T00:00:00Z" if "<" in text else text}
    fields = replay.pool.model.classes[cls].fields
    for name, record in shown.items():
        if re.match("<ref:[a-z]+_[0-9]+>$", name):
            values = {
                f: convert.get(fields[f].kind, lambda v: v)(v)  # type: ignore[operator]
                for f, v in record.items()
                if f != "uuid" and not re.match("<(ref|uuid|time)", str(v))
            }
            replay.pool.db.create(cls, dict(values, **({"resident_on": replay.ref("host1")} if cls == "task" else {})))


def messages_scene(replay: Replay) -> None:
    """Prepare messages_tasks_secrets.json."""
    halted_vm(replay, "vm1")
    halted_vm(replay, "vm2")
    for number in range(1, 27):
        busy = {} if number in (4, 9) else {"task": "destroy"}
        replay.pool.db.create("task", {"name_label": "old", "status": "pending", "current_operations": busy})
    for value, config in (("s3cret", {"k": "v"}), ("v", {})):
        replay.pool.db.create("secret", {"value": value, "other_config": config})
    replay.before["task.after-its-session-logged-out"] = task_of_ended_session
    for name in ("message.get_all.pool-operator", "secret.get_value.vm-power-admin"):
        replay.before[name] = say_again
    replay.special["burst-50"] = burst
    replay.normal.append(("^get_all_records|^get_since-epoch", without_shutdown))
    replay.normal.append(
        ("^message.get_all.vm-|^message.get_all.read-only", lambda reply: [reply["Status"], len(reply["Value"])])
    )
    replay.normal.append(("^message.get_record.(vm-|read)", lambda reply: [reply["Status"], reply["Value"]["body"]]))


def without_shutdown(reply: Any) -> Any:
    """Return the messages without one of another file, which get_all did not show."""
    return {ref: r for ref, r in reply["Value"].items() if r["name"] != "VM_SHUTDOWN"}


def task_of_ended_session(replay: Replay) -> None:
    """Make a task and end its session."""
    client = Client(replay.pool.hosts[0])
    session = client.call("session.login_with_password", "root", "", "1.0", "ended")
    replay.bind("task-of-session", "task", client.call("task.create", session, "of-a-session", ""))
    client.call("session.logout", session)
    client.close()


def say_again(replay: Replay) -> None:
    """Add one more message."""
    ref = replay.pool.messages.add("ROLE_MSG", 3, "VM", replay.bound.known["<uuid:vm1>"], "again")
    replay.bound.known["<ref:msg-again>"] = ref


def burst(replay: Replay, step: Step) -> None:
    """Check the order of fifty messages."""
    session, client = replay.session(step), replay.client(step)
    vm = replay.bound.known["<uuid:vm1>"]
    started = time.monotonic()
    for number in range(50):
        client.call("message.create", session, "BURST", 3, "VM", vm, str(number))
    assert time.monotonic() - started < 10 * 50 * step["reply"]["ms_per_create"] / 1000
    for method, params in (
        ("message.get_all_records", []),
        ("message.get_since", [{"$dateTime": "19700101T00:00:00Z"}]),
    ):
        bodies = [r["body"] for r in client.call(method, session, *params).values() if r["name"] == "BURST"]
        assert bodies == step["reply"]["get_all_records_bodies"][:50]
    for ref in [r for r, m in client.call("message.get_all_records", session).items()]:
        client.call("message.destroy", session, ref)


def records_scene(replay: Replay) -> None:
    """Prepare records.json."""
    pool = replay.pool
    halted_vm(
        replay, "vm-halted", label="halted", tags=["t1"], other_config={"a": "1", "unicode": "\u00e9", "empty": ""}
    )
    halted_vm(replay, "vm-running", label="running")
    halted_vm(replay, "vm-template", label="template", template=True)
    for number in (1, 2):
        row = pool.db.create(
            "network",
            {"name_label": "net-rec", "name_description": "d", "managed": True, "bridge": "xapi{}".format(number - 1)},
        )
        replay.bind("net{}".format(number), "network", row.ref)
    left_by_others(replay, "get_all_records.task", "task")
    left_by_others(replay, "get_all_records.secret", "secret")
    for row in pool.db.rows("secret"):
        if not row["value"]:
            pool.db.destroy(row)
    replay.bind("secret1", "secret", pool.db.create("secret", {"value": "s3cret", "other_config": {"k": "v"}}).ref)
    place(replay, 2)
    agents_on(replay, 1)
    second_host(replay)
    replay.before["get_record.pool"] = records_made
    replay.special["get_all_records_where.VM.true"] = only_keys
    replay.special["listMethods-json"] = only_length
    replay.normal += [
        ("network$|network.net-rec$", lambda reply: reply["Status"]),
        ("^message.get_all$", lambda r: r["Status"]),
        (r"vif-halted|records\.VIF", without_mac),
        ("", without_run),
        (r"\.VM\.domid$", lambda r: list(r)),
    ]


def second_host(replay: Replay) -> None:
    """Set the fields in which the recorded member differed from the coordinator."""
    pool = replay.pool
    for field in ("external_auth_type", "external_auth_service_name"):
        pool.set_field("host", pool.hosts[1].ref, field, "")
    pool.set_field("host", pool.hosts[1].ref, "ssh_auto_mode", False)
    pool.set_key(pool.hosts[1].ref, "no_local_storage", "true", "host")


def records_made(replay: Replay) -> None:
    """Make a message and a task as the caller of the steps."""
    vm = replay.bound.known["<uuid:vm-halted>"]
    known = replay.bound.known
    for uuid in (vm, "11111111-2222-4333-8444-555555555555"):
        ref = replay.pool.messages.add("REC_MSG", 3, "VM", uuid, "body \u00e9 <&>\nline 2")
        known.setdefault("<ref:message1>", ref)
        known.setdefault("<uuid:message1>", replay.pool.messages.find(ref)["uuid"])
    client = Client(replay.pool.hosts[0])
    step = {"as": "local-root", "name": ""}
    replay.bind("task1", "task", client.call("task.create", replay.session(step), "rec-task", "a task"))
    client.close()


def only_keys(replay: Replay, step: Step) -> None:
    """Compare the keys of the answer, which alone were recorded."""
    reply = replay.client(step).call(step["method"], replay.session(step), *step["params"][1:])
    replay.bound.same(step["reply"]["Value"]["$keys"], list(reply), step["name"])


def only_length(replay: Replay, step: Step) -> None:
    """Compare the length of the answer, which alone was recorded."""
    reply, _response = replay.client(step).json(step["method"], [])
    assert len(reply["result"]) == step["reply"]["result"]["$length"]


def without_mac(reply: Any) -> Any:
    """Return one VIF or several, with a valid MAC address replaced by True."""
    if not isinstance(reply, dict):
        return reply
    return {k: re.match("(..:){5}..$", v) is not None if k == "MAC" else without_mac(v) for k, v in reply.items()}


def without_run(reply: Any) -> Any:
    """Return records without values of one run: domain and generation ids, a snapshot's dump."""
    if not isinstance(reply, dict):
        return reply
    return {k: _SHAPES[k](v) if k in _SHAPES else without_run(v) for k, v in reply.items()}


def without_counts(reply: Any) -> Any:
    """Return an event batch without values of one run: ids and numbers of objects."""
    batch = reply.get("Value", reply.get("result"))
    if not isinstance(batch, dict) or "events" not in batch:
        return reply
    counts = {cls: type(number).__name__ for cls, number in batch["valid_ref_counts"].items()}
    events = sorted(({k: v for k, v in e.items() if k != "id"} for e in batch["events"]), key=_order)
    return {"events": events, "counts": counts, "token": batch["token"]}


def _order(event: Dict[str, Any]) -> List[str]:
    snapshot = event.get("snapshot", {})
    return [
        event["class"],
        event["operation"],
        snapshot.get("name_label", ""),
        str(snapshot.get("protocol")),
        str(snapshot.get("created")),
        str(snapshot.get("status")),
    ]


def plugin_surroundings(reply: Any) -> Any:
    """Return labecho's report without interpreter and paths."""
    import json

    if reply["Status"] != "Success":
        return reply
    told = json.loads(reply["Value"])
    return {k: told[k] for k in ("fn", "args", "session", "cwd")}


def later(seconds: float, work: Callable[[], None]) -> threading.Thread:
    """Start a function while a step waits."""

    def run() -> None:
        time.sleep(seconds)
        work()

    thread = threading.Thread(target=run)
    thread.start()
    return thread
