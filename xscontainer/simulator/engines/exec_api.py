"""The Engine API's paths for commands run in containers, and for images."""

import os
import struct
import time
from typing import Any, Dict, List

from xscontainer.simulator.engines import program
from xscontainer.simulator.engines.call import Call, Route, send
from xscontainer.simulator.engines.container import SKELETON
from xscontainer.simulator.engines.lifecycle import Lifecycle
from xscontainer.simulator.engines.store import ApiError

RAW_STREAM = "application/vnd.docker.raw-stream"
EXEC_SECONDS = 0.02


class ExecApi:
    """Handlers for execs and images, each answering one Call or raising ApiError."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.life = lifecycle
        self._execs: Dict[str, Dict[str, Any]] = {}

    def routes(self) -> List[Route]:
        """Return (method, pattern, handler) of each path."""
        return [
            ("POST", r"/containers/([^/]+)/exec", self._exec), ("POST", r"/exec/([^/]+)/start", self._exec_start),
            ("GET", r"/exec/([^/]+)/json", self._exec_inspect), ("GET", "/images/json", self._images),
            ("GET", "/images/(.+)/json", self._image),
        ]

    # -- exec -------------------------------------------------------------------------------------------------------
    def _exec(self, call: Call) -> None:
        body = call.json()
        with self.life.lock:
            container = self.life.find(call.name)
            if container.state == "paused":
                raise ApiError(409, f"Container {call.name} is paused, unpause the container before exec")
            if not container.up:
                raise ApiError(409, f"Container {container.id} is not running")
            words = [str(word) for word in body.get("Cmd") or []]
            if not words:
                raise ApiError(400, "No exec command specified")
            exec_id = os.urandom(32).hex()
            self._execs[exec_id] = {"container": container, "words": words, "body": body, "code": None}
            self.life.publish(container, f"exec_create: {' '.join(words)}", execID=exec_id)
        send(call, {"Id": exec_id}, 201)

    def _find_exec(self, name: str) -> Dict[str, Any]:
        if name not in self._execs:
            raise ApiError(404, f"No such exec instance: {name}")
        return self._execs[name]

    def _exec_start(self, call: Call) -> None:
        record = self._find_exec(call.name)
        container, run = record["container"], program.predict(record["words"])
        self.life.publish(container, f"exec_start: {' '.join(record['words'])}", execID=call.name)
        record["code"] = run.exit_code
        detached = bool(call.json().get("Detach"))
        if detached:
            call.connection.answer(200)
        else:
            call.connection.start_raw(RAW_STREAM, "upgrade" in call.request.headers.get("connection", "").lower())
            # A real engine needs longer to start a process. Clients that read past their HTTP library rely on it.
            time.sleep(EXEC_SECONDS)
            for stream, data in run.output:
                if record["body"].get("AttachStdout" if stream == 1 else "AttachStderr"):
                    tty = record["body"].get("Tty")
                    call.connection.send((b"" if tty else struct.pack(">BxxxL", stream, len(data))) + data)
        self.life.publish(container, "exec_die", execID=call.name, exitCode=str(run.exit_code))

    def _exec_inspect(self, call: Call) -> None:
        record = self._find_exec(call.name)
        words, body = record["words"], record["body"]
        send(call, {
            "ID": call.name, "Running": False, "ExitCode": record["code"],
            "ProcessConfig": {"tty": bool(body.get("Tty")), "entrypoint": words[0], "arguments": words[1:],
                              "privileged": bool(body.get("Privileged"))},
            "OpenStdin": bool(body.get("AttachStdin")), "OpenStderr": bool(body.get("AttachStderr")),
            "OpenStdout": bool(body.get("AttachStdout")), "CanRemove": False, "ContainerID": record["container"].id,
            "DetachKeys": "", "Pid": 0 if record["code"] is None else record["container"].pid,
        })

    # -- images -----------------------------------------------------------------------------------------------------
    def _images(self, call: Call) -> None:
        with self.life.lock:
            images = dict(self.life.images)
        size: Dict[str, Any] = {"Size": 1982256}
        if call.version < (1, 44):
            size["VirtualSize"] = 1982256
        send(call, [
            {"Containers": -1, "Created": 1700000000, "Id": image_id, "Labels": None, "ParentId": "",
             "RepoDigests": None, "RepoTags": [name], "SharedSize": -1, **size}
            for name, image_id in images.items()
        ])

    def _image(self, call: Call) -> None:
        try:
            image_id = self.life.image(call.name)
        except ApiError as error:
            raise ApiError(404, f"no such image: {call.name}: {error.message}") from error
        with self.life.lock:
            tags = [name for name, other in self.life.images.items() if other == image_id]
        send(call, {"Id": image_id, "RepoTags": tags, "RepoDigests": [], "Parent": "", "Architecture": "amd64",
                     "Os": "linux", "Size": 1982256, "Config": {**SKELETON["Config"], "Labels": None},
                     "Created": "2023-11-14T22:13:20Z"})
