"""The length of a container list, and the fields that are dropped when it is too long."""

import json
import time
from typing import Any, List, Tuple
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients import Reader, engine_json
from tests.clients.engine_json import entry
from xscontainer.clients import xmlform
from xscontainer.core.container import Container, containers_from_api, least_wanted_last

LABELS = {"com.docker.compose.project": "shop", "com.docker.compose.service": "frontend",
          "com.docker.compose.container-number": "1"}
EMPTY_BYTES = 300  # a document with no container in it, but with both notes


@pytest.fixture(scope="module")
def readers(orchestra: Reader, center: Reader) -> List[Reader]:
    return [orchestra, center]


def typical(number: int, **fields: Any) -> Any:
    """Name, image and command as long as they usually are, one port published for both families."""
    ports = [{"IP": ip, "PrivatePort": 8080, "PublicPort": 30000 + number, "Type": "tcp"} for ip in ("0.0.0.0", "::")]
    plain = {
        "Names": [f"/shop-frontend-{number}"],
        "Image": "registry.lan/shop/web:2.14",
        "Command": "/entrypoint.sh serve",
        "Ports": ports,
        "Status": "Up 5 minutes (healthy)",
    }
    return entry(number, Id=f"{number * 7919:064x}", **{**plain, **fields})


def some(count: int, **fields: Any) -> Tuple[Container, ...]:
    return containers_from_api([typical(number, **fields) for number in range(count)]).containers


def in_request(text: str) -> int:
    """Bytes of the value in a request to XAPI, in JSON-RPC or in XML-RPC, whichever is longer."""
    as_json = len(json.dumps(text, ensure_ascii=False).encode("utf-8")) - 2
    return max(as_json, len(escape(text, {'"': "&quot;"}).encode("utf-8")))


def test_fifty_typical_containers_cost_less_than_36_kb() -> None:
    document = xmlform.docker_ps(some(50))
    assert in_request(document.text) < 36000
    assert (document.left_out, document.dropped) == (0, ())


def test_six_hundred_typical_containers_are_all_listed(readers: List[Reader]) -> None:
    document = xmlform.docker_ps(some(600))
    assert document.left_out == 0
    assert in_request(document.text) <= xmlform.VALUE_LIMIT
    answer = readers[0].read("docker_ps", document.text)["value"]["docker_ps"]
    assert len(answer["item"]) == 600
    assert len({item["entry"]["id"] for item in answer["item"]}) == 600
    assert "left_out" not in answer
    assert answer["dropped"].split() == list(document.dropped)
    assert len(readers[1].read("docker_ps", document.text)["entry"]) == 600


def test_a_list_that_fits_has_no_note() -> None:
    containers = some(50)
    text = xmlform.docker_ps(containers).text
    assert xmlform.docker_ps(containers, limit=in_request(text)).text == text
    assert "left_out" not in text and "dropped" not in text
    assert xmlform.docker_ps(containers, limit=in_request(text) - 1).dropped


def test_the_least_useful_fields_go_first() -> None:
    shown = containers_from_api([typical(99, Labels=LABELS, StartedAt=1700000200)]).containers
    containers = some(20, State="exited", Status="Exited (137) 1 second ago") + shown
    whole = in_request(xmlform.docker_ps(containers).text)
    order: List[Tuple[str, ...]] = []
    left_out = 0
    for limit in range(whole, 2000, -50):
        document = xmlform.docker_ps(containers, limit=limit)
        assert document.left_out >= left_out
        left_out = document.left_out
        if not order or order[-1] != document.dropped:
            order.append(document.dropped)
        if left_out:
            assert document.dropped == order[-1]  # containers go only when all the fields are gone
    wanted = ("service", "started_at", "group", "reason", "actions", "health", "state", "ports", "command", "image")
    assert all(dropped == wanted[: len(dropped)] for dropped in (tuple(d) for d in order))
    assert order[-1] == wanted
    assert left_out > 0


def test_a_shortened_entry_keeps_what_clients_need(readers: List[Reader]) -> None:
    image = "registry.example:5000/team/a&b/<application>-with-a-long-name:1.2.3@sha256:" + "0" * 64
    containers = some(100, Image=image)
    document = xmlform.docker_ps(containers, limit=30000)
    assert "image" in document.dropped
    first = readers[0].read("docker_ps", document.text)["value"]["docker_ps"]["item"][0]["entry"]
    assert first == {
        "id": containers[0].id,
        "names": "shop-frontend-99",
        "status": "Up",
        "container": containers[0].id[:10],
        "created": str(containers[0].created),
        "image": "<application>-with-…",
        "command": "",
        "ports": "",
    }


def test_running_containers_outlive_stopped_ones_and_new_ones_old_ones() -> None:
    answer = [typical(n, State="exited" if n % 2 else "running", Status="") for n in range(100)]
    containers = containers_from_api(answer).containers
    for limit in (5000, 10000, 15000, 20000, 25000):
        document = xmlform.docker_ps(containers, limit=limit)
        kept = {c.id for c in xmlform.read_docker_ps(document.text).containers}
        assert kept == {c.id for c in sorted(containers, key=least_wanted_last)[: len(kept)]}
        assert len(kept) == 100 - document.left_out


def test_the_document_says_what_is_missing(readers: List[Reader]) -> None:
    document = xmlform.docker_ps(some(100), limit=9000, left_out=7)
    assert document.left_out > 7
    answer = readers[0].read("docker_ps", document.text)["value"]["docker_ps"]
    assert answer["left_out"] == str(document.left_out)
    assert answer["dropped"] == " ".join(document.dropped)
    assert len(answer["item"]) == 107 - document.left_out
    read = readers[1].read("docker_ps", document.text)
    assert len(read["entry"]) == 107 - document.left_out
    assert [child[0] for child in read["root"][2]][-2:] == ["left_out", "dropped"]
    assert xmlform.read_docker_ps(document.text).left_out == document.left_out


def test_a_list_that_fits_says_what_the_caller_left_out() -> None:
    document = xmlform.docker_ps(some(1), left_out=4000)
    assert document.text.endswith("</item><left_out>4000</left_out></docker_ps>")
    assert document.left_out == 4000


def test_a_list_without_room_for_any_container_is_still_one(readers: List[Reader]) -> None:
    document = xmlform.docker_ps(some(3), limit=0)
    assert document.left_out == 3
    assert len(document.text) < EMPTY_BYTES
    for reader in readers:
        assert "error" not in reader.read("docker_ps", document.text)


@given(answer=engine_json.containers, limit=st.integers(0, 4000))
def test_no_document_is_longer_than_its_limit(answer: object, limit: int, readers: List[Reader]) -> None:
    containers = containers_from_api(answer).containers
    document = xmlform.docker_ps(containers, limit=limit)
    assert in_request(document.text) <= max(limit, EMPTY_BYTES)
    read = readers[1].read("docker_ps", document.text)
    assert len(read["entry"]) + document.left_out == len(containers)
    assert "error" not in readers[0].read("docker_ps", document.text)


@pytest.mark.parametrize("filler", ['"', "\\", "\U0001f600", "\u540d", "\n", "<", "&", "]]>", "\x7f"])
def test_the_limit_counts_escaped_bytes(filler: str) -> None:
    containers = some(600, Command=f"a{filler * 126}b", Image=f"a{filler * 253}b")
    document = xmlform.docker_ps(containers)
    assert document.dropped
    assert in_request(document.text) <= xmlform.VALUE_LIMIT


def test_five_thousand_of_the_longest_containers_fit() -> None:
    longest = [entry(n, Names=["/" + "\U0001f600" * 255], Image="i" * 300, Command="c" * 999) for n in range(5000)]
    found = containers_from_api(longest)
    document = xmlform.docker_ps(found.containers, left_out=found.left_out)
    assert in_request(document.text) <= xmlform.VALUE_LIMIT
    assert document.left_out > 4000
    kept = xmlform.read_docker_ps(document.text).containers
    assert [c.created for c in kept] == [c.created for c in found.containers[: len(kept)]]


def test_fifty_containers_are_written_within_milliseconds() -> None:
    """Each container event writes a list. The bound is loose: it finds a wrong order of magnitude."""
    containers = some(50)
    fastest = 1.0
    for _ in range(20):
        start = time.perf_counter()
        xmlform.docker_ps(containers)
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 0.005
