"""Undo a call that failed half-way, step by step."""

import contextlib
import logging
from typing import Callable

from xscontainer.errors import XSContainerError
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)


class Undo:
    """A stack of steps that undo what was done so far, the last one first.

    The steps use sessions of their own: the caller's session may be what failed.
    """

    def __init__(self, sessions: SessionPool) -> None:
        self._sessions = sessions
        self._steps = contextlib.ExitStack()

    def add(self, what: str, step: "Callable[[Session], object]") -> None:
        """Add a step.

        :param what: what the step undoes, for the log.
        """
        def run() -> None:
            try:
                self._sessions.run(step)
            except XSContainerError as error:
                # The caller reports the first failure; this one is only logged.
                log.error("%s could not be undone: %s", what, error)

        self._steps.callback(run)

    def all(self) -> None:
        """Run all steps."""
        self._steps.close()

    def forget(self) -> None:
        """Drop all steps: the call has succeeded."""
        self._steps.pop_all()
