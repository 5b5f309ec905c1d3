"""Running plugin files as XAPI runs them: one argument, a bare environment, output in files, answers parsed its way."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Any, Dict, List, Optional, Set

from .decode import Node, XmlError, parse_xml
from .encode import xml, xml_text
from .failures import Dropped, XapiError, internal, ocaml_string
from .operations import operation_on
from .spawner import Spawner
from .values import check_storable

if TYPE_CHECKING:
    from .dispatch import Call
    from .host import SimHost

_CALL = "<methodCall><methodName>{}</methodName><params><param>{}</param><param>{}</param></params></methodCall>"
ARGUMENT_LIMIT = 131072
ENVIRONMENT = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"}
_TYPES = {
    "int": "int",
    "i4": "int",
    "boolean": "boolean",
    "array": "array",
    "struct": "struct",
    "nil": "nil",
    "double": "double",
    "string": "string",
}


class Runner:
    """The plugin processes of a pool; stop() ends those that still run."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._lock = threading.Lock()
        self._running: "Set[subprocess.Popen[bytes]]" = set()
        self._calls = 0
        self._stopped = False
        self._spawner: Optional[Spawner] = None

    @property
    def running(self) -> int:
        """How many plugins run now."""
        return self._calls

    def start(self) -> None:
        """Make ready, while the process is still small."""
        self._stopped = False
        if sys.version_info < (3, 10):
            self._spawner = Spawner()

    def run(self, path: str, argument: str) -> List[Any]:
        """[exit code, stdout, stderr] of the plugin at `path` called with one argument."""
        with tempfile.TemporaryFile(dir=self._scratch) as out, tempfile.TemporaryFile(dir=self._scratch) as err:
            with self._lock:
                self._calls += 1
            try:
                code = self._run([path.encode(), argument.encode("utf-8", "surrogateescape")], out, err)
            except OSError:
                # Not executable, no such interpreter, or an argument beyond the kernel's limit.
                return [1, "", ""]
            finally:
                with self._lock:
                    self._calls -= 1
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode("utf-8", "surrogateescape"))
        return [code] + texts

    def _run(self, command: List[bytes], out: IO[bytes], err: IO[bytes]) -> int:
        if self._spawner is not None:
            if len(command[1]) >= ARGUMENT_LIMIT:
                raise OSError(errno.E2BIG, "argument too long")
            return self._spawner.run(command, ENVIRONMENT, out.fileno(), err.fileno())
        process = subprocess.Popen(
            command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=ENVIRONMENT, cwd="/", close_fds=True
        )
        with self._lock:
            self._running.add(process)
            if self._stopped:
                process.kill()
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Kill what still runs; nothing can be run to its end afterwards."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()
        if self._spawner is not None:
            self._spawner.stop()
            self._spawner = None


def _fail(*parts: str) -> XapiError:
    return XapiError("XENAPI_PLUGIN_FAILURE", *parts)


def _type_error(text: str) -> XapiError:
    return internal("XMLRPC.RunTimeTypeError({}, _)".format(ocaml_string(text)))


def _kind(value: Node) -> str:
    return _TYPES.get(value.children[0].name, value.children[0].name) if value.children else "string"


def _unbox(value: Node, kind: str) -> Node:
    if _kind(value) != kind:
        raise _type_error("unbox: Element={} should contain '{}'".format(_kind(value), kind))
    return value.children[0] if value.children else value


def _text(value: Node) -> str:
    """A string; XAPI's parser drops one of white space only."""
    text = "".join(_unbox(value, "string").text)
    return text if text.strip() else ""


def _members(value: Node) -> Dict[str, Node]:
    struct = _unbox(value, "struct")
    return {"".join(m.children[0].text): m.children[1] for m in struct.children}


def parse_reply(output: str) -> str:
    """The value in a plugin's output; raises what XAPI makes of anything else."""
    try:
        root = parse_xml(output.encode("utf-8", "surrogateescape"), trailing_ok=True)
    except XmlError as error:
        raise _fail("failed to parse plugin output", output, "{} line {}".format(error.text, error.line)) from None
    try:
        if root.children[0].name == "fault":
            fault = _members(root.children[0].children[0])
            raise _fail("fault", "".join(fault["faultCode"].children[0].text), _text(fault["faultString"]))
        members = _members(root.children[0].children[0].children[0])
        status = _text(members["Status"]) if "Status" in members else ""
        if status == "Success":
            return _text(members["Value"])
        if status == "Failure":
            description = [_text(v) for v in _unbox(members["ErrorDescription"], "array").children[0].children]
            if not description:
                raise _type_error("Empty array of error strings")
            raise XapiError(*description)
    except (IndexError, KeyError):
        pass
    raise _type_error("Status")


def execute(host: "SimHost", plugin: str, fn: str, session: str, args: Dict[str, str]) -> str:
    """Run a plugin of `host` with that session; its value, or its failure."""
    path = os.path.join(host.plugin_dir, plugin)
    if not plugin or "/" in plugin or not os.path.isfile(path):
        raise XapiError("XENAPI_MISSING_PLUGIN", plugin)
    argument = _CALL.format(xml_text(fn), xml(session), xml(args))
    code, out, err = host.pool.plugin_runner.run(path, argument)
    if code < 0:
        raise _fail("signal: " + signal.Signals(-code).name, "", "")
    if code:
        raise _fail("non-zero exit", out, err)
    return parse_reply(out)


def run_on(call: "Call", host: "SimHost", plugin: str, fn: str, args: Dict[str, str]) -> str:
    """Run a plugin on `host`: with the caller's session on the coordinator, an anonymous root's on a member."""
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


def _run_with_session(call: "Call", host: "SimHost", plugin: str, fn: str, args: Dict[str, str]) -> str:
    pool = call.pool
    if host.is_coordinator:
        try:
            return execute(host, plugin, fn, call.session.ref, args)
        except XapiError as failed:
            # XAPI notes the failure in the call's task, and its database refuses such text.
            check_storable(failed.description)
            raise
    session = pool.sessions.open(host, None, "", "xapi", pool=True, parent=call.session.ref)
    try:
        return execute(host, plugin, fn, session.ref, args)
    finally:
        pool.sessions.end([session])


def call_plugin(call: "Call", host: str, plugin: str, fn: str, args: Dict[str, str]) -> str:
    """host.call_plugin."""
    where = call.pool.host_of(host)
    if where is None or not where.up:
        raise XapiError("HOST_OFFLINE", host)
    return run_on(call, where, plugin, fn, args)


def call_host_plugin(call: "Call", ref: str, plugin: str, fn: str, args: Dict[str, str]) -> str:
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
