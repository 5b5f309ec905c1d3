"""Write the result of get_stats: the resources that containers use, beside those that their VM has."""

import json
from typing import Any, Dict, Iterable, NamedTuple, Optional

from xscontainer.core.usage import Usage, total


class Has(NamedTuple):
    """The resources that a VM has; 0: not known.

    :ivar memory: bytes.
    """

    vcpus: int = 0
    memory: int = 0


def stats_result(usages: Iterable[Usage], at: float, left_out: int, vm: Has) -> str:
    """Return the JSON that docs/api.md describes.

    :param at: when the containers were sampled, in seconds since the epoch.
    :param left_out: how many running containers are not among them.
    """
    found = list(usages)
    sums = total(found, vm.vcpus, vm.memory)
    return json.dumps({
        "time": round(at, 3),
        "containers": [_container(usage) for usage in found],
        "total": {"containers": sums.containers, "cores": _rounded(sums.cores, 4), "memory": sums.memory,
                  "vcpus": vm.vcpus or None, "vm_memory": vm.memory or None,
                  "cpu_share": _rounded(sums.cpu_share, 4), "memory_share": _rounded(sums.memory_share, 4)},
        "left_out": left_out}, separators=(",", ":"))


def _container(usage: Usage) -> Dict[str, Any]:
    sample = usage.sample
    return {"id": sample.id, "name": sample.name, "cpu_percent": _rounded(usage.cpu_percent, 2),
            "cores": _rounded(usage.cores, 4), "memory": sample.memory, "memory_limit": sample.limit,
            "network_received": sample.received, "network_sent": sample.sent, "block_read": sample.blocks_read,
            "block_written": sample.blocks_written, "pids": sample.pids}


def _rounded(value: Optional[float], digits: int) -> Optional[float]:
    return None if value is None else round(value, digits)
