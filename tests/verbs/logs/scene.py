"""An embedded engine with a log, and the verb that reads it in this process."""

import contextlib
import json
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from tests.engine.conftest import ENGINE
from tests.engine.peers import engine_at
from tests.waiting import until
from xscontainer.core.budget import Budgets
from xscontainer.engine.api import Engine
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.engines.log_api import write
from xscontainer.verbs.followers import Followers
from xscontainer.verbs.logs import VERBS

UUID = "4a1b2c3d-0000-4000-8000-123456789abc"


class Access(NamedTuple):
    budgets: Budgets


class Context:
    """The part of a context that the verb uses: the engine of one VM.

    :ivar now: the time of the followers' clock.
    :ivar failure: raised instead of lending the engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.stopping = threading.Event()
        self.access = Access(Budgets())
        self.now = 1000.0
        self.followers: Optional[Followers] = Followers(lambda: self.now)
        self.failure: Optional[Exception] = None
        self.is_crowded = False
        self.opened = engine

    @contextlib.contextmanager
    def engine(self, vm_uuid: str) -> "Iterator[Engine]":
        if self.failure is not None:
            raise self.failure
        yield self.opened

    standing_engine = engine

    def crowded(self) -> bool:
        return self.is_crowded


class Scene:
    """:ivar server: the engine as its guest has it."""

    def __init__(self, server: Any, context: Any) -> None:
        self.server, self.context = server, context

    def write(self, *texts: str, container: str = "web", stream: int = 1) -> None:
        for text in texts:
            write(self.server.life, container, text + "\n", stream)

    def call(self, container: str = "web", **arguments: str) -> Dict[str, Any]:
        """Call the verb, with its arguments checked as for any caller."""
        (verb,) = VERBS
        result = verb.action(self.context, **verb.checked({"vmuuid": UUID, "container": container, **arguments}))
        assert result.startswith("True{") and result.isprintable()
        found: Dict[str, Any] = json.loads(result[4:])
        assert list(found) == ["container", "lines", "truncated", "dropped", "follow", "ended"]
        return found

    @property
    def followers(self) -> Followers:
        found = self.context.followers
        assert isinstance(found, Followers)
        return found

    @property
    def asked(self) -> int:
        """The number of requests for a log that the engine has received."""
        return int(self.server.requests["GET /containers/{}/logs"])

    def over(self, container: str) -> None:
        """Wait until a container has ended."""
        until(lambda: not self.context.opened.runs(container), f"{container} does not end")

    def more(self, token: str, wait: int = 5) -> "Dict[str, Any]":
        return self.call(follow=token, wait=str(wait))

    def texts(self, container: str = "web", **arguments: str) -> List[str]:
        return texts(self.call(container, **arguments))


def texts(found: "Dict[str, Any]") -> "List[str]":
    return [line["text"] for line in found["lines"]]


@contextlib.contextmanager
def reached(server: Any) -> "Iterator[Scene]":
    """Reach an engine that runs."""
    with engine_at(server.socket_path, ENGINE) as engine:
        made = Scene(server, Context(engine))
        followers = made.followers
        yield made
        made.context.stopping.set()
        followers.close()


@contextlib.contextmanager
def entered(directory: str) -> "Iterator[Scene]":
    with EmbeddedEngine(directory) as server:
        server.run("web")
        with reached(server) as made:
            yield made
