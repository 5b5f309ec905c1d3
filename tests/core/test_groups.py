"""The group of a container is read from its labels."""

from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core.groups import COMPOSE, NAME_LIMIT, NO_GROUP, POD, SWARM, Group, group_of, group_of_entry

COMPOSE_LABELS = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web",
                  "com.docker.compose.container-number": "2", "com.docker.compose.oneoff": "False"}
SWARM_LABELS = {"com.docker.stack.namespace": "shop", "com.docker.swarm.service.name": "shop_web",
                "com.docker.swarm.task.name": "shop_web.3.k5v8x1"}


@pytest.mark.parametrize("labels, group", [
    (COMPOSE_LABELS, Group(COMPOSE, "shop", "web", 2)),
    ({**COMPOSE_LABELS, "com.docker.compose.oneoff": "True"}, Group(COMPOSE, "shop", "web", 2, True)),
    ({"io.podman.compose.project": "shop", "io.podman.compose.service": "db"}, Group(COMPOSE, "shop", "db")),
    (SWARM_LABELS, Group(SWARM, "shop", "web", 3)),
    ({**SWARM_LABELS, "com.docker.swarm.task.name": "shop_web.node1.k5"}, Group(SWARM, "shop", "web")),
    ({"io.kubernetes.pod.name": "api-0", "io.kubernetes.container.name": "app"}, Group(POD, "api-0", "app")),
    ({"PODMAN_SYSTEMD_UNIT": "web.service"}, Group(unit="web.service")),
    ({**COMPOSE_LABELS, "PODMAN_SYSTEMD_UNIT": "shop.service"}, Group(COMPOSE, "shop", "web", 2, unit="shop.service")),
    ({**SWARM_LABELS, **COMPOSE_LABELS}, Group(COMPOSE, "shop", "web", 2)),
    ({"maintainer": "me"}, NO_GROUP), ({}, NO_GROUP), (None, NO_GROUP), ([], NO_GROUP),
], ids=str)
def test_labels_name_a_group(labels: Any, group: Group) -> None:
    assert group_of(labels) == group


def test_podman_lists_the_pod_of_a_container() -> None:
    assert group_of_entry({"Labels": None, "Pod": "0f", "PodName": "shop"}) == Group(POD, "shop")
    assert group_of_entry({"Labels": COMPOSE_LABELS, "PodName": "pod_shop"}).kind == COMPOSE
    assert group_of_entry(None) == NO_GROUP


LABEL_NAMES = sorted({*COMPOSE_LABELS, *SWARM_LABELS, "PODMAN_SYSTEMD_UNIT", "io.kubernetes.pod.name"})
VALUES = st.one_of(st.text(max_size=300), st.integers(), st.none(), st.lists(st.text(max_size=3), max_size=2))


@given(labels=st.dictionaries(st.sampled_from(LABEL_NAMES), VALUES), pod=VALUES)
def test_any_labels_make_a_bounded_group(labels: Dict[str, Any], pod: Any) -> None:
    group = group_of(labels, pod)
    for text in (group.kind, group.name, group.service, group.unit):
        assert isinstance(text, str) and len(text) <= NAME_LIMIT
    assert group.number is None or 0 <= group.number <= 1 << 31
    assert bool(group.kind) == bool(group.name)
