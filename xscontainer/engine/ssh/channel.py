"""A paramiko channel as an EngineStream, with deadlines, a budget, and errors that say what ended."""

import socket
import threading
from typing import Callable, Optional

import paramiko

from xscontainer.engine import failures
from xscontainer.engine.connection import EngineStream
from xscontainer.engine.ssh.transport import MOST_UNREAD, MOST_UNREAD_IDLE, GuestTransport
from xscontainer.errors import EngineLost, EngineTimeout, EngineTooMuch, TransportLost


class ChannelStream(EngineStream):
    """One channel to the engine.

    :param on_close: called once, by close().
    :param received: bytes that were read from the channel before.
    :param most_unread: bytes that the guest may send before they are read, beyond which the connection ends.
    """

    def __init__(self, transport: GuestTransport, channel: paramiko.Channel, on_close: Callable[[], None],
                 received: bytes = b"", most_unread: int = MOST_UNREAD) -> None:
        self._transport = transport
        self._channel = channel
        self._on_close = on_close
        self._most_unread = most_unread
        self._closing = threading.Lock()
        self._closed = False
        self._pending = received
        self.set_idle(False)

    def sendall(self, data: bytes) -> None:
        while data:
            remaining = self.remaining()
            if remaining == 0.0:
                raise EngineTimeout("The engine did not accept the request in time.")
            self._channel.settimeout(remaining)
            try:
                sent = self._channel.send(data)
            except socket.timeout:
                sent = 0
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise self._end("while the request was sent") from error
            else:
                if sent == 0:
                    raise self._end("while the request was sent")
            data = data[sent:]

    def receive(self, limit: int, timeout: Optional[float]) -> Optional[bytes]:
        if self.budget <= 0:
            raise EngineTooMuch("The engine's answer is longer than allowed.")
        if self._pending:
            data, self._pending = self._pending[:limit], self._pending[limit:]
            return data
        self._channel.settimeout(timeout)
        try:
            data = self._channel.recv(min(limit, self.budget))
        except socket.timeout:
            return None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._end("while the answer was read") from error
        if not data and self._transport_ended():
            raise self._end("while the answer was read")
        self.budget -= len(data)
        self.received += len(data)
        return data

    def set_idle(self, idle: bool) -> None:
        self._channel.most_unread = MOST_UNREAD_IDLE if idle else self._most_unread

    def _transport_ended(self) -> bool:
        # The packet layer knows the end before any channel does. eof_received: the guest ended only this channel.
        return not self._closed and not self._channel.eof_received and (
            bool(self._transport.packetizer.ended) or not self._transport.is_active())

    def _end(self, when: str) -> Exception:
        why = self._transport.packetizer.ended
        if why or not self._transport.is_active():
            return TransportLost(f"The SSH connection to the VM broke {when}: {failures.words(why or 'it ended')}.")
        return EngineLost(f"The channel to the engine was closed {when}.")

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        try:
            self._channel.close()
        except (OSError, EOFError, paramiko.SSHException):
            pass  # the transport is gone, and the channel with it
        finally:
            self._on_close()

    @property
    def stale(self) -> bool:
        channel = self._channel
        return bool(self._closed or channel.closed or channel.eof_received or channel.recv_ready()
                    or self._transport.packetizer.ended)
