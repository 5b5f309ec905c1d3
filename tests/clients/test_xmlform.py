"""The documents in other_config, rule by rule, as both clients' own parsers read them."""

import json
import re
import unicodedata
from typing import Any, Dict, List, Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients import Reader, engine_json
from tests.clients.engine_json import NASTY_TEXTS, entry, nasty_entries
from xscontainer.clients import xmlform
from xscontainer.core.container import Container, ContainerList, Port, containers_from_api
from xscontainer.core.engine_facts import EngineInfo, EngineVersion
from xscontainer.core.groups import COMPOSE, NO_GROUP, POD, SWARM, Group
from xscontainer.sanitize import SPACE

FLAT = ("names", "command", "created", "status", "container", "id", "image")
OURS = ("state", "health", "actions", "exit_code", "reason", "started_at", "compose", "swarm", "pod", "service",
        "number", "one_off", "unit")


def legal(character: str) -> bool:
    """Return whether XML 1.0 and Unicode both define the character, straight from the two standards."""
    code = ord(character)
    if code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF:
        return not (0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE)
    return False


def visible(character: str) -> bool:
    """Return whether a document may hold the character: legal, not a control character, not a bidirectional mark."""
    turns = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return legal(character) and not turns and character not in "\u200e\u200f\u061c" and (
        character in "\t\n" or unicodedata.category(character) != "Cc")


def readable(value: str) -> str:
    """The text a client should show for ``value``."""
    value = value.replace("\r\n", "\n").replace("\r", "\n").strip(SPACE)
    value = "".join(c if visible(c) else "\ufffd" for c in value)
    return re.sub(r"^[\s\x85\ufeff]+|[\s\x85\ufeff]+$", "", value)


def counted_entities(text: str) -> int:
    return len(re.findall("&(?:lt|gt|quot|apos|#[0-9]+|#x[0-9A-Fa-f]+);", text))


def orchestra_entries(orchestra: Reader, text: str) -> List[Dict[str, Any]]:
    answer = orchestra.read("docker_ps", text)
    assert "error" not in answer, answer
    root = answer["value"]["docker_ps"]
    items = root.get("item", []) if isinstance(root, dict) else []
    return [item["entry"] for item in (items if isinstance(items, list) else [items])]


def center_entries(center: Reader, text: str) -> List[Dict[str, str]]:
    answer = center.read("docker_ps", text)
    assert "error" not in answer, answer
    entries: List[Dict[str, str]] = answer["entry"]
    return entries


def python_entries(text: str) -> List[Dict[str, str]]:
    root = ElementTree.fromstring(text)
    return [{child.tag: child.text or "" for child in found} for found in root.findall("item/entry")]


def published(answer: object) -> str:
    return xmlform.docker_ps(containers_from_api(answer).containers).text


def container(**fields: Any) -> Container:
    plain: Dict[str, Any] = {
        "id": "a" * 64,
        "name": "web",
        "image": "app:1",
        "command": "serve",
        "created": 1700000000,
        "state": "running",
    }
    plain.update(fields)
    return Container(**plain)


# A container as no engine can give it: nothing was cleaned or bounded on the way here.
raw_container = st.builds(
    Container,
    id=engine_json.container_id,
    name=engine_json.text,
    image=engine_json.text,
    command=engine_json.text,
    created=st.integers(0, 1 << 33),
    state=st.one_of(st.sampled_from(["running", "paused", "exited", "created"]), engine_json.text),
    exit_code=st.one_of(st.none(), st.integers(-1, 255)),
    health=st.one_of(st.none(), st.sampled_from(["healthy", "unhealthy"]), engine_json.text),
    ports=st.lists(
        st.builds(
            Port, st.integers(0, 65535), engine_json.text, st.one_of(st.none(), st.integers(1, 65535)), engine_json.text
        ),
        max_size=3,
    ).map(tuple),
)


# Rule 1: well-formed or absent.


@given(answer=engine_json.containers)
def test_rule_1_any_answer_of_an_engine_is_read_alike_by_all_parsers(
    answer: object, orchestra: Reader, center: Reader
) -> None:
    containers = containers_from_api(answer).containers
    text = xmlform.docker_ps(containers).text
    assert text
    expected = [
        {
            "id": c.id,
            "names": readable(c.name),
            "status": readable(c.status),
            "container": c.id[:10],
            **({"created": str(c.created)} if c.created else {}),
            "image": readable(c.image),
            "command": readable(c.command),
        }
        for c in containers
    ]
    if counted_entities(text) == xmlform.ENTITY_BUDGET:
        return  # look-alikes from here on; the guard has a test of its own
    for entries in (orchestra_entries(orchestra, text), center_entries(center, text), python_entries(text)):
        assert [{name: found[name] for name in FLAT if name in found} for found in entries] == expected


@given(containers=st.lists(raw_container, max_size=4))
def test_rule_1_a_document_is_well_formed_whatever_is_in_the_model(
    containers: List[Container], orchestra: Reader, center: Reader
) -> None:
    text, left_out, _ = xmlform.docker_ps(containers)
    assert len(orchestra_entries(orchestra, text)) == len(containers) - left_out
    assert len(center_entries(center, text)) == len(containers) - left_out
    assert all(map(legal, text))
    assert counted_entities(text) <= 1000


def test_rule_1_no_container_is_an_empty_list(orchestra: Reader, center: Reader) -> None:
    assert published([]) == "<docker_ps/>"
    assert orchestra_entries(orchestra, "<docker_ps/>") == center_entries(center, "<docker_ps/>") == []


@pytest.mark.parametrize("value", [v for v in NASTY_TEXTS if len(v) < 10000], ids=lambda v: ascii(v[:12]))
def test_rule_1_nasty_texts_are_shown(value: str, orchestra: Reader, center: Reader) -> None:
    text = xmlform.docker_ps([container(name=value, image=value, command=value)]).text
    for entries in (orchestra_entries(orchestra, text), center_entries(center, text), python_entries(text)):
        for name in ("names", "image", "command"):
            shown = entries[0][name]
            if counted_entities(text) == xmlform.ENTITY_BUDGET:
                shown = shown.replace("\u2039", "<").replace("\u203a", ">")
            assert shown == readable(value)


def test_rule_1_all_nasty_texts_together(orchestra: Reader, center: Reader) -> None:
    text = published(nasty_entries())
    assert len(orchestra_entries(orchestra, text)) == len(center_entries(center, text)) == len(NASTY_TEXTS)


# Rule 2: no character that XML 1.0 forbids.


@given(answer=engine_json.containers)
def test_rule_2_no_forbidden_character_not_even_as_a_reference(answer: object) -> None:
    text = published(answer)
    assert all(map(legal, text))
    assert "&#" not in text


def test_rule_2_every_forbidden_character_becomes_u_fffd(orchestra: Reader, center: Reader) -> None:
    forbidden = [chr(c) for c in [*range(0x20), *range(0xD800, 0xE000), *range(0xFDD0, 0xFDF0)] if not legal(chr(c))]
    forbidden += [chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)]
    for start in range(0, len(forbidden), 500):
        text = xmlform.docker_ps([container(command=f"a{c}b") for c in forbidden[start : start + 500]]).text
        assert {found["command"] for found in center_entries(center, text)} == {"a\ufffdb"}
        assert {found["command"] for found in orchestra_entries(orchestra, text)} == {"a\ufffdb"}


def test_rule_2_allowed_characters_are_kept(orchestra: Reader, center: Reader) -> None:
    for code in [9, 10, *range(0x20, 0x7F), *range(0xA0, 0x100), 0x200D, 0x2028, 0xFFFD, 0x1F600, 0x10FFFD]:
        command = f"a{chr(code)}b"
        text = xmlform.docker_ps([container(command=command)]).text
        assert orchestra_entries(orchestra, text)[0]["command"] == command
        assert center_entries(center, text)[0]["command"] == command


HIDDEN = [*range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]


@pytest.mark.parametrize("code", HIDDEN, ids=hex)
def test_invisible_characters_are_replaced_in_every_document(code: int) -> None:
    hidden, shown = f"a{chr(code)}b", "a\ufffdb"
    documents = [
        xmlform.docker_ps([container(name=hidden)]).text,
        published([entry(1, Names=[hidden])]),
        xmlform.docker_info(EngineInfo(name=hidden)),
        xmlform.docker_version(EngineVersion(version=hidden)),
        xmlform.inspect_result({"a": hidden, hidden: 1}),
        xmlform.top_result(["PID", "CMD"], [["1", hidden]]),
        json.dumps(xmlform.as_json(EngineInfo.from_api({"Name": hidden})), ensure_ascii=False),
    ]
    for text in documents:
        assert shown in text and chr(code) not in text


# Rule 3: at most 1000 counted entities, as little escaping as possible.


def test_rule_3_five_thousand_less_than_signs_are_read(orchestra: Reader, center: Reader) -> None:
    texts = ["<" * 120, "]]>" * 40, "a<b"]
    containers = [container(id=f"{n:064x}", command=texts[n % 3]) for n in range(200)]
    text = xmlform.docker_ps(containers).text
    assert counted_entities(text) == xmlform.ENTITY_BUDGET
    first, last = orchestra_entries(orchestra, text)[0], orchestra_entries(orchestra, text)[197]
    assert first["command"] == "<" * 120
    assert last["command"] == "]]\u203a" * 40 if 197 % 3 == 1 else "a\u2039b"
    assert center_entries(center, text)[0]["command"] == "<" * 120


def test_rule_3_the_budget_lies_below_what_the_parser_refuses(orchestra: Reader) -> None:
    refused = f"<docker_ps><item><entry><command>{'&lt;' * 1001}</command></entry></item></docker_ps>"
    assert "limit" in orchestra.read("docker_ps", refused)["error"]
    assert "error" not in orchestra.read("docker_ps", refused.replace("&lt;", "", 1))


@pytest.mark.parametrize(
    "raw, escaped",
    [
        ("a & b", "a &amp; b"),
        ("a < b", "a &lt; b"),
        ("a > b", "a > b"),
        ("a -> b]> ]]", "a -> b]> ]]"),
        ("a]]>b", "a]]&gt;b"),
        ("]]]>", "]]]&gt;"),
        ('"it\'s"', '"it\'s"'),
        ("&amp;", "&amp;amp;"),
        ("plain", "plain"),
    ],
)
def test_rule_3_only_what_must_be_escaped_is(raw: str, escaped: str) -> None:
    assert f"<command>{escaped}</command>" in xmlform.docker_ps([container(command=raw)]).text


# Rule 4: escaped once.


@pytest.mark.parametrize("raw", ["&", "&amp;", "&amp;amp;", "&lt;b&gt;", "&#38;", "&#x26;amp;", "a&&b", "&quot;", "&"])
def test_rule_4_text_is_escaped_once(raw: str, orchestra: Reader, center: Reader) -> None:
    text = xmlform.docker_ps([container(command=raw)]).text
    assert orchestra_entries(orchestra, text)[0]["command"] == raw
    assert center_entries(center, text)[0]["command"] == raw


# Rule 5: flat text in an entry.


@given(answer=engine_json.containers)
def test_rule_5_the_children_of_an_entry_are_flat_text(answer: object, orchestra: Reader) -> None:
    text = published(answer)
    for found in orchestra_entries(orchestra, text):
        for name in FLAT:
            # A time of creation that is none is left out.
            assert isinstance(found.get(name, "") if name == "created" else found[name], str)
        for name in OURS:
            assert isinstance(found.get(name, ""), str)
    for element in ElementTree.fromstring(text).iter():
        assert not element.attrib


@pytest.mark.parametrize("group, elements", [
    (Group(COMPOSE, "shop", "web", 2), {"compose": "shop", "service": "web", "number": "2"}),
    (Group(COMPOSE, "shop", "web", 0, True), {"compose": "shop", "service": "web", "number": "0", "one_off": "true"}),
    (Group(SWARM, "a & b", unit="u.service"), {"swarm": "a & b", "unit": "u.service"}),
    (Group(POD, "<pod>"), {"pod": "<pod>"}),
    (Group(unit="web.service"), {"unit": "web.service"}),
    (NO_GROUP, {}),
], ids=str)
def test_rule_5_the_group_is_flat_text_beside_what_clients_read(
    group: Group, elements: Dict[str, str], orchestra: Reader, center: Reader
) -> None:
    plain, grouped = container(), container(group=group, started_at=1700000100)
    for read in (orchestra_entries, center_entries):
        without = read(center if read is center_entries else orchestra, xmlform.docker_ps([plain]).text)
        entries = read(center if read is center_entries else orchestra, xmlform.docker_ps([grouped]).text)
        assert entries == [{**without[0], "started_at": "1700000100", **elements}]
    assert xmlform.read_docker_ps(xmlform.docker_ps([grouped]).text).containers == (grouped,)


@given(answer=engine_json.containers)
def test_published_groups_and_start_times_are_read_back(answer: object) -> None:
    containers = containers_from_api(answer).containers
    text = xmlform.docker_ps(containers).text
    if counted_entities(text) == xmlform.ENTITY_BUDGET:
        return
    read = xmlform.read_docker_ps(text).containers
    assert [(c.id, c.group, c.started_at) for c in read] == [(c.id, c.group, c.started_at) for c in containers]


# Rule 6: names that are sought in the whole document.


@given(answer=engine_json.containers)
def test_rule_6_only_entries_are_called_so(answer: object, center: Reader) -> None:
    containers = containers_from_api(answer).containers
    read = center.read("docker_ps", xmlform.docker_ps(containers).text)
    assert [found["id"] for found in read["entry"]] == [c.id for c in containers]
    assert read["Process"] == read["docker_info"] == read["docker_version"] == []


# Rule 8: status wording.


@pytest.mark.parametrize(
    "fields, status",
    [
        ({"State": "running", "Status": "Up 5 minutes (healthy)"}, "Up"),
        ({"State": "running", "Status": "Up 5 minutes (unhealthy)"}, "Up"),
        ({"State": "paused", "Status": "Up 5 minutes (Paused)"}, "Up (Paused)"),
        ({"State": "exited", "Status": "Exited (137) 5 minutes ago"}, "Exited (137)"),
        ({"State": "exited", "Status": "Exited (0) 5 minutes ago"}, "Exited (0)"),
        ({"State": "restarting", "Status": "Restarting (1) 5 minutes ago"}, "Restarting (1)"),
        ({"State": "created", "Status": "Created"}, "Created"),
        ({"State": "dead", "Status": "Dead"}, "Dead"),
        ({"State": "removing", "Status": "Removal In Progress"}, "Removal In Progress"),
    ],
)
def test_rule_8_status_is_literal(fields: Dict[str, str], status: str, orchestra: Reader, center: Reader) -> None:
    text = published([entry(1, **fields)])
    assert orchestra_entries(orchestra, text)[0]["status"] == status
    assert center_entries(center, text)[0]["status"] == status


# Rule 9: what an action may name is in the entry.


@given(answer=engine_json.containers)
def test_rule_9_the_short_id_is_never_empty_and_starts_the_full_one(answer: object) -> None:
    for found in python_entries(published(answer)):
        assert re.fullmatch("[0-9a-f]{64}", found["id"])
        assert found["container"] == found["id"][:10]


# Section 3 of the contract.


def test_docker_ps_is_written_letter_by_letter() -> None:
    shown = container(
        id="0123456789abcdef" * 4,
        state="exited",
        exit_code=137,
        ports=(Port(80, "tcp", 8080, "0.0.0.0"), Port(80, "tcp", 8080, "::"), Port(443, "tcp")),
    )
    assert xmlform.docker_ps([shown]).text == (
        "<docker_ps><item><entry>"
        "<id>0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef</id><names>web</names>"
        "<status>Exited (137)</status><container>0123456789</container><created>1700000000</created>"
        "<image>app:1</image><command>serve</command>"
        "<ports><item><IP>0.0.0.0</IP><PublicPort>8080</PublicPort><PrivatePort>80</PrivatePort><Type>tcp</Type></item>"
        "<item><PrivatePort>443</PrivatePort><Type>tcp</Type></item></ports>"
        "<state>exited</state><actions>start restart</actions><reason>exit code 137: killed</reason>"
        "</entry></item></docker_ps>"
    )


def test_every_container_is_one_item_with_one_entry(orchestra: Reader) -> None:
    for count in (1, 2, 60):
        answer = orchestra.read("docker_ps", published([entry(n) for n in range(count)]))
        items = answer["value"]["docker_ps"]["item"]
        items = items if isinstance(items, list) else [items]
        assert len(items) == count
        assert all(list(item) == ["entry"] and isinstance(item["entry"], dict) for item in items)


def test_state_health_actions_and_reason_have_elements_of_their_own(orchestra: Reader, center: Reader) -> None:
    text = published([entry(2), entry(1, Status="Up 1 second (unhealthy)")])
    for entries in (orchestra_entries(orchestra, text), center_entries(center, text)):
        well, ill = entries
        assert (well["state"], well["actions"]) == ("running", "stop restart pause")
        assert "health" not in well and "reason" not in well
        assert (ill["state"], ill["health"], ill["reason"]) == ("running", "unhealthy", "unhealthy")


@given(answer=engine_json.containers)
def test_a_published_list_reads_back_as_the_same_containers(answer: object) -> None:
    containers = containers_from_api(answer).containers
    document = xmlform.docker_ps(containers)
    if counted_entities(document.text) < xmlform.ENTITY_BUDGET:
        both = [
            [
                c._replace(ports=tuple(port for port in c.ports if port.ip != "::"), exit_code=c.exit_code or 0)
                for c in some
            ]
            for some in (containers, xmlform.read_docker_ps(document.text).containers)
        ]
        assert [xmlform.as_json(some) for some in both[:1]] == [xmlform.as_json(some) for some in both[1:]]


def test_an_unknown_creation_time_is_left_out(orchestra: Reader, center: Reader) -> None:
    text = published([entry(1, Created=None), entry(2, Created="0001-01-01T00:00:00Z"), entry(3)])
    for entries in (orchestra_entries(orchestra, text), center_entries(center, text)):
        assert ["created" in found for found in entries] == [True, False, False]
    assert [c.created for c in xmlform.read_docker_ps(text).containers] == [1700000003, None, None]


ENDED = [*(entry(5 - n, State="exited", Status=f"Exited ({code}) 1 day ago") for n, code in enumerate((0, 1, 137))),
         entry(2, State="dead", Status="Dead"), entry(1)]


def test_ended_containers_can_be_published_as_exited_137(orchestra: Reader, center: Reader) -> None:
    containers = containers_from_api(ENDED).containers
    text = xmlform.docker_ps(containers, ended_as_137=True).text
    for entries in (orchestra_entries(orchestra, text), center_entries(center, text)):
        assert [found["status"] for found in entries] == ["Exited (137)"] * 3 + ["Dead", "Up"]
        assert [found.get("reason") for found in entries[:3]] == [
            "exit code 0: ended without an error", "exit code 1", "exit code 137: killed"]
    # Our own readers show the real exit code.
    assert xmlform.read_docker_ps(text).containers == tuple(found._replace(uptime=None) for found in containers)


def test_the_real_exit_code_survives_a_list_that_is_cut() -> None:
    containers = containers_from_api([entry(n, State="exited", Status="Exited (3) now") for n in range(200)]).containers
    document = xmlform.docker_ps(containers, 40000, ended_as_137=True)
    assert "reason" in document.dropped
    assert {c.exit_code for c in xmlform.read_docker_ps(document.text).containers} == {3}


def test_an_exit_code_that_somebody_else_wrote_is_checked() -> None:
    text = xmlform.docker_ps(containers_from_api(ENDED).containers, ended_as_137=True).text
    for wrong in ("", "x", "9" * 11, "1) Up ("):
        found = xmlform.read_docker_ps(text.replace("<exit_code>1<", f"<exit_code>{wrong}<"))
        assert found.containers[1].exit_code == 137


def test_a_list_of_the_original_product_reads_back() -> None:
    text = (
        '<?xml version="1.0" ?><docker_ps><item><entry><id>%s</id><names>web</names><status>Up (Paused)</status>'
        "<container>aaaaaaaaaa</container><created>1400000000</created><image>x</image><command>&quot;y&quot;</command>"
        "<ports><item><PrivatePort>80</PrivatePort><Type>tcp</Type></item></ports></entry></item></docker_ps>"
    )
    found = xmlform.read_docker_ps(text % ("a" * 64))
    assert found == ContainerList(
        (Container("a" * 64, "web", "x", '"y"', 1400000000, "paused", ports=(Port(80, "tcp"),)),)
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "<docker_ps>",
        "<docker_ps></docker>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><docker_ps/>",
        "<a/><b/>",
        "\ud800",
        "<a>&b;</a>",
    ],
)
def test_a_document_that_is_not_a_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="container list"):
        xmlform.read_docker_ps(text)


def test_reading_another_document_finds_no_container() -> None:
    assert xmlform.read_docker_ps("<html><item><entry><id>x</id></entry></item></html>").containers == ()
    assert xmlform.read_docker_ps("<docker_ps/>") == ContainerList(())


# docker_info and docker_version


INFO_NAMES = (
    "Driver IndexServerAddress ExecutionDriver IPv4Forwarding Containers Images NCPU MemTotal Name OperatingSystem "
    "KernelVersion Labels Arch Os"
).split()
VERSION_NAMES = "ApiVersion Version GitCommit Arch Os GoVersion KernelVersion".split()


@pytest.mark.parametrize(
    "answer", [{}, None, {"Name": "<&>]]>", "NCPU": "x", "IPv4Forwarding": True, "Labels": ["a=b", "c"]}]
)
def test_docker_info_has_every_name_a_client_reads(answer: object, orchestra: Reader, center: Reader) -> None:
    text = xmlform.docker_info(EngineInfo.from_api(answer))
    read = center.read("docker_info", text)
    assert len(read["docker_info"]) == 1
    assert set(INFO_NAMES) <= set(read["docker_info"][0])
    assert orchestra.read("docker_info", text)["value"]["docker_info"] == read["docker_info"][0]


def test_docker_info_is_written_letter_by_letter() -> None:
    answer = {
        "Name": "web & co",
        "NCPU": 4,
        "MemTotal": 1 << 33,
        "IPv4Forwarding": True,
        "Labels": ["a=b", "c"],
        "Containers": 3,
    }
    text = xmlform.docker_info(EngineInfo.from_api(answer))
    assert text.startswith("<docker_info><ID/><Name>web &amp; co</Name>") and text.endswith("</docker_info>")
    for part in (
        "<NCPU>4</NCPU>",
        "<MemTotal>8589934592</MemTotal>",
        "<IPv4Forwarding>true</IPv4Forwarding>",
        "<Labels>a=b, c</Labels>",
        "<Containers>3</Containers>",
        "<ExecutionDriver/>",
    ):
        assert part in text


@given(
    answer=st.fixed_dictionaries(
        {}, optional={name: engine_json.anything for name in [*INFO_NAMES, *VERSION_NAMES, "ID", "OSType", "Platform"]}
    )
)
def test_any_facts_are_read_alike_by_all_parsers(answer: Dict[str, Any], orchestra: Reader, center: Reader) -> None:
    info, version = EngineInfo.from_api(answer), EngineVersion.from_api(answer)
    documents = [
        ("docker_info", xmlform.docker_info(info), xmlform.info_fields(info)),
        ("docker_version", xmlform.docker_version(version), xmlform.version_fields(version)),
    ]
    for root, text, fields in documents:
        assert all(map(legal, text)) and counted_entities(text) <= xmlform.ENTITY_BUDGET
        if counted_entities(text) == xmlform.ENTITY_BUDGET:
            continue
        expected = {name: readable(value) for name, value in fields.items()}
        read = center.read(root, text)
        assert read[root] == [expected]
        assert read["entry"] == read["Process"] == []
        assert orchestra.read(root, text)["value"][root] == expected
        assert {child.tag: child.text or "" for child in ElementTree.fromstring(text)} == expected


def test_docker_version_has_every_name_a_client_reads(center: Reader) -> None:
    for answer in ({}, {"ApiVersion": "1.48", "Version": "28.0.1", "GitCommit": "bbd0a17"}):
        read = center.read("docker_version", xmlform.docker_version(EngineVersion.from_api(answer)))
        assert set(VERSION_NAMES) <= set(read["docker_version"][0])
        assert read["docker_version"][0]["ApiVersion"] == answer.get("ApiVersion", "")


# The twin in JSON


def test_the_json_twin_says_the_same() -> None:
    found = containers_from_api(
        [entry(1, Status="Up 1 second (unhealthy)", Ports=[{"PrivatePort": 80, "Type": "tcp"}])]
    ).containers
    assert json.loads(json.dumps(xmlform.as_json(found))) == [
        {
            "id": f"{1:064x}",
            "name": "service-1",
            "image": "registry.example/app:1.2",
            "command": "/entrypoint.sh serve",
            "created": 1700000001,
            "state": "running",
            "exit_code": None,
            "health": "unhealthy",
            "ports": [{"private": 80, "type": "tcp", "public": None, "ip": ""}],
            "group": None,
            "started_at": None,
            "networks": None,
            "mounts": None,
            "restart_count": None,
            "status": "Up",
            "actions": ["stop", "restart", "pause"],
            "reason": "unhealthy",
        }
    ]
    assert xmlform.as_json(EngineInfo.from_api({"Labels": ["a"], "NCPU": 2}))["labels"] == ["a"]
    assert xmlform.as_json(EngineVersion.from_api({"Version": "1"}))["version"] == "1"
    assert xmlform.as_json(found[0]) == xmlform.as_json(found)[0]


@given(answer=engine_json.containers)
def test_the_json_twin_of_anything_is_json(answer: object) -> None:
    twin: Sequence[object] = xmlform.as_json(containers_from_api(answer).containers)
    json.dumps(twin, ensure_ascii=False).encode("utf-8")
