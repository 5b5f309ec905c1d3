"""Ask an engine for the counters of its containers, in the way that costs this kind of engine least.

Measured in engines (20 idle containers):

* dockerd has one request for each container. With "one-shot" (API 1.41) it reads the counters once. dockerd 25 and
  newer (API 1.44) answers at once. 20.10 to 24 collect once a second, and one tick serves all requests that wait: so
  all are asked at a time. Older ones take two samples themselves, which takes one to two seconds.
* podman has one request for all containers (/libpod/containers/stats), which takes 11 ms. It lists stopped ones, too.
"""

import re
import time
from typing import Callable, Dict, List, Mapping, Optional
from urllib.parse import quote

from xscontainer.core import memory_budget as memory
from xscontainer.core.target import PODMAN
from xscontainer.core.usage import Sample, earlier_from_docker, sample_from_docker, samples_from_podman
from xscontainer.engine import api_version, bulk, failures
from xscontainer.engine.calls import Calls
from xscontainer.engine.http import Answer, message_of, parse_json
from xscontainer.errors import ContainerNotFound, StatsUnavailable, XSContainerError
from xscontainer.sanitize import mapping

# Requests at a time. An engine that answers at once gains nothing by more.
AT_ONCE, WAITING = 6, 64
AT_ONCE_SECONDS, WAITING_SECONDS = 2.5, 6.0  # for one answer

_READING = "Reading the containers' stats"
# podman's words: "stats is not supported in rootless mode without cgroups v2"; its compatible API: "Container stats
# resource only available for cgroup v2".
_NEEDS_CGROUP2 = re.compile(r"without cgroups? ?v2|only available for cgroups? ?v2", re.IGNORECASE)

Clock = Callable[[], float]
# Called with the id, the sample (None: the container does not run), and an earlier sample if the engine took one, too.
Keep = Callable[[str, Optional[Sample], Optional[Sample]], None]


def is_podman(calls: Calls) -> bool:
    calls.find_version()  # which shows the kind of engine
    return calls.kind == PODMAN


def answers_at_once(calls: Calls) -> bool:
    """Return whether a sample takes no longer than other requests."""
    return is_podman(calls) or api_version.is_at_least(calls.version or "", (1, 44))


def podman(calls: Calls, deadline: float, clock: Clock) -> List[Sample]:
    """Return the samples of all running containers of a podman.

    :raises StatsUnavailable: podman cannot measure its containers.
    """
    def once(version: str) -> List[Sample]:
        timeout = max(0.0, deadline - time.monotonic())
        with calls.lease(version, timeout=timeout) as client:
            # podman serves its own API below any version.
            answer = client.get_raw(api_version.path(version or "4.0.0", "/libpod/containers/stats?stream=false"),
                                    timeout)
            if answer.status != 200:
                raise _refusal(answer)
            with memory.turn(len(answer.body)):
                return _samples(parse_json(answer.body), clock())

    with failures.translating(_READING, failures.API_SIDE):
        return calls.with_version(once)


def _samples(data: object, at: float) -> List[Sample]:
    samples = samples_from_podman(data, at)
    if mapping(data).get("Error") is not None and not samples:
        raise StatsUnavailable(f"{_READING} failed: podman reports an error without a text.",
                               "Run 'podman stats --no-stream' in the VM.")
    return samples


def docker(calls: Calls, containers: Mapping[str, bool], deadline: float, clock: Clock,
           keep: Keep) -> Dict[str, XSContainerError]:
    """Sample containers of a dockerd, one request each.

    :param containers: whole ids; True: also an earlier sample is wanted, if the engine takes two.
    :returns: the error of each container that could not be read.
    """
    at_once = answers_at_once(calls)
    width, seconds = (AT_ONCE, AT_ONCE_SECONDS) if at_once else (WAITING, WAITING_SECONDS)

    def once(version: str) -> Dict[str, XSContainerError]:
        paths = {}
        for container, twice in containers.items():
            # An engine that waits for a tick takes the second sample at the next one.
            query = "stream=false" if twice and not at_once else "stream=false&one-shot=true"
            paths[container] = api_version.path(version, f"/containers/{quote(container)}/stats?{query}")
        return bulk.ask(calls, paths, bulk.Pace(width, seconds, deadline),
                        lambda container, answer: _docker_answer(container, answer, clock(), keep))

    with failures.translating(_READING, failures.API_SIDE):
        return calls.with_version(once)


def _docker_answer(container: str, answer: Answer, at: float, keep: Keep) -> None:
    sample = earlier = None
    try:
        if answer.status != 200:
            raise _refusal(answer, container)
        if answer.body:  # none for a stopped container, by podman's compatible API
            with memory.turn(len(answer.body)), failures.translating(_READING, failures.API_SIDE):
                data = parse_json(answer.body)
                sample, earlier = sample_from_docker(data, at), earlier_from_docker(data, at)
    except ContainerNotFound:
        pass  # it was removed meanwhile
    keep(container, None if sample is None else sample._replace(id=container), earlier)


def _refusal(answer: Answer, container: Optional[str] = None) -> XSContainerError:
    said = message_of(answer.body)
    if _NEEDS_CGROUP2.search(failures.words(said)):
        return StatsUnavailable(f"{_READING} failed: {failures.words(said)}.")
    return failures.refusal(answer.status, said, _READING, container)
