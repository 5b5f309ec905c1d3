"""Checks of a real engine's list against what the engine says of one container."""

import time
from typing import Any, Dict

from xscontainer.core.container import Container, ContainerList
from xscontainer.core.container_details import Mount
from xscontainer.core.groups import COMPOSE, Group
from xscontainer.core.uptime import StartTimes
from xscontainer.engine import api
from xscontainer.sanitize import moment
from xscontainer.simulator.engines.real import RealEngine

LABELS = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web",
          "com.docker.compose.container-number": "2", "com.docker.compose.oneoff": "True",
          "PODMAN_SYSTEMD_UNIT": "shop.service"}
GROUP = Group(COMPOSE, "shop", "web", 2, True, "shop.service")


def listed(engine: api.Engine) -> "Dict[str, Container]":
    """The containers by name, with details."""
    asked = time.time()
    found: ContainerList = engine.listed(100, lambda answer: StartTimes().settle(answer, asked, time.time()),
                                         details=True)
    return {container.name: container for container in found.containers}


def check_list(server: RealEngine, engine: api.Engine) -> None:
    """Run two containers and check their groups, start times and mounts."""
    made = [server.run("grouped", Labels=LABELS, Volumes={"/data": {}}, StopSignal="SIGKILL"),
            server.run("plain", start=False)]
    try:
        found = listed(engine)
        grouped, plain = found["grouped"], found["plain"]
        assert grouped.group == GROUP and not plain.group.kind
        inspected: "Dict[str, Any]" = engine.inspect("grouped")
        started = moment(inspected["State"]["StartedAt"])
        assert started is not None and grouped.started_at is not None and abs(grouped.started_at - started) <= 2
        assert plain.started_at is None
        (mount,) = grouped.mounts or ()
        assert mount == Mount("volume", inspected["Mounts"][0]["Name"], "/data", False)
        assert plain.mounts == ()
        assert grouped.restart_count is None
        server.do("restart", "grouped")
        again = moment(engine.inspect("grouped")["State"]["StartedAt"])
        assert again is not None and abs((listed(engine)["grouped"].started_at or 0) - again) <= 2
    finally:
        for identifier in made:
            server.do("remove", identifier)
        server.client().close()
