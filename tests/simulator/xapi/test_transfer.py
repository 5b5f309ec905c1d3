"""Disks' content over HTTP as real clients transfer it: the answers and the task's result."""

import base64
import contextlib
import http.client
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple
from urllib.parse import urlencode, urlsplit

import pytest

from tests.simulator.xapi.storage_help import MIB, content_of, sr_named
from tests.simulator.xapi.wireclient import connect
from xscontainer.simulator.xapi import ROOT_PASSWORD, Pool, SimHost

DEADLINE = 10.0
IO_ERROR = ["VDI_IO_ERROR", "Device I/O errors"]


class Reply(NamedTuple):
    """The answer to a transfer."""

    status: int
    headers: Dict[str, str]
    body: bytes


class Door(http.client.HTTPConnection):
    """A client of a host's socket or TCP port."""

    def __init__(self, host: SimHost, local: bool = True) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._door = (host, local)

    def connect(self) -> None:
        self.sock = connect(*self._door)

    def send_request(self, name: str, query: Dict[str, str], body: Any = None, **headers: str) -> Reply:
        method, path = name.split()
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        with contextlib.closing(self):
            self.request(method, path + "?" + urlencode(query), body, sent)
            answer = self.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


IMPORT, EXPORT = "PUT /import_raw_vdi", "GET /export_raw_vdi"


@pytest.fixture
def disk(furnished: Pool) -> str:
    """Make a disk of four MiB on the shared SR."""
    return furnished.create_disk(sr_named(furnished, "Shared storage"), size=4 * MIB)


@pytest.fixture
def task(client: Any) -> str:
    """Make a client's task."""
    return str(client.xenapi.task.create("upload", ""))


def outcome(pool: Pool, task: str) -> Tuple[str, List[str]]:
    """Return the status and error of a task as soon as it has ended."""
    deadline = time.monotonic() + DEADLINE
    while pool.record("task", task)["status"] == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.002)
    record = pool.record("task", task)
    return record["status"], record["error_info"]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("by", ["uuid", "ref"])
def test_an_upload_is_written_to_the_disk(furnished: Pool, disk: str, task: str, number: int, by: str) -> None:
    """The local socket needs no credentials. Bytes beyond the upload stay as they were."""
    name = furnished.record("VDI", disk)["uuid"] if by == "uuid" else disk
    query = {"vdi": name, "format": "raw", "task_id": task}
    content = bytes(range(256)) * 5000
    reply = Door(furnished.hosts[number]).send_request(IMPORT, query, content)
    assert (reply.status, reply.headers["task-id"], reply.body) == (200, task, b"")
    assert outcome(furnished, task) == ("success", [])
    assert furnished.record("task", task)["progress"] == 1.0
    assert content_of(furnished, disk) == content + bytes(4 * MIB - len(content))
    assert furnished.record("VDI", disk)["physical_utilisation"] >= len(content)


def test_a_client_that_leaves_after_the_200_leaves_a_failed_task(furnished: Pool, disk: str, task: str) -> None:
    """The 200 is sent before the content arrives, so it proves nothing."""
    sock = connect(furnished.coordinator, True)
    with contextlib.closing(sock):
        head = "PUT /import_raw_vdi?vdi={}&task_id={} HTTP/1.1\r\nContent-Length: 1000\r\n\r\n".format(disk, task)
        sock.sendall(head.encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert furnished.record("task", task)["status"] == "pending"
        sock.sendall(b"x" * 999)
    assert outcome(furnished, task) == ("failure", IO_ERROR)


def test_an_upload_larger_than_the_disk_fails_after_the_200(furnished: Pool, disk: str, task: str) -> None:
    reply = Door(furnished.coordinator).send_request(IMPORT, {"vdi": disk, "task_id": task}, bytes(4 * MIB + 1))
    assert reply.status == 200
    assert outcome(furnished, task) == ("failure", IO_ERROR)


def test_a_task_can_be_made_to_fail_after_the_200(furnished: Pool, disk: str, task: str) -> None:
    furnished.faults(IMPORT, "fail", times=1, description=["SR_BACKEND_FAILURE_44", "", "no space", ""])
    query = {"vdi": disk, "task_id": task}
    assert Door(furnished.coordinator).send_request(IMPORT, query, b"abc").status == 200
    assert outcome(furnished, task) == ("failure", ["SR_BACKEND_FAILURE_44", "", "no space", ""])
    assert furnished.stats.calls(IMPORT) == 1


def test_content_needs_its_length(furnished: Pool, disk: str, task: str) -> None:
    """A chunked body is forbidden. Without a length XAPI does not know where the content ends."""
    door = Door(furnished.coordinator)
    reply = door.send_request(IMPORT, {"vdi": disk, "task_id": task}, iter([b"abc"]), Transfer_Encoding="chunked")
    assert reply.status == 403
    assert outcome(furnished, task)[0] == "failure"
    with contextlib.closing(connect(furnished.coordinator, True)) as sock:
        sock.sendall("PUT /import_raw_vdi?vdi={} HTTP/1.1\r\n\r\n".format(disk).encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 500 ")


def test_a_transfer_of_an_absent_disk_fails(furnished: Pool, task: str) -> None:
    reply = Door(furnished.coordinator).send_request(IMPORT, {"vdi": "nope", "task_id": task}, b"abc")
    assert reply.status == 500
    assert b"UUID_INVALID" in reply.body
    assert outcome(furnished, task) == ("failure", ["UUID_INVALID", "VDI", "nope"])


def test_a_client_that_sends_a_large_refused_body_gets_its_answer(furnished: Pool) -> None:
    assert Door(furnished.coordinator).send_request(IMPORT, {"vdi": "nope"}, bytes(8 * MIB)).status == 500


def _basic(password: str) -> str:
    return "Basic " + base64.b64encode("root:{}".format(password).encode()).decode()


def test_a_transfer_over_tcp_needs_credentials_and_a_role(furnished: Pool, client: Any, disk: str) -> None:
    """A session in the query or a cookie, or root's password, is accepted, if its role allows transfers."""
    furnished.add_user("watcher", "pw", "read-only")
    library = pytest.importorskip("XenAPI")
    watcher = library.Session("http://127.0.0.1:{}/".format(furnished.coordinator.tcp_port))
    watcher.xenapi.login_with_password("watcher", "pw", "1.0", "test")
    tries: List[Tuple[Dict[str, str], Dict[str, str], int]] = [
        ({}, {}, 403),
        ({"session_id": client.handle}, {}, 200),
        ({}, {"Cookie": "session_id=" + client.handle}, 200),
        ({"session_id": "OpaqueRef:nope"}, {}, 500),
        ({"session_id": watcher.handle}, {}, 403),
        ({}, {"Authorization": _basic(ROOT_PASSWORD)}, 200),
        ({}, {"Authorization": _basic("wrong")}, 403),
    ]
    for query, headers, status in tries:
        door = Door(furnished.coordinator, local=False)
        reply = door.send_request(IMPORT, dict(query, vdi=disk), b"abc", **headers)
        assert reply.status == status, (query, headers)
    watcher.xenapi.session.logout()
    watcher("close")()


def test_a_disk_on_another_host_is_redirected_to_that_host(furnished: Pool, client: Any, task: str) -> None:
    """The answer is 302; the other host needs a session."""
    disk = furnished.create_disk(sr_named(furnished, "Local storage on host2"), size=2 * MIB)
    query = {"vdi": disk, "task_id": task, "session_id": client.handle}
    reply = Door(furnished.hosts[0]).send_request(IMPORT, query, b"abc")
    location = urlsplit(reply.headers["location"])
    assert (reply.status, location.port, location.path) == (302, furnished.hosts[1].tcp_port, "/import_raw_vdi")
    assert furnished.record("task", task)["status"] == "pending"
    with contextlib.closing(http.client.HTTPConnection(location.netloc, timeout=DEADLINE)) as second:
        second.request("PUT", location.path + "?" + location.query, b"abc")
        assert second.getresponse().status == 200
    assert outcome(furnished, task) == ("success", [])
    assert content_of(furnished, disk)[:4] == b"abc\0"


def test_a_transfer_of_a_disk_that_no_host_reaches_fails(furnished: Pool, disk: str, task: str) -> None:
    sr = sr_named(furnished, "Shared storage")
    for host in furnished.hosts:
        furnished.attach_sr(sr, host, attached=False)
    assert Door(furnished.coordinator).send_request(IMPORT, {"vdi": disk, "task_id": task}, b"abc").status == 500
    assert outcome(furnished, task) == ("failure", ["SR_HAS_NO_PBDS", sr])


def test_a_disk_in_use_is_neither_written_nor_read_while_written(
    furnished: Pool, client: Any, disk: str, task: str
) -> None:
    """A disk that a VM only reads may be downloaded."""
    vm = furnished.create_vm("one")
    furnished.add_drive(vm, disk, mode="RO")
    door = Door(furnished.coordinator)
    assert door.send_request(IMPORT, {"vdi": disk, "task_id": task}, b"abc").status == 500
    assert outcome(furnished, task) == ("failure", ["VDI_IN_USE", disk, "attach"])
    assert door.send_request(EXPORT, {"vdi": disk}).status == 200
    furnished.add_drive(vm, furnished.create_disk(sr_named(furnished, "ISOs"), b"abc", name="a.iso"))
    written = next(ref for ref, record in furnished.records("VDI").items() if record["name_label"] == "a.iso")
    assert door.send_request(EXPORT, {"vdi": written}).status == 500


@pytest.fixture
def slow(furnished: Pool) -> Iterator[Pool]:
    """Make a pool that goes on writing for a while after the content has arrived."""
    furnished.transfer_delay = 30.0
    yield furnished
    furnished.transfer_delay = 0.0


def test_a_slow_host_keeps_the_task_pending(slow: Pool, client: Any, disk: str, task: str) -> None:
    """The disk is busy until then, and stopping the pool does not wait for it."""
    sock = connect(slow.coordinator, True)
    with contextlib.closing(sock):
        head = "PUT /import_raw_vdi?vdi={}&task_id={} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc".format(disk, task)
        sock.sendall(head.encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        library = pytest.importorskip("XenAPI")
        with pytest.raises(library.Failure) as caught:
            client.xenapi.VDI.destroy(disk)
        assert caught.value.details == ["VDI_IN_USE", disk, "destroy"]
        assert slow.record("task", task)["status"] == "pending"
        begun = time.monotonic()
        stopper = threading.Thread(target=slow.stop)
        stopper.start()
        stopper.join(DEADLINE)
        assert time.monotonic() - begun < DEADLINE
    slow.start()


def test_an_uploaded_disk_can_be_downloaded(furnished: Pool, disk: str, task: str) -> None:
    content = bytes(range(256)) * 100
    door = Door(furnished.coordinator)
    door.send_request(IMPORT, {"vdi": disk}, content)
    reply = door.send_request(EXPORT, {"vdi": disk, "format": "raw", "task_id": task})
    assert (reply.status, reply.body) == (200, content + bytes(4 * MIB - len(content)))
    assert outcome(furnished, task) == ("success", [])


def test_other_requests_are_answered_as_before(furnished: Pool) -> None:
    assert Door(furnished.coordinator).send_request("PUT /import", {}, b"").status == 403
    assert Door(furnished.coordinator).send_request("GET /import_raw_vdi", {}).status == 404
    assert Door(furnished.coordinator, local=False).send_request("GET /", {}).status == 403
