"""The Engine API's paths below /containers that change something."""

from typing import List

from xscontainer.simulator.engines.call import Call, Route, seconds, send
from xscontainer.simulator.engines.lifecycle import Lifecycle


class ContainerVerbs:
    """Handlers that make, move and remove containers, each answering one Call or raising ApiError."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.life = lifecycle

    def routes(self) -> List[Route]:
        """Return (method, pattern, handler) of each path."""
        one = r"/containers/([^/]+)"
        return [
            ("POST", "/containers/create", self._create), ("POST", one + "/start", self._start),
            ("POST", one + "/stop", self._stop), ("POST", one + "/restart", self._restart),
            ("POST", one + "/kill", self._kill), ("POST", one + "/pause", self._pause),
            ("POST", one + "/unpause", self._unpause), ("POST", one + "/rename", self._rename),
            ("POST", one + "/wait", self._wait), ("DELETE", one, self._remove),
        ]

    def _create(self, call: Call) -> None:
        container = self.life.create(call.request.query.get("name", ""), call.json())
        send(call, {"Id": container.id, "Warnings": []}, 201)

    def _start(self, call: Call) -> None:
        call.connection.answer(204 if self.life.start(call.name) else 304)

    def _stop(self, call: Call) -> None:
        call.connection.answer(204 if self.life.stop(call.name, seconds(call)) else 304)

    def _restart(self, call: Call) -> None:
        self.life.restart(call.name, seconds(call))
        call.connection.answer(204)

    def _kill(self, call: Call) -> None:
        self.life.kill(call.name, call.request.query.get("signal", ""))
        call.connection.answer(204)

    def _pause(self, call: Call) -> None:
        self.life.pause(call.name)
        call.connection.answer(204)

    def _unpause(self, call: Call) -> None:
        self.life.unpause(call.name)
        call.connection.answer(204)

    def _rename(self, call: Call) -> None:
        self.life.rename(call.name, call.request.query.get("name", ""))
        call.connection.answer(204)

    def _remove(self, call: Call) -> None:
        self.life.remove(call.name, call.flag("force"))
        call.connection.answer(204)

    def _wait(self, call: Call) -> None:
        self.life.find(call.name)
        code = self.life.wait(call.name, call.request.query.get("condition", ""))
        send(call, {"Error": None, "StatusCode": code})
