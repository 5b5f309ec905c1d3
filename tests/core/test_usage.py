"""The numbers of ``docker stats``, from the counters of Docker 20.10, of Windows, and of podman 4 and 5."""

import json
from typing import Any, Dict, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core.usage import (
    History,
    Sample,
    earlier_from_docker,
    sample_from_docker,
    samples_from_podman,
    total,
    usage,
)

ID = "dd0aef7393d6a99baa69536a321249c70a97c1839028b9073820f955313df796"


def docker(total_usage: int = 18158318, system: Optional[int] = 29846950000000, **more: Any) -> Dict[str, Any]:
    """Return an answer of dockerd 20.10 with cgroup v1, as recorded."""
    answer = {
        "read": "2026-12-01T00:20:30.250879266Z", "preread": "0001-01-01T00:00:00Z", "pids_stats": {"current": 3},
        "blkio_stats": {"io_service_bytes_recursive": [
            {"major": 8, "minor": minor, "op": operation, "value": value}
            for minor, operation, value in ((0, "Read", 4096), (0, "Write", 512), (16, "read", 1000), (0, "Sync", 9))]},
        "num_procs": 0, "storage_stats": {},
        "cpu_stats": {"cpu_usage": {"total_usage": total_usage, "percpu_usage": [5880678, 12277640]},
                      "system_cpu_usage": system, "online_cpus": 2},
        "precpu_stats": {"cpu_usage": {"total_usage": 0}},
        "memory_stats": {"usage": 319488, "max_usage": 4087808, "limit": 1000000,
                         "stats": {"cache": 5, "total_inactive_file": 19488, "inactive_file": 7}},
        "networks": {"eth0": {"rx_bytes": 100, "tx_bytes": 20}, "eth1": {"rx_bytes": 1, "tx_bytes": 2}},
        "name": "/web", "id": ID}
    answer.update(more)
    return answer


def sampled(answer: Dict[str, Any], at: float = 10.0) -> Sample:
    sample = sample_from_docker(answer, at)
    assert sample is not None
    return sample


def test_the_counters_of_docker_are_read() -> None:
    assert sampled(docker()) == Sample(
        id=ID, name="web", at=10.0, read=1796084430250879266, cpu=18158318, system=29846950000000, cpus=2,
        memory=300000, limit=1000000, received=101, sent=22, blocks_read=5096, blocks_written=512, pids=3)


@pytest.mark.parametrize("stats, memory", [
    ({"inactive_file": 88}, 912), ({"inactive_file": 1000}, 1000), ({}, 1000), ({"total_inactive_file": 2000}, 1000),
    ({"cache": 500}, 1000), ({"inactive_file": "x"}, 1000)])
def test_memory_is_without_the_inactive_page_cache(stats: Dict[str, Any], memory: int) -> None:
    """cgroup v2 has no total_inactive_file."""
    assert sampled(docker(memory_stats={"usage": 1000, "limit": 2000, "stats": stats})).memory == memory


def test_null_lists_and_the_network_of_another_container_give_unknown_values() -> None:
    answer = docker(blkio_stats={"io_service_bytes_recursive": None})
    del answer["networks"]
    sample = sampled(answer)
    assert (sample.blocks_read, sample.received, sample.sent) == (None, None, None)
    assert sampled(docker(blkio_stats={"io_service_bytes_recursive": []})).blocks_read == 0


@pytest.mark.parametrize("answer", [
    {}, None, [], {"read": "0001-01-01T00:00:00Z", "pids_stats": {}, "memory_stats": {}, "name": "/x", "id": ID,
                   "cpu_stats": {"cpu_usage": {"total_usage": 0}}, "num_procs": 0}])
def test_a_container_that_does_not_run_has_no_sample(answer: Any) -> None:
    assert sample_from_docker(answer, 1.0) is None


def test_cpu_is_the_part_of_all_cpus_times_their_number() -> None:
    """Using 1 s of CPU while the guest's two CPUs had 4 s together is half of one CPU."""
    before, after = sampled(docker(10 ** 9, 10 ** 12)), sampled(docker(2 * 10 ** 9, 10 ** 12 + 4 * 10 ** 9), 12.0)
    assert usage(after, before)[:2] == (50.0, 0.5)
    assert usage(after, None)[:2] == (None, None)


def test_an_old_engine_counts_its_cpus_by_their_counters() -> None:
    stats = {"cpu_usage": {"total_usage": 1, "percpu_usage": [1, 2, 3]}, "system_cpu_usage": 5, "online_cpus": 0}
    assert sampled(docker(cpu_stats=stats)).cpus == 3


def test_the_clock_is_used_if_the_guests_counter_is_missing() -> None:
    before = sampled(docker(10 ** 9, None, read="2026-12-01T00:00:00Z"))
    after = sampled(docker(2 * 10 ** 9, None, read="2026-12-01T00:00:04Z"), 11.0)
    assert usage(after, before).cpu_percent == 25.0
    assert usage(after._replace(read=None), before).cpu_percent == 100.0


def test_a_counter_that_went_back_gives_no_rate() -> None:
    assert usage(sampled(docker(5)), sampled(docker(6))).cpu_percent is None


def test_windows_counts_in_units_of_100_ns_and_shares_of_all_cpus() -> None:
    """The fields are those of the Engine API's documentation: no Windows engine was available."""
    def answer(used: int, second: int) -> Dict[str, Any]:
        return {"read": f"2026-12-01T00:00:{second:02d}Z", "num_procs": 4, "id": ID, "name": "/win", "pids_stats": {},
                "cpu_stats": {"cpu_usage": {"total_usage": used}}, "blkio_stats": {},
                "storage_stats": {"read_count_normalized": 1, "read_size_bytes": 50, "write_size_bytes": 60},
                "memory_stats": {"commitbytes": 9, "privateworkingset": 7}, "networks": {}}
    before, after = sampled(answer(10 ** 7, 1)), sampled(answer(3 * 10 ** 7, 2))
    assert (after.memory, after.limit, after.blocks_read, after.blocks_written, after.pids) == (7, None, 50, 60, None)
    assert usage(after, before)[:2] == (50.0, 2.0)


def test_an_engine_without_one_shot_gives_both_samples() -> None:
    answer = docker(2 * 10 ** 9, 10 ** 12 + 2 * 10 ** 9, preread="2026-12-01T00:20:29Z", precpu_stats={
        "cpu_usage": {"total_usage": 10 ** 9}, "system_cpu_usage": 10 ** 12, "online_cpus": 2})
    assert History().usage(sampled(answer), earlier_from_docker(answer, 10.0)).cpu_percent == 100.0
    assert earlier_from_docker(docker(), 10.0) is None


PODMAN_4 = {
    "AvgCPU": 47.97, "ContainerID": ID, "Name": "sl", "PerCPU": [1, 2], "CPU": 47.97, "CPUNano": 25341934,
    "CPUSystemNano": 12000000, "SystemNano": 1796084439492731073, "MemUsage": 405504, "MemLimit": 25276059648,
    "MemPerc": 0.0016, "NetInput": 7, "NetOutput": 8, "BlockInput": 9, "BlockOutput": 10, "PIDs": 1, "UpTime": 25341934}
STOPPED = {key: (value if isinstance(value, str) else 0) for key, value in PODMAN_4.items()}


def test_the_counters_of_podman_are_read_without_stopped_containers() -> None:
    expected = Sample(id=ID, name="sl", at=1.0, read=1796084439492731073, cpu=25341934, memory=405504,
                      limit=25276059648, received=7, sent=8, blocks_read=9, blocks_written=10, pids=1)
    assert samples_from_podman({"Error": None, "Stats": [STOPPED, PODMAN_4]}, 1.0) == [expected]
    newer = {key: value for key, value in PODMAN_4.items() if not key.startswith("Net")}
    newer["Network"] = {"eth0": {"RxBytes": 5, "TxBytes": 6}, "eth1": {"RxBytes": 2, "TxBytes": 2}}
    assert samples_from_podman({"Stats": [newer]}, 1.0) == [expected]


def test_podmans_cpu_is_relative_to_one_cpu() -> None:
    later = dict(PODMAN_4, CPUNano=25341934 + 10 ** 9, SystemNano=1796084439492731073 + 2 * 10 ** 9)
    before, after = samples_from_podman({"Stats": [PODMAN_4]}, 1.0) + samples_from_podman({"Stats": [later]}, 3.0)
    assert usage(after, before)[:2] == (50.0, 0.5)


@pytest.mark.parametrize("answer", [None, {}, {"Error": {}, "Stats": None}, {"Stats": [None, 5, {}]}, {"Stats": {}}])
def test_an_empty_answer_of_podman_gives_no_samples(answer: Any) -> None:
    assert samples_from_podman(answer, 1.0) == []


# --- keeping the earlier sample


def plain(at: float, cpu: int, identifier: str = "a") -> Sample:
    return Sample(identifier, "x", at, cpu=cpu, memory=100)


def test_the_earlier_sample_is_kept_for_each_container() -> None:
    history = History()
    assert history.usage(plain(1.0, 0)).cores is None
    assert history.usage(plain(1.5, 0, "b")).cores is None
    assert history.usage(plain(3.0, 10 ** 9)).cores == 0.5
    assert history.usage(plain(3.5, 10 ** 9, "b")).cores == 0.5


def test_a_sample_that_is_too_old_is_not_used() -> None:
    history = History(most_age=60.0)
    history.usage(plain(1.0, 0))
    assert history.usage(plain(62.0, 10 ** 9)).cores is None
    assert history.usage(plain(63.0, 2 * 10 ** 9)).cores == 1.0


def test_a_history_is_bounded_and_forgets_the_oldest() -> None:
    history = History(most=3)
    for index in range(10):
        history.usage(plain(1.0, 0, str(index)))
        history.usage(plain(1.0, 0, "kept"))
    assert len(history) == 3
    assert history.usage(plain(2.0, 10 ** 9, "kept")).cores == 1.0
    assert history.usage(plain(2.0, 10 ** 9, "0")).cores is None


# --- the sum and the size of the VM


def test_the_sum_is_compared_with_the_cpus_and_memory_of_the_vm() -> None:
    before = [plain(1.0, 0, name) for name in "ab"]
    found = [usage(plain(2.0, 5 * 10 ** 8, one.id), one) for one in before] + [usage(plain(1.0, 0, "new"), None)]
    assert total(found, vcpus=4, memory=1000) == (3, 1.0, 300, 0.25, 0.3)
    assert total(found) == (3, 1.0, 300, None, None)
    assert total([], 4, 1000) == (0, None, None, None, None)


# --- any input


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5)
DOCKER_KEYS, PODMAN_KEYS = sorted(docker()), sorted({*PODMAN_4, "Network"})


@given(before=st.dictionaries(st.sampled_from(DOCKER_KEYS), JSON), after=st.dictionaries(
    st.sampled_from(DOCKER_KEYS), JSON), base=st.booleans())
def test_any_answer_of_docker_becomes_a_bounded_usage_or_none(before: Any, after: Any, base: bool) -> None:
    check([sample_from_docker({**(docker() if base else {}), **answer}, at) for at, answer in ((1.0, before),
                                                                                              (2.0, after))])


@given(entries=st.lists(st.dictionaries(st.sampled_from(PODMAN_KEYS), JSON), max_size=4), base=st.booleans())
def test_any_answer_of_podman_becomes_bounded_usages(entries: Any, base: bool) -> None:
    check(samples_from_podman({"Stats": [{**(PODMAN_4 if base else {}), **entry} for entry in entries]}, 1.0))


def check(samples: Any) -> None:
    history = History()
    found = [history.usage(sample) for sample in samples if sample is not None]
    for one in found:
        json.dumps(one, allow_nan=False)
        assert len(one.sample.id) <= 64 and len(one.sample.name) <= 255
        assert one.cores is None or 0.0 <= one.cores <= 4096.0
        assert one.memory_percent is None or one.memory_percent >= 0.0
    json.dumps(total(found, 2, 1 << 30), allow_nan=False)
