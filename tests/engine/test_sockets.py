"""Where the engine's socket is looked for, and what is said when it is nowhere; on a real sshd."""

import os
import socket
from typing import Any, Callable, Iterator, List, Optional

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import Script, Server, Sshd, http_answer
from tests.engine.test_tunnel import NO_FORWARDING, only
from tests.need import need, need_program
from xscontainer.engine import api, sockets, ssh
from xscontainer.errors import (
    EngineForbidden,
    EngineSocketAbsent,
    EngineStopped,
    EngineUnavailable,
    ForwardingRefused,
    XSContainerError,
)

DOCKER, PODMAN = "/var/run/docker.sock", "/run/podman/podman.sock"
OWN_PODMAN, OWN_DOCKER = "/run/user/{uid}/podman/podman.sock", "/run/user/{uid}/docker.sock"

Connect = Callable[..., ssh.SSHConnection]


ABSENT, STOPPED, FORBIDDEN, REFUSED = (EngineSocketAbsent("absent."), EngineStopped("stopped."),
                                       sockets.not_for("me", "/x"), ForwardingRefused("refused."))
UNSEEN = sockets.not_for("me", PODMAN, unseen=True)

# --- which places


@pytest.mark.parametrize("named, engine, default, fixed, of_user", [
    ("", "", DOCKER, (DOCKER, PODMAN), (OWN_PODMAN, OWN_DOCKER)),
    ("", "docker", DOCKER, (DOCKER,), (OWN_DOCKER,)),
    ("", "podman", DOCKER, (PODMAN,), (OWN_PODMAN,)),
    ("", "podman", "/srv/engine.sock", ("/srv/engine.sock", PODMAN), (OWN_PODMAN,)),
    ("", "", PODMAN, (PODMAN,), (OWN_PODMAN, OWN_DOCKER)),
    ("/srv/engine.sock", "", DOCKER, ("/srv/engine.sock",), ()),
    ("/srv/engine.sock", "podman", DOCKER, ("/srv/engine.sock",), ()),
])
def test_places(named: str, engine: str, default: str, fixed: Any, of_user: Any) -> None:
    assert sockets.places(named, engine, default) == sockets.Places(fixed, of_user)


def test_what_is_one_of_the_places() -> None:
    found = sockets.places("")
    for path in (DOCKER, PODMAN, "/run/user/0/docker.sock", "/run/user/1000/podman/podman.sock"):
        assert found.has(path)
    for path in ("", "/run/user//docker.sock", "/run/user/1000/docker.sock/x", "/run/user/1/../docker.sock",
                 OWN_DOCKER):
        assert not found.has(path)
    assert not sockets.places("/srv/engine.sock").has(DOCKER)


@pytest.mark.parametrize("said, uid", [
    ("1000\n", 1000), ("0", 0), ("Welcome, traveller\n1000\n", 1000), ("", None), ("id: not found", None), ("-1", None),
    ("99999999999", None), ("4294967296", None), ("1000; reboot", None), ("\u0661", None),
])
def test_the_users_number_is_digits_or_nothing(said: str, uid: Optional[int]) -> None:
    assert sockets.parse_uid(said) == uid


def test_what_served_is_believed_for_a_while() -> None:
    now: List[float] = [0.0]
    settled = sockets.Settled("/a", lambda: now[0])
    believed = [settled.believed]
    for moment, error in ((0.0, ABSENT), (sockets.FAITH_SECONDS - 1, ABSENT), (sockets.FAITH_SECONDS, ABSENT),
                          (99.0, STOPPED), (100.0, ABSENT)):
        now[0] = moment
        settled.failed(error)
        believed.append(settled.believed)
    settled.served("/b")
    assert believed + [settled.believed] == [True, True, True, False, True, True, True] and settled.path == "/b"
    assert not sockets.Settled("", lambda: now[0]).believed


@pytest.mark.parametrize("causes, kind", [
    ((ABSENT, ABSENT), EngineSocketAbsent), ((ABSENT, STOPPED), EngineStopped), ((STOPPED, FORBIDDEN), EngineForbidden),
    ((ABSENT, UNSEEN), EngineSocketAbsent), ((STOPPED, UNSEEN), EngineStopped), ((UNSEEN, FORBIDDEN), EngineForbidden),
    ((ABSENT, FORBIDDEN, STOPPED, REFUSED), ForwardingRefused), ((EngineUnavailable("x."), STOPPED), EngineStopped),
])
def test_the_most_telling_cause_is_told_with_all_places(causes: Any, kind: type) -> None:
    found = sockets.verdict([(f"/{number}", error) for number, error in enumerate(causes)])
    assert type(found) is kind
    assert all(f"/{number}" in str(found) for number in range(len(causes)))


# --- a guest with directories of its own


class Place:
    """What is /run in the guest, and engines that listen below it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.servers: List[Server] = []

    def path(self, inside: str) -> str:
        assert inside.startswith("/run/")
        return self.directory + inside[len("/run"):]

    def listen(self, inside: str, name: str) -> Server:
        path = self.path(inside)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        body = http_answer(f'[{{"Id": "{name}"}}]'.encode())
        self.servers.append(Server(Script({"/containers/json": body}), path))
        return self.servers[-1]

    def dead(self, inside: str) -> None:
        """A socket that nobody listens on."""
        os.makedirs(os.path.dirname(self.path(inside)), exist_ok=True)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path(inside))


@pytest.fixture
def place(tmp_path: Any) -> Iterator[Place]:
    directory = tmp_path / "r"
    (directory / "sshd").mkdir(parents=True)
    made = Place(str(directory))
    yield made
    for server in made.servers:
        server.close()


@pytest.fixture
def guest(make_sshd: Callable[..., Sshd], place: Place) -> Callable[..., Sshd]:
    """An sshd whose /run is the place; (options="")."""
    need(os.geteuid() == 0, "root, to give a guest its own /run")
    need_program("unshare")
    need(os.path.realpath("/var/run") == "/run", "a /var/run that is /run")
    mount = f"mount --bind {place.directory} /run && exec \"$@\""
    return lambda options="": make_sshd(options, before=("unshare", "--mount", "sh", "-c", mount, "sh"))


def asked(connection: ssh.SSHConnection) -> str:
    """Which engine answers."""
    engine = api.Engine(connection, ENGINE, "1.41")
    try:
        return str(engine.containers()[0]["Id"])
    finally:
        engine.close()


SOMEWHERE = {"docker": "/run/docker.sock", "podman": PODMAN, "own-podman": "/run/user/0/podman/podman.sock",
             "own-docker": "/run/user/0/docker.sock"}


@pytest.mark.real
@pytest.mark.parametrize("forwarding", ["", NO_FORWARDING])
@pytest.mark.parametrize("where", list(SOMEWHERE))
def test_the_engine_is_found_wherever_it_is(guest: Callable[..., Sshd], connect: Connect, place: Place, where: str,
                                            forwarding: str) -> None:
    if forwarding:
        need_program("socat")
    place.listen(SOMEWHERE[where], where)
    connection = connect(guest(forwarding), socket="")
    assert asked(connection) == where
    assert connection.socket.replace("/var/run", "/run") == SOMEWHERE[where]
    # What served is tried first the next time.
    again = connect(guest(forwarding), socket="", method=connection.method, last_socket=connection.socket)
    assert asked(again) == where


@pytest.mark.real
def test_the_first_one_is_taken_and_the_key_decides(guest: Callable[..., Sshd], connect: Connect, place: Place) -> None:
    for name, path in SOMEWHERE.items():
        place.listen(path, name)
    sshd = guest()
    assert asked(connect(sshd, socket="")) == "docker"
    assert asked(connect(sshd, socket="", kind="podman")) == "podman"
    assert asked(connect(sshd, socket=SOMEWHERE["own-docker"], kind="podman")) == "own-docker"


@pytest.mark.real
def test_a_socket_that_nobody_serves_does_not_hide_another(guest: Callable[..., Sshd], connect: Connect,
                                                           place: Place) -> None:
    place.dead("/run/docker.sock")
    place.listen(PODMAN, "podman")
    assert asked(connect(guest(), socket="")) == "podman"


@pytest.mark.real
@pytest.mark.parametrize("forwarding", ["", NO_FORWARDING])
def test_when_there_is_none_all_places_are_told(guest: Callable[..., Sshd], connect: Connect, forwarding: str) -> None:
    with pytest.raises(EngineSocketAbsent) as caught:
        connect(guest(forwarding), socket="").open_stream(20)
    for path in (DOCKER, PODMAN, "/run/user/0/podman/podman.sock", "/run/user/0/docker.sock"):
        assert path in str(caught.value)
    with pytest.raises(EngineSocketAbsent) as caught:
        connect(guest(forwarding), socket="", kind="docker").open_stream(20)
    assert "podman" not in caught.value.message


@pytest.mark.real
def test_a_stopped_engine_is_told_rather_than_absent_ones(guest: Callable[..., Sshd], connect: Connect,
                                                          place: Place) -> None:
    place.dead(PODMAN)
    with pytest.raises(EngineStopped) as caught:
        connect(guest(), socket="").open_stream(20)
    assert PODMAN in caught.value.message and DOCKER in caught.value.message


@pytest.mark.real
def test_a_guest_without_commands_is_asked_for_no_number(guest: Callable[..., Sshd], connect: Connect,
                                                         place: Place) -> None:
    place.listen(PODMAN, "podman")
    sshd = guest("ForceCommand /bin/false")
    assert asked(connect(sshd, socket="")) == "podman"
    place.servers.pop().close()
    with pytest.raises(XSContainerError) as caught:
        connect(sshd, socket="").open_stream(20)
    assert "/run/user" not in str(caught.value)


@pytest.mark.real
def test_no_more_than_a_round_trip_for_the_first_place(guest: Callable[..., Sshd], connect: Connect,
                                                       place: Place) -> None:
    place.listen("/run/docker.sock", "docker")
    sshd = guest()
    connection = connect(sshd, socket="")
    assert asked(connection) == "docker"
    assert "Starting session" not in sshd.log()


@pytest.mark.real
def test_while_an_engine_restarts_no_other_takes_its_place(guest: Callable[..., Sshd], connect: Connect, place: Place,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    docker = place.listen("/run/docker.sock", "docker")
    place.listen(PODMAN, "podman")
    sshd = guest()
    connection = connect(sshd, socket="")
    assert asked(connection) == "docker"
    place.servers.remove(docker)
    docker.close()
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            asked(connection)
    # Nor after a new connection.
    again = connect(sshd, socket="", method=connection.method, last_socket=connection.socket)
    with pytest.raises(EngineUnavailable):
        asked(again)
    docker = place.listen("/run/docker.sock", "docker")
    assert asked(connection) == asked(again) == "docker"
    # One that is gone for good is given up.
    place.servers.remove(docker)
    docker.close()
    monkeypatch.setattr(sockets, "FAITH_SECONDS", 0.0)
    with pytest.raises(EngineUnavailable):
        asked(connection)
    assert asked(connection) == "podman"
    assert connection.socket == PODMAN


@pytest.mark.real
def test_podmans_own_program_stands_in(make_sshd: Callable[..., Sshd], connect: Connect, socket_path: str,
                                       tmp_path: Any) -> None:
    with Server(Script({"/containers/json": http_answer(b'[{"Id": "x"}]')}), socket_path):
        connection = connect(make_sshd(only(tmp_path, "podman")))
        assert asked(connection) == "x"
        assert connection.method == "podman-stdio"
