"""The cells of a container say what docker users expect."""

from typing import List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.cli.listing import cells
from xscontainer.core.container import Container, Port


def port(private: int, public: Optional[int] = None, ip: str = "", kind: str = "tcp") -> Port:
    return Port(private, kind, public, ip)


def both(private: int, public: int, kind: str = "tcp") -> List[Port]:
    return [port(private, public, "0.0.0.0", kind), port(private, public, "::", kind)]


@pytest.mark.parametrize("given, text", [
    ([], ""),
    ([port(80)], "80/tcp"),
    (both(80, 8080), "8080->80/tcp"),
    ([port(80, 8080, "0.0.0.0")], "8080->80/tcp"),
    ([port(80, 8080, "::")], "[::]:8080->80/tcp"),
    ([port(80, 8080, "127.0.0.1")], "127.0.0.1:8080->80/tcp"),
    ([port(80, 8080, "127.0.0.1"), port(80, 8080, "::1")], "127.0.0.1:8080->80/tcp, [::1]:8080->80/tcp"),
    ([*both(8000, 8000), *both(8001, 8001), *both(8002, 8002), *both(8003, 8003)], "8000-8003->8000-8003/tcp"),
    ([*both(80, 8000), *both(81, 8001)], "8000-8001->80-81/tcp"),
    ([*both(80, 8001), *both(81, 8000)], "8001->80/tcp, 8000->81/tcp"),
    ([*both(53, 53), *both(53, 53, "udp")], "53->53/tcp, 53->53/udp"),
    ([port(8000), port(8001), *both(8002, 8002)], "8000-8001/tcp, 8002->8002/tcp"),
    ([*both(443, 8443), *both(80, 8080)], "8080->80/tcp, 8443->443/tcp"),
    ([*both(80, 8080), *both(80, 8081)], "8080->80/tcp, 8081->80/tcp"),
])
def test_ports_are_joined_as_docker_does(given: List[Port], text: str) -> None:
    assert cells.ports(given) == text
    assert cells.ports(list(reversed(given))) == text


some_ports = st.lists(st.builds(Port, st.integers(1, 6), st.sampled_from(["tcp", "udp"]),
                                st.one_of(st.none(), st.integers(1, 6)), st.sampled_from(["", "0.0.0.0", "::", "::1"])),
                      max_size=16)


@given(some_ports)
def test_every_port_is_in_the_text(given: List[Port]) -> None:
    shown = set()
    for part in filter(None, cells.ports(given).split(", ")):
        numbers, _, kind = part.partition("/")
        public, _, private = numbers.rpartition("->")
        first, _, last = private.partition("-")
        first_public = public.rpartition(":")[2].partition("-")[0]
        for offset in range(int(last or first) - int(first) + 1):
            shown.add((int(first) + offset, kind, int(first_public) + offset if first_public else None))
    assert shown == {(each.private, each.type, each.public) for each in given}


@pytest.mark.parametrize("seconds, text", [
    (-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (3660, "1h 1m"), (86399, "23h 59m"),
    (86400, "1d"), (90000, "1d 1h"), (86400 * 100, "100d"), (86400 * 4000, "4000d")])
def test_a_time_span_has_at_most_two_units(seconds: float, text: str) -> None:
    assert cells.span(seconds) == text


@given(st.floats(0, 10 ** 7))
def test_a_time_span_does_not_change_before_it_is_drawn_again(seconds: float) -> None:
    wait = cells.until_next(seconds)
    assert wait > 0
    assert cells.span(seconds + wait * 0.999 - 0.002) == cells.span(seconds) or wait < 0.01


def container(state: str, health: Optional[str] = None, code: Optional[int] = None) -> Container:
    return Container("a" * 64, "web", "nginx", "", 1, state, code, health)


@pytest.mark.parametrize("given, text", [
    (("running",), "running"), (("running", "healthy"), "running (healthy)"),
    (("running", "unhealthy"), "running (unhealthy)"), (("exited", None, 137), "exited (137)"),
    (("exited",), "exited (0)"), (("restarting", None, 1), "restarting (1)"), (("created",), "created")])
def test_the_state_has_the_health_or_the_exit_code(given: Tuple[str, ...], text: str) -> None:
    assert cells.state(container(*given)) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("image, short", [
    ("nginx", "nginx"), ("nginx:1.25", "nginx:1.25"), ("library/nginx", "library/nginx"),
    ("registry.example.com/shop/api:2", "…/shop/api:2"), ("localhost/app", "…/app"), ("host:5000/app", "…/app"),
    ("registry.example.com/", "registry.example.com/"), ("", "")])
def test_a_short_image_has_no_registry(image: str, short: str) -> None:
    assert cells.short_image(image) == short
