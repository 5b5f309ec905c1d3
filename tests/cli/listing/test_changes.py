"""Changes between two states of the pool are documents."""

import json
from typing import Any, Dict, List, Optional

from tests.cli.listing.pools import container, pool, vm
from xscontainer.cli.listing.changes import changes
from xscontainer.cli.listing.documents import line
from xscontainer.cli.listing.selection import Filter
from xscontainer.clients.inventory import Pool, Problem


def found(before: Optional[Pool], after: Pool, **chosen: Any) -> List[Dict[str, Any]]:
    return [json.loads(line(document)) for document in changes(before, after, Filter(**chosen))]


def brief(before: Optional[Pool], after: Pool, **chosen: Any) -> List[Any]:
    return [(each["change"], each.get("name"), each.get("state")) for each in found(before, after, **chosen)]


ONE = pool(vm("a", container("x"), container("y", "exited")))


def test_the_first_state_lists_everything() -> None:
    assert brief(None, ONE) == [("listed", "x", "running"), ("listed", "y", "exited")]


def test_nothing_is_said_without_a_change() -> None:
    assert brief(ONE, pool(vm("a", container("x"), container("y", "exited")))) == []


def test_a_changed_a_new_and_a_missing_container_are_told_apart() -> None:
    after = pool(vm("a", container("x", "exited", exit_code=1), container("z")))
    assert brief(ONE, after) == [("changed", "x", "exited"), ("listed", "z", "running"), ("unlisted", "y", "exited")]


def test_a_container_that_matches_no_longer_is_unlisted() -> None:
    after = pool(vm("a", container("x", "exited"), container("y", "exited")))
    assert brief(ONE, after, states=("running",)) == [("unlisted", "x", "running")]


def test_a_migration_is_a_change_of_the_containers() -> None:
    before, after = pool(vm("a", container("x"))), pool(vm("b"), vm("a", container("x")))
    (change,) = found(before, after)
    assert (change["change"], change["host"]["name"], change["vm"]["name"]) == ("changed", "host2", "a")


def test_a_problem_of_a_vm_begins_and_ends() -> None:
    ill = pool(vm("a", problem=Problem("GUEST_UNREACHABLE", "Nothing answers.")))
    first, second, problem = found(ONE, ill)
    assert (first["change"], second["change"]) == ("unlisted", "unlisted")
    assert problem == {
        "change": "problem", "problem": {"code": "GUEST_UNREACHABLE", "message": "Nothing answers."},
        "vm": first["vm"], "host": first["host"]}
    assert [(each["change"], each.get("problem")) for each in found(ill, ONE)] == [
        ("listed", None), ("listed", None), ("problem", None)]
