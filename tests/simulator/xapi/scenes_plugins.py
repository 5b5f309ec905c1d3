"""Scenes of plugins.json and plugins_more.json."""

import json
import os
import re
import threading
import time
from typing import Any, Callable, Dict, List

from tests.simulator.xapi.replay import Replay, Step
from tests.simulator.xapi.wireclient import Client

BUSY = "OTHER_OPERATION_IN_PROGRESS"
DEADLINE = 20.0


def plugins_scene(replay: Replay) -> None:
    """Prepare plugins.json."""
    running_vms(replay)
    for step in replay.steps:
        name = step["name"]
        if name.startswith("concurrent."):
            replay.special[name] = concurrent
        elif name.startswith(("async-", "InternalAsync")) and "task" in step["method"]:
            replay.before[name] = wait_for_task(step)
    replay.normal += [
        (r"crash|^async-crash", without_traceback),
        (r"(^|\.)how", how_called),
        (r"(^|\.)who\.", who_calls),
        ("^async-vm-plugin-vm-operator.at-once", without_place),
    ]


def plugins_more_scene(replay: Replay) -> None:
    """Prepare plugins_more.json."""
    running_vms(replay)
    for step in replay.steps:
        replay.special[step["name"]] = several


def running_vms(replay: Replay) -> None:
    """Make a VM without an agent on each host."""
    for number, host in enumerate(replay.pool.hosts, 1):
        name = "vm-on-host{}".format(number)
        vm = replay.bind(name, "VM", replay.pool.create_vm(name, host=host))
        replay.pool.remove_agent(vm)


def wait_for_task(step: Step) -> Callable[[Replay], None]:
    """Wait until a task has the recorded status."""
    reply = step["reply"].get("Value", step["reply"].get("result"))
    status = reply.get("status") if isinstance(reply, dict) else None

    def wait(replay: Replay) -> None:
        if status is None or "<ref" not in step["params"][1]:
            return
        task = replay.bound.fill(step["params"][1])
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            record = replay.pool.record("task", task)
            there = replay.bound.known[reply["resident_on"]] == record["resident_on"] or "operator" in step["name"]
            if record["status"] == status and there and record["allowed_operations"] == reply["allowed_operations"]:
                return
            time.sleep(0.002)
        raise AssertionError("{}: the task is {}".format(step["name"], record))

    return wait


def _changed(reply: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(reply, str):
        return change(reply)
    if isinstance(reply, list):
        return [_changed(v, change) for v in reply]
    if isinstance(reply, dict):
        return {k: _changed(v, change) for k, v in reply.items()}
    return reply


def without_traceback(reply: Any) -> Any:
    """Return a crash's stderr up to the traceback, which depends on the interpreter."""
    return _changed(reply, lambda text: text.split("Traceback", 1)[0])


def how_called(reply: Any) -> Any:
    """Return what the plugin saw of its call, but for user and interpreter."""
    told = json.loads(reply["Value"])
    told["env"].pop("LC_CTYPE", None)  # set by newer interpreters themselves
    told["argv0"] = os.path.basename(told["argv0"])
    for key in ("uid", "gid", "stdout_encoding", "nice", "umask"):
        told.pop(key)
    return told


def who_calls(reply: Any) -> Any:
    """Return what the plugin learned of its session; the number of permissions only roughly."""
    if reply["Status"] != "Success":
        return reply
    told = json.loads(reply["Value"])
    told["rbac_permissions_length"] = round(told["rbac_permissions_length"] / 100.0)
    return told


def without_place(reply: Any) -> Any:
    """Return a task without its host, which is not chosen yet."""
    return dict(reply["Value"], resident_on="")


class _Timed:
    """A call in its own thread."""

    def __init__(self, replay: Replay, method: str, params: List[Any], delay: float) -> None:
        self._client = Client(replay.pool.hosts[0])
        self._call = (method, params, delay)
        self.started = self.ended = 0.0
        self.reply: Dict[str, Any] = {}
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        method, params, delay = self._call
        time.sleep(delay)
        self.started = time.monotonic()
        self.reply = self._client.xml(method, params)[0]
        self.ended = time.monotonic()
        self._client.close()


def concurrent(replay: Replay, step: Step) -> None:
    """Compare the results of two calls, the second 0.2 s after the first, and the order of their ends.

    Plugins run for 0.7 s here, for 1.5 s in the recording.
    """
    session = replay.session({"as": "local-root", "name": ""})
    plugin = ["recplug", "sleep", {"s": "0.7"}]
    first_vm, second_vm, host = replay.ref("vm-on-host1"), replay.ref("vm-on-host2"), replay.ref("host1")
    plans: Dict[str, List[Any]] = {
        "two-on-one-vm": ["VM.call_host_plugin", [first_vm] + plugin],
        "two-vms": ["VM.call_host_plugin", [second_vm] + plugin],
        "two-host.call_plugin": ["host.call_plugin", [host] + plugin],
        "plugin-and-other_config": ["VM.add_to_other_config", [first_vm, "while", "busy"]],
        "plugin-and-shutdown": ["VM.clean_reboot", [first_vm]],
        "plugin-and-hard_shutdown": ["VM.hard_shutdown", [first_vm]],
    }
    name = step["name"].split(".", 1)[1]
    method, params = plans[name]
    start = "host.call_plugin" if name.startswith("two-host") else "VM.call_host_plugin"
    target = host if name.startswith("two-host") else first_vm
    calls = [_Timed(replay, start, [session, target] + plugin, 0.0), _Timed(replay, method, [session] + params, 0.2)]
    time.sleep(0.35)
    during = sorted(replay.pool.vm(first_vm)["current_operations"].values())
    for call in calls:
        call.thread.join(DEADLINE)
    expected = step["reply"]
    assert during == sorted(expected["current_operations_during"]), during
    recorded_second = expected["results"][1]
    if name != "two-on-one-vm":  # one draw of a race
        for call, recorded in zip(calls, expected["results"]):
            assert ("failure" in recorded) == (call.reply["Status"] == "Failure"), call.reply
        waited = recorded_second["end_ms"] >= expected["results"][0]["end_ms"]
        assert waited == (calls[1].ended >= calls[0].ended - 0.2), name
        if "failure" in recorded_second:
            replay.bound.same(recorded_second["failure"], calls[1].reply["ErrorDescription"], name)


def several(replay: Replay, step: Step) -> None:
    """Let several calls on one VM race: each succeeds or finds the VM busy, and at least one succeeds."""
    match = re.match(r"(\d+) VM.* on (host\d), sent ([\d.]+) s apart, plugin runs ([\d.]+) s", step["note"])
    assert match
    vm = replay.ref("vm-on-" + match.group(2))
    session = replay.session(step)
    seconds = min(float(match.group(4)), 0.4)  # the longest ran for 1.5 s in the recording
    params = [session, vm, "recplug", "sleep", {"s": str(seconds)}]
    calls = [
        _Timed(replay, "VM.call_host_plugin", params, n * float(match.group(3))) for n in range(int(match.group(1)))
    ]
    for call in calls:
        call.thread.join(DEADLINE)
    recorded = [result for repeat in step["reply"]["repeats"] for result in repeat]
    failure = next((r["failure"] for r in recorded if "failure" in r), None)
    good = [c for c in calls if c.reply["Status"] == "Success"]
    assert good
    for call in calls:
        if call.reply["Status"] == "Failure":
            assert call.reply["ErrorDescription"][:4] == [BUSY, "VM", vm, "call_plugin"]
            if failure:
                assert len(failure) == len(call.reply["ErrorDescription"])
    ends = sorted(c.ended for c in good)
    for left, right in zip(ends, ends[1:]):  # one at a time
        assert right - left > seconds * 0.9
