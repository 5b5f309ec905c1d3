"""How a VM's keys say where its engine is: written by others, so checked."""

import pytest

from xscontainer import keys
from xscontainer.access import Reach
from xscontainer.errors import ArgumentError, ModeUnsupported
from xscontainer.settings import Settings


def test_without_keys_the_settings_say() -> None:
    assert Reach.of({}, Settings()) == Reach("core", 22, "/var/run/docker.sock")


def test_keys_win() -> None:
    config = {keys.USERNAME: "deploy.er-1", keys.SSH_PORT: "2222", keys.ENGINE_SOCKET: "/run/user/1000/podman.sock",
              keys.MODE: "ssh"}
    assert Reach.of(config, Settings()) == Reach("deploy.er-1", 2222, "/run/user/1000/podman.sock")


@pytest.mark.parametrize("key, value", [
    (keys.USERNAME, "-oProxyCommand=x"), (keys.USERNAME, "a b"), (keys.USERNAME, "root\n"), (keys.USERNAME, "x" * 65),
    (keys.SSH_PORT, "0"), (keys.SSH_PORT, "65536"), (keys.SSH_PORT, "22; reboot"), (keys.SSH_PORT, "\u0662\u0662"),
    (keys.ENGINE_SOCKET, "docker.sock"), (keys.ENGINE_SOCKET, "/a/../b"), (keys.ENGINE_SOCKET, "/a$(reboot)"),
    (keys.ENGINE_SOCKET, "/a b"), (keys.ENGINE_SOCKET, "/" + "x" * 101), (keys.ENGINE_SOCKET, "/a\n"),
])
def test_a_value_that_cannot_be_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Reach.of({key: value}, Settings())
    assert key in str(caught.value)


def test_a_vm_prepared_for_tls_is_told_apart() -> None:
    with pytest.raises(ModeUnsupported, match="tls"):
        Reach.of({keys.MODE: "tls"}, Settings())
