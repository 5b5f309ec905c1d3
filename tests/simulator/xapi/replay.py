"""Sends the recorded steps of one file to a simulated pool, in order, and compares the answers."""

import gzip
import json
import os
import re
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Set, Tuple
from xml.etree import ElementTree

from tests.simulator.xapi.matching import Bindings, Mismatch, expand
from tests.simulator.xapi.wireclient import Client, Response, decode, decode_body, json_body, raw_exchange, xml_body
from xscontainer.simulator.xapi import Pool

STEPS = os.path.join(os.path.dirname(__file__), "..", "..", "data", "xapi", "steps.json.gz")
ROLES = {
    "pool-admin": "padmin",
    "pool-operator": "pop",
    "vm-power-admin": "vmpow",
    "vm-admin": "vmadm",
    "vm-operator": "vmop",
    "read-only": "ro",
}
CALLERS = ("local-root", "member-local-root") + tuple(ROLES)
BOGUS_SESSION = "OpaqueRef:11111111-2222-3333-4444-555555555555"
NOTHING_SECONDS = 0.15
NO_ANSWER_SECONDS = 0.7
Step = Dict[str, Any]
Hook = Callable[["Replay"], None]
Special = Callable[["Replay", Step], None]


def load_steps() -> Dict[str, List[Step]]:
    """Return file name -> its steps."""
    with gzip.open(STEPS) as stream:
        return json.loads(stream.read().decode())


class Replay:
    """The run of one file: the pool, the callers' connections and sessions, the placeholders' values."""

    def __init__(self, pool: Pool, steps: List[Step]) -> None:
        self.pool = pool
        self.steps = steps
        self.bound = Bindings()
        self.sessions: Dict[str, str] = {}
        self.session_of: Dict[str, str] = {}
        self.before: Dict[str, Hook] = {}
        self.special: Dict[str, Special] = {}
        self.change: Dict[str, Callable[[Replay, List[Any]], List[Any]]] = {}
        self.threads: List[threading.Thread] = []
        self.normal: List[Tuple[str, Callable[[Any], Any]]] = []
        self.skipped: Dict[str, str] = {}
        self.sampled: Set[str] = set()
        self.compared = 0
        self.texts = 0
        self.left_out: List[str] = []
        self.problems: List[str] = []
        self._clients: Dict[str, Client] = {}
        for number, host in enumerate(pool.hosts, 1):
            self.bound.known["<ref:host{}>".format(number)] = host.ref
            self.bound.known["<uuid:host{}>".format(number)] = host.uuid
            dom0 = pool.record("host", host.ref)["control_domain"]
            self.bind("dom0-{}".format(number), "VM", dom0)
        self.bind("pool", "pool", pool.db.rows("pool")[0].ref)
        for role, user in ROLES.items():
            pool.add_user(user, user + "-pw", role)

    def bind(self, name: str, cls: str, ref: str) -> str:
        """Set the values of <ref:name> and <uuid:name>."""
        self.bound.known["<ref:{}>".format(name)] = ref
        self.bound.known["<uuid:{}>".format(name)] = self.pool.record(cls, ref)["uuid"]
        return ref

    def ref(self, name: str) -> str:
        """Return the reference that <ref:name> stands for."""
        return self.bound.known["<ref:{}>".format(name)]

    def close(self) -> None:
        """Close every connection, and wait for the threads of the scenes."""
        for thread in self.threads:
            thread.join()
        for client in self._clients.values():
            client.close()

    def _door(self, step: Step) -> Tuple[int, bool]:
        """Return the host, and whether the step used its local socket."""
        caller, name = step["as"], step["name"]
        if name.startswith(("member-tcp", "member-json-tcp")):
            return 1, False
        if caller == "member-local-root":
            return 1, True
        return 0, caller.startswith("local-root")

    def client(self, step: Step) -> Client:
        """Return the caller's connection."""
        number, local = self._door(step)
        key = "{}-{}-{}".format(step["as"], number, local)
        if key not in self._clients:
            self._clients[key] = Client(self.pool.hosts[number], local)
        return self._clients[key]

    def session(self, step: Step) -> str:
        """Return the caller's session, which is opened at the first use."""
        for prefix, name in self.session_of.items():
            if step["name"].startswith(prefix):
                if not name:
                    return BOGUS_SESSION
                if name in CALLERS:
                    return self.session({"as": name, "name": ""})
                return self.bound.known["<session:{}>".format(name)]
        caller = step["as"]
        if caller not in self.sessions:
            if caller == "tcp-client":
                return BOGUS_SESSION
            user = ROLES.get(caller, "root")
            client = Client(self.pool.hosts[1 if caller.startswith("member") else 0], caller not in ROLES)
            self.sessions[caller] = client.call("session.login_with_password", user, user + "-pw", "2.21", "rec")
            client.close()
        return self.sessions[caller]

    def run(self) -> None:
        """Run every step, and collect the differences in `problems`."""
        for step in self.steps:
            name = step["name"]
            if name in self.before:
                self.before[name](self)
            if name in self.skipped:
                self.left_out.append(name)
                continue
            try:
                self._one(step)
                self.compared += 1
            except (Mismatch, KeyError, AssertionError, ValueError) as error:
                self.problems.append("{}: {}: {}".format(name, type(error).__name__, error))

    def _one(self, step: Step) -> None:
        if step["name"] in self.special:
            self.special[step["name"]](self, step)
            return
        if any(isinstance(p, str) and "<session>" in p for p in step["params"] or [""]) or "request" in step:
            self.bound.known["<session>"] = self.session(step)
        patience = self._patience(step)
        started = time.monotonic()
        response, path = self._send(step)
        assert time.monotonic() - started >= patience, "answered too early"
        self._compare(step, response, path)
        if step["method"] == "session.logout":
            self.sessions.pop(step["as"], None)
        self.bound.known.pop("<session>", None)

    def _patience(self, step: Step) -> float:
        """Return the seconds that an event.from without events must wait, fewer than recorded."""
        outer = step["reply"]
        batch = outer.get("Value") or outer.get("result") if isinstance(outer, dict) else None
        if step["method"] != "event.from" or not isinstance(batch, dict) or batch.get("events") != []:
            return 0.0
        step["params"][3] = min(step["params"][3], NOTHING_SECONDS)
        return float(step["params"][3])

    def _send(self, step: Step) -> Tuple[Optional[Response], str]:
        if step["transport"] == "raw":
            return self._send_raw(step)
        params = self.bound.fill(expand(step["params"]))
        if step["name"] in self.change:
            params = self.change[step["name"]](self, params)
        if step["transport"] == "json-rpc":
            return self.client(step).post("/jsonrpc", json_body(step["method"], params), "application/json"), "/jsonrpc"
        return self.client(step).post("/", xml_body(step["method"], params), "text/xml"), "/"

    def _send_raw(self, step: Step) -> Tuple[Optional[Response], str]:
        text = step["request"]
        if text.startswith("<"):
            return self._send_sized(step, text)
        head, gap, body = text.partition("\r\n\r\n")
        content = self.bound.fill(body).encode("latin-1")
        head = re.sub(r"Content-Length: \d+", "Content-Length: {}".format(len(content)), head)
        number, local = self._door(step)
        path = head.split(" ")[1] if " " in head else "/"
        patience = NO_ANSWER_SECONDS if "connection" in step["reply"] else 30.0
        request = (head + gap).encode("latin-1") + content
        return raw_exchange(self.pool.hosts[number], local, request, patience), path

    def _send_sized(self, step: Step, text: str) -> Tuple[Response, str]:
        """Send a VM.set_other_config whose body has exactly the recorded number of bytes."""
        match = re.search(r"body of exactly (\d+) bytes", text)
        assert match
        as_json = ".json." in step["name"]
        make = json_body if as_json else xml_body
        params: List[Any] = [self.session(step), self.ref("vm1")]
        empty = make("VM.set_other_config", params + [{"big": ""}])
        body = make("VM.set_other_config", params + [{"big": "x" * (int(match.group(1)) - len(empty))}])
        assert len(body) == int(match.group(1))
        path = "/jsonrpc" if as_json else "/"
        number, local = self._door(step)
        client = Client(self.pool.hosts[number], local)
        try:
            return client.post(path, body, "application/json" if as_json else "text/xml"), path
        finally:
            client.close()

    def _compare(self, step: Step, response: Optional[Response], path: str) -> None:
        expected = expand(step["reply"])
        if response is None:
            assert "connection" in expected, "no answer"
            return
        if expected == {}:
            return
        if "http" in step:
            assert response.status == step["http"]["status"], response
            assert response.headers.get("content-type") == step["http"].get("content-type"), response.headers
        actual = decode_body(response, path)
        whole = expected
        for pattern, change in self.normal:
            if re.search(pattern, step["name"]):
                expected, actual = change(expected), change(actual)
        if isinstance(expected, dict) and "http_status" in expected and "raw" in step:
            actual = dict(actual, body=response.body.decode("utf-8", "replace"))
            expected = dict(expected, body=step["raw"])
        self.bound.same(expected, actual, step["name"])
        if "raw" in step and response.status == 200:
            self._compare_raw(step, response, expected == whole)

    def _compare_raw(self, step: Step, response: Response, exactly: bool) -> None:
        """Compare the body byte by byte; without a promised order only its tags and their nesting."""
        text = re.sub(r"\{\$repeat x (\d+)\}", lambda m: "x" * int(m.group(1)), step["raw"])
        actual = response.body.decode("utf-8", "replace")
        if exactly and self.bound.text(text, actual):
            self.texts += 1
            return
        if text.startswith("<?xml"):
            marked = re.sub("<((?:ref|uuid|session|token)(?::[^<>]*)?|time|kernel|trackid)>", r"[\1]", text)
            self._same_tags(ElementTree.fromstring(marked.encode()), ElementTree.fromstring(actual), step["name"])

    def _same_tags(self, expected: ElementTree.Element, actual: ElementTree.Element, where: str) -> None:
        """Raise Mismatch unless every value has the recorded type."""
        if expected.tag != actual.tag:
            raise Mismatch("{}: <{}> is not <{}>".format(where, actual.tag, expected.tag))
        if expected.tag == "struct":
            members = {m.findtext("name"): m.find("value") for m in actual}
            for member in expected:
                name = member.findtext("name") or ""
                if name in members:
                    self._same_tags(member.find("value"), members[name], where + "." + name)  # type: ignore[arg-type]
        elif expected.tag != "data":
            for left, right in zip(expected, actual):
                self._same_tags(left, right, where)


__all__ = ["Replay", "load_steps", "decode"]
