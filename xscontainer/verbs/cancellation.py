"""Cancelling a call that takes minutes: a client cancels its task, or the daemon stops."""

from xscontainer.errors import CalledOff
from xscontainer.verbs.context import Context
from xscontainer.xapi import task


class CancellableProgress:
    """The progress of a call's task. Each step first checks whether the call is to end; then nothing more is begun.

    :param next_step: what to do after the call was cancelled, for the error.
    """

    def __init__(self, context: Context, progress: task.Progress, next_step: str = "") -> None:
        self._stopping = context.stopping
        self._progress = progress
        self._next_step = next_step

    def __call__(self, fraction: float, step: str = "") -> None:
        """Show how far the call is; the parameters are those of task.Progress.

        :raises CalledOff: see check().
        """
        self.check()
        self._progress(fraction, step)

    def check(self, _fraction: float = 0.0) -> None:
        """End the call if it is to end. The parameter is ignored; XAPI's own tasks report their progress by it.

        :raises CalledOff: somebody cancelled the task, or the daemon stops.
        """
        if self._stopping.is_set():
            raise CalledOff("The xscontainer daemon of this host was stopped.", self._next_step or "Repeat the call.")
        try:
            self._progress.check()
        except CalledOff as error:
            raise CalledOff(error.message, self._next_step) from error
