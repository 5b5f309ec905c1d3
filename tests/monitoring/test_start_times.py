"""Published start times: they are right, and cause no write of their own."""

import time
from typing import Any, Callable

from tests.monitoring.test_monitor import SETTINGS, Record, Scene, make_scene  # noqa: F401 - fixture
from tests.pool_fixtures import ORIGINATOR
from tests.waiting import until
from xscontainer.clients import xmlform
from xscontainer.core.container import Container
from xscontainer.monitoring.monitor import Monitor
from xscontainer.monitoring.vm.services import Services
from xscontainer.publish import Publication
from xscontainer.xapi.session import SessionPool

LIST = "GET /containers/json"
OFTEN = SETTINGS._replace(monitor=SETTINGS.monitor._replace(resync_interval=0.1))


def published(scene: Scene, name: str = "alpha") -> Container:
    until(lambda: f"<names>{name}</names>" in scene.shown())  # a write removes the key for a moment
    return next(found for found in xmlform.read_docker_ps(scene.shown()).containers if found.name == name)


def started_ago(scene: Scene, name: str, seconds: float) -> None:
    """Have the engine say that the container was created long ago and started so many seconds ago."""
    with scene.engine.life.lock:
        container = scene.engine.life.find(name)
        container.created, container.started = time.time() - 10 * 86400, time.time() - seconds
        container.touch()


def test_a_quiet_vm_is_not_written_to(make_scene: Callable[..., Scene]) -> None:  # noqa: F811
    """The texts of all containers change while the list is read again and again."""
    scene = make_scene(settings=OFTEN)
    for name, ago in (("alpha", 9.2), ("beta", 58.8), ("gamma", 359.2), ("delta", 5399.0), ("eps", 86399.5)):
        scene.engine.run(name)
        started_ago(scene, name, ago)
    scene.started()
    until(lambda: "eps" in scene.shown())
    scene.pool.stats.reset()
    before, text = scene.engine.requests[LIST], scene.shown()
    until(lambda: scene.engine.requests[LIST] >= before + 20)
    assert scene.pool.stats.calls(originator=ORIGINATOR) == 0
    assert scene.shown() == text
    for name, ago in (("beta", 58.8), ("gamma", 359.2), ("delta", 5399.0)):
        assert abs((published(scene, name).started_at or 0) - (time.time() - ago)) < max(35.0, ago / 2)


def test_a_start_is_published_to_the_second(make_scene: Callable[..., Scene]) -> None:  # noqa: F811
    scene = make_scene()
    scene.engine.run("alpha")
    scene.started()
    for _ in range(3):
        time.sleep(1.1)
        before = int(time.time())
        scene.engine.do("restart", "alpha")
        until(lambda: (published(scene).started_at or 0) >= before)  # noqa: B023
        assert published(scene).started_at == int(scene.engine.life.find("alpha").started)
    scene.engine.do("stop", "alpha")
    until(lambda: published(scene).state == "exited")
    assert published(scene).started_at is None


def test_a_new_monitor_keeps_the_published_times(make_scene: Callable[..., Scene], record: Record,  # noqa: F811
                                                 sessions: SessionPool) -> None:
    """The daemon was restarted, or the VM migrated."""
    scene: Any = make_scene()
    scene.engine.run("alpha")
    started_ago(scene, "alpha", 355.0)
    scene.started()
    text = scene.shown()
    scene.monitor.stop()
    assert scene.monitor.join(10.0)
    started_ago(scene, "alpha", 371.0)  # time passes, and the text says 6 minutes instead of 5
    services = Services(scene._open, scene.monitor._services.slots, scene.unsettled.append, login_held=lambda vm: False,
                        answers=lambda vm, remembered: False, record_of=lambda vm_uuid: scene.events)
    vm = record(scene.ref).abridged()
    scene.pool.stats.reset()
    before = scene.engine.requests[LIST]
    scene.monitor = Monitor(vm, services, Publication(vm, sessions), OFTEN)
    scene.monitor.start()
    until(lambda: scene.engine.requests[LIST] >= before + 5)
    assert scene.shown() == text
    assert scene.pool.stats.calls("VM.add_to_other_config", ORIGINATOR) == 0
