"""A word of the command line means one VM or container, or an error that helps."""

from typing import Dict, List, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core import naming
from xscontainer.core.naming import Listed, NamedContainer, NamedVM, Names
from xscontainer.errors import Ambiguous, NotFound


def uuid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def whole_id(beginning: str) -> str:
    return beginning.ljust(64, "0")


Content = Dict[str, Sequence[Tuple[str, str]]]


def names(content: "Sequence[Tuple[str, Sequence[Tuple[str, str]]]]", incomplete: Sequence[str] = (),
          whole: bool = True) -> Names:
    """Return the names of a pool: (name of a VM, its containers as (beginning of the id, name))."""
    vms = [NamedVM(uuid(number * 0x11111111 + 0x10), name, f"OpaqueRef:{number % 2}")
           for number, (name, _) in enumerate(content)]
    listed = {vm.uuid: Listed(tuple((whole_id(each), name) for each, name in containers), vm.name not in incomplete)
              for vm, (_, containers) in zip(vms, content)}
    return Names(vms, lambda vm, _: listed[vm.uuid], lambda ref: f"host{ref[-1]}", whole)


POOL = names([
    ("web", [("aa", "nginx"), ("ab", "php")]),
    ("web/blue", [("ac", "nginx"), ("ad1", "redis")]),
    ("data base", [("ae", "postgres"), ("ad2", "cache")]),
    ("twin", [("b1", "one")]),
    ("twin", [("b2", "two")]),
    ("", [("c1", "lonely")]),
])


@pytest.mark.parametrize("word, name", [
    ("web", "web"), ("web/blue", "web/blue"), ("web/", "web/blue"), ("data base", "data base"), ("d", "data base"),
    (uuid(0x10), "web"), (uuid(0x10).upper(), "web"), ("00000010", "web"), ("11111121", "web/blue"),
    ("55555565", "")])
def test_a_vm_is_found_by_name_uuid_or_a_unique_beginning(word: str, name: str) -> None:
    assert POOL.vm(word).name == name


@pytest.mark.parametrize("word, label", [
    ("web/nginx", "web/nginx"), ("web/blue/nginx", "web/blue/nginx"), ("data base/postgres", "data base/postgres"),
    ("data/cache", "data base/cache"), ("postgres", "data base/postgres"), ("lonely", f"{uuid(0x55555565)}/lonely"),
    ("web/aa", "web/nginx"), ("ad2", "data base/cache"), (whole_id("ad1"), "web/blue/redis"),
    ("AE", "data base/postgres"), (f"{uuid(0x10)}/php", "web/php"), ("web/bl/redis", "web/blue/redis"),
    (f"{uuid(0x33333343)}/one", "twin/one")])
def test_a_container_is_found_by_vm_and_name_or_alone(word: str, label: str) -> None:
    assert POOL.container(word).label == label


@pytest.mark.parametrize("word, candidates", [
    ("nginx", ["web/blue/nginx on host1", "web/nginx on host0"]),
    ("ad", ["data base/cache on host0", "web/blue/redis on host1"]),
    ("twin/one", ["twin on host0", "twin on host1"]), ("a", [])])
def test_an_ambiguous_word_lists_the_candidates_with_host_and_uuid(word: str, candidates: List[str]) -> None:
    with pytest.raises(Ambiguous) as raised:
        POOL.container(word)
    shown = raised.value.candidates
    assert sorted(line.partition(", VM ")[0] for line in shown)[:len(candidates)] == candidates or not candidates
    assert all(line.partition(", VM ")[2][:8].isalnum() for line in shown) and len(shown) > 1


@pytest.mark.parametrize("word, candidates", [("twin", 2), ("we", 2), ("w", 2)])
def test_an_ambiguous_vm_is_refused(word: str, candidates: int) -> None:
    with pytest.raises(Ambiguous) as raised:
        POOL.vm(word)
    assert len(raised.value.candidates) == candidates
    assert "Give a" in raised.value.hint


@pytest.mark.parametrize("word, meant", [
    ("web/ngnix", "'web/nginx'"), ("postgers", "'data base/postgres'"), ("wbe/php", "'web/php'"),
    ("web/blue/rdis", "'web/blue/redis'"), ("data base/cashe", "'data base/cache'")])
def test_a_wrong_word_is_answered_with_the_right_one(word: str, meant: str) -> None:
    with pytest.raises(NotFound) as raised:
        POOL.container(word)
    assert raised.value.hint.startswith("Did you mean") and meant in raised.value.hint


def test_a_wrong_name_of_a_vm_is_answered_with_the_right_one() -> None:
    with pytest.raises(NotFound, match="Did you mean 'data base'") as raised:
        POOL.vm("databse")
    assert raised.value.code == "NOT_FOUND"


@pytest.mark.parametrize("word", ["", "/", "//", "web/", "/nginx", "nothing-of-the-kind", "web/blue/"])
def test_a_word_without_a_meaning_is_not_found(word: str) -> None:
    with pytest.raises(NotFound):
        POOL.container(word)


def test_a_vm_given_instead_of_a_container_is_explained() -> None:
    with pytest.raises(NotFound, match="'data base' is the VM .* Name a container of the VM: data base/NAME"):
        POOL.container("data base")


def test_a_container_of_a_vm_without_a_complete_list_is_left_to_the_engine() -> None:
    pool = names([("vm", [("a", "shown")]), ("other", [])], incomplete=["vm"])
    found = pool.container("vm/hidden")
    assert (found.id, found.name, found.argument) == ("", "hidden", "hidden")
    assert pool.container("vm/shown").argument == whole_id("a")
    for word in ("vm/--help", "vm/a b", "other/hidden", "hidden"):
        with pytest.raises(NotFound):
            pool.container(word)


def test_equal_containers_in_vms_of_one_name_need_the_uuid() -> None:
    pool = names([("twin", [("a", "db")]), ("twin", [("a", "db")])])
    for word in ("db", "a", whole_id("a")):
        with pytest.raises(Ambiguous, match="UUID/NAME"):
            pool.container(word)
    assert pool.container(f"{uuid(0x10)}/db").vm_uuid == uuid(0x10)


def test_two_containers_of_one_vm_need_more_of_the_id() -> None:
    with pytest.raises(Ambiguous, match="more of the container's id"):
        names([("vm", [("ab1", "one"), ("ab2", "two")])]).container("vm/ab")


def test_a_name_is_preferred_to_the_beginning_of_an_id() -> None:
    assert names([("vm", [("beef1", "cow"), ("c", "beef")])]).container("beef").name == "beef"


def test_a_uuid_is_preferred_to_a_vm_of_that_name() -> None:
    pool = names([("first", []), (uuid(0x10), [])])
    assert pool.vm(uuid(0x10)).name == "first"


def test_a_part_of_the_pool_knows_no_beginnings() -> None:
    pool = names([("web", [("aa", "nginx")])], whole=False)
    assert pool.container("web/nginx").id == whole_id("aa")
    for word in ("we/nginx", "nginx", "aa"):
        with pytest.raises(NotFound):
            pool.container(word)
    with pytest.raises(NotFound):
        pool.vm("we")


def test_many_candidates_are_bounded() -> None:
    with pytest.raises(Ambiguous) as raised:
        names([(f"vm{number}", [("a", "db")]) for number in range(90)]).container("db")
    assert len(raised.value.candidates) == 21 and raised.value.candidates[-1] == "and 70 more"


# Few letters, so that names, beginnings and separators collide.
short = st.text("ab/ ", max_size=4)
pools = st.lists(st.tuples(short, st.lists(st.tuples(st.text("ab", min_size=1, max_size=3), short), max_size=3,
                                           unique_by=lambda each: whole_id(each[0]))), max_size=5)


@given(pools, short)
def test_every_word_means_one_thing_or_is_an_error(content: "List[Tuple[str, List[Tuple[str, str]]]]",
                                                   word: str) -> None:
    pool = names(content)
    for find in (pool.vm, pool.container):
        try:
            assert find(word)
        except Ambiguous as error:
            assert len(error.candidates) > 1
        except NotFound as error:
            assert error.hint


@given(pools)
def test_the_uuid_and_the_id_always_mean_the_container(content: "List[Tuple[str, List[Tuple[str, str]]]]") -> None:
    pool = names(content)
    for number, (name, containers) in enumerate(content):
        own = uuid(number * 0x11111111 + 0x10)
        assert pool.vm(own) == NamedVM(own, name, f"OpaqueRef:{number % 2}")
        for beginning, called in containers:
            meant = NamedContainer(own, name, f"OpaqueRef:{number % 2}", whole_id(beginning), called)
            assert pool.container(f"{own}/{meant.id}") == meant


@given(pools)
def test_a_label_means_its_container_or_is_ambiguous(content: "List[Tuple[str, List[Tuple[str, str]]]]") -> None:
    """Names of VMs may hold slashes and blanks, and names of containers in a forged list, too."""
    pool = names(content)
    for number, (_, containers) in enumerate(content):
        for beginning, called in containers:
            if not called.strip("/"):
                continue
            own = NamedContainer(uuid(number * 0x11111111 + 0x10), content[number][0], "", whole_id(beginning), called)
            try:
                found = pool.container(own.label)
            except Ambiguous:
                continue
            assert found.label == own.label or "/" in called


@given(pools, short)
def test_a_part_of_the_pool_gives_no_other_answer(content: "List[Tuple[str, List[Tuple[str, str]]]]",
                                                  word: str) -> None:
    """A query for whole names alone returns what all names return, or nothing."""
    exact = {each for each, _ in naming.splits(word)}
    part = names([(name, containers) if name in exact else ("\0", ()) for name, containers in content], whole=False)
    try:
        found = part.container(word)
    except (Ambiguous, NotFound):
        return
    assert names(content).container(word) == found


@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=8))
def test_suggestions_are_choices(word: str, choices: List[str]) -> None:
    assert set(naming.similar(word, choices)) <= set(choices)
