"""The Engine API's paths below /containers that only read: lists, details, processes."""

import json
import re
import time
from typing import Callable, Dict, List

from xscontainer.simulator.engines.call import Call, Route, filters_of, send
from xscontainer.simulator.engines.container import STATES, Container
from xscontainer.simulator.engines.lifecycle import Lifecycle
from xscontainer.simulator.engines.store import ApiError

_LIST_FILTERS = ("id", "name", "label", "status", "health", "exited", "ancestor", "before", "since", "volume",
                 "network", "publish", "expose", "is-task", "isolation")


class ContainerReads:
    """Handlers that look at containers, each answering one Call or raising ApiError.

    :param root: the engine's data directory, as it reports it.
    """

    def __init__(self, lifecycle: Lifecycle, root: str) -> None:
        self.life = lifecycle
        self.root = root

    def routes(self) -> List[Route]:
        """Return (method, pattern, handler) of each path."""
        one = r"/containers/([^/]+)"
        return [
            ("GET", "/containers/json", self._list), ("GET", one + "/json", self._inspect),
            ("GET", one + "/top", self._top),
        ]

    def _list(self, call: Call) -> None:
        query = call.request.query
        filters = filters_of(query)
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
        with self.life.lock:
            entries = [
                container.entry(call.version, size, now) for container in self.life.listed()
                if (show_all or container.up or container.state == "restarting") and _fits(container, filters)
            ]
        if limit > 0:
            entries = entries[:limit]
        call.connection.answer(200, b"[" + b",".join(entries) + b"]\n")

    def _inspect(self, call: Call) -> None:
        with self.life.lock:
            record = self.life.find(call.name).inspect(call.version, call.flag("size"), self.root)
            body = json.dumps(record, separators=(",", ":"))
        call.connection.answer(200, body.encode("ascii") + b"\n")

    def _top(self, call: Call) -> None:
        with self.life.lock:
            container = self.life.find(call.name)
            if container.state == "restarting":
                raise ApiError(409, f"Container {container.id} is restarting, wait until the container is running")
            if not container.up:
                raise ApiError(409, f"Container {container.id} is not running")
            pid, command = str(container.pid), " ".join(container.command)
            since = time.strftime("%H:%M", time.gmtime(container.started))
            self.life.publish(container, "top")
        if "u" in call.request.query.get("ps_args", "-ef"):
            titles = ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]
            row = ["root", pid, "0.0", "0.0", "2268", "1380", "?", "Ss", since, "0:00", command]
        else:
            titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
            row = ["root", pid, str(int(pid) - 1), "0", since, "?", "00:00:00", command]
        send(call, {"Processes": [row], "Titles": titles})


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
