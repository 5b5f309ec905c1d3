"""The result of the function ``list`` stays within its limit."""

import json
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients import engine_json
from tests.clients.engine_json import entry
from tests.core.test_container_details import DOCKER
from xscontainer.clients import inventory, xmlform
from xscontainer.clients.list_result import LIMIT, list_result
from xscontainer.core.container import Collected, ContainerList, least_wanted_last

VM = inventory.VM("4a1b2c3d-0000-4000-8000-123456789abc", "web \u540d", "Running", True, "20.10.24", "1.41",
                  problem=inventory.Problem("EVENTS_UNAVAILABLE", "late"))


def collected(*entries: Any) -> ContainerList:
    found = Collected(details=True)
    for each in entries:
        found.add(each)
    return found.result()


def read(text: str) -> Dict[str, Any]:
    text.encode("ascii")
    found: Dict[str, Any] = json.loads(text)
    assert list(found) == ["vm", "engine", "problem", "containers", "left_out"]
    return found


def test_the_result_has_the_form_of_the_documentation() -> None:
    found = read(list_result(VM, collected(entry(1, **DOCKER), entry(2), None, {})))
    assert found["vm"] == {"uuid": VM.uuid, "name": VM.name, "power_state": "Running", "monitored": True}
    assert found["engine"] == {"version": "20.10.24", "api_version": "1.41"}
    assert found["problem"] == {"code": "EVENTS_UNAVAILABLE", "message": "late"}
    assert found["left_out"] == 2
    assert [each["name"] for each in found["containers"]] == ["service-2", "service-1"]
    first = found["containers"][1]
    assert first["networks"][1] == {"name": "shop_front", "ip": "172.18.0.2", "ip6": "fd00::2"}
    assert first["mounts"][0] == {"type": "bind", "source": "/srv/conf", "destination": "/conf", "read_only": True}


def test_details_are_left_out_before_containers() -> None:
    listed = collected(*(entry(number, **DOCKER) for number in range(20)))
    whole = list_result(VM, listed)
    shorter = read(list_result(VM, listed, len(whole) - 50))
    assert shorter["left_out"] == 0 and all(each["mounts"] is None for each in shorter["containers"])
    shortest = read(list_result(VM, listed, len(whole) // 3))
    assert 0 < len(shortest["containers"]) == 20 - shortest["left_out"]


def test_running_containers_stay_longest() -> None:
    listed = collected(*(entry(n, State="exited" if n % 2 else "running", Status="") for n in range(100)))
    found = read(list_result(VM, listed, 20000))
    kept = {each["id"] for each in found["containers"]}
    assert kept == {each.id for each in sorted(listed.containers, key=least_wanted_last)[:len(kept)]}


@pytest.mark.parametrize("filler", ["x", "\U0001f600", '"', "\\"])
def test_the_longest_list_fits(filler: str) -> None:
    mounts = [{"Destination": f"/{number}" + filler * 300, "Source": filler * 300} for number in range(16)]
    listed = collected(*(entry(number, Names=["/" + filler * 255], Image=filler * 300, Mounts=mounts)
                         for number in range(1500)))
    assert listed.left_out == 0
    text = list_result(VM, listed)
    assert LIMIT / 3 < len(text) <= LIMIT
    found = read(text)
    assert len(found["containers"]) + found["left_out"] == 1500


@given(answer=engine_json.containers, limit=st.integers(600, 5000))
def test_any_list_stays_within_any_limit(answer: Any, limit: int) -> None:
    listed = collected(*answer)
    text = list_result(VM, listed, limit)
    assert len(text) <= limit
    assert len(read(text)["containers"]) <= len(listed.containers)
    whole = read(list_result(VM, listed))
    assert whole["containers"] == json.loads(json.dumps(xmlform.as_json(listed.containers)))
