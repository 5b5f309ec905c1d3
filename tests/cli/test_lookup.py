"""Words of the command line are looked up in a simulated pool, with few and small readings of XAPI."""

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping

import pytest

from tests.cli.place import Place, container, docker_ps
from xscontainer import keys
from xscontainer.cli import lookup
from xscontainer.core.naming import NamedContainer
from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import Ambiguous, NotFound
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session


class Counted(Session):
    """A session that keeps the methods it has called and the bytes that XAPI sent."""

    methods: List[str]
    received: int

    def _exchange(self, method: str, bodies: Any) -> Any:
        answers = super()._exchange(method, bodies)
        if not method.startswith("session."):
            self.__dict__.setdefault("methods", []).append(method)
            self.received = self.__dict__.get("received", 0) + sum(len(body) for _, body in answers)
        return answers


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(str(tmp_path / "p"), hosts=2, tcp=False) as made:
        yield made


@pytest.fixture
def session(pool: Pool) -> Iterator[Counted]:
    made = Counted.login(pool.hosts[0].socket_path, "test", 10, 10)
    yield made
    made.logout()


def add(pool: Pool, name: str, *containers: str, host: int = 0, config: Mapping[str, str] = {}) -> str:
    """Add a VM with a published list; return its uuid."""
    other_config = {keys.MONITOR: "True", keys.PS: docker_ps(*map(container, containers)), **config}
    ref = pool.create_vm(name, host=pool.hosts[host], other_config=other_config)
    return str(pool.vm(ref)["uuid"])


def test_containers_are_found_with_their_vm_and_host(pool: Pool, session: Counted) -> None:
    web = add(pool, "web/front end", "nginx", "php", host=1)
    data = add(pool, "data", "redis")
    found = lookup.containers(session, ["web/front end/nginx", "redis", f"{web}/php", "data/redis"])
    refs = {vm["uuid"]: vm["resident_on"] for vm in pool.records("VM").values()}
    assert found == [
        NamedContainer(web, "web/front end", refs[web], b"nginx".hex().ljust(64, "0"), "nginx"),
        NamedContainer(data, "data", refs[data], b"redis".hex().ljust(64, "0"), "redis"),
        NamedContainer(web, "web/front end", refs[web], b"php".hex().ljust(64, "0"), "php")]
    assert [vm.name for vm in lookup.vms(session, ["dat", web[:9], "data"])] == ["data", "web/front end"]


@pytest.mark.parametrize("words", [["big/c1"], ["big/c1", "small/one"]])
def test_whole_names_of_vms_take_one_call_for_these_vms_alone(pool: Pool, session: Counted, words: List[str]) -> None:
    add(pool, "big", *(f"c{number}" for number in range(10)))
    add(pool, "small", "one")
    for number in range(5):
        add(pool, f"other{number}", *(f"c{number}" for number in range(200)))
    assert len(lookup.containers(session, words)) == len(words)
    assert session.methods == ["VM.get_all_records_where"]
    assert session.received < 30000


def test_a_uuid_takes_one_call_for_this_vm_alone(pool: Pool, session: Counted) -> None:
    uuid = add(pool, "small", "one")
    for number in range(5):
        add(pool, f"other{number}", *(f"c{number}" for number in range(200)))
    assert lookup.containers(session, [f"{uuid.upper()}/one"])[0].vm_uuid == uuid
    assert lookup.vms(session, [uuid])[0].name == "small"
    assert session.methods == ["VM.get_all_records_where"] * 2
    assert session.received < 20000


def test_all_words_together_take_one_reading_of_the_pool(pool: Pool, session: Counted) -> None:
    for number in range(5):
        add(pool, f"vm{number}", f"c{number}")
    assert len(lookup.containers(session, [f"c{number}" for number in range(5)])) == 5
    assert session.methods == ["VM.get_all_records_where"]


def test_templates_snapshots_and_control_domains_have_no_names(pool: Pool, session: Counted) -> None:
    pool.create_vm("golden", template=True, power_state="Halted", other_config={
        keys.MONITOR: "True", keys.PS: docker_ps(container("inside"))})
    for word in ("golden", "Control domain on host: host1"):
        with pytest.raises(NotFound):
            lookup.vms(session, [word])
    with pytest.raises(NotFound):
        lookup.containers(session, ["inside"])


def test_a_vm_that_runs_nowhere_is_found(pool: Pool, session: Counted) -> None:
    pool.create_vm("off", power_state="Halted", other_config={keys.MONITOR: "True"})
    (found,) = lookup.containers(session, ["off/any"])
    assert (found.host, found.id, found.argument) == (NULL_REF, "", "any")
    assert lookup.vms(session, ["of"])[0].power_state == "Halted"


@pytest.mark.parametrize("config", [
    {keys.PS: "<broken"}, {keys.OWNER: "11111111-2222-4333-8444-555555555555"}, {keys.MONITOR: "False"},
    {keys.STATUS: json.dumps({"code": "GUEST_UNREACHABLE", "message": "Nothing answers."})}])
def test_a_name_in_a_vm_without_a_reliable_list_is_left_to_the_engine(pool: Pool, session: Counted,
                                                                      config: Dict[str, str]) -> None:
    add(pool, "vm", config=config)
    assert lookup.containers(session, ["vm/any"])[0].argument == "any"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "größe", "a\nb", "世界", "' or true", "x" * 300])
def test_any_name_of_a_vm_is_found(pool: Pool, session: Counted, name: str) -> None:
    uuid = add(pool, name, "one")
    add(pool, "other", "two")
    assert lookup.vms(session, [name])[0].uuid == uuid
    assert lookup.containers(session, [f"{name}/one"])[0].vm_uuid == uuid


def test_candidates_are_shown_with_the_names_of_their_hosts(pool: Pool, session: Counted) -> None:
    first, second = add(pool, "a", "db", host=0), add(pool, "b", "db", host=1)
    with pytest.raises(Ambiguous) as raised:
        lookup.containers(session, ["db"])
    assert raised.value.candidates == (
        f"a/db on host1, VM {first}, container 6462000000", f"b/db on host2, VM {second}, container 6462000000")


def test_an_ambiguous_or_unknown_name_exits_with_4(tmp_path_factory: pytest.TempPathFactory, pool: Pool) -> None:
    place = Place(pool, tmp_path_factory.mktemp("c"))
    uuids = [add(pool, "twin", "db", host=host) for host in (0, 1)]
    answer = place.run("diagnose", "twin")
    assert (answer.code, answer.out) == (4, "")
    said, *candidates = answer.err.splitlines()
    assert said == "xscontainer: 2 VMs are named 'twin'. Give a uuid."
    assert sorted(candidates) == sorted(f"  twin on host{number + 1}, VM {uuid}" for number, uuid in enumerate(uuids))
    answer = place.run("diagnose", "twni")
    assert (answer.code, answer.err) == (4, "xscontainer: The pool has no VM 'twni'. Did you mean 'twin'?\n")
