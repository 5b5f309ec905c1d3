"""The plugin's answers to get_inspect and get_top, as both clients' own parsers read them."""

import json
import re
import subprocess
from typing import Any, Dict, List
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients import Reader, engine_json
from tests.clients.engine_json import NASTY_TEXTS
from tests.clients.test_xmlform import counted_entities, legal, visible
from tests.need import need_program
from xscontainer.clients import xmlform

ENCODED = "SPECIAL_XS_ENCODED_ELEMENT"
START = 'True<?xml version="1.0" ?><docker_'
NASTY_KEYS = [
    "1a",
    "a b",
    "a/b",
    "a@b",
    "a:b",
    "",
    "xml",
    "XMLish",
    "é",
    "名前",
    "-a",
    ".a",
    "a\"b'c",
    "a<b>&c",
    "a\tb\nc",
    "\x00",
]


def plain(value: str) -> str:
    """Return the text that a client must read: illegal characters replaced, line ends as XML has them."""
    return "".join(c if visible(c) else "\ufffd" for c in value.replace("\r\n", "\n").replace("\r", "\n"))


def words(value: object) -> str:
    """Return the text that a client must read for a JSON scalar."""
    if value is None:
        return ""
    return plain(value) if isinstance(value, str) else json.dumps(value)


def wanted_tree(name: str, value: Any) -> List[Any]:
    """The tree XenCenter is to read for JSON under a key: [element, attributes, children, text]."""
    attributes = {}
    if (
        not re.fullmatch("[A-Za-z_][A-Za-z0-9_.-]{0,127}", name)
        or name.lower().startswith("xml")
        or name in xmlform.TAKEN
    ):
        attributes = {"name": plain(name.replace("\r\n", "\n")[:1024]).replace("\t", " ").replace("\n", " ")}
        name = ENCODED
    if isinstance(value, dict):
        return [name, attributes, [wanted_tree(key, member) for key, member in value.items()], ""]
    if isinstance(value, list):
        return [name, attributes, [wanted_tree("item", member) for member in value], ""]
    return [name, attributes, [], words(value)]


def shown(tree: List[Any]) -> List[Any]:
    """A tree without text that is only space: .NET reads none where nothing else stands."""
    name, attributes, children, text = tree
    return [name, attributes, [shown(child) for child in children], text.strip(" \t\n")]


def python_tree(found: ElementTree.Element) -> List[Any]:
    return [found.tag, dict(found.attrib), [python_tree(child) for child in found], found.text or ""]


# get_inspect


labels = st.recursive(
    engine_json.scalar.filter(
        lambda value: not isinstance(value, float) and not (isinstance(value, int) and abs(value) > 1 << 63)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(engine_json.text.map(lambda key: key[:100]), st.sampled_from(NASTY_KEYS)), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


@given(value=st.dictionaries(st.sampled_from(["Id", "Config", "Labels", "1a", "é"]), labels, max_size=3))
def test_inspect_of_anything_is_read_alike_by_all_parsers(
    value: Dict[str, Any], orchestra: Reader, newer_orchestra: Reader, center: Reader
) -> None:
    text = xmlform.inspect_result(value)
    assert text.startswith(START + "inspect")
    assert all(map(legal, text))
    assert "error" not in newer_orchestra.read("get_inspect", text)
    assert counted_entities(text) > 1000 or "error" not in orchestra.read("get_inspect", text)
    read = center.read("get_inspect", text)
    assert "error" not in read
    if "…" not in text:
        wanted = shown(wanted_tree("docker_inspect", value))
        assert shown(read["root"]) == wanted
        assert shown(python_tree(ElementTree.fromstring(text[4:]))) == wanted


@pytest.mark.parametrize("key", NASTY_KEYS, ids=ascii)
def test_a_key_that_is_no_element_name_is_an_attribute(key: str, orchestra: Reader, center: Reader) -> None:
    text = xmlform.inspect_result({"Labels": {key: "value"}})
    name = plain(key).replace("\t", " ").replace("\n", " ")
    labels = center.read("get_inspect", text)["root"][2][0]
    assert labels == ["Labels", {}, [[ENCODED, {"name": name}, [], "value"]], ""]
    read = orchestra.read("get_inspect", text)["value"]["docker_inspect"]["Labels"][ENCODED]
    assert read == {"#text": "value", "name": name}


@pytest.mark.parametrize("key", ["Id", "a-b", "a.b", "_a", "com.example.x", "A1", "item"])
def test_a_legal_key_is_an_element(key: str) -> None:
    assert f"<{key}>value</{key}>" in xmlform.inspect_result({key: "value"})


def javascript_members() -> List[str]:
    """The names that every object has in JavaScript, from the interpreter that the clients run on."""
    code = "console.log(Object.getOwnPropertyNames(Object.prototype).concat(['prototype']).join(' '))"
    return subprocess.check_output([need_program("node", "nodejs"), "-e", code], timeout=60).decode().split()


def test_no_name_that_every_javascript_object_has_becomes_an_element(newer_orchestra: Reader) -> None:
    names = javascript_members()
    assert "constructor" in names and "__lookupSetter__" in names
    text = xmlform.inspect_result({"Labels": {name: f"value of {name}" for name in names}})
    read = newer_orchestra.read("get_inspect", text)["value"]["docker_inspect"]["Labels"][ENCODED]
    assert read == [{"#text": f"value of {name}", "name": name} for name in names]


@pytest.mark.parametrize("name", "constructor prototype __proto__ toString valueOf hasOwnProperty".split())
def test_no_column_of_top_is_called_as_a_member_of_every_javascript_object(name: str, newer_orchestra: Reader) -> None:
    text = xmlform.top_result(["PID", name], [["1", "x"]])
    read = newer_orchestra.read("get_top", text)["value"]["docker_top"]["item"]["Process"]
    assert read == {"PID": "1", "CMD": "?", "TIME": "00:00:00"}


@pytest.mark.parametrize(
    "key", ["entry", "Process", "docker_info", "docker_version", ENCODED, "hasOwnProperty", "__proto__"]
)
def test_a_key_that_means_something_to_a_client_is_an_attribute(key: str, orchestra: Reader, center: Reader) -> None:
    text = xmlform.inspect_result({"a": [{key: 1}, {key: 2}], key: {key: 3}, "z": 4})
    read = center.read("get_inspect", text)
    assert read["entry"] == read["Process"] == read["docker_info"] == read["docker_version"] == []
    assert read["root"][2][1][1] == {"name": key}
    value = orchestra.read("get_inspect", text)["value"]["docker_inspect"]
    assert value["z"] == "4" and value[ENCODED]["name"] == key


@pytest.mark.parametrize(
    "value, inside",
    [
        ({}, ""),
        ({"a": 1, "b": True, "c": False, "d": None, "e": 1.5}, "<a>1</a><b>true</b><c>false</c><d/><e>1.5</e>"),
        ({"a": [], "b": {}, "c": ""}, "<a/><b/><c/>"),
        ({"a": ["x", ["y"], {"b": "z"}]}, "<a><item>x</item><item><item>y</item></item><item><b>z</b></item></a>"),
        ({"a": 0}, "<a>0</a>"),
        ({"a": " x "}, "<a> x </a>"),
        ({"1": "x"}, f'<{ENCODED} name="1">x</{ENCODED}>'),
        ({"a/b": {}}, f'<{ENCODED} name="a/b"/>'),
        ({'"': '"'}, f'<{ENCODED} name="&quot;">"</{ENCODED}>'),
        ([1, 2], "<item>1</item><item>2</item>"),
        ("text", "text"),
    ],
)
def test_inspect_is_written_letter_by_letter(value: object, inside: str) -> None:
    assert xmlform.inspect_result(value) == START + f"inspect>{inside}</docker_inspect>"


def test_labels_of_every_nasty_text_are_read(newer_orchestra: Reader, center: Reader) -> None:
    labels = {value[:2000]: value for value in NASTY_TEXTS}
    text = xmlform.inspect_result({"Config": {"Labels": labels}})
    read = center.read("get_inspect", text)["root"][2][0][2][0][2]
    assert len(read) == len(labels)
    assert "error" not in newer_orchestra.read("get_inspect", text)


def test_inspect_replaces_no_character_that_its_reader_understands(center: Reader) -> None:
    value = "<a href=\"x\">]]>" * 3000
    text = xmlform.inspect_result({"Labels": {"html": value, '"' * 1000: "quotes"}})
    html, quotes = center.read("get_inspect", text)["root"][2][0][2]
    assert html[3] == value and quotes[1] == {"name": '"' * 1000}


def test_depth_is_bounded(orchestra: Reader, center: Reader) -> None:
    deep: Any = "bottom"
    for level in range(900):
        deep = {"a": deep} if level % 2 else [deep]
    text = xmlform.inspect_result({"deep": deep, "after": "here"})
    assert "error" not in orchestra.read("get_inspect", text)
    read = center.read("get_inspect", text)["root"]
    assert [child[0] for child in read[2]] == ["deep", "after", "left_out"]
    assert read[2][1][3] == "here" and read[2][2][3] == "1"


def test_length_is_bounded(center: Reader) -> None:
    text = xmlform.inspect_result({f"key{n}": "v" * 100000 for n in range(100)})
    assert len(text) < xmlform.RESULT_LIMIT + 2 * xmlform.VALUE_CHARACTERS
    read = center.read("get_inspect", text)["root"][2]
    assert read[-1][0] == "left_out" and len(read) - 1 + int(read[-1][3]) == 100
    assert read[0][3] == "v" * (xmlform.VALUE_CHARACTERS - 1) + "…"


@pytest.mark.parametrize(
    "number",
    [10**400, -(10**5000), float("nan"), float("inf"), float("-inf"), 1 << 63, -1],
    ids=["huge", "huge-negative", "nan", "inf", "-inf", "1<<63", "-1"],
)
def test_any_number_is_written(number: float, center: Reader) -> None:
    read = center.read("get_inspect", xmlform.inspect_result({"a": number}))
    assert read["root"][2][0][3]


# get_top


TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
ROW = ["root", "7", "1", "0", "10:00", "?", "00:00:01", "sleep 1 & <echo>"]


def test_top_is_written_letter_by_letter() -> None:
    assert xmlform.top_result(TITLES, [ROW]) == START + (
        "top><item><Process><PID>7</PID><CMD>sleep 1 &amp; &lt;echo></CMD><TIME>00:00:01</TIME><UID>root</UID>"
        "<PPID>1</PPID><C>0</C><STIME>10:00</STIME><TTY>?</TTY></Process></item></docker_top>"
    )


def test_no_process_is_an_empty_list(orchestra: Reader, center: Reader) -> None:
    text = xmlform.top_result(TITLES, [])
    assert text == START + "top/>"
    assert orchestra.read("get_top", text)["value"] == {"docker_top": ""}
    assert center.read("get_top", text)["Process"] == []


@pytest.mark.parametrize(
    "titles, row, expected",
    [
        (["PID", "COMMAND", "TIME"], ["1", "sh", "0:01"], {"PID": "1", "CMD": "sh", "TIME": "0:01"}),
        (["PID", "TIME", "CMD", "COMMAND"], ["1", "0:01", "sh -x", "sh"], {"CMD": "sh -x", "COMMAND": "sh"}),
        (["PID", "%CPU", "%MEM", "CMD", "TIME"], ["1", "2.0", "3.0", "sh", "0:01"], {"CPU": "2.0", "MEM": "3.0"}),
        (["PID", "Process", "entry", "1x", "%", "CMD"], ["1", "a", "b", "c", "d", "sh"], {"CMD": "sh"}),
        (["PID", "PID", "CMD"], ["1", "2", "sh"], {"PID": "1", "CMD": "sh"}),
        (["USER"], ["root"], {"PID": "0", "CMD": "?", "TIME": "00:00:00", "USER": "root"}),
        (["PID", "CMD", "TIME"], ["", " ", None], {"PID": "0", "CMD": "?", "TIME": "00:00:00"}),
        (["PID", "CMD", "TIME", "X"], ["1"], {"PID": "1", "CMD": "?", "TIME": "00:00:00"}),
        (["PID", "CMD"], ["1", "sh", "more"], {"PID": "1", "CMD": "sh"}),
        ([5, None, "PID"], ["a", "b", "1"], {"PID": "1"}),
        (["Name", "PID", "CPU", "Private Working Set"], ["w3wp.exe", "900", "00:01:02.5", "40MB"],
         {"PID": "900", "CMD": "w3wp.exe", "TIME": "00:01:02.5", "PrivateWorkingSet": "40MB"}),
        (["PID", "USER", "TIME", "ARGS"], ["1", "root", "0:00", "sleep 5"], {"PID": "1", "CMD": "sleep 5"}),
        (["pid", "tt", "stat", "time", "command"], ["1", "-", "Is", "0:00.02", "sh"],
         {"PID": "1", "CMD": "sh", "TIME": "0:00.02", "tt": "-"}),
        (["COMM", "PID", "ARGS"], ["sh", "1", "sh -x"], {"CMD": "sh -x", "COMM": "sh"}),
        (["PID", "%CPU", "TIME", "CMD"], ["1", "2.5", "0:01", "sh"], {"CPU": "2.5", "TIME": "0:01"}),
        (["PID", "CPU", "TIME", "CMD"], ["1", "0", "0:01", "sh"], {"CPU": "0", "TIME": "0:01"}),
        (["NAME", "CMD ", " Pid"], ["n", "sh", "1"], {"PID": "1", "CMD": "sh", "NAME": "n"}),
    ],
)
def test_the_columns_of_top_are_found(
    titles: List[Any], row: List[Any], expected: Dict[str, str], orchestra: Reader, center: Reader
) -> None:
    text = xmlform.top_result(titles, [row])
    (found,) = center.read("get_top", text)["Process"]
    assert orchestra.read("get_top", text)["value"]["docker_top"]["item"]["Process"] == found
    assert expected.items() <= found.items()
    assert set(found) <= {re.sub("[^A-Za-z]", "", str(title)) for title in titles} | {"PID", "CMD", "TIME"}


@given(
    titles=st.one_of(
        engine_json.anything,
        st.lists(st.one_of(st.sampled_from([*TITLES, "COMMAND", "%CPU", "Process"]), engine_json.scalar), max_size=6),
    ),
    processes=st.one_of(engine_json.anything, st.lists(st.lists(engine_json.scalar, max_size=6), max_size=4)),
)
def test_top_of_anything_has_pid_cmd_and_time_in_every_row(
    titles: object, processes: object, orchestra: Reader, center: Reader
) -> None:
    text = xmlform.top_result(titles, processes)
    assert text.startswith(START + "top")
    assert all(map(legal, text)) and counted_entities(text) <= xmlform.ENTITY_BUDGET
    read = center.read("get_top", text)
    rows = [row for row in processes if isinstance(row, list)] if isinstance(processes, list) else []
    assert len(read["Process"]) == len(rows)
    assert all(found[name].strip() for found in read["Process"] for name in ("PID", "CMD", "TIME"))
    assert read["entry"] == read["docker_info"] == read["docker_version"] == []
    value = orchestra.read("get_top", text)["value"]["docker_top"]
    items = value["item"] if value else []
    items = items if isinstance(items, list) else [items]
    assert [item["Process"] for item in items] == read["Process"]


def test_rows_are_bounded() -> None:
    assert xmlform.top_result(TITLES, [ROW] * 100000).count("<Process>") == xmlform.ROW_LIMIT


# Rule 7: the result starts with exactly True.


@pytest.mark.parametrize(
    "result", [xmlform.inspect_result({}), xmlform.top_result([], []), xmlform.top_result(TITLES, [ROW])]
)
def test_rule_7_nothing_before_true_and_nothing_after_it_but_the_document(result: str) -> None:
    assert result.startswith("True<?xml ")
    assert result.index("?>") + 2 == result.index("<docker_")


def test_no_result_is_longer_than_the_bound_in_bytes() -> None:
    wide = ["\U0001f600" * 1000] * 30
    titles = [f"T{number}" for number in range(30)]
    for result in (xmlform.top_result(titles, [wide] * 2000), xmlform.inspect_result({"a": [wide] * 100})):
        assert xmlform.RESULT_LIMIT / 2 < len(result.encode()) < xmlform.RESULT_LIMIT + 300000
