"""The search for the engine's socket, and the errors if there is none; on a real sshd."""

import os
import socket
from typing import Any, Callable, Iterator, List, Optional

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import Script, Server, Sshd, http_answer
from tests.engine.test_tunnel import NO_FORWARDING, only
from tests.need import need, need_program
from xscontainer.engine import api
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh import discovery
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
                                       discovery.not_for("me", "/x"), ForwardingRefused("refused."))
UNSEEN = discovery.not_for("me", PODMAN, unseen=True)

# --- places


@pytest.mark.parametrize("named, engine, default, fixed, of_user", [
    ("", "", DOCKER, (DOCKER, PODMAN), (OWN_PODMAN, OWN_DOCKER)),
    ("", "docker", DOCKER, (DOCKER,), (OWN_DOCKER,)),
    ("", "podman", DOCKER, (PODMAN,), (OWN_PODMAN,)),
    ("", "podman", "/srv/engine.sock", ("/srv/engine.sock", PODMAN), (OWN_PODMAN,)),
    ("", "", PODMAN, (PODMAN,), (OWN_PODMAN, OWN_DOCKER)),
    ("/srv/engine.sock", "", DOCKER, ("/srv/engine.sock",), ()),
    ("/srv/engine.sock", "podman", DOCKER, ("/srv/engine.sock",), ()),
])
def test_the_places_follow_from_the_settings(named: str, engine: str, default: str, fixed: Any, of_user: Any) -> None:
    assert discovery.places(named, engine, default) == discovery.Places(fixed, of_user)


def test_a_path_is_recognized_as_one_of_the_places() -> None:
    found = discovery.places("")
    for path in (DOCKER, PODMAN, "/run/user/0/docker.sock", "/run/user/1000/podman/podman.sock"):
        assert found.has(path)
    for path in ("", "/run/user//docker.sock", "/run/user/1000/docker.sock/x", "/run/user/1/../docker.sock",
                 OWN_DOCKER):
        assert not found.has(path)
    assert not discovery.places("/srv/engine.sock").has(DOCKER)


@pytest.mark.parametrize("said, uid", [
    (b"1000\n", 1000), (b"0", 0), (b"1 2", None), (b"", None), (b"id: not found", None), (b"-1", None),
    (b"99999999999", None), (b"4294967296", None), (b"1000; reboot", None), ("\u0661".encode(), None),
])
def test_only_digits_are_a_uid(said: bytes, uid: Optional[int]) -> None:
    assert discovery.parse_uid(said) == uid


def test_a_socket_that_worked_is_kept_for_a_while() -> None:
    now: List[float] = [0.0]
    known = discovery.KnownSocket("/a", lambda: now[0])
    kept = [known.kept]
    for moment, error in ((0.0, ABSENT), (discovery.KEEP_SECONDS - 1, ABSENT), (discovery.KEEP_SECONDS, ABSENT),
                          (99.0, STOPPED), (100.0, ABSENT)):
        now[0] = moment
        known.failed(error)
        kept.append(known.kept)
    known.worked("/b")
    assert kept + [known.kept] == [True, True, True, False, True, True, True] and known.path == "/b"
    assert not discovery.KnownSocket("", lambda: now[0]).kept


@pytest.mark.parametrize("causes, kind", [
    ((ABSENT, ABSENT), EngineSocketAbsent), ((ABSENT, STOPPED), EngineStopped), ((STOPPED, FORBIDDEN), EngineForbidden),
    ((ABSENT, UNSEEN), EngineSocketAbsent), ((STOPPED, UNSEEN), EngineStopped), ((UNSEEN, FORBIDDEN), EngineForbidden),
    ((ABSENT, FORBIDDEN, STOPPED, REFUSED), ForwardingRefused), ((EngineUnavailable("x."), STOPPED), EngineStopped),
])
def test_the_most_important_error_is_reported_with_all_places(causes: Any, kind: type) -> None:
    found = discovery.summary([(f"/{number}", error) for number, error in enumerate(causes)])
    assert type(found) is kind
    assert all(f"/{number}" in str(found) for number in range(len(causes)))


# --- a guest with its own directories


class Place:
    """The guest's /run, and engines that listen below it."""

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
        """Make a socket without a listener."""
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
    """Start an sshd whose /run is the place: (options="")."""
    need(os.geteuid() == 0, "root, to give a guest its own /run")
    need_program("unshare")
    need(os.path.realpath("/var/run") == "/run", "a /var/run that is /run")
    mount = f"mount --bind {place.directory} /run && exec \"$@\""
    return lambda options="": make_sshd(options, before=("unshare", "--mount", "sh", "-c", mount, "sh"))


def asked(connection: ssh.SSHConnection) -> str:
    """Return the engine that answers."""
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
def test_the_engine_is_found_at_each_place(guest: Callable[..., Sshd], connect: Connect, place: Place, where: str,
                                           forwarding: str) -> None:
    if forwarding:
        need_program("socat")
    place.listen(SOMEWHERE[where], where)
    connection = connect(guest(forwarding), socket="")
    assert asked(connection) == where
    assert connection.socket.replace("/var/run", "/run") == SOMEWHERE[where]
    # The socket that worked is tried first the next time.
    again = connect(guest(forwarding), socket="", method=connection.method, last_socket=connection.socket)
    assert asked(again) == where


@pytest.mark.real
def test_the_first_engine_is_used_unless_the_key_names_another(guest: Callable[..., Sshd], connect: Connect,
                                                               place: Place) -> None:
    for name, path in SOMEWHERE.items():
        place.listen(path, name)
    sshd = guest()
    assert asked(connect(sshd, socket="")) == "docker"
    assert asked(connect(sshd, socket="", kind="podman")) == "podman"
    assert asked(connect(sshd, socket=SOMEWHERE["own-docker"], kind="podman")) == "own-docker"


@pytest.mark.real
def test_a_socket_without_a_listener_does_not_hide_another(guest: Callable[..., Sshd], connect: Connect,
                                                           place: Place) -> None:
    place.dead("/run/docker.sock")
    place.listen(PODMAN, "podman")
    assert asked(connect(guest(), socket="")) == "podman"


@pytest.mark.real
@pytest.mark.parametrize("forwarding", ["", NO_FORWARDING])
def test_the_error_for_a_missing_socket_names_all_places(guest: Callable[..., Sshd], connect: Connect,
                                                         forwarding: str) -> None:
    with pytest.raises(EngineSocketAbsent) as caught:
        connect(guest(forwarding), socket="").open_stream(20)
    for path in (DOCKER, PODMAN, "/run/user/0/podman/podman.sock", "/run/user/0/docker.sock"):
        assert path in str(caught.value)
    with pytest.raises(EngineSocketAbsent) as caught:
        connect(guest(forwarding), socket="", kind="docker").open_stream(20)
    assert "podman" not in caught.value.message


@pytest.mark.real
def test_a_stopped_engine_is_reported_before_absent_sockets(guest: Callable[..., Sshd], connect: Connect,
                                                            place: Place) -> None:
    place.dead(PODMAN)
    with pytest.raises(EngineStopped) as caught:
        connect(guest(), socket="").open_stream(20)
    assert PODMAN in caught.value.message and DOCKER in caught.value.message


@pytest.mark.real
def test_a_guest_without_commands_is_not_asked_for_the_uid(guest: Callable[..., Sshd], connect: Connect,
                                                           place: Place) -> None:
    place.listen(PODMAN, "podman")
    sshd = guest("ForceCommand /bin/false")
    assert asked(connect(sshd, socket="")) == "podman"
    place.servers.pop().close()
    with pytest.raises(XSContainerError) as caught:
        connect(sshd, socket="").open_stream(20)
    assert "/run/user" not in str(caught.value)


@pytest.mark.real
def test_the_first_place_costs_one_round_trip(guest: Callable[..., Sshd], connect: Connect, place: Place) -> None:
    place.listen("/run/docker.sock", "docker")
    sshd = guest()
    connection = connect(sshd, socket="")
    assert asked(connection) == "docker"
    assert "Starting session" not in sshd.log()


@pytest.mark.real
def test_no_other_engine_is_used_while_one_restarts(guest: Callable[..., Sshd], connect: Connect, place: Place) -> None:
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
    # The same holds after a new connection.
    again = connect(sshd, socket="", method=connection.method, last_socket=connection.socket)
    with pytest.raises(EngineUnavailable):
        asked(again)
    docker = place.listen("/run/docker.sock", "docker")
    assert asked(connection) == asked(again) == "docker"
    # A socket that stays absent is given up.
    place.servers.remove(docker)
    docker.close()
    connection._tunnel.known.keep_seconds = 0.0
    with pytest.raises(EngineUnavailable):
        asked(connection)
    assert asked(connection) == "podman"
    assert connection.socket == PODMAN


@pytest.mark.real
def test_the_podman_program_connects_instead_of_a_channel(make_sshd: Callable[..., Sshd], connect: Connect,
                                                          socket_path: str) -> None:
    with Server(Script({"/containers/json": http_answer(b'[{"Id": "x"}]')}), socket_path):
        connection = connect(make_sshd(**only("podman")))
        assert asked(connection) == "x"
        assert connection.method == "podman-stdio"
