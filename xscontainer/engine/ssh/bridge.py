"""A byte stream to the engine's socket in a guest: a channel of sshd to the socket, else a program that connects."""

import threading
import time
from typing import Callable, Iterator, List, Optional, Tuple

import paramiko

from xscontainer.core.target import is_socket
from xscontainer.engine import failures
from xscontainer.engine.connection import EXTRA_UNREAD
from xscontainer.engine.ssh import commands, discovery, socket_check, stand_in
from xscontainer.engine.ssh.channel import ChannelStream
from xscontainer.engine.ssh.discovery import PIPE
from xscontainer.engine.ssh.transport import STREAMLOCAL, GuestTransport
from xscontainer.errors import (
    ArgumentError,
    EngineTimeout,
    ForwardingRefused,
    ScriptNotRun,
    ScriptSilent,
    XSContainerError,
)

DIRECT = "streamlocal"
METHODS = (DIRECT,) + tuple(stand_in.PROGRAMS)
DEFAULT_PIPE = PIPE + "docker_engine"


def check_path(path: str) -> str:
    """Return ``path`` if it can be the path of an engine's socket.

    :raises ArgumentError: if not.
    """
    if not is_socket(path):
        raise ArgumentError(f"{failures.words(path)} is not a path of an engine's socket.",
                            "Correct xscontainer-engine-socket in the VM's other_config.")
    return path


class Tunnel:
    """Opens streams to the engine's socket, wherever it is. Thread-safe.

    :param last: the socket that worked last, "" if unknown.
    :ivar method: one of METHODS, the one that worked; "" before any did.
    :ivar known: the socket that worked.
    """

    def __init__(self, transport: GuestTransport, places: discovery.Places, method: str = "", last: str = "") -> None:
        self.method = method if method in METHODS else ""
        self.known = discovery.KnownSocket(last if places.has(last) else "")
        self._transport = transport
        self._places = places
        self._proven = False  # whether ``method`` has worked on this transport, for the known socket
        self._search = threading.Lock()

    @property
    def socket(self) -> str:
        """The path that worked, "" before any did."""
        return self.known.path

    def open(self, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        """Open a stream to the engine before ``deadline`` (time.monotonic()).

        :param on_close: as for ChannelStream.
        :raises XSContainerError: as Connection.open_stream.
        """
        with failures.translating("Reaching the engine through SSH", failures.SSH_SIDE):
            if self._proven:
                return self._open_proven(self.socket, deadline, on_close)
            if not self._search.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise EngineTimeout("The engine's socket in the VM was not found in time.")
            try:
                return self._find(deadline, on_close)
            finally:
                self._search.release()

    def open_extra(self, deadline: float) -> Optional[ChannelStream]:
        """Open a channel to the socket that was found, as for Connection.open_extra().

        sshd limits sessions (MaxSessions), but not channels to a socket.

        :returns: None if streams to the engine are sessions, no socket is known, or the guest refuses the channel.
        """
        if not self._proven or self.method != DIRECT:
            return None
        with failures.translating("Reaching the engine through SSH", failures.SSH_SIDE):
            try:
                channel = self._transport.open(STREAMLOCAL, deadline, self.socket, EXTRA_UNREAD // 2)
            except paramiko.ChannelException:
                return None  # open() finds out why
            return ChannelStream(self._transport, channel, lambda: None, most_unread=EXTRA_UNREAD)

    def _open_proven(self, path: str, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        try:
            stream = self._open_again(path, deadline, on_close)
        except discovery.TRY_NEXT as error:
            # The engine may have moved to another socket, or the program was removed: search again the next time.
            self.known.failed(error)
            self._proven = False
            raise
        self.known.worked(path)
        return stream

    def _open_again(self, path: str, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        """Open a stream by the method that worked before."""
        if self.method == DIRECT:
            try:
                return self._direct(path, deadline, on_close)
            except paramiko.ChannelException as error:
                self._check_refused(path, error, deadline)
                raise socket_check.stopped(path) from None
        stream, output = stand_in.connect(self._transport, self.method, path, deadline, on_close)
        if stream is not None:
            return stream
        self._check_socket(path, deadline)
        socket_check.check_outputs(self._transport, [(self.method, output)], path, deadline)
        raise ForwardingRefused(f"{self.method} in the VM no longer reaches the engine: {output.text}.")

    def _find(self, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        """Try a channel to each path first, which costs one round trip each. Then examine each path."""
        refusals: List[Tuple[str, str]] = []  # (path, sshd's reason)
        for path in self._paths(deadline):
            refusal = ""
            if path.startswith(PIPE):
                refusal = "it is a named pipe"
            elif self.method in ("", DIRECT) or (self._places.several and not self.known.kept):
                try:
                    return self._found(path, DIRECT, self._direct(path, deadline, on_close))
                except paramiko.ChannelException as error:
                    refusal = failures.words(error.text)
            refusals.append((path, refusal))
        errors: List[Tuple[str, XSContainerError]] = []
        for path, refusal in refusals:
            try:
                return self._examine(path, refusal, deadline, on_close)
            except discovery.TRY_NEXT as error:
                errors.append((path, error))
            except (ScriptNotRun, ScriptSilent) as error:
                raise socket_check.without_commands(error, path, refusal) from error
        reason = discovery.summary(errors)
        self.known.failed(reason)
        raise reason

    def _paths(self, deadline: float) -> Iterator[str]:
        """Yield the paths to try now. The guest is asked for the user's uid only if it is needed."""
        if self.known.kept:
            yield self.known.path
            return
        yield from self._places.fixed
        if self._places.of_user:
            try:
                answer = commands.run(self._transport, discovery.UID_SCRIPT, deadline=deadline)
            except (ScriptNotRun, ScriptSilent):
                return  # _find() reports it if no path works
            uid = discovery.parse_uid(answer.output)
            if uid is not None:
                yield from (path.format(uid=uid) for path in self._places.of_user)

    def _found(self, path: str, method: str, stream: ChannelStream) -> ChannelStream:
        self.method = method
        self.known.worked(path)
        self._proven = True
        return stream

    def _examine(self, path: str, refusal: str, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        """Return a stream by one of the programs, or raise why there is none.

        :param refusal: why sshd opens no channel; "": no channel was tried.
        """
        order = [self.method] if self.method else []
        order += [name for name in METHODS if name not in order]
        checked = False
        outputs: List[Tuple[str, stand_in.Output]] = []
        for method in order:
            if method == DIRECT:
                if refusal:
                    continue
                try:
                    stream: Optional[ChannelStream] = self._direct(path, deadline, on_close)
                except paramiko.ChannelException as error:
                    refusal = failures.words(error.text)
                    stream = None
            else:
                if not checked:
                    self._check_socket(path, deadline)
                    checked = True
                stream, output = stand_in.connect(self._transport, method, path, deadline, on_close)
                outputs.append((method, output))
            if stream is not None:
                return self._found(path, method, stream)
        socket_check.check_outputs(self._transport, outputs, path, deadline)
        tried = "; ".join(f"{name}: {output.text}" for name, output in outputs)
        raise ForwardingRefused(f"The VM's SSH server opens no channel to the engine's socket ({refusal}), and no "
                                f"program in the VM connects instead ({tried}).",
                                socket_check.forwarding_hint(self._transport.key_line))

    def _direct(self, path: str, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        return ChannelStream(self._transport, self._transport.open(STREAMLOCAL, deadline, path), on_close)

    def _check_socket(self, path: str, deadline: float) -> None:
        socket_check.check_socket(self._transport, path, self._places.several, deadline)

    def _check_refused(self, path: str, refusal: paramiko.ChannelException, deadline: float) -> None:
        try:
            self._check_socket(path, deadline)
        except (ScriptNotRun, ScriptSilent) as error:
            raise socket_check.without_commands(error, path, failures.words(refusal.text)) from error
