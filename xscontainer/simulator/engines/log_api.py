"""The Engine API's path for the log of a container."""

from typing import List, Optional

from xscontainer.simulator.engines.call import Call, Route
from xscontainer.simulator.engines.events import parse_time
from xscontainer.simulator.engines.lifecycle import Lifecycle
from xscontainer.simulator.engines.log_entries import UNREADABLE, chosen, entries
from xscontainer.simulator.engines.store import ApiError


class LogApi:
    """Handler for logs, which answers one Call or raises ApiError."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.life = lifecycle

    def routes(self) -> List[Route]:
        """Return (method, pattern, handler) of each path."""
        return [("GET", r"/containers/([^/]+)/logs", self._logs)]

    def _logs(self, call: Call) -> None:
        streams = [number for number, key in ((1, "stdout"), (2, "stderr")) if call.flag(key)]
        if not streams:
            raise ApiError(400, "Bad parameters: you must choose at least one stream")
        since, until = self._moment(call, "since") or 0, self._moment(call, "until")
        container = self.life.find(call.name)
        if (container.host_config.get("LogConfig") or {}).get("Type") in UNREADABLE:
            raise ApiError(501, "configured logging driver does not support reading")
        tail = call.request.query.get("tail", "")
        # The engine takes any text that is not a number for "all".
        newest = int(tail) if tail.isdigit() else None
        timestamps, terminal = call.flag("timestamps"), bool(container.config["Tty"])
        connection = call.connection
        connection.start_stream("")
        sent, life = 0, container.life
        while True:
            with self.life.lock:
                # A stream ends with the process that it began with, also if the container runs again.
                begun, before = container.begun
                end = before if begun > life else len(container.logs)
                wanted = chosen(container.logs[sent:end], newest, since, until, streams)
                sent, newest, going = end, None, container.up and container.life == life
            for entry in wanted:
                connection.send_chunk(entry.encoded(timestamps, terminal))
            if not (call.flag("follow") and going):
                break
            with self.life.changed:
                if len(container.logs) == sent and container.life == life and container.up:
                    self.life.changed.wait(0.1)
                if self.life.stopping.is_set():
                    break
        connection.end_stream()

    @staticmethod
    def _moment(call: Call, name: str) -> Optional[int]:
        text = call.request.query.get(name, "")
        try:
            return parse_time(text)[0] if text and text != "0" else None
        except ValueError as error:
            raise ApiError(500, str(error)) from error


def write(life: Lifecycle, container: str, text: str, stream: int = 1) -> None:
    """Have a container write into its log; ``stream``: 1 is stdout, 2 is stderr."""
    with life.lock:
        found = life.find(container)
        found.logs += entries([(stream, text.encode("utf-8", "surrogateescape"))], bool(found.config["Tty"]))
        life.changed.notify_all()
