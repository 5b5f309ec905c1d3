"""Networks and mounts of containers are read from any engine's list, within bounds."""

from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients import engine_json
from tests.clients.engine_json import entry
from xscontainer.core.container import Collected, Container
from xscontainer.core.container_details import MOST_MOUNTS, MOST_NETWORKS, TEXT_LIMIT, Mount, Network

# As dockerd 20.10.24 and podman 4.3.1 list them (GET /containers/json), and podman's own list.
ENDPOINT = {"IPAMConfig": None, "Links": None, "Aliases": None, "NetworkID": "89d9", "EndpointID": "d4e8",
            "Gateway": "172.18.0.1", "IPAddress": "172.18.0.2", "IPPrefixLen": 16, "IPv6Gateway": "",
            "GlobalIPv6Address": "fd00::2", "GlobalIPv6PrefixLen": 64, "MacAddress": "02:42:ac:12:00:02"}
VOLUME = {"Type": "volume", "Name": "shop_data", "Source": "/var/lib/docker/volumes/shop_data/_data",
          "Destination": "/data", "Driver": "local", "Mode": "z", "RW": True, "Propagation": ""}
BIND = {"Type": "bind", "Source": "/srv/conf", "Destination": "/conf", "Mode": "ro", "RW": False,
        "Propagation": "rprivate"}
DOCKER = {"NetworkSettings": {"Networks": {"shop_front": ENDPOINT, "none": {"IPAddress": ""}}},
          "Mounts": [VOLUME, BIND]}
PODMAN = {"NetworkSettings": {"Networks": None}, "Mounts": [VOLUME]}
LIBPOD = {"Networks": ["podman", "shop_front"], "Mounts": ["/data", "/conf"], "Restarts": 3}


def detailed(**fields: Any) -> Container:
    found = Container.from_api(entry(1, **fields), details=True)
    assert found is not None
    return found


def test_dockers_list_gives_networks_and_mounts() -> None:
    found = detailed(**DOCKER)
    assert found.networks == (Network("none"), Network("shop_front", "172.18.0.2", "fd00::2"))
    assert found.mounts == (Mount("bind", "/srv/conf", "/conf", True), Mount("volume", "shop_data", "/data", False))
    assert found.restart_count is None


def test_podmans_list_gives_mounts_and_no_networks_of_the_host_mode() -> None:
    found = detailed(**PODMAN)
    assert found.networks is None and found.mounts == (Mount("volume", "shop_data", "/data", False),)


def test_podmans_own_list_gives_names_only() -> None:
    found = detailed(**LIBPOD)
    assert found.networks == (Network("podman"), Network("shop_front"))
    assert found.mounts == (Mount("", "", "/conf"), Mount("", "", "/data"))
    assert found.restart_count == 3


def test_details_are_read_on_demand_only() -> None:
    found = Container.from_api(entry(1, **DOCKER, RestartCount=4))
    assert found is not None
    assert (found.networks, found.mounts, found.restart_count) == (None, None, None)


@pytest.mark.parametrize("given, bound", [
    ({"Mounts": [dict(BIND, Destination=f"/{number}") for number in range(5000)]}, MOST_MOUNTS),
    ({"NetworkSettings": {"Networks": {f"net{number}": ENDPOINT for number in range(5000)}}}, MOST_NETWORKS),
    ({"Networks": [f"net{number}" for number in range(5000)]}, MOST_NETWORKS),
], ids=["mounts", "networks", "names"])
def test_the_number_of_details_is_bounded(given: Dict[str, Any], bound: int) -> None:
    found = detailed(**given)
    assert len(found.networks or ()) + len(found.mounts or ()) == bound


@given(fields=st.fixed_dictionaries({}, optional={
    "Networks": st.one_of(st.lists(engine_json.scalar, max_size=3), engine_json.anything),
    "NetworkSettings": st.one_of(
        st.fixed_dictionaries({"Networks": st.dictionaries(engine_json.text, engine_json.anything, max_size=3)}),
        engine_json.anything),
    "Mounts": st.one_of(st.lists(st.one_of(
        st.fixed_dictionaries({name: engine_json.scalar for name in ("Type", "Name", "Source", "Destination", "RW")}),
        engine_json.scalar), max_size=3), engine_json.anything),
    "Restarts": engine_json.scalar}))
def test_any_details_become_bounded_values(fields: Dict[str, Any]) -> None:
    found = detailed(**fields)
    for item in (found.networks or ()) + (found.mounts or ()):
        assert all(len(text) <= TEXT_LIMIT for text in item if isinstance(text, str))
    assert found.restart_count is None or found.restart_count >= 0
    assert found.cost > 0


def test_the_cost_counts_the_details() -> None:
    texts = {"Source": "s" * 300, "Destination": "d" * 300, "Type": "bind"}
    many = {"Mounts": [dict(texts, Destination=f"{number}" + "d" * 300) for number in range(16)]}
    plain, costly = Collected(), Collected(details=True)
    plain.add(entry(1, **many))
    costly.add(entry(1, **many))
    assert costly.cost > plain.cost + 16 * 2 * 255
