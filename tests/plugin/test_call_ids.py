"""Work belongs to the id of a call: interrupting a command cancels the work of that command and no other."""

import threading
import uuid
from typing import Any, Iterator, List

import pytest

from tests.plugin.pool import PluginPool
from tests.plugin.process import wait_until
from tests.plugin.verbs import made
from xscontainer.cli.ui import progress
from xscontainer.core import current_call, wire
from xscontainer.core.verb import LONG
from xscontainer.errors import CalledOff, XapiError
from xscontainer.xapi import task
from xscontainer.xapi.session import Session

VM = "4a1b2c3d-0000-4000-8000-123456789abc"


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginPool]:
    with PluginPool(str(tmp_path_factory.mktemp("i") / "x"), hosts=1) as made:
        yield made


@pytest.fixture
def session(pool: PluginPool) -> Iterator[Session]:
    made = Session.login(pool.hosts[0].settings.xapi.socket, "test", 30.0, 30.0)
    yield made
    made.logout()


WORK = made("work", lambda: "", "vmuuid", lane=LONG)


class Work:
    """A function that works for a VM until its task is cancelled, or it may end."""

    def __init__(self, pool: PluginPool) -> None:
        self.pool = pool
        self.may_end = threading.Event()
        pool.hosts[0].verbs["work"] = WORK._replace(action=self._run)

    def _run(self, context: Any, vmuuid: str) -> str:
        with context.forwarding.lease() as session, task.running(
                session, "Working", "", {task.VM: vmuuid}) as told:
            told(0.5, f"working for {current_call.call_id()}")
            while not self.may_end.wait(0.05):
                told.check()
        return "Truedone"

    def tasks(self) -> "List[Any]":
        return [record for record in self.pool.pool.records("task").values() if record["name_label"] == "Working"]


class Command:
    """A command that is interrupted when it is told to be, as by Ctrl-C: in the middle of showing a step."""

    def __init__(self, pool: PluginPool, ending: float) -> None:
        self.steps: List[str] = []
        self.outcome = ""
        self.interrupt = False
        self._arguments = (pool.hosts[0].settings, ending)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        settings, ending = self._arguments
        session = Session.login(settings.xapi.socket, "test", 30.0, 30.0)
        try:
            self.outcome = progress.call(session, settings, WORK, {"vmuuid": VM}, self._tell, ending)
        except KeyboardInterrupt:
            self.outcome = "interrupted"
        except XapiError as error:
            self.outcome = (error.details or [error.code])[0]
        finally:
            session.logout()

    def _tell(self, step: str) -> None:
        self.steps.append(step)
        if self.interrupt and step != "cancelling":
            raise KeyboardInterrupt

    def ended(self) -> str:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.outcome


def test_an_interrupted_command_cancels_its_own_work_and_not_another_clients(pool: PluginPool) -> None:
    work = Work(pool)
    try:
        other = Command(pool, 30.0)
        wait_until(lambda: other.steps, "the other client's call works")
        mine = Command(pool, 30.0)
        mine.interrupt = True
        assert mine.ended() == "interrupted"
        assert sorted(record["status"] for record in work.tasks()) == ["cancelled", "pending"]
    finally:
        work.may_end.set()
    assert other.ended() == "done"
    # Each was shown its own step.
    assert len(set(other.steps + mine.steps) - {"cancelling"}) == 2


def test_a_task_that_is_being_cancelled_has_not_ended(pool: PluginPool, session: Session) -> None:
    work = Work(pool)
    try:
        command = Command(pool, 0.0)
        wait_until(lambda: command.steps, "it works")
        ref = wait_until(lambda: next((ref for ref, record in pool.pool.records("task").items()
                                       if "call_plugin" in record["name_label"]), ""), "its call is a task")
        session.xenapi.task.set_status(ref, "cancelling")
        own = str(uuid.uuid4())
        with current_call.serving(own, 60.0), task.running(session, "Mine") as told:
            told(0.1, "a step")
            pending = next(iter(progress.under_way(session, own)))
            session.xenapi.task.set_status(pending, "cancelling")
            assert list(progress.under_way(session, own)) == [pending]
            with pytest.raises(CalledOff):
                told.check()
        assert command.outcome == ""
    finally:
        work.may_end.set()
    assert command.ended() == "done"


def test_every_task_of_a_call_names_it(pool: PluginPool, session: Session) -> None:
    own = str(uuid.uuid4())
    with current_call.serving(own, 60.0), task.running(session, "Mine", "", {task.VM: VM}):
        pass
    with task.running(session, "Nobody's"):
        pass
    marks = {record["name_label"]: record["other_config"] for record in pool.pool.records("task").values()}
    assert marks["Mine"] == {wire.CALL: own, task.VM: VM}
    assert wire.CALL not in marks["Nobody's"]
