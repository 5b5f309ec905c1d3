"""The resources that containers use, from the counters that engines give: CPU, memory, network, block I/O, processes.

An engine gives counters; a rate such as CPU needs two samples. The earlier sample is kept here (:class:`History`), so
that an engine need not wait a second for a second one. The numbers are those that ``docker stats`` shows.

The counters come from a guest that may be hostile: values out of bounds count as absent. None of this raises.
"""

from collections import OrderedDict
from typing import Any, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from xscontainer.core.log_lines import nanoseconds
from xscontainer.sanitize import clean_text, integer, mapping

MOST_COUNTER = (1 << 64) - 1
MOST_CPUS = 4096
MOST_CONTAINERS = 5000  # of one answer, and in a history
MOST_DEVICES = 256  # networks and block devices of one container
_NO_TIME = "0001-01-01T00:00:00Z"
_WINDOWS_UNIT = 100  # ns
# ns; over a shorter time the guest's clock is better than its count of all CPUs' time, which has steps of 10 ms.
_SHORT = 0.9e9


class Sample(NamedTuple):
    """The counters of one container at one moment. None: the engine does not say.

    :ivar at: our clock, in seconds.
    :ivar read: the guest's clock, in nanoseconds.
    :ivar cpu: nanoseconds of CPU that the container has used.
    :ivar system: nanoseconds of CPU that all CPUs of the guest had, together.
    :ivar cpus: how many CPUs the guest has.
    :ivar memory, limit: bytes; memory without the part of the page cache that can be dropped at once.
    :ivar received, sent, blocks_read, blocks_written: bytes since the container's start.
    :ivar pids: processes and threads.
    :ivar of_all_cpus: whether 100 % CPU means all CPUs (Windows) instead of one.
    """

    id: str
    name: str
    at: float
    read: Optional[int] = None
    cpu: Optional[int] = None
    system: Optional[int] = None
    cpus: int = 0
    memory: Optional[int] = None
    limit: Optional[int] = None
    received: Optional[int] = None
    sent: Optional[int] = None
    blocks_read: Optional[int] = None
    blocks_written: Optional[int] = None
    pids: Optional[int] = None
    of_all_cpus: bool = False


class Usage(NamedTuple):
    """The resources that one container uses.

    :ivar cpu_percent: as ``docker stats`` shows it; None until there are two samples.
    :ivar cores: CPUs that the container used on average between the two samples.
    :ivar sample: the counters.
    """

    cpu_percent: Optional[float]
    cores: Optional[float]
    sample: Sample

    @property
    def memory_percent(self) -> Optional[float]:
        """Memory in percent of the limit."""
        memory, limit = self.sample.memory, self.sample.limit
        return 100.0 * memory / limit if memory is not None and limit else None


class Total(NamedTuple):
    """The resources that all containers of a VM use together, beside those that the VM has.

    :ivar cores, memory: None if no container's value is known.
    :ivar containers: how many were counted.
    :ivar cpu_share, memory_share: parts of the VM's vCPUs and memory, 1.0 for all; None if one of both is not known.
    """

    containers: int
    cores: Optional[float]
    memory: Optional[int]
    cpu_share: Optional[float] = None
    memory_share: Optional[float] = None


# --- Docker's form, also that of podman's compatible API


def sample_from_docker(data: object, at: float) -> Optional[Sample]:
    """Return the sample in an answer to GET /containers/{id}/stats; None if the container does not run."""
    fields = mapping(data)
    cpu = mapping(fields.get("cpu_stats"))
    memory, limit = _docker_memory(mapping(fields.get("memory_stats")))
    used = _counter(mapping(cpu.get("cpu_usage")).get("total_usage"))
    pids = _counter(mapping(fields.get("pids_stats")).get("current"))
    if not used and memory is None and not pids:
        return None
    windows = integer(fields.get("num_procs"), 1, MOST_CPUS)
    received, sent = _networks(fields.get("networks"), "rx_bytes", "tx_bytes")
    blocks_read, blocks_written = _blocks(fields)
    return Sample(
        id=clean_text(fields.get("id") or fields.get("Id"), 64), name=_name(fields.get("name")), at=at,
        read=_moment(fields.get("read")), cpu=used * _WINDOWS_UNIT if used and windows else used,
        system=_counter(cpu.get("system_cpu_usage")) or None, cpus=windows or _cpus(cpu), memory=memory, limit=limit,
        received=received, sent=sent, blocks_read=blocks_read, blocks_written=blocks_written, pids=pids,
        of_all_cpus=windows is not None,
    )


def earlier_from_docker(data: object, at: float) -> Optional[Sample]:
    """Return the earlier sample that an engine without "one-shot" puts into the same answer; only its CPU counters."""
    fields = mapping(data)
    cpu = mapping(fields.get("precpu_stats"))
    used = _counter(mapping(cpu.get("cpu_usage")).get("total_usage"))
    read = _moment(fields.get("preread"))
    if not used or read is None:
        return None
    windows = integer(fields.get("num_procs"), 1, MOST_CPUS)
    return Sample(id=clean_text(fields.get("id") or fields.get("Id"), 64), name="", at=at, read=read,
                  cpu=used * _WINDOWS_UNIT if windows else used, system=_counter(cpu.get("system_cpu_usage")) or None,
                  cpus=windows or _cpus(cpu), of_all_cpus=windows is not None)


def _docker_memory(memory: Mapping[str, Any]) -> Tuple[Optional[int], Optional[int]]:
    private = _counter(memory.get("privateworkingset"))  # Windows
    if private is not None:
        return private, None
    usage, limit = _counter(memory.get("usage")), _counter(memory.get("limit"))
    if usage is None:
        return None, None
    details = mapping(memory.get("stats"))
    # cgroup v1, v2.
    for name in ("total_inactive_file", "inactive_file"):
        inactive = _counter(details.get(name))
        if inactive is not None and inactive < usage:
            return usage - inactive, limit
    return usage, limit


def _cpus(cpu: Mapping[str, Any]) -> int:
    online = integer(cpu.get("online_cpus"), 1, MOST_CPUS)
    if online:
        return online
    each = mapping(cpu.get("cpu_usage")).get("percpu_usage")  # engines before 17.06
    return min(len(each), MOST_CPUS) if isinstance(each, list) else 0


def _blocks(fields: Mapping[str, Any]) -> Tuple[Optional[int], Optional[int]]:
    storage = mapping(fields.get("storage_stats"))  # Windows
    if "read_size_bytes" in storage:
        return _counter(storage.get("read_size_bytes")), _counter(storage.get("write_size_bytes"))
    entries = mapping(fields.get("blkio_stats")).get("io_service_bytes_recursive")
    if not isinstance(entries, list):
        return None, None
    sums = {"r": 0, "w": 0}
    for entry in entries[:4 * MOST_DEVICES]:
        operation = mapping(entry).get("op")
        kind = operation[:1].lower() if isinstance(operation, str) else ""
        if kind in sums:
            sums[kind] += _counter(mapping(entry).get("value")) or 0
    return sums["r"], sums["w"]


def _networks(networks: object, received: str, sent: str) -> Tuple[Optional[int], Optional[int]]:
    """Return the sums over all interfaces; None for a container that has none of its own."""
    if not isinstance(networks, dict):
        return None, None
    interfaces = [mapping(interface) for interface in list(networks.values())[:MOST_DEVICES]]
    return (sum(_counter(interface.get(received)) or 0 for interface in interfaces),
            sum(_counter(interface.get(sent)) or 0 for interface in interfaces))


# --- podman's own form


def samples_from_podman(data: object, at: float) -> List[Sample]:
    """Return the samples of all running containers in an answer to GET /libpod/containers/stats?stream=false."""
    entries = mapping(data).get("Stats")
    found = [_from_podman(mapping(entry), at) for entry in (entries if isinstance(entries, list) else [])]
    return [sample for sample in found[:MOST_CONTAINERS] if sample is not None]


def _from_podman(entry: Mapping[str, Any], at: float) -> Optional[Sample]:
    used, pids = _counter(entry.get("CPUNano")), _counter(entry.get("PIDs"))
    memory = _counter(entry.get("MemUsage"))
    if not (used or pids or memory):  # podman 4 lists stopped containers, too, with zeros
        return None
    received, sent = _networks(entry.get("Network"), "RxBytes", "TxBytes")
    if received is None:  # podman 4
        received, sent = _counter(entry.get("NetInput")), _counter(entry.get("NetOutput"))
    return Sample(
        id=clean_text(entry.get("ContainerID"), 64), name=_name(entry.get("Name")), at=at,
        # The time since 1970: CPU used in one nanosecond of it is CPU of one CPU.
        read=_counter(entry.get("SystemNano")), cpu=used, memory=memory, limit=_counter(entry.get("MemLimit")) or None,
        received=received, sent=sent, blocks_read=_counter(entry.get("BlockInput")),
        blocks_written=_counter(entry.get("BlockOutput")), pids=pids,
    )


# --- what follows from samples


def usage(sample: Sample, earlier: Optional[Sample]) -> Usage:
    """Return the usage of a container between two samples.

    :param earlier: None: there is none, so rates are not known.
    """
    cores = _cores(sample, earlier) if earlier is not None else None
    if cores is None:
        return Usage(None, None, sample)
    cores = min(cores, float(sample.cpus or MOST_CPUS))
    return Usage(100.0 * cores / (sample.cpus if sample.of_all_cpus else 1), cores, sample)


def _cores(sample: Sample, earlier: Sample) -> Optional[float]:
    if sample.cpu is None or earlier.cpu is None or sample.cpu < earlier.cpu:
        return None  # a counter that went back is that of a container that was restarted
    used = sample.cpu - earlier.cpu
    passed = 0.0
    if sample.read is not None and earlier.read is not None:
        passed = float(sample.read - earlier.read)
        if 0.0 < passed < _SHORT and not sample.of_all_cpus:
            return used / passed
    if sample.system is not None and earlier.system is not None and sample.cpus:
        system = sample.system - earlier.system
        if system > 0:
            return used / system * sample.cpus
    if passed <= 0.0:
        passed = (sample.at - earlier.at) * 1e9
    return used / passed if passed > 0.0 else None


def total(usages: Iterable[Usage], vcpus: int = 0, memory: int = 0) -> Total:
    """Return the sum over all containers of a VM.

    :param vcpus: number of the VM's vCPUs; 0: not known. :param memory: the VM's memory in bytes; 0: not known.
    """
    found = list(usages)
    cores = [one.cores for one in found if one.cores is not None]
    sizes = [one.sample.memory for one in found if one.sample.memory is not None]
    all_cores, all_memory = sum(cores) if cores else None, sum(sizes) if sizes else None
    return Total(len(found), all_cores, all_memory,
                 all_cores / vcpus if all_cores is not None and vcpus else None,
                 all_memory / memory if all_memory is not None and memory else None)


class History:
    """The last sample of each container, for the next usage. The oldest is dropped first.

    :param most_age: seconds after which a sample is too old to compute a rate from.
    """

    def __init__(self, most: int = MOST_CONTAINERS, most_age: float = 120.0) -> None:
        self._most, self._most_age = most, most_age
        self._samples: "OrderedDict[str, Sample]" = OrderedDict()

    def usage(self, sample: Sample, earlier: Optional[Sample] = None) -> Usage:
        """Return the usage since the last sample of the same container, and keep this sample for the next.

        :param earlier: is used if there is no last sample.
        """
        last = self._samples.pop(sample.id, None)
        if last is None or not 0.0 < sample.at - last.at <= self._most_age:
            last = earlier
        self._samples[sample.id] = sample
        while len(self._samples) > self._most:
            self._samples.popitem(last=False)
        return usage(sample, last)

    def knows(self, container: str, now: float) -> bool:
        """Return whether there is a sample of the container that a rate can be computed from now."""
        last = self._samples.get(container)
        return last is not None and now - last.at <= self._most_age

    def __len__(self) -> int:
        return len(self._samples)


def _counter(value: object) -> Optional[int]:
    return integer(value, 0, MOST_COUNTER)


def _moment(value: object) -> Optional[int]:
    return nanoseconds(value) if isinstance(value, str) and len(value) < 64 and value != _NO_TIME else None


def _name(value: object) -> str:
    return clean_text(value, 255).lstrip("/")
