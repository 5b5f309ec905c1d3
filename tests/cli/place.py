"""A simulated pool with the command xscontainer on its hosts, and published lists."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from xscontainer.clients import xmlform
from xscontainer.core.container import containers_from_api
from xscontainer.core.engine_facts import EngineVersion
from xscontainer.simulator.xapi import Pool

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = xmlform.docker_version(EngineVersion.from_api({"Version": "20.10.24", "ApiVersion": "1.41"}))


def docker_ps(*entries: Dict[str, Any]) -> str:
    return xmlform.docker_ps(containers_from_api(list(entries)).containers).text


def container(name: str, **fields: Any) -> Dict[str, Any]:
    given = {"Id": name.encode().hex().ljust(64, "0")[:64], "Names": ["/" + name], "Image": "busybox", "Created": 1,
             "Command": "sleep", "State": "running", "Status": "Up 1 second", "Ports": []}
    return dict(given, **fields)


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Place:
    """A pool, with the command on its hosts."""

    def __init__(self, pool: Pool, directory: Path) -> None:
        self.pool = pool
        self.directory = directory

    def config(self, host: int = 0, more: str = "") -> str:
        path = self.directory / f"host{host}.conf"
        path.write_text(f"[xapi]\nsocket = {self.pool.hosts[host].socket_path}\nlogin_timeout = 1\n{more}")
        return str(path)

    def command(self, *arguments: str, host: int = 0) -> List[str]:
        return [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", self.config(host), *arguments]

    def run(self, *arguments: str, host: int = 0, **environment: str) -> Answer:
        done = subprocess.run(
            self.command(*arguments, host=host), cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=60, env=dict(os.environ, PYTHONIOENCODING="utf-8", **environment))
        return Answer(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    def listed(self, *arguments: str) -> Dict[str, Any]:
        answer = self.run("list", "--json", *arguments)
        assert (answer.code, answer.err) == (0, "")
        found: Dict[str, Any] = json.loads(answer.out)["pool"]
        return found
