"""``create`` that is cancelled or killed half-way removes what it made."""

import json
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from tests.configdrive.cloud import Cloud
from tests.need import need_program
from tests.plugin.process import wait_until
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves several tests
from xscontainer.errors import XapiError
from xscontainer.xapi import task, unfinished

pytestmark = pytest.mark.real  # each copy takes seconds

GIB = 1 << 30
WAITING = "waiting for the first list"
# Whose disk lies in another repository and is copied in full -> the step that the task shows meanwhile.
COPYING = {"image": "copying the image", "template": "copying the template's disks"}
HELD = 6.0  # s for which the simulator delays a copy
SOON = 60.0  # s, deadline


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    need_program("cloud-init")
    with Cloud(str(tmp_path_factory.mktemp("c"))) as world:
        world.pool.step_delay = 0.0
        world.pool.create_vm("Template", template=True, power_state="Halted")
        yield world


@pytest.fixture(autouse=True)
def _faultless(request: Any) -> Iterator[None]:
    yield
    if "cloud" in request.fixturenames:
        world = request.getfixturevalue("cloud")
        world.pool.faults.clear()
        world.boot_fails = False


class Creating:
    """A call of create in a thread of its own.

    :param kind: whose disk is copied in full: a key of COPYING.
    """

    def __init__(self, cloud: Cloud, name: str, kind: str = "image") -> None:
        self.cloud, self.name, self.kind = cloud, name, kind
        self.made: Optional[Dict[str, Any]] = None
        self.error: Optional[XapiError] = None
        image = cloud.pool.create_disk(cloud.storage["Local storage on host1"], b"a system", GIB, name="image")
        if kind == "template":
            template = cloud.pool.create_vm("With a disk", template=True, power_state="Halted")
            cloud.pool.add_drive(template, image, userdevice="0")
        else:
            template, = (ref for ref, record in cloud.pool.records("VM").items() if record["name_label"] == "Template")
        self.before = left(cloud)
        self._arguments = {
            "templateuuid": cloud.uuid("VM", template), "name": name,
            "sruuid": cloud.uuid("SR", cloud.storage["Shared storage"]), "configuration": "#cloud-config\n",
            "networkuuid": cloud.uuid("network", cloud.network), "username": cloud.user, "wait": "300"}
        if kind == "image":
            self._arguments["imageuuid"] = cloud.uuid("VDI", image)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.made = json.loads(self.cloud.call(1, "create", **self._arguments)[4:])
        except XapiError as error:
            self.error = error

    def task_at(self, step: str) -> str:
        return str(wait_until(lambda: next((ref for ref, record in self.cloud.pool.records("task").items() if (
            record["name_label"] == f"Creating {self.name}" and record["other_config"].get(task.STEP) == step)), ""),
            f"the step {step!r}", SOON))

    def ended(self) -> List[str]:
        """Wait for the end; return the details of the failure, empty after a success."""
        self._thread.join(SOON)
        assert not self._thread.is_alive()
        return self.error.details if self.error else []


def left(cloud: Cloud) -> Any:
    """All objects of the classes that create makes."""
    return [sorted(cloud.pool.records(cls)) for cls in ("VM", "VDI", "VBD", "VIF")]


def cancel(cloud: Cloud, ref: str) -> None:
    with cloud.session() as session:
        session.xenapi.task.cancel(ref)


def disk_at_work(cloud: Cloud) -> str:
    found = wait_until(lambda: [ref for ref, record in cloud.pool.records("VDI").items() if (
        record["name_label"] == unfinished.DISK and unfinished.KEY in record["other_config"])],
        "the disk that is copied to", SOON)
    return str(found[0])


def cancel_the_task(cloud: Cloud, creating: Creating) -> None:
    own = creating.task_at(COPYING[creating.kind])
    cancel(cloud, own)
    assert creating.ended()[0] == "CALLED_OFF"
    assert left(cloud) == creating.before, "create itself cleans up before it answers"
    assert cloud.pool.record("task", own)["status"] == "cancelled"


def kill_and_restart_the_daemon(cloud: Cloud, creating: Creating) -> None:
    cloud.daemons[1].kill()
    assert creating.ended()[0] == "DAEMON_LOST"
    assert left(cloud) != creating.before
    cloud.daemons[1].start()


def crash_and_restart_xapi(cloud: Cloud, creating: Creating) -> None:
    for host in cloud.pool.hosts:
        host.crash()
    creating.ended()
    assert left(cloud) != creating.before
    for host in cloud.pool.hosts:
        host.start()
    cloud.sessions.forget()


@pytest.mark.parametrize("interrupt", [cancel_the_task, kill_and_restart_the_daemon, crash_and_restart_xapi],
                         ids=lambda interrupt: interrupt.__name__)
@pytest.mark.parametrize("kind", sorted(COPYING))
def test_nothing_is_left_of_a_create_that_is_interrupted_while_it_copies_a_disk(
        cloud: Cloud, kind: str, interrupt: "Callable[[Cloud, Creating], None]") -> None:
    cloud.pool.faults("VDI.copy", "delay", times=1, seconds=HELD)
    creating = Creating(cloud, f"{interrupt.__name__} {kind}", kind)
    creating.task_at(COPYING[kind])
    disk_at_work(cloud)
    interrupt(cloud, creating)
    wait_until(lambda: left(cloud) == creating.before, "nothing is left", SOON)


@pytest.fixture
def cancelled_while_waiting(cloud: Cloud, request: pytest.FixtureRequest) -> Creating:
    """A create whose VM has started without its engine, cancelled while create waits for the list."""
    cloud.boot_fails = True
    creating = Creating(cloud, request.node.name)  # a task is found by the VM's name
    cancel(cloud, creating.task_at(WAITING))
    assert creating.ended() == []
    return creating


def test_create_names_the_vm_when_it_is_cancelled_while_it_waits_for_the_list(
        cloud: Cloud, cancelled_while_waiting: Creating) -> None:
    made = cancelled_while_waiting.made
    assert made is not None
    assert made["published"] is False and json.loads(made["status"])["code"] == "CALLED_OFF"
    vm = cloud.pool.uuid_to_ref(made["vm"])
    assert cloud.pool.vm(vm)["power_state"] == "Running"
    with cloud.session() as session:
        session.xenapi.VM.hard_shutdown(vm)


def test_a_vm_and_its_disks_lose_their_marks_once_they_are_complete(
        cloud: Cloud, cancelled_while_waiting: Creating) -> None:
    records = [record for cls in ("VM", "VDI") for record in cloud.pool.records(cls).values()]
    marked = [record["name_label"] for record in records
              if unfinished.KEY in record["other_config"] or record["name_label"] == unfinished.DISK]
    assert marked == []
    disk = f"{cancelled_while_waiting.name} 0"
    assert any(record["name_label"] == disk for record in cloud.pool.records("VDI").values())
