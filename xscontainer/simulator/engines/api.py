"""The Engine API over a :class:`Lifecycle`: paths, parameters, versions, answers."""

import json
import os
import re
import struct
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from xscontainer.simulator.engines import program
from xscontainer.simulator.engines.container import SKELETON, STATES, Container, Version, network_id
from xscontainer.simulator.engines.events import Listener, parse_time
from xscontainer.simulator.engines.lifecycle import ApiError, Lifecycle
from xscontainer.simulator.engines.wire import Connection, Request

RAW_STREAM = "application/vnd.docker.raw-stream"
EXEC_SECONDS = 0.02
_LIST_FILTERS = ("id", "name", "label", "status", "health", "exited", "ancestor", "before", "since", "volume",
                 "network", "publish", "expose", "is-task", "isolation")
_VERSIONED = re.compile(r"/v([0-9.]+)(/.*)\Z")


class Identity(NamedTuple):
    """Which engine this pretends to be.

    :param version: the product's version.
    :param api_version: the newest API version it speaks.
    :param min_api_version: the oldest it accepts.
    """

    version: str = "20.10.24"
    api_version: str = "1.41"
    min_api_version: str = "1.12"
    name: str = "guest"
    git_commit: str = "5d6db84"


def version_tuple(text: str) -> Version:
    """ "1.41" as (1, 41); what is no number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))


class Call(NamedTuple):
    """One request, with its version and the part of the path that names the object."""

    request: Request
    connection: Connection
    version: Version
    name: str

    def flag(self, key: str) -> bool:
        """A boolean query parameter as engines read it."""
        return self.request.query.get(key, "").lower().strip() not in ("", "0", "no", "false", "none")

    def json(self) -> Any:
        """The body.

        :raises ApiError: 400.
        """
        if not self.request.body:
            return {}
        try:
            return json.loads(self.request.body.decode("utf-8"))
        except ValueError as error:
            raise ApiError(400, f"invalid character in JSON: {error}") from error


class Api:
    """Answers requests. Stateless but for execs; thread-safe."""

    def __init__(self, lifecycle: Lifecycle, identity: Identity, root: str) -> None:
        self._life = lifecycle
        self._who = identity
        self._newest = version_tuple(identity.api_version)
        self._oldest = version_tuple(identity.min_api_version)
        self._root = root
        self._execs: Dict[str, Dict[str, Any]] = {}
        self._routes: List[Tuple[str, Any, Callable[[Call], None]]] = [
            (method, re.compile(pattern + r"\Z"), handler) for method, pattern, handler in self._table()
        ]

    def _table(self) -> List[Tuple[str, str, Callable[[Call], None]]]:
        one = r"/containers/([^/]+)"
        return [
            ("GET", "/containers/json", self._list), ("GET", "/events", self._events), ("GET", "/_ping", self._ping),
            ("HEAD", "/_ping", self._ping), ("GET", "/version", self._version), ("GET", "/info", self._info),
            ("POST", "/containers/create", self._create), ("GET", one + "/json", self._inspect),
            ("GET", one + "/top", self._top), ("GET", one + "/logs", self._logs), ("POST", one + "/start", self._start),
            ("POST", one + "/stop", self._stop), ("POST", one + "/restart", self._restart),
            ("POST", one + "/kill", self._kill), ("POST", one + "/pause", self._pause),
            ("POST", one + "/unpause", self._unpause), ("POST", one + "/rename", self._rename),
            ("POST", one + "/wait", self._wait), ("DELETE", one, self._remove), ("POST", one + "/exec", self._exec),
            ("POST", r"/exec/([^/]+)/start", self._exec_start), ("GET", r"/exec/([^/]+)/json", self._exec_inspect),
            ("GET", "/images/json", self._images), ("GET", "/images/(.+)/json", self._image),
        ]

    def headers(self) -> str:
        """The header lines of every answer."""
        lines = f"Api-Version: {self._who.api_version}\r\n" if self._newest >= (1, 25) else ""
        return (f"{lines}Docker-Experimental: false\r\nOstype: linux\r\n"
                f"Server: Docker/{self._who.version} (linux)\r\n")

    def verb(self, request: Request) -> str:
        """A request's name for statistics: ``GET /containers/{}/json``."""
        return self._route(request)[2]

    def handle(self, request: Request, connection: Connection) -> None:
        """Answer one request."""
        version, common = self._newest, self.headers()
        try:
            handler, name, _ = self._route(request)
            if handler is None:
                common = ""
                raise ApiError(404, "page not found")
            # The real one adds its "experimental" line only after it has agreed on a version.
            common = common.replace("Docker-Experimental: false\r\n", "")
            version = self._negotiate(request.path)
            common = self.headers()
            handler(Call(request, connection, version, name))
        except ApiError as error:
            if isinstance(error, _OldClient) or version < (1, 24):
                connection.answer(error.status, error.message.encode() + b"\n", "text/plain; charset=utf-8",
                                  (("X-Content-Type-Options", "nosniff"),), common)
            else:
                body = json.dumps({"message": error.message}, separators=(",", ":"), ensure_ascii=False)
                connection.answer(error.status, body.encode("utf-8", "replace") + b"\n", common=common)

    def _route(self, request: Request) -> Tuple[Optional[Callable[[Call], None]], str, str]:
        match = _VERSIONED.match(request.path)
        path = match.group(2) if match else request.path
        for method, pattern, handler in self._routes:
            if method == request.method:
                found = pattern.match(path)
                if found:
                    name = found.group(1) if pattern.groups else ""
                    return handler, name, f"{method} {path.replace(name, '{}') if name else path}"
        return None, "", f"{request.method} ?"

    def _negotiate(self, path: str) -> Version:
        match = _VERSIONED.match(path)
        if not match:
            return self._newest
        text, who = match.group(1), self._who
        asked = version_tuple(text)
        if asked > self._newest:
            if self._newest < (1, 25):
                raise ApiError(400, f"client is newer than server (client API version: {text}, "
                                    f"server API version: {who.api_version})")
            if self._newest >= (1, 34):
                raise ApiError(400, f"client version {text} is too new. Maximum supported API version is "
                                    f"{who.api_version}")
            return self._newest
        if asked < self._oldest:
            message = (f"client version {text} is too old. Minimum supported API version is {who.min_api_version}, "
                       "please upgrade your client to a newer version")
            raise (_OldClient if asked < (1, 24) and self._oldest < (1, 24) else ApiError)(400, message)
        return asked

    # -- the engine itself ------------------------------------------------------------------------------------------
    def _ping(self, call: Call) -> None:
        if call.request.method == "HEAD" and self._newest < (1, 40):
            raise ApiError(404, "page not found")
        body = b"" if call.request.method == "HEAD" else b"OK"
        call.connection.answer(200, body, "text/plain; charset=utf-8", (
            ("Cache-Control", "no-cache, no-store, must-revalidate"), ("Pragma", "no-cache")))

    def _version(self, call: Call) -> None:
        who, info = self._who, SKELETON["Info"]
        built = "2023-04-04T18:21:34.000000000+00:00"
        flat: Dict[str, Any] = {
            "Version": who.version, "ApiVersion": who.api_version, "MinAPIVersion": who.min_api_version,
            "GitCommit": who.git_commit, "GoVersion": "go1.19.8", "Os": "linux", "Arch": "amd64",
            "KernelVersion": info["KernelVersion"], "BuildTime": built,
        }
        if self._newest < (1, 25):
            del flat["MinAPIVersion"]
        answer: Dict[str, Any] = {}
        if self._newest >= (1, 35):
            details = {key: flat[key] for key in sorted(flat) if key != "Version"}
            details["Experimental"] = "false"
            answer = {"Platform": {"Name": ""}, "Components": [
                {"Name": "Engine", "Version": who.version, "Details": details},
                {"Name": "containerd", "Version": "1.6.20", "Details": {"GitCommit": info["ContainerdCommit"]["ID"]}},
                {"Name": "runc", "Version": "1.1.5", "Details": {"GitCommit": info["RuncCommit"]["ID"]}},
                {"Name": "docker-init", "Version": "0.19.0", "Details": {"GitCommit": ""}},
            ]}
        _send(call, {**answer, **flat})

    def _info(self, call: Call) -> None:
        states = [container.state for container in self._life.listed()]
        paused, running = states.count("paused"), states.count("running") + states.count("restarting")
        info = dict(SKELETON["Info"])
        info.update(
            ID=":".join([network_id(self._who.name)[index:index + 4].upper() for index in range(0, 48, 4)]),
            Containers=len(states), ContainersRunning=running, ContainersPaused=paused,
            ContainersStopped=len(states) - running - paused, Images=len(self._life.images),
            SystemTime=time.strftime("%Y-%m-%dT%H:%M:%S.000000001Z", time.gmtime()), Name=self._who.name,
            ServerVersion=self._who.version, NEventsListener=self._life.events.listeners,
        )
        _send(call, info)

    def _events(self, call: Call) -> None:
        query = call.request.query
        filters = _filters(query)
        try:
            since = parse_time(query["since"])[0] if query.get("since") else None
            until = parse_time(query["until"])[0] if query.get("until") else None
        except ValueError as error:
            raise ApiError(500, str(error)) from error
        connection, fault = call.connection, call.connection.fault
        kind = fault.kind if fault else ""
        if kind == "events-stall":
            connection.start_stream()
            connection.wait_closed()
            return
        listener = Listener(connection, call.version, filters, fault.size if fault and kind == "events-end" else None)
        wait_until = None if until is None else time.monotonic() + until / 1e9 - time.time()
        live = until is None or until / 1e9 > time.time()
        self._life.events.follow(listener, 0 if since is None and until is not None else since, until, live)
        try:
            if live:
                connection.wait_closed(wait_until)
        finally:
            self._life.events.forget(listener)
        if not listener.ended:
            connection.end_stream()

    # -- lists and details ------------------------------------------------------------------------------------------
    def _list(self, call: Call) -> None:
        query = call.request.query
        filters = _filters(query)
        for key in filters:
            if key not in _LIST_FILTERS:
                raise ApiError(400, f"Invalid filter '{key}'")
        for state in filters.get("status", []):
            if state not in STATES:
                raise ApiError(400, f"Invalid filter 'status={state}'")
        try:
            limit = int(query.get("limit") or 0)
        except ValueError as error:
            raise ApiError(500, f'strconv.Atoi: parsing "{query["limit"]}": invalid syntax') from error
        show_all = call.flag("all") or limit > 0 or "status" in filters
        size, now = call.flag("size"), time.time()
        with self._life.lock:
            entries = [
                container.entry(call.version, size, now) for container in self._life.listed()
                if (show_all or container.up or container.state == "restarting") and _fits(container, filters)
            ]
        if limit > 0:
            entries = entries[:limit]
        call.connection.answer(200, b"[" + b",".join(entries) + b"]\n")

    def _inspect(self, call: Call) -> None:
        with self._life.lock:
            record = self._life.find(call.name).inspect(call.version, call.flag("size"), self._root)
            body = json.dumps(record, separators=(",", ":"))
        call.connection.answer(200, body.encode("ascii") + b"\n")

    def _top(self, call: Call) -> None:
        with self._life.lock:
            container = self._life.find(call.name)
            if container.state == "restarting":
                raise ApiError(409, f"Container {container.id} is restarting, wait until the container is running")
            if not container.up:
                raise ApiError(409, f"Container {container.id} is not running")
            pid, command = str(container.pid), " ".join(container.command)
            since = time.strftime("%H:%M", time.gmtime(container.started))
            self._life.publish(container, "top")
        if "u" in call.request.query.get("ps_args", "-ef"):
            titles = ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]
            row = ["root", pid, "0.0", "0.0", "2268", "1380", "?", "Ss", since, "0:00", command]
        else:
            titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
            row = ["root", pid, str(int(pid) - 1), "0", since, "?", "00:00:00", command]
        _send(call, {"Processes": [row], "Titles": titles})

    def _logs(self, call: Call) -> None:
        container = self._life.find(call.name)
        wanted = [number for number, key in ((1, "stdout"), (2, "stderr")) if call.flag(key)]
        if not wanted:
            raise ApiError(400, "Bad parameters: you must choose at least one stream")
        connection = call.connection
        connection.start_stream("")
        sent = 0
        while True:
            with self._life.lock:
                lines, going = container.logs[sent:], container.up
            for stream, data in lines:
                if stream in wanted:
                    frame = b"" if container.config["Tty"] else struct.pack(">BxxxL", stream, len(data))
                    connection.send_chunk(frame + data)
            sent += len(lines)
            if not (call.flag("follow") and going):
                break
            with self._life.changed:
                if len(container.logs) == sent:
                    self._life.changed.wait(1.0)
        connection.end_stream()

    # -- verbs ------------------------------------------------------------------------------------------------------
    def _create(self, call: Call) -> None:
        container = self._life.create(call.request.query.get("name", ""), call.json())
        _send(call, {"Id": container.id, "Warnings": []}, 201)

    def _start(self, call: Call) -> None:
        call.connection.answer(204 if self._life.start(call.name) else 304)

    def _stop(self, call: Call) -> None:
        call.connection.answer(204 if self._life.stop(call.name, _seconds(call)) else 304)

    def _restart(self, call: Call) -> None:
        self._life.restart(call.name, _seconds(call))
        call.connection.answer(204)

    def _kill(self, call: Call) -> None:
        self._life.kill(call.name, call.request.query.get("signal", ""))
        call.connection.answer(204)

    def _pause(self, call: Call) -> None:
        self._life.pause(call.name)
        call.connection.answer(204)

    def _unpause(self, call: Call) -> None:
        self._life.unpause(call.name)
        call.connection.answer(204)

    def _rename(self, call: Call) -> None:
        self._life.rename(call.name, call.request.query.get("name", ""))
        call.connection.answer(204)

    def _remove(self, call: Call) -> None:
        self._life.remove(call.name, call.flag("force"))
        call.connection.answer(204)

    def _wait(self, call: Call) -> None:
        self._life.find(call.name)
        code = self._life.wait(call.name, call.request.query.get("condition", ""))
        _send(call, {"Error": None, "StatusCode": code})

    # -- exec -------------------------------------------------------------------------------------------------------
    def _exec(self, call: Call) -> None:
        body = call.json()
        with self._life.lock:
            container = self._life.find(call.name)
            if container.state == "paused":
                raise ApiError(409, f"Container {call.name} is paused, unpause the container before exec")
            if not container.up:
                raise ApiError(409, f"Container {container.id} is not running")
            words = [str(word) for word in body.get("Cmd") or []]
            if not words:
                raise ApiError(400, "No exec command specified")
            exec_id = os.urandom(32).hex()
            self._execs[exec_id] = {"container": container, "words": words, "body": body, "code": None}
            self._life.publish(container, f"exec_create: {' '.join(words)}", execID=exec_id)
        _send(call, {"Id": exec_id}, 201)

    def _find_exec(self, name: str) -> Dict[str, Any]:
        if name not in self._execs:
            raise ApiError(404, f"No such exec instance: {name}")
        return self._execs[name]

    def _exec_start(self, call: Call) -> None:
        record = self._find_exec(call.name)
        container, run = record["container"], program.run(record["words"])
        self._life.publish(container, f"exec_start: {' '.join(record['words'])}", execID=call.name)
        record["code"] = run.exit_code
        detached = bool(call.json().get("Detach"))
        if detached:
            call.connection.answer(200)
        else:
            call.connection.start_raw(RAW_STREAM, "upgrade" in call.request.headers.get("connection", "").lower())
            # To start a process takes a real engine longer; clients that read past their HTTP library count on it.
            time.sleep(EXEC_SECONDS)
            for stream, data in run.output:
                if record["body"].get("AttachStdout" if stream == 1 else "AttachStderr"):
                    tty = record["body"].get("Tty")
                    call.connection.send((b"" if tty else struct.pack(">BxxxL", stream, len(data))) + data)
        self._life.publish(container, "exec_die", execID=call.name, exitCode=str(run.exit_code))

    def _exec_inspect(self, call: Call) -> None:
        record = self._find_exec(call.name)
        words, body = record["words"], record["body"]
        _send(call, {
            "ID": call.name, "Running": False, "ExitCode": record["code"],
            "ProcessConfig": {"tty": bool(body.get("Tty")), "entrypoint": words[0], "arguments": words[1:],
                              "privileged": bool(body.get("Privileged"))},
            "OpenStdin": bool(body.get("AttachStdin")), "OpenStderr": bool(body.get("AttachStderr")),
            "OpenStdout": bool(body.get("AttachStdout")), "CanRemove": False, "ContainerID": record["container"].id,
            "DetachKeys": "", "Pid": 0 if record["code"] is None else record["container"].pid,
        })

    # -- images -----------------------------------------------------------------------------------------------------
    def _images(self, call: Call) -> None:
        with self._life.lock:
            images = dict(self._life.images)
        size: Dict[str, Any] = {"Size": 1982256}
        if call.version < (1, 44):
            size["VirtualSize"] = 1982256
        _send(call, [
            {"Containers": -1, "Created": 1700000000, "Id": image_id, "Labels": None, "ParentId": "",
             "RepoDigests": None, "RepoTags": [name], "SharedSize": -1, **size}
            for name, image_id in images.items()
        ])

    def _image(self, call: Call) -> None:
        try:
            image_id = self._life.image(call.name)
        except ApiError as error:
            raise ApiError(404, f"no such image: {call.name}: {error.message}") from error
        with self._life.lock:
            tags = [name for name, other in self._life.images.items() if other == image_id]
        _send(call, {"Id": image_id, "RepoTags": tags, "RepoDigests": [], "Parent": "", "Architecture": "amd64",
                     "Os": "linux", "Size": 1982256, "Config": {**SKELETON["Config"], "Labels": None},
                     "Created": "2023-11-14T22:13:20Z"})


class _OldClient(ApiError):
    """Refusal in the words and the plain text that clients of that age read."""


def _send(call: Call, value: Any, status: int = 200) -> None:
    call.connection.answer(status, json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n")


def _seconds(call: Call) -> Optional[float]:
    text = call.request.query.get("t", "")
    if not text:
        return None
    try:
        return float(int(text))
    except ValueError as error:
        raise ApiError(500, f'strconv.Atoi: parsing "{text}": invalid syntax') from error


def _filters(query: Dict[str, str]) -> Dict[str, List[str]]:
    """The filters parameter in either of its two forms."""
    if not query.get("filters"):
        return {}
    try:
        given = json.loads(query["filters"])
        return {str(key): [str(value) for value in values] for key, values in given.items()}
    except (ValueError, AttributeError, TypeError) as error:
        first = query["filters"][:1]
        raise ApiError(500, f"invalid character '{first}' looking for beginning of value") from error


def _fits(container: Container, filters: Dict[str, List[str]]) -> bool:
    checks: Dict[str, Callable[[str], bool]] = {
        "id": container.id.startswith,
        "name": lambda want: re.search(want, "/" + container.name) is not None,
        "status": lambda want: container.state == want,
        "health": lambda want: (container.health.status if container.health else "none") == want,
        "exited": lambda want: container.state == "exited" and str(container.exit_code) == want,
        "ancestor": lambda want: want in (container.image, container.image.rpartition(":")[0], container.image_id),
    }
    for key, values in filters.items():
        if key == "label":
            for want in values:
                name, equals, value = want.partition("=")
                if name not in container.labels or (equals and container.labels[name] != value):
                    return False
        elif key in checks and values and not any(checks[key](want) for want in values):
            return False
    return True
