"""Podman's variant of Docker's API: recorded answers of 4.3, and a real Podman."""

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.engine import real
from tests.engine.conftest import ENGINE
from tests.engine.listing import check_list
from tests.engine.peers import VERSION_BODY, Script, Server, SocketConnection, Sshd, engine_at, http_answer
from tests.engine.real import actions, running, until_lost
from tests.need import need, need_program
from tests.waiting import until
from xscontainer.clients import xmlform
from xscontainer.core.container import Container, Port, containers_from_api
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.engine_facts import EngineInfo, EngineVersion
from xscontainer.core.groups import COMPOSE, NO_GROUP, POD, Group
from xscontainer.core.uptime import Span
from xscontainer.engine import api, api_version
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import ContainerConflict, ContainerNotFound, EngineGarbage, EngineRefused
from xscontainer.simulator.engines.podman import PodmanEngine

ID = "106223cd79c0537f5c8489b3e8292828875e55f953525300ce0ac0dc371fecb0"
VERSION = {
    "Platform": {"Name": "linux/amd64/debian-12"},
    "Components": [
        {"Name": "Podman Engine", "Version": "4.3.1", "Details": {"APIVersion": "4.3.1", "MinAPIVersion": "4.0.0"}},
        {"Name": "Conmon", "Version": "conmon version 2.1.6, commit: unknown", "Details": {}},
        {"Name": "OCI Runtime (runc)", "Version": "runc version 1.1.5+ds1", "Details": {}}],
    "Version": "4.3.1", "ApiVersion": "1.41", "MinAPIVersion": "1.24", "GitCommit": "", "GoVersion": "go1.19.8",
    "Os": "linux", "Arch": "amd64", "KernelVersion": "6.1.0", "BuildTime": "1970-01-01T00:00:00Z"}
INFO = {
    "ID": "285b8188-9177-47d2-a491-3bc8749fadb2", "Containers": 0, "Images": 1, "Driver": "vfs", "DriverStatus": [],
    "IPv4Forwarding": True, "LoggingDriver": "", "CgroupDriver": "cgroupfs", "NEventsListener": 0,
    "KernelVersion": "6.1.0", "OperatingSystem": "debian", "OSVersion": "12", "OSType": "linux",
    "Architecture": "amd64", "IndexServerAddress": "", "GenericResources": None, "NCPU": 2, "MemTotal": 25276510208,
    "DockerRootDir": "/var/lib/containers/storage", "Name": "vm", "Labels": None, "ServerVersion": "4.3.1",
    "SwapFree": 0, "SwapTotal": 0, "Uptime": "3h 35m 33.00s (Approximately 0.12 days)"}
ENTRY = {
    "Id": ID, "Names": ["/web"], "Image": "localhost/busybox:latest", "ImageID": "sha256:7d96", "Command": "sleep 1000",
    "Created": 1795245542, "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}], "Labels": {},
    "State": "running", "Status": "Up 1 second", "NetworkSettings": {"Networks": None}, "Mounts": [], "Name": "",
    "Config": None, "NetworkingConfig": None, "Platform": None, "AdjustCPUShares": False}


def event(action: str, **more: Any) -> EngineEvent:
    attributes = {"containerExitCode": "0", "image": "localhost/busybox:latest", "name": "web", "podId": ""}
    return EngineEvent.from_api({
        "status": action, "id": ID, "from": "localhost/busybox:latest", "Type": "container", "Action": action,
        "Actor": {"ID": ID, "Attributes": attributes}, "scope": "local", "time": 1795245542,
        "timeNano": 1795245542187170574, **more})


def entry(**fields: Any) -> Container:
    found = Container.from_api({**ENTRY, **fields})
    assert found is not None
    return found


def test_a_recorded_list_is_read() -> None:
    assert containers_from_api([ENTRY]).containers == (Container(
        id=ID, name="web", image="localhost/busybox:latest", command="sleep 1000", created=1795245542, state="running",
        ports=(Port(80, "tcp", 8080),), uptime=Span(1.0, 2.0)),)
    assert "<status>Up</status>" in xmlform.docker_ps([entry()], 290000).text


@pytest.mark.parametrize("state, status, shown", [
    ("created", "Created", "Created"), ("configured", "Created", "Created"), ("initialized", "Initialized", "Created"),
    ("running", "Up 1 second", "Up"), ("paused", "Up 1 second (Paused)", "Up (Paused)"),
    ("paused", "Paused", "Up (Paused)"), ("stopping", "Stopping", "Up"),
    ("stopped", "Exited (0) 1 second ago", "Exited (0)"),
    ("exited", "Exited (137) Less than a second ago", "Exited (137)"), ("removing", "Removing", "Removal In Progress"),
])
def test_each_state_of_podman_is_shown(state: str, status: str, shown: str) -> None:
    assert entry(State=state, Status=status).status == shown


def test_recorded_facts_are_read() -> None:
    version, info = EngineVersion.from_api(VERSION), EngineInfo.from_api(INFO)
    assert (version.version, version.api_version, version.git_commit) == ("4.3.1", "1.41", "")
    assert (info.name, info.cpus, info.labels, info.driver) == ("vm", 2, (), "vfs")
    assert "<ApiVersion>1.41</ApiVersion>" in xmlform.docker_version(version)
    assert xmlform.docker_info(info)
    assert api_version.kind(VERSION) == "podman" and api_version.negotiate(VERSION) == "1.41"


@pytest.mark.parametrize("answer", [{}, {"Components": None}, {"Components": [None, 5, {}]},
                                    {"Components": [{"Name": "Engine"}, {"Name": "containerd"}]}])
def test_any_other_engine_counts_as_docker(answer: Dict[str, Any]) -> None:
    assert api_version.kind(answer) == "docker"


@pytest.mark.parametrize("action, changes", [
    ("create", True), ("init", True), ("start", True), ("die", True), ("died", True), ("remove", True),
    ("rename", True), ("cleanup", False), ("mount", False), ("unmount", False), ("exec_died", False)])
def test_the_events_that_change_the_list_are_recognized(action: str, changes: bool) -> None:
    assert event(action).changes_list is changes


def test_a_health_event_causes_no_wait_for_the_list() -> None:
    assert event("health_status", HealthStatus="starting").shown_by(entry())
    assert event("remove").shown_by(None) and not event("remove").shown_by(entry())
    assert event("died").shown_by(entry(State="exited", Status="Exited (0) 1 second ago"))


# --- pods

IN_POD = {**ENTRY, "Id": "b" * 64, "Names": ["/inpod"], "Labels": {"PODMAN_SYSTEMD_UNIT": "pod.service"}}
COMPOSED = {**ENTRY, "Id": "c" * 64, "Names": ["/composed"], "Labels": {"com.docker.compose.project": "shop"}}
PODS = [{"Cgroup": "", "Containers": [{"Id": "b" * 64, "Names": "inpod", "Status": "running"},
                                      {"Id": "c" * 64, "Names": "composed", "Status": "running"}],
         "Created": "2026-12-01T03:59:21.226479363Z", "Id": "6a" * 32, "InfraId": "", "Name": "mypod", "Namespace": "",
         "Networks": [], "Status": "Running", "Labels": {}}]


def groups(engine: api.Engine) -> Dict[str, Group]:
    found = engine.listed(100, lambda answer: answer)
    return {container.name: container.group for container in found.containers}


def podman_with(entries: List[Any], pods: bytes) -> Script:
    return Script({"/version": http_answer(json.dumps(VERSION).encode()),
                   "/containers/json": lambda peer, head: peer.sendall(http_answer(json.dumps(entries).encode())),
                   "/libpod/pods/json": pods})


def test_pods_are_named_and_asked_for_once_for_each_new_container(socket_path: str) -> None:
    entries: List[Any] = [ENTRY, IN_POD, COMPOSED]
    script = podman_with(entries, http_answer(json.dumps(PODS).encode()))
    expected = {"web": NO_GROUP, "inpod": Group(POD, "mypod", unit="pod.service"), "composed": Group(COMPOSE, "shop")}

    def asked() -> int:
        return sum("/libpod/pods/json" in line for line in script.asked)

    with Server(script, socket_path), engine_at(socket_path, ENGINE) as engine:
        for _ in range(3):
            assert groups(engine) == expected
        assert asked() == 1
        entries[0] = {**ENTRY, "Id": "d" * 64}
        assert groups(engine) == expected and asked() == 2
        del entries[1:]
        assert groups(engine) == {"web": NO_GROUP} and asked() == 2


@pytest.mark.parametrize("answer", [
    http_answer(b'{"message": "no such thing"}', "404 Not Found"), http_answer(b"[]"), http_answer(b"null"),
    http_answer(b'[null, {"Name": 5, "Containers": [{"Id": "x"}]}, {"Name": "p", "Containers": [null, {"Id": 7}]}]'),
    http_answer(b'{"a": 1}'), http_answer(b"no json"), http_answer(b"", "500 Internal Server Error")],
    ids=lambda answer: repr(answer[-30:]))
def test_a_podman_that_names_no_pods_still_has_its_list(socket_path: str, answer: bytes) -> None:
    script = podman_with([ENTRY, COMPOSED], answer)
    with Server(script, socket_path), engine_at(socket_path, ENGINE) as engine:
        for _ in range(2):
            assert groups(engine) == {"web": NO_GROUP, "composed": Group(COMPOSE, "shop")}
        assert sum("/libpod/pods/json" in line for line in script.asked) == 1


def test_a_docker_is_not_asked_for_pods(socket_path: str) -> None:
    script = podman_with([ENTRY], http_answer(json.dumps(PODS).encode()))
    script.answers["/version"] = http_answer(VERSION_BODY)
    with Server(script, socket_path), engine_at(socket_path, ENGINE) as engine:
        assert groups(engine) == {"web": NO_GROUP}
    assert not [line for line in script.asked if "libpod" in line]


# --- answers that differ


@contextmanager
def speaking(socket_path: str, answers: Dict[str, Any]) -> Iterator[api.Engine]:
    version = {"/version": http_answer(json.dumps(VERSION).encode())}
    with Server(Script({**version, **answers}), socket_path), engine_at(socket_path, ENGINE) as engine:
        yield engine


def improper(words: str) -> bytes:
    body = {"cause": "container state improper", "message": f"{words}: container state improper", "response": 500}
    return http_answer(json.dumps(body).encode(), "500 Internal Server Error")


def inspected(running: bool, paused: bool = False) -> bytes:
    return http_answer(json.dumps({"Id": ID, "State": {"Running": running, "Paused": paused}}).encode())


def test_pausing_a_paused_container_is_a_success(socket_path: str) -> None:
    answers = {"/pause": improper('"106223" is already paused'), f"/{ID}/json": inspected(True, True)}
    with speaking(socket_path, answers) as engine:
        engine.pause(ID)


def test_an_impossible_action_is_a_conflict(socket_path: str) -> None:
    answers = {"/pause": improper('"exited" is not running, can\'t pause'), "/start": improper("cannot start it"),
               f"/{ID}/json": inspected(False)}
    with speaking(socket_path, answers) as engine:
        with pytest.raises(ContainerConflict):
            engine.pause(ID)
        with pytest.raises(ContainerConflict):
            engine.start(ID)


def test_the_processes_of_a_stopped_container_are_a_conflict(socket_path: str) -> None:
    """Podman answers with status 200 and an empty body."""
    answers = {"/top": http_answer(b""), f"/{ID}/json": inspected(False)}
    with speaking(socket_path, answers) as engine:
        with pytest.raises(ContainerConflict, match="not running"):
            engine.top(ID)
    answers = {"/top": http_answer(b""), f"/{ID}/json": inspected(True)}
    with speaking(socket_path, answers) as engine:
        with pytest.raises(EngineGarbage):
            engine.top(ID)


# --- a real Podman


@pytest.fixture(scope="module")
def podman(tmp_path_factory: Any) -> Iterator[PodmanEngine]:
    with running(PodmanEngine(str(tmp_path_factory.mktemp("p")))) as engine:
        yield engine


@pytest.fixture
def engine(podman: PodmanEngine, make_sshd: Callable[..., Sshd],
           connect: Callable[..., ssh.SSHConnection]) -> Iterator[api.Engine]:
    engine = api.Engine(connect(make_sshd(), socket=podman.socket_path), ENGINE)
    yield engine
    engine.close()


@pytest.fixture
def container(podman: PodmanEngine) -> Iterator[str]:
    with real.container(podman, "Web_1.a-b") as identifier:
        yield identifier


def state_of(engine: api.Engine, identifier: str) -> str:
    found = containers_from_api(engine.containers()).containers
    return next(container.status for container in found if container.id == identifier)


@pytest.mark.real
def test_each_verb_does_what_it_says(engine: api.Engine, container: str) -> None:
    with engine.events() as stream:
        for named, verb, told, status in (
                (container, "pause", "pause", "Up (Paused)"), (container[:12], "unpause", "unpause", "Up"),
                ("Web_1.a-b", "stop", "die", "Exited (137)"), (container, "start", "start", "Up"),
                (container, "restart", "start", "Up")):
            getattr(engine, verb)(named)
            assert told in actions(stream, told)
            assert state_of(engine, container) == status
            assert engine.inspect(named)["Id"] == container
    assert engine.kind == "podman"


@pytest.mark.real
def test_processes_need_no_program_in_the_container(engine: api.Engine, container: str) -> None:
    top = engine.top(container)
    assert {"PID", "TIME", "COMMAND"} <= set(top.titles)
    assert len(top.processes) == 1 and "sleep" in top.processes[0][top.titles.index("COMMAND")]
    text = xmlform.top_result(top.titles, top.processes)
    assert "<PID>1</PID>" in text and "<CMD>sleep" in text and "<TIME/>" not in text


@pytest.mark.real
def test_repeated_actions_succeed_and_impossible_ones_conflict(engine: api.Engine, container: str) -> None:
    for verb in ("start", "unpause", "pause", "pause", "unpause", "unpause", "stop", "stop"):
        getattr(engine, verb)(container)
    for verb in ("top", "pause", "unpause"):
        with pytest.raises(ContainerConflict):
            getattr(engine, verb)(container)
    for verb in ("inspect", "start", "top"):
        with pytest.raises(ContainerNotFound):
            getattr(engine, verb)("no-such-container")


@pytest.mark.real
def test_the_list_shows_each_event_at_once(engine: api.Engine, podman: PodmanEngine) -> None:
    with engine.events() as stream:
        identifier = podman.run("short-lived", start=False)
        assert actions(stream, "create")
        assert state_of(engine, identifier) == "Created"
        podman.do("rename", identifier, name="renamed")
        assert actions(stream, "rename")
        assert [found.name for found in containers_from_api(engine.containers()).containers] == ["renamed"]
        podman.do("remove", identifier)
        assert actions(stream, "remove")
        assert engine.containers() == []
    podman.client().close()


@pytest.mark.real
def test_documents_are_made_from_a_real_podman(engine: api.Engine, container: str) -> None:
    assert EngineVersion.from_api(engine.version()).version
    assert EngineInfo.from_api(engine.info()).name
    assert xmlform.inspect_result(engine.inspect(container)).count("<Id>") == 1


NOBODY = 65534


@pytest.mark.real
def test_the_list_has_groups_start_times_and_details(podman: PodmanEngine, engine: api.Engine) -> None:
    check_list(podman, engine)


@pytest.mark.real
def test_the_pods_of_a_real_podman_are_named(podman: PodmanEngine, engine: api.Engine) -> None:
    def ask(method: str, path: str, **body: Any) -> None:
        client = podman.client()
        answer = client.request(method, client.base_url + "/v4.0.0/libpod" + path, json=body or None, timeout=20)
        assert answer.status_code < 300, answer.text
        client.close()

    ask("POST", "/pods/create", name="mypod", no_infra=True)
    ask("POST", "/containers/create", name="inpod", pod="mypod", image="busybox", command=["sleep", "100"])
    try:
        with real.container(podman, "alone"):
            found = groups(engine)
        assert found["inpod"] == Group(POD, "mypod") and found["alone"] == NO_GROUP
    finally:
        ask("DELETE", "/pods/mypod?force=true")


@pytest.fixture
def rootless(tmp_path_factory: Any) -> Iterator[PodmanEngine]:
    directory = Path(str(tmp_path_factory.mktemp("u")))
    for path in (directory, *directory.parents):  # the user needs access
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    tried = subprocess.run([need_program("setpriv", "util-linux"), f"--reuid={NOBODY}", "unshare", "--user", "true"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)
    need(tried.returncode == 0, "users may make no namespaces of their own here")
    with running(PodmanEngine(str(directory / "e"), uid=NOBODY)) as engine:
        yield engine


@pytest.mark.real
def test_a_rootless_podman_serves_its_user(rootless: PodmanEngine, make_sshd: Callable[..., Sshd],
                                           connect: Callable[..., ssh.SSHConnection]) -> None:
    """The service runs in a user namespace."""
    engine = api.Engine(connect(make_sshd(), socket=rootless.socket_path), ENGINE)
    try:
        with real.container(rootless, "mine") as identifier, engine.events() as stream:
            assert engine.kind == "podman" and engine.info()["Rootless"] is True
            assert state_of(engine, identifier) == "Up"
            for verb, told, status in (("stop", "die", "Exited (137)"), ("stop", "", "Exited (137)"),
                                       ("start", "start", "Up"), ("restart", "start", "Up")):
                getattr(engine, verb)("mine")
                assert not told or told in actions(stream, told)
                assert state_of(engine, identifier) == status
            top = engine.top("mine")
            text = xmlform.top_result(top.titles, top.processes)
            assert "<PID>1</PID>" in text and "<CMD>sleep" in text and "<TIME/>" not in text
            assert xmlform.inspect_result(engine.inspect("mine")).count("<Id>") == 1
            try:  # without a cgroup of its own Podman cannot pause, and says so
                engine.pause("mine")
                engine.unpause("mine")
            except EngineRefused as error:
                assert "cgroup" in error.message
    finally:
        engine.close()


@pytest.mark.real
def test_an_event_stream_keeps_podman_running(tmp_path_factory: Any) -> None:
    """An idle Podman ends, and the next request starts it again."""
    with running(PodmanEngine(str(tmp_path_factory.mktemp("i")), idle=1, activated=True)) as podman:
        connection = SocketConnection(podman.socket_path)
        engine = api.Engine(connection, ENGINE)
        with engine.events() as stream:
            assert podman.activations == 1
            assert stream.get(2.5) is None  # longer than an idle Podman stays
            assert podman.running
        engine.close()
        until(lambda: not podman.running, "it does not end by itself")
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == []
        assert podman.activations == 2
        engine.close()
        connection.close()


@pytest.mark.real
def test_the_end_of_podman_is_an_error_of_the_stream(tmp_path_factory: Any) -> None:
    with running(PodmanEngine(str(tmp_path_factory.mktemp("l")))) as podman:
        with engine_at(podman.socket_path, ENGINE) as engine:
            identifier = podman.run("outlives")
            with engine.events() as stream:
                podman.stop()
                until_lost(stream)
            podman.start()
            assert state_of(engine, identifier) == "Up"
        podman.client().close()
