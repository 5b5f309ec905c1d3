"""The Engine API's path for the stats of a container, and podman's for those of all."""

import json
import time
from typing import Any, Dict, List

from xscontainer.simulator.engines.call import Call, Route, send
from xscontainer.simulator.engines.container import NO_TIME, SKELETON, Container, stamp
from xscontainer.simulator.engines.lifecycle import Lifecycle
from xscontainer.simulator.engines.store import ApiError

STREAM_SECONDS = 1.0
_LISTS = ("io_service_bytes", "io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time")


class StatsApi:
    """Handlers for stats, each answering one Call or raising ApiError.

    The counters follow from ``container.load`` and the time since the container's start.
    """

    def __init__(self, lifecycle: Lifecycle, podman: bool) -> None:
        self.life = lifecycle
        self._podman = podman

    def routes(self) -> List[Route]:
        """Return (method, pattern, handler) of each path."""
        own: List[Route] = [("GET", "/libpod/containers/stats", self._all)] if self._podman else []
        return [("GET", r"/containers/([^/]+)/stats", self._one), *own]

    def _one(self, call: Call) -> None:
        stream = call.flag("stream") or "stream" not in call.request.query
        one_shot = call.flag("one-shot") and call.version >= (1, 41)
        if stream and one_shot:
            raise ApiError(400, "cannot have stream=true and one-shot=true")
        with self.life.lock:
            container = self.life.find(call.name)
        if not stream:
            send(call, self._stats(container, time.time(), one_shot))
            return
        call.connection.start_stream()
        while not self.life.stopping.is_set() and container.id in self.life.containers:
            answer = self._stats(container, time.time(), False)
            call.connection.send_chunk(json.dumps(answer, separators=(",", ":")).encode("ascii") + b"\n")
            call.connection.wait_closed(time.monotonic() + STREAM_SECONDS)

    def _stats(self, container: Container, now: float, one_shot: bool) -> Dict[str, Any]:
        up = container.up
        lists: Any = [] if up else None
        answer: Dict[str, Any] = {
            "read": stamp(now) if up else NO_TIME, "preread": NO_TIME if one_shot or not up else stamp(now - 1.0),
            "pids_stats": {"current": container.load.pids} if up else {},
            "blkio_stats": {f"{name}_recursive": lists for name in _LISTS},
            "num_procs": 0, "storage_stats": {}, "cpu_stats": _cpu(container, now if up else 0.0),
            "precpu_stats": _cpu(container, now - 1.0 if up and not one_shot else 0.0),
            "memory_stats": _memory(container) if up else {}, "name": "/" + container.name, "id": container.id,
        }
        answer["blkio_stats"]["sectors_recursive"] = lists
        if up and container.network not in ("none", "host"):
            names = [f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errors", "dropped")]
            answer["networks"] = {"eth0": dict.fromkeys(names, 0)}
        return answer

    def _all(self, call: Call) -> None:
        now = time.time()
        with self.life.lock:
            found = [_podman_entry(container, now) for container in self.life.listed()]
        send(call, {"Error": None, "Stats": found})


def _used(container: Container, now: float) -> int:
    return int(max(0.0, now - container.started) * container.load.cores * 1e9) + 1000000


def _cpu(container: Container, now: float) -> Dict[str, Any]:
    """Return the CPU counters at that time; 0.0: those of a container that was not read."""
    throttling = {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
    if not now:
        return {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
                "throttling_data": throttling}
    used, cpus = _used(container, now), SKELETON["Info"]["NCPU"]
    return {"cpu_usage": {"total_usage": used, "percpu_usage": [used // cpus] * cpus, "usage_in_kernelmode": 0,
                          "usage_in_usermode": used},
            "system_cpu_usage": int(now * cpus * 1e9), "online_cpus": cpus, "throttling_data": throttling}


def _memory(container: Container) -> Dict[str, Any]:
    """Return the counters of cgroup v1, as a 20.10 on Debian 11 has them."""
    cache, inactive = 8192, 4096
    usage = container.load.memory + inactive
    limit = container.host_config.get("Memory") or SKELETON["Info"]["MemTotal"]
    stats = {"active_anon": usage - cache, "active_file": 0, "cache": cache, "dirty": 0,
             "hierarchical_memory_limit": limit, "hierarchical_memsw_limit": 0, "inactive_anon": 0,
             "inactive_file": inactive, "mapped_file": 0, "pgfault": 0, "pgmajfault": 0, "pgpgin": 0, "pgpgout": 0,
             "rss": usage - cache, "rss_huge": 0, "unevictable": 0, "writeback": 0}
    totals = {f"total_{name}": value for name, value in stats.items() if not name.startswith("hierarchical")}
    return {"usage": usage, "max_usage": usage, "stats": dict(sorted({**stats, **totals}.items())), "limit": limit}


def _podman_entry(container: Container, now: float) -> Dict[str, Any]:
    """Return the entry of podman 4.3, which lists containers that do not run, too."""
    up, load = container.up, container.load
    used, limit = _used(container, now) if up else 0, SKELETON["Info"]["MemTotal"]
    return {"AvgCPU": 0.0 if up else 0, "ContainerID": container.id, "Name": container.name,
            "PerCPU": [used // 2, used // 2] if up else None, "CPU": 0.0 if up else 0, "CPUNano": used,
            "CPUSystemNano": 0, "SystemNano": int(now * 1e9) if up else 0, "MemUsage": load.memory if up else 0,
            "MemLimit": limit if up else 0, "MemPerc": 100.0 * load.memory / limit if up else 0, "NetInput": 0,
            "NetOutput": 0, "BlockInput": 0, "BlockOutput": 0, "PIDs": load.pids if up else 0,
            "UpTime": used, "Duration": used}
