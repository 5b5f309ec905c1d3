"""Tests of the keys that say how a VM's engine is reached. Clients write these keys, so they are validated."""

import paramiko
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xscontainer import keys
from xscontainer.core.target import Reach
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import ArgumentError, GuestUnreachable, ModeUnsupported
from xscontainer.settings import Settings

KEY = paramiko.ECDSAKey.generate()
UUIDS = tuple(f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123")


def test_the_settings_apply_without_keys() -> None:
    assert Reach.of({}, Settings()) == Reach("ssh", "", 22, "core", "")


def test_keys_override_the_settings() -> None:
    config = {keys.USERNAME: "deploy.er-1", keys.SSH_PORT: "2222", keys.ENGINE_SOCKET: "/run/user/1000/podman.sock",
              keys.MODE: "ssh", keys.ADDRESS: "docker-7.Example.org", keys.ENGINE: "podman", keys.TLS_PORT: "x"}
    assert Reach.of(config, Settings()) == Reach(
        "ssh", "docker-7.example.org", 2222, "deploy.er-1", "/run/user/1000/podman.sock", "podman")


def test_tls_uses_its_own_keys() -> None:
    config = dict(zip((keys.TLS_CA_CERT, keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY), UUIDS), **{keys.MODE: "tls"})
    assert Reach.of(config, Settings()) == Reach("tls", "", 2376, secrets=UUIDS)
    assert Reach.of({**config, keys.TLS_PORT: "2377"}, Settings()).port == 2377
    assert Reach.of({keys.MODE: "tls"}, Settings()).secrets == ("", "", "")


@pytest.mark.parametrize("given, dialled", [
    ("10.1.2.3", "10.1.2.3"), (" 10.1.2.3\n", "10.1.2.3"), ("2001:DB8::0:1", "2001:db8::1"), ("web", "web"),
    ("a-1.b.example", "a-1.b.example"), ("1and1.example", "1and1.example"), ("", ""), ("  ", ""),
])
def test_addresses_and_names_are_normalized(given: str, dialled: str) -> None:
    assert Reach.of({keys.ADDRESS: given}, Settings()).address == dialled


@pytest.mark.parametrize("key, value", [
    (keys.USERNAME, "-oProxyCommand=x"), (keys.USERNAME, "a b"), (keys.USERNAME, "root\n"), (keys.USERNAME, "x" * 129),
    (keys.SSH_PORT, "0"), (keys.SSH_PORT, "65536"), (keys.SSH_PORT, "22; reboot"), (keys.SSH_PORT, "\u0662\u0662"),
    (keys.ENGINE_SOCKET, "docker.sock"), (keys.ENGINE_SOCKET, "/a/../b"), (keys.ENGINE_SOCKET, "/a$(reboot)"),
    (keys.ENGINE_SOCKET, "/a b"), (keys.ENGINE_SOCKET, "/" + "x" * 101), (keys.ENGINE_SOCKET, "/a\n"),
    (keys.ENGINE, "containerd"), (keys.ADDRESS, "10.0.0.300"), (keys.ADDRESS, "127.1"), (keys.ADDRESS, "0x7f000001"),
    (keys.ADDRESS, "a b"), (keys.ADDRESS, "-x"), (keys.ADDRESS, "x" * 254), (keys.ADDRESS, "fe80::1%eth0;x"),
    (keys.ADDRESS, "fe80::1%eth0"),
    (keys.ADDRESS, "2130706433"), (keys.ADDRESS, "a..b"), (keys.ADDRESS, "\u0661.\u0662"),
])
def test_an_invalid_value_is_refused_with_its_key(key: str, value: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Reach.of({key: value}, Settings())
    assert key in str(caught.value) and caught.value.hint.endswith(".")


@pytest.mark.parametrize("user", ["root", "svc$", "CORP\\admin", "admin@corp.example", "_apt", "9lives", "a+b"])
def test_usual_names_of_users_are_accepted(user: str) -> None:
    assert Reach.of({keys.USERNAME: user}, Settings()).user == user


ODD = st.text(st.sampled_from("aZ09_.@$+-/\\: \n;:'\xe9"), max_size=12)


@given(ODD, st.one_of(ODD, ODD.map("/{}".format), ODD.map("npipe:////./pipe/{}".format)))
@example("svc$", "")
def test_a_value_that_reach_accepts_is_accepted_by_the_connection(user: str, socket: str) -> None:
    """One rule holds for the keys and for the connection."""
    try:
        reach = Reach.of({keys.USERNAME: user, keys.ENGINE_SOCKET: socket}, Settings())
    except ArgumentError:
        return
    target = ssh.Target((), 22, reach.user, reach.socket)
    with pytest.raises(GuestUnreachable):  # there is no address; the other fields are accepted
        ssh.connect(target, KEY, Settings().guest, Settings().engine)


def test_a_malformed_uuid_of_a_secret_is_refused() -> None:
    with pytest.raises(ArgumentError, match=keys.TLS_CLIENT_KEY):
        Reach.of({keys.MODE: "tls", keys.TLS_CLIENT_KEY: "/etc/shadow"}, Settings())


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ModeUnsupported, match="rsh"):
        Reach.of({keys.MODE: "rsh"}, Settings())
