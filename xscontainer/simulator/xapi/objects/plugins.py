"""host.call_plugin and VM.call_host_plugin."""

import os
import signal
from typing import Dict

from xscontainer.simulator.xapi.objects.operations import operation_on
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.plugin_runner import Runner
from xscontainer.simulator.xapi.wire.encode import xml, xml_text
from xscontainer.simulator.xapi.wire.failures import Dropped, XapiError
from xscontainer.simulator.xapi.wire.plugin_reply import parse_reply, plugin_failure
from xscontainer.simulator.xapi.wire.values import check_storable

_CALL = "<methodCall><methodName>{}</methodName><params><param>{}</param><param>{}</param></params></methodCall>"


def execute(runner: Runner, host: HostData, plugin: str, fn: str, session: str, args: Dict[str, str]) -> str:
    """Run a plugin of ``host`` with that session; return its value or raise its failure."""
    path = os.path.join(host.plugin_dir, plugin)
    if not plugin or "/" in plugin or not os.path.isfile(path):
        raise XapiError("XENAPI_MISSING_PLUGIN", plugin)
    argument = _CALL.format(xml_text(fn), xml(session), xml(args))
    code, out, err = runner.run(path, argument)
    if code < 0:
        raise plugin_failure("signal: " + signal.Signals(-code).name, "", "")
    if code:
        raise plugin_failure("non-zero exit", out, err)
    return parse_reply(out)


def run_on(call: Call, host: HostData, plugin: str, fn: str, args: Dict[str, str]) -> str:
    """Run a plugin on `host`, with the caller's session on the coordinator, with a new root session on a member."""
    pool = call.pool
    if call.task:
        task = pool.db.get("task", call.task)
        if task is not None:
            pool.db.set(task, "resident_on", host.ref)
    try:
        value = _run_with_session(call, host, plugin, fn, args)
    except XapiError:
        if not call.serving():
            raise Dropped() from None
        raise
    if not call.serving():
        raise Dropped()
    return value


def _run_with_session(call: Call, host: HostData, plugin: str, fn: str, args: Dict[str, str]) -> str:
    pool = call.pool
    if host is pool.coordinator:
        try:
            return execute(pool.plugin_runner, host, plugin, fn, call.session.ref, args)
        except XapiError as failed:
            # XAPI notes the failure in the call's task, and its database refuses such text.
            check_storable(failed.description)
            raise
    session = pool.sessions.open(host, None, "", "xapi", pool=True, parent=call.session.ref)
    try:
        return execute(pool.plugin_runner, host, plugin, fn, session.ref, args)
    finally:
        pool.sessions.end([session])


def call_plugin(call: Call, host: str, plugin: str, fn: str, args: Dict[str, str]) -> str:
    """host.call_plugin."""
    where = call.pool.host_of(host)
    if where is None or not where.up:
        raise XapiError("HOST_OFFLINE", host)
    return run_on(call, where, plugin, fn, args)


def call_host_plugin(call: Call, ref: str, plugin: str, fn: str, args: Dict[str, str]) -> str:
    """VM.call_host_plugin: on the host where the VM runs, one call a VM at a time."""
    vm = call.pool.db.find("VM", ref)
    if vm["power_state"] != "Running":
        raise XapiError("VM_BAD_POWER_STATE", ref, "Running", vm["power_state"])
    if call.task:
        task = call.pool.db.get("task", call.task)
        if task is not None:
            call.pool.db.set(task, "allowed_operations", ["cancel"])
    with operation_on(call, vm, "call_plugin"):
        where = call.pool.host_of(vm["resident_on"])
        if where is None or not where.up:
            raise XapiError("HOST_OFFLINE", vm["resident_on"])
        return run_on(call, where, plugin, fn, args)


HANDLERS = {"host.call_plugin": call_plugin, "VM.call_host_plugin": call_host_plugin}
