"""The Engine API over a :class:`Lifecycle`: versions, routing, and the paths of the engine as a whole."""

import json
import re
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from xscontainer.simulator.engines.call import Call, Identity, Route, filters_of, send, version_tuple
from xscontainer.simulator.engines.container import SKELETON, Version, network_id
from xscontainer.simulator.engines.container_reads import ContainerReads
from xscontainer.simulator.engines.container_verbs import ContainerVerbs
from xscontainer.simulator.engines.events import Listener, parse_time
from xscontainer.simulator.engines.exec_api import ExecApi
from xscontainer.simulator.engines.lifecycle import Lifecycle
from xscontainer.simulator.engines.log_api import LogApi
from xscontainer.simulator.engines.stats_api import StatsApi
from xscontainer.simulator.engines.store import ApiError
from xscontainer.simulator.engines.wire import Connection, Request

_VERSIONED = re.compile(r"/v([0-9.]+)(/.*)\Z")


class Api:
    """Answers all requests to one engine. Thread-safe."""

    def __init__(self, lifecycle: Lifecycle, identity: Identity, root: str) -> None:
        self._life = lifecycle
        self._identity = identity
        self._newest = version_tuple(identity.api_version)
        self._oldest = version_tuple(identity.min_api_version)
        reads, verbs = ContainerReads(lifecycle, root), ContainerVerbs(lifecycle)
        routes = self._table() + reads.routes() + verbs.routes() + ExecApi(lifecycle).routes()
        routes += LogApi(lifecycle).routes() + StatsApi(lifecycle, identity.product == "Podman Engine").routes()
        self._routes = [(method, re.compile(pattern + r"\Z"), handler) for method, pattern, handler in routes]

    def _table(self) -> List[Route]:
        return [
            ("GET", "/events", self._events), ("GET", "/_ping", self._ping), ("HEAD", "/_ping", self._ping),
            ("GET", "/version", self._version), ("GET", "/info", self._info),
        ]

    def headers(self) -> str:
        """Return the header lines of every answer."""
        lines = f"Api-Version: {self._identity.api_version}\r\n" if self._newest >= (1, 25) else ""
        return (f"{lines}Docker-Experimental: false\r\nOstype: linux\r\n"
                f"Server: Docker/{self._identity.version} (linux)\r\n")

    def verb(self, request: Request) -> str:
        """Return a request's name for statistics, such as ``GET /containers/{}/json``."""
        return self._route(request)[2]

    def handle(self, request: Request, connection: Connection) -> None:
        """Answer one request."""
        version, common = self._newest, self.headers()
        try:
            handler, name, _ = self._route(request)
            if handler is None:
                common = ""
                raise ApiError(404, "page not found")
            # A real engine adds its "experimental" line only after it has agreed on a version.
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
        text, identity = match.group(1), self._identity
        requested = version_tuple(text)
        if requested > self._newest:
            if self._newest < (1, 25):
                raise ApiError(400, f"client is newer than server (client API version: {text}, "
                                    f"server API version: {identity.api_version})")
            if self._newest >= (1, 34):
                raise ApiError(400, f"client version {text} is too new. Maximum supported API version is "
                                    f"{identity.api_version}")
            return self._newest
        if requested < self._oldest:
            message = (f"client version {text} is too old. Minimum supported API version is "
                       f"{identity.min_api_version}, please upgrade your client to a newer version")
            raise (_OldClient if requested < (1, 24) and self._oldest < (1, 24) else ApiError)(400, message)
        return requested

    # -- the engine itself ------------------------------------------------------------------------------------------
    def _ping(self, call: Call) -> None:
        if call.request.method == "HEAD" and self._newest < (1, 40):
            raise ApiError(404, "page not found")
        body = b"" if call.request.method == "HEAD" else b"OK"
        call.connection.answer(200, body, "text/plain; charset=utf-8", (
            ("Cache-Control", "no-cache, no-store, must-revalidate"), ("Pragma", "no-cache")))

    def _version(self, call: Call) -> None:
        identity, info = self._identity, SKELETON["Info"]
        built = "2023-04-04T18:21:34.000000000+00:00"
        flat: Dict[str, Any] = {
            "Version": identity.version, "ApiVersion": identity.api_version, "MinAPIVersion": identity.min_api_version,
            "GitCommit": identity.git_commit, "GoVersion": "go1.19.8", "Os": "linux", "Arch": "amd64",
            "KernelVersion": info["KernelVersion"], "BuildTime": built,
        }
        if self._newest < (1, 25):
            del flat["MinAPIVersion"]
        answer: Dict[str, Any] = {}
        if self._newest >= (1, 35):
            details = {key: flat[key] for key in sorted(flat) if key != "Version"}
            details["Experimental"] = "false"
            answer = {"Platform": {"Name": ""}, "Components": [
                {"Name": identity.product, "Version": identity.version, "Details": details},
                {"Name": "containerd", "Version": "1.6.20", "Details": {"GitCommit": info["ContainerdCommit"]["ID"]}},
                {"Name": "runc", "Version": "1.1.5", "Details": {"GitCommit": info["RuncCommit"]["ID"]}},
                {"Name": "docker-init", "Version": "0.19.0", "Details": {"GitCommit": ""}},
            ]}
        send(call, {**answer, **flat})

    def _info(self, call: Call) -> None:
        states = [container.state for container in self._life.listed()]
        paused, running = states.count("paused"), states.count("running") + states.count("restarting")
        info = dict(SKELETON["Info"])
        info.update(
            ID=":".join([network_id(self._identity.name)[index:index + 4].upper() for index in range(0, 48, 4)]),
            Containers=len(states), ContainersRunning=running, ContainersPaused=paused,
            ContainersStopped=len(states) - running - paused, Images=len(self._life.images),
            SystemTime=time.strftime("%Y-%m-%dT%H:%M:%S.000000001Z", time.gmtime()), Name=self._identity.name,
            ServerVersion=self._identity.version, NEventsListener=self._life.events.listeners,
        )
        send(call, info)

    def _events(self, call: Call) -> None:
        query = call.request.query
        filters = filters_of(query)
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
        listener = Listener(connection, call.version, filters, fault.size if fault and kind == "events-end" else None,
                            since or 0 if self._life.podman else 0)
        wait_until = None if until is None else time.monotonic() + until / 1e9 - time.time()
        live = until is None or until / 1e9 > time.time()
        if self._life.podman:
            live = query.get("stream") != "false"
        self._life.events.follow(listener, 0 if since is None and until is not None else since, until, live)
        try:
            if live:
                connection.wait_closed(wait_until)
        finally:
            self._life.events.forget(listener)
        if not listener.ended:
            connection.end_stream()


class _OldClient(ApiError):
    """A refusal as plain text, as clients of that age expect it."""
