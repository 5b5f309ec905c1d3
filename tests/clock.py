"""A clock that a test moves, and a sleep that moves it: rules about time are tested without waiting."""

from typing import Callable, List

from xscontainer.monitoring.vm.sleeper import Sleeper


class Clock:
    """:ivar now: seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class InstantSleeper(Sleeper):
    """Sleeps in no time: its clock jumps.

    :ivar slept: the seconds of each sleep and wait.
    :ivar during: called in each :meth:`wait`; may wake or stop.
    """

    def __init__(self, clock: Clock, during: "Callable[[], None]" = lambda: None) -> None:
        super().__init__(clock)
        self._clock = clock
        self.during = during
        self.slept: List[float] = []

    def sleep(self, seconds: float) -> bool:
        self._pass(seconds)
        return super().sleep(0.0)

    def wait(self, seconds: float) -> bool:
        self._pass(seconds)
        self.during()
        return super().wait(0.0)

    def _pass(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._clock.now += seconds
