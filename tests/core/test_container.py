"""Any answer of an engine becomes plain, bounded values."""

import json
import re
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients import engine_json
from tests.clients.engine_json import entry
from xscontainer.core.container import MAX_PORTS, Container, Port, containers_from_api
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.engine_facts import EngineInfo, EngineVersion
from xscontainer.sanitize import LATEST, REPLACED, clean_text


def container(**fields: Any) -> Container:
    found = Container.from_api(entry(1, **fields))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "state, status, expected, wording",
    [
        ("running", "Up 5 minutes", "running", "Up"),
        ("running", "Up 5 minutes (healthy)", "running", "Up"),
        ("paused", "Up 5 minutes (Paused)", "paused", "Up (Paused)"),
        ("restarting", "Restarting (1) 2 seconds ago", "restarting", "Restarting (1)"),
        ("exited", "Exited (137) 3 weeks ago", "exited", "Exited (137)"),
        ("exited", "Exited (-1) 3 weeks ago", "exited", "Exited (-1)"),
        ("created", "Created", "created", "Created"),
        ("dead", "Dead", "dead", "Dead"),
        ("removing", "Removal In Progress", "removing", "Removal In Progress"),
        # Very old engines do not report a state.
        (None, "Up 5 minutes", "running", "Up"),
        (None, "Up 5 minutes (Paused)", "paused", "Up (Paused)"),
        (None, "Exited (2) 1 second ago", "exited", "Exited (2)"),
        (None, "Restarting (3) 1 second ago", "restarting", "Restarting (3)"),
        (None, "Dead", "dead", "Dead"),
        (None, "Removal In Progress", "removing", "Removal In Progress"),
        (None, "", "created", "Created"),
        (None, "Mystery", "unknown", "Unknown"),
        # Podman
        ("stopped", "Exited (1) 1 second ago", "exited", "Exited (1)"),
        ("configured", "Created", "created", "Created"),
        ("initialized", "", "created", "Created"),
        ("stopping", "", "running", "Up"),
        # invalid values
        (["running"], 5, "created", "Created"),
        ("Hibernating", "zzz", "hibernating", "Hibernating"),
        ("exited", "no code in here", "exited", "Exited (0)"),
    ],
)
def test_states_are_worded_as_in_the_table(state: object, status: object, expected: str, wording: str) -> None:
    found = container(State=state, Status=status)
    assert (found.state, found.status) == (expected, wording)


@pytest.mark.parametrize(
    "fields, health",
    [
        ({"Status": "Up 5 minutes"}, None),
        ({"Status": "Up 5 minutes (healthy)"}, "healthy"),
        ({"Status": "Up 5 minutes (unhealthy)"}, "unhealthy"),
        ({"Status": "Up 5 minutes (health: starting)"}, "starting"),
        ({"Status": "Up 5 minutes", "Health": {"Status": "healthy", "FailingStreak": 0}}, "healthy"),
        ({"Status": "Up 5 minutes", "Health": {"Status": "none"}}, None),
        ({"Status": "Up 5 minutes (healthy)", "Health": "odd"}, "healthy"),
        ({"Status": "Exited (0) 1 second ago", "State": "exited", "Health": {"Status": "unhealthy"}}, None),
    ],
)
def test_health_is_read_from_either_field(fields: Dict[str, Any], health: Optional[str]) -> None:
    assert container(**fields).health == health


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({}, ""),
        ({"Status": "Up 5 minutes (healthy)"}, ""),
        ({"Status": "Up 5 minutes (unhealthy)"}, "unhealthy"),
        ({"State": "exited", "Status": "Exited (0) 1 second ago"}, ""),
        ({"State": "exited", "Status": "Exited (1) 1 second ago"}, "exit code 1"),
        ({"State": "exited", "Status": "Exited (137) 1 second ago"}, "exit code 137: killed"),
        ({"State": "exited", "Status": "Exited (129) 1 second ago"}, "exit code 129: signal 1"),
        ({"State": "exited", "Status": "Exited (127) 1 second ago"}, "exit code 127: command not found"),
        ({"State": "restarting", "Status": "Restarting (1) 1 second ago"}, "restarting after exit code 1"),
        ({"State": "dead", "Status": "Dead"}, "could not be removed"),
    ],
)
def test_the_reason_names_the_problem_of_a_container(fields: Dict[str, Any], reason: str) -> None:
    assert container(**fields).reason == reason


@pytest.mark.parametrize(
    "state, actions",
    [
        ("running", ("stop", "restart", "pause")),
        ("paused", ("unpause", "stop", "restart")),
        ("restarting", ("stop", "restart")),
        ("exited", ("start", "restart")),
        ("created", ("start",)),
        ("dead", ()),
        ("removing", ()),
        ("hibernating", ()),
    ],
)
def test_actions_follow_the_state(state: str, actions: Tuple[str, ...]) -> None:
    assert container(State=state, Status="").actions == actions


@pytest.mark.parametrize(
    "names, name",
    [
        (["/web"], "web"),
        (["/frontend/db", "/db"], "db"),
        (["/db", "/frontend/db", "/a/x"], "db"),
        (["web"], "web"),
        ([], "0" * 12),
        (None, "0" * 12),
        (["/", ""], "0" * 12),
        ([5, None, "/web"], "web"),
        ("web", "0" * 12),
        (["/" + "n" * 255], "n" * 255),
    ],
)
def test_a_container_has_one_name_without_a_slash(names: object, name: str) -> None:
    assert container(Names=names).name == name


def test_a_container_without_an_id_is_none() -> None:
    for bad in (None, "", "abc", "g" * 64, "A" * 64, "a" * 65, "a" * 64 + "\n", 5):
        assert Container.from_api(entry(1, Id=bad)) is None
    nothing: List[object] = [None, [], "x", 5]
    for bad_entry in nothing:
        assert Container.from_api(bad_entry) is None


@pytest.mark.parametrize(
    "created, seconds",
    [
        (1700000000, 1700000000),
        (1700000000.9, 1700000000),
        ("1700000000", 1700000000),
        (-1, None),
        (LATEST, LATEST),
        (LATEST + 1, None),
        (10**400, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("9" * 5000, None),
        ("2024-01-01T00:00:00Z", 1704067200),
        ("2024-01-01T00:00:00.123456789+02:00", 1704060000),
        ("2024-01-01T00:00:00-01:30", 1704072600),
        ("1969-12-31T23:59:59Z", None),
        ("2024-13-01T00:00:00Z", None),
        ("2024-01-01T00:00:00", None),
        ("0001-01-01T00:00:00Z", None),
        (None, None),
        (0, None),
        ("2024-01-01 00:00:00.123456789 +0200 CEST", None),
    ],
)
def test_created_is_in_seconds_and_in_the_range_of_a_date(created: object, seconds: Optional[int]) -> None:
    assert container(Created=created).created == seconds


def test_ports_are_sorted_and_invalid_ones_dropped() -> None:
    ports = [
        {"PrivatePort": 443, "Type": "tcp"},
        {"PrivatePort": 80, "PublicPort": 8080, "IP": "::", "Type": "tcp"},
        {"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"},
        {"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"},
        {"PrivatePort": -1},
        {"PrivatePort": "eighty"},
        None,
    ]
    expected = (Port(80, "tcp", 8080, "0.0.0.0"), Port(80, "tcp", 8080, "::"), Port(443, "tcp"))
    assert container(Ports=ports).ports == container(Ports=ports[::-1]).ports == expected


def test_published_ports_are_kept_when_there_are_too_many() -> None:
    ports: List[Dict[str, Any]] = [{"PrivatePort": n, "Type": "udp"} for n in range(1, 10000)]
    ports.append({"PrivatePort": 20000, "PublicPort": 80, "IP": "0.0.0.0", "Type": "tcp"})
    found = container(Ports=ports).ports
    assert len(found) == MAX_PORTS
    assert Port(20000, "tcp", 80, "0.0.0.0") in found


def test_a_command_as_list_is_joined() -> None:
    assert container(Command=["sh", "-c", "sleep 1", 5, None]).command == "sh -c sleep 1"


def test_text_is_truncated_and_unprintable_characters_are_replaced() -> None:
    assert clean_text(" a\x00b\x1b\ud800c\ufffe\U0001ffffd ", 50) == "a\ufffdb\ufffd\ufffdc\ufffd\ufffdd"
    assert clean_text("a\r\nb\rc\td", 50) == "a\nb\nc\td"
    assert clean_text("\ufeff\x85\u00a0a\u2028", 50) == "a"
    assert clean_text("x" * (1 << 20), 10) == "x" * 9 + "…"
    assert clean_text("x" * 10, 10) == "x" * 10
    assert clean_text(5, 10) == clean_text(None, 10) == clean_text(["x"], 10) == ""


def test_the_list_has_each_id_once_and_newest_first() -> None:
    answer = [entry(1), entry(3), {"Id": "x"}, entry(2), entry(3, Image="other"), None]
    found = containers_from_api(answer)
    assert [(c.created or 0) - 1700000000 for c in found.containers] == [3, 2, 1]
    assert (found.left_out, found.unusable) == (0, 3)
    assert containers_from_api(answer[:4]).containers == containers_from_api(answer[3::-1]).containers


def test_a_list_above_the_limit_is_shortened_and_the_rest_is_counted() -> None:
    answer = [entry(n, State="running" if n % 2 else "exited") for n in range(20)]
    found = containers_from_api(answer, limit=12)
    assert found.left_out == 8
    numbers = [(c.created or 0) - 1700000000 for c in found.containers]
    assert numbers == [19, 18, 17, 16, 15, 13, 11, 9, 7, 5, 3, 1]  # all running ones, and the newest of the others


@pytest.mark.parametrize("answer", [None, {}, "", 5, [[]], [None], [{}]])
def test_an_answer_that_is_no_list_gives_no_containers(answer: object) -> None:
    assert containers_from_api(answer).containers == ()


@given(engine_json.containers)
def test_any_answer_becomes_bounded_printable_values(answer: object) -> None:
    found = containers_from_api(answer)
    for item in found.containers:
        assert 0 < len(item.name) <= 256
        assert len(item.image) <= 255 and len(item.command) <= 128 and len(item.state) <= 32
        assert item.created is None or 0 < item.created <= LATEST
        assert item.health in (None, "starting", "healthy", "unhealthy")
        assert len(item.ports) <= MAX_PORTS
        assert item.status
        json.dumps(item, ensure_ascii=False).encode("utf-8")  # no lone surrogate is left
        hash(item)
    if isinstance(answer, list) and not found.unusable:
        assert containers_from_api(answer[::-1]) == found  # the order of the answer makes no difference


@given(
    engine_json.anything,
    st.dictionaries(st.sampled_from(["Version", "NCPU", "Labels", "Type", "Actor"]), engine_json.anything),
)
def test_any_facts_and_events_become_bounded_values(answer: object, fields: Dict[str, Any]) -> None:
    for data in (answer, fields):
        for kind in (EngineVersion, EngineInfo, EngineEvent):
            value = kind.from_api(data)
            assert value == kind.from_api(data)
            json.dumps(value, ensure_ascii=False).encode("utf-8")
            assert all(len(member) <= 256 for member in value if isinstance(member, (str, tuple)))


def test_the_version_of_a_current_engine_is_read() -> None:
    found = EngineVersion.from_api(
        {
            "Platform": {"Name": "Docker Engine - Community"},
            "Version": "28.0.1",
            "ApiVersion": "1.48",
            "MinAPIVersion": "1.24",
            "GitCommit": "bbd0a17",
            "GoVersion": "go1.23.6",
            "Os": "linux",
            "Arch": "amd64",
            "KernelVersion": "6.1.0",
            "BuildTime": "2025-02-26T10:39:00.000000000+00:00",
            "Experimental": True,
            "Components": [{"Name": "Engine"}],
        }
    )
    assert found == EngineVersion(
        "28.0.1",
        "1.48",
        "1.24",
        "bbd0a17",
        "go1.23.6",
        "linux",
        "amd64",
        "6.1.0",
        "2025-02-26T10:39:00.000000000+00:00",
        "Docker Engine - Community",
    )


def test_info_counters_do_not_count_as_a_change() -> None:
    answer = {
        "ID": "x",
        "Name": "web",
        "NCPU": 4,
        "MemTotal": 1 << 34,
        "Containers": 7,
        "Images": 3,
        "Labels": ["a=b", 5],
    }
    first = EngineInfo.from_api(answer)
    assert (first.cpus, first.memory, first.containers, first.images, first.labels) == (4, 1 << 34, 7, 3, ("a=b",))
    later = EngineInfo.from_api(
        dict(answer, Containers=8, Images=4, NGoroutines=99, SystemTime="2030", ContainersRunning=3)
    )
    assert later != first
    assert later.stable_key() == first.stable_key()
    assert EngineInfo.from_api(dict(answer, NCPU=8)).stable_key() != first.stable_key()


@pytest.mark.parametrize(
    "given_value, expected", [(True, True), (False, False), (1, True), (0, False), ("x", None), (None, None)]
)
def test_ipv4_forwarding_of_old_and_new_engines_is_read(given_value: object, expected: Optional[bool]) -> None:
    assert EngineInfo.from_api({"IPv4Forwarding": given_value}).ipv4_forwarding is expected


_ATTRIBUTES = {"image": "busybox", "name": "web", "exitCode": "137"}


def test_an_event_reads_the_same_from_old_and_new_engines() -> None:
    both = {
        "status": "die",
        "id": "a" * 64,
        "from": "busybox",
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "a" * 64, "Attributes": _ATTRIBUTES},
        "scope": "local",
        "time": 1700000000,
        "timeNano": 1700000000123456789,
    }
    new = {key: value for key, value in both.items() if key not in ("status", "id", "from")}
    found = EngineEvent.from_api(both)
    assert found == EngineEvent.from_api(new)
    assert (found.type, found.action, found.id, found.name) == ("container", "die", "a" * 64, "web")
    old = EngineEvent.from_api({"status": "die", "id": "a" * 64, "from": "busybox", "time": 1700000000})
    assert (old.type, old.action, old.id) == ("container", "die", "a" * 64)


@pytest.mark.parametrize(
    "answer, action, health",
    [
        ({"Action": "health_status: healthy"}, "health_status", "healthy"),
        ({"Action": "health_status: unhealthy"}, "health_status", "unhealthy"),
        ({"Action": "health_status", "HealthStatus": "healthy"}, "health_status", "healthy"),
        ({"Action": "health_status: <b>"}, "health_status", None),
        ({"Action": "exec_start: sh -c 'a: b'"}, "exec_start", None),
        ({"Action": "start"}, "start", None),
    ],
)
def test_an_action_is_the_bare_verb(answer: Dict[str, Any], action: str, health: Optional[str]) -> None:
    found = EngineEvent.from_api(dict(answer, Type="container"))
    assert (found.action, found.health) == (action, health)


@pytest.mark.parametrize(
    "kind, action, list_changes",
    [
        ("container", "start", True),
        ("container", "die", True),
        ("container", "rename", True),
        ("container", "health_status: healthy", True),
        ("container", "levitate", True),
        ("container", "exec_create: sh", False),
        ("container", "exec_die", False),
        ("container", "top", False),
        ("container", "attach", False),
        ("network", "connect", False),
        ("image", "pull", False),
        ("", "", False),
    ],
)
def test_an_event_changes_the_list_as_in_the_table(kind: str, action: str, list_changes: bool) -> None:
    assert EngineEvent.from_api({"Type": kind, "Action": action}).changes_list is list_changes


def test_the_fields_of_an_event_are_bounded() -> None:
    long = "v" * 10000
    found = EngineEvent.from_api({"Type": long, "Action": long, "Actor": {"ID": long, "Attributes": {"name": long}}})
    assert [len(text) for text in (found.type, found.action, found.id, found.name)] == [32, 256, 128, 255]


def test_no_character_that_is_replaced_counts_as_printable() -> None:
    """Printable texts are taken as they are."""
    replaced = re.compile(f"[{REPLACED}]")
    assert [hex(code) for code in range(0x110000) if replaced.match(chr(code)) and chr(code).isprintable()] == []
    for code in range(0x10000):
        cleaned = clean_text(f"a{chr(code)}b", 9)
        assert cleaned == ("a\ufffdb" if replaced.match(chr(code)) else "a\nb" if code == 13 else f"a{chr(code)}b")
