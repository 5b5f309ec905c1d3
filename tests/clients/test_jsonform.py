"""The plugin's answers to get_inspect and get_top as JSON: the engine's own values, within the bound."""

import json
import math
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients.engine_json import NASTY_TEXTS
from xscontainer.clients import jsonform
from xscontainer.clients.jsonform import CELL_CHARACTERS, JSON_LIMIT
from xscontainer.clients.xmlform import COLUMN_LIMIT, DEPTH_LIMIT, ROW_LIMIT, VALUE_CHARACTERS

text = st.one_of(st.text(max_size=30), st.sampled_from([nasty for nasty in NASTY_TEXTS if len(nasty) < 1000]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text), lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)), max_leaves=12)


def read(result: str) -> Any:
    assert result.startswith("True{") and len(result) <= JSON_LIMIT
    result.encode("ascii")
    return json.loads(result[4:], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def plain(value: Any) -> Any:
    """The value that a client must read."""
    if isinstance(value, dict):
        return {plain(key): plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, str):
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return hex(value)
    return value if not isinstance(value, float) or math.isfinite(value) else None


@given(value=st.dictionaries(text, values, max_size=4))
def test_inspect_gives_the_engines_own_object(value: Dict[str, Any]) -> None:
    assert read(jsonform.inspect_result(value)) == plain(value)


@pytest.mark.parametrize("value", [
    {"Labels": {str(number): "\u4f60" * 100 for number in range(20000)}},
    {str(number): "x" * 1000 for number in range(2000)},
    {"a": "x", "Env": ["y" * VALUE_CHARACTERS] * 30, "b": "z"},
    {str(number) + "\ufffd" * 70000: 1 for number in range(3)}, {"k": [[]] * 600000}])
def test_a_long_answer_loses_members_and_says_how_many(value: Dict[str, Any]) -> None:
    assert read(jsonform.inspect_result(value))["left_out"] > 0


def test_members_after_one_that_is_too_long_are_still_shown() -> None:
    found = read(jsonform.inspect_result({"long": ["y" * VALUE_CHARACTERS] * 30, "State": "running"}))
    assert found["State"] == "running" and len(found["long"]) == 15 and found["left_out"] == 15


def test_depth_and_texts_are_bounded() -> None:
    deep: Any = 1
    for _ in range(99):
        deep = {"a": deep}
    found, levels = read(jsonform.inspect_result(deep)), 0
    assert found["left_out"] == 1
    while found:
        found, levels = found.get("a"), levels + 1
    assert levels == DEPTH_LIMIT - 1, "the last one is empty"
    long = read(jsonform.inspect_result({"a": "x" * 10 ** 5}))["a"]
    assert len(long) == VALUE_CHARACTERS and long.endswith("…")


@pytest.mark.parametrize("value", [[], None, "x", 1])
def test_an_answer_that_is_no_object_gives_an_empty_one(value: Any) -> None:
    assert read(jsonform.inspect_result(value)) == {}


@given(titles=st.lists(text, max_size=5),
       rows=st.lists(st.lists(text, max_size=6), max_size=4))
def test_top_gives_titles_and_rows(titles: List[str], rows: List[List[str]]) -> None:
    def cut(cells: List[str]) -> List[str]:
        return [plain(cell[:CELL_CHARACTERS]) for cell in cells]

    assert read(jsonform.top_result(titles, rows)) == {"titles": cut(titles), "processes": [cut(row) for row in rows]}


@pytest.mark.parametrize("rows, cells, shown", [(ROW_LIMIT + 5, 1, ROW_LIMIT), (1900, 20, None)])
def test_a_long_top_loses_processes_and_says_how_many(rows: int, cells: int, shown: Any) -> None:
    found = read(jsonform.top_result(["A"], [["\u4f60" * 20] * cells] * rows))
    assert found["left_out"] == rows - len(found["processes"]) > 0
    assert shown is None or len(found["processes"]) == shown
    assert all(len(row) == cells for row in found["processes"])


def test_rows_have_a_bounded_number_of_cells() -> None:
    assert len(read(jsonform.top_result(["A"], [["x"] * 100]))["processes"][0]) == COLUMN_LIMIT
