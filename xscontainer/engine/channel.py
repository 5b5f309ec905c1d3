"""A paramiko channel as an EngineStream: deadlines, a budget, and an end that says what ended."""

import socket
import threading
from typing import Callable, Optional

import paramiko

from xscontainer.engine import failures
from xscontainer.engine.connection import EngineStream
from xscontainer.engine.transport import GuestTransport
from xscontainer.errors import EngineLost, EngineTimeout, EngineTooMuch, TransportLost


class ChannelStream(EngineStream):
    """:param on_close: called once, when the channel is given back."""

    def __init__(self, transport: GuestTransport, channel: paramiko.Channel, on_close: Callable[[], None]) -> None:
        self._transport = transport
        self._channel = channel
        self._on_close = on_close
        self._closing = threading.Lock()
        self._closed = False

    def sendall(self, data: bytes) -> None:
        while data:
            left = self.remaining()
            if left == 0.0:
                raise EngineTimeout("The engine did not take the request in time.")
            self._channel.settimeout(left)
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

    def _transport_ended(self) -> bool:
        # The packet layer knows it before any channel does; eof_received tells an end that the guest sent.
        return not self._closed and not self._channel.eof_received and (
            bool(self._transport.packetizer.ended) or not self._transport.is_active())

    def _end(self, when: str) -> Exception:
        why = self._transport.packetizer.ended
        if why or not self._transport.is_active():
            return TransportLost(f"The SSH connection to the VM broke {when}: {failures.words(why or 'it ended')}.")
        return EngineLost(f"The way to the engine was closed {when}.")

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
