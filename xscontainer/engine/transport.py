"""paramiko's transport, able to open channels to a Unix socket in the guest, and bounded."""

import logging
import threading
import time
from typing import Any, Callable, Optional

import paramiko
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    cMSG_CHANNEL_OPEN,
    cMSG_CHANNEL_REQUEST,
    cMSG_GLOBAL_REQUEST,
)

from xscontainer.engine.packets import BoundedPacketizer
from xscontainer.errors import EngineTimeout

STREAMLOCAL = "direct-streamlocal@openssh.com"
WINDOW_BYTES = 1024 * 1024  # what a guest may send on one channel before somebody reads

# Key exchanges in which the guest chooses nothing that we calculate with: a group of its own could keep paramiko busy
# for ever. Without SHA-1; those of newer releases of paramiko come first.
KEY_EXCHANGES = (
    "mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256", "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256",
)
_NO_DATA = 8  # bytes of such a message with no data in it: the channel and the length
CLOSING = 2.0  # s that the reader has to end, which is woken

_OVERLOADED = "Check that the VM is not overloaded."

Handler = Callable[[paramiko.Channel, paramiko.Message], None]


def _bounded(feed: Handler) -> Handler:
    """paramiko buffers all that arrives, whether or not the peer keeps to its window."""
    def checked(channel: paramiko.Channel, message: paramiko.Message) -> None:
        feed(channel, message)
        if len(channel.in_buffer) + len(channel.in_stderr_buffer) > 2 * WINDOW_BYTES:
            raise paramiko.SSHException("the guest sends more than the channel's window")
    return checked


def _fed(feed: Handler) -> Handler:
    def told(channel: paramiko.Channel, message: paramiko.Message) -> None:
        if len(message.asbytes()) > _NO_DATA:
            channel.transport.packetizer.fed()
        feed(channel, message)
    return told


class GuestTransport(paramiko.Transport):
    """One that gives up what a hostile or silent guest would have it keep or wait for."""

    _channel_handler_table = dict(paramiko.Transport._channel_handler_table)
    _channel_handler_table[MSG_CHANNEL_DATA] = _fed(_bounded(_channel_handler_table[MSG_CHANNEL_DATA]))
    _channel_handler_table[MSG_CHANNEL_EXTENDED_DATA] = _bounded(_channel_handler_table[MSG_CHANNEL_EXTENDED_DATA])

    def __init__(self, sock: Any) -> None:
        super().__init__(sock, default_window_size=WINDOW_BYTES, packetizer_class=BoundedPacketizer)
        self.packetizer.ask = self._ask_for_life
        options = self.get_security_options()
        options.kex = [name for name in KEY_EXCHANGES if name in options.kex]
        self._opening = threading.Lock()
        self._leads_to = ""  # the channel that is being opened, if it is to a socket

    def _log(self, level: int, msg: Any, *args: Any) -> None:
        # What goes wrong is raised, and told by whoever catches it; paramiko's tracebacks only help debugging.
        super()._log(logging.DEBUG, msg, *args)

    def get_exception(self) -> Optional[Exception]:
        """What ended it, which is forgotten by being asked for: an SSHException, EOFError or OSError, also if paramiko
        stumbled over what the guest sent, such as a text that is none."""
        error: Optional[Exception] = super().get_exception()
        if error is None or isinstance(error, (paramiko.SSHException, EOFError, OSError)):
            return error
        stumbled = paramiko.SSHException(f"the guest sent what nobody can read ({type(error).__name__})")
        stumbled.__cause__ = error
        return stumbled

    def _send_user_message(self, data: paramiko.Message) -> None:
        # open_channel knows no payload for this kind of channel: its socket's path and two reserved fields.
        if data.asbytes().startswith(_STREAMLOCAL_OPEN):
            data.add_string(self._leads_to)
            data.add_string("")
            data.add_int(0)
        super()._send_user_message(data)

    def open(self, kind: str, deadline: float, path: str = "") -> paramiko.Channel:
        """Open a channel of ``kind`` ("session" or STREAMLOCAL) before ``deadline`` (time.monotonic()).

        :param path: of the socket in the guest that a STREAMLOCAL one leads to.
        :raises paramiko.ChannelException: the guest refuses it; ``code`` and ``text`` say why.
        :raises paramiko.SSHException: the transport has ended.
        :raises EngineTimeout: no answer in time; the transport is of no use any more and was ended.
        """
        # One at a time: paramiko keeps the refusal of an open where another open would take it for its own.
        if not self._opening.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise EngineTimeout("The guest does not open channels in time.", _OVERLOADED)
        try:
            self.saved_exception = None
            self._leads_to = path
            return self.open_channel(kind, timeout=max(0.001, deadline - time.monotonic()))
        except paramiko.ChannelException:
            raise
        except paramiko.SSHException as error:
            if not self.is_active():
                raise
            # It may still open it, behind our back, and hold it for ever.
            self.hang_up("it did not open a channel in time")
            raise EngineTimeout("The guest did not open a channel in time.", _OVERLOADED) from error
        finally:
            self._opening.release()

    def execute(self, command: str, deadline: float) -> paramiko.Channel:
        """Open a session and run ``command``; raises as ``open``, and ChannelException if it may not run."""
        channel = self.open("session", deadline)
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        # Channel.exec_command, but with a deadline.
        channel._event_pending()
        self._send_user_message(message)
        answered = channel.event.wait(max(0.0, deadline - time.monotonic()))
        if answered and channel.event_ready:
            return channel
        channel.close()
        if answered:
            raise paramiko.ChannelException(1, "the guest runs no commands")
        raise EngineTimeout("The guest did not start a command in time.", _OVERLOADED)

    def _ask_for_life(self) -> None:
        """Any answer will do, also "I know no such request"; in the reader's thread, so it must not wait."""
        if not self.clear_to_send.is_set():
            return  # keys are being exchanged: packets are flowing
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_message(message)

    def watch(self, keepalive: float, dead_after: float) -> None:
        """From now on: ask after ``keepalive`` s of silence, give up after ``dead_after``; sleep in between."""
        self.packetizer.finish_handshakes()
        self.packetizer.heard = time.monotonic()
        self.packetizer.dead_after = dead_after
        self.packetizer.keepalive = keepalive
        self.sock.settimeout(min(keepalive, dead_after / 3))

    def hang_up(self, why: str) -> None:
        """End it from any thread, without waiting for the reader."""
        self.packetizer.ended = self.packetizer.ended or why
        self.packetizer.hang_up()

    def close(self) -> None:
        """End it and wait for the reader, which is prompt: it is woken, not waited out."""
        self.hang_up("it was closed")
        if self.is_alive() and self is not threading.current_thread():
            self.join(CLOSING)
        super().close()
        self.sock.close()


_STREAMLOCAL_OPEN = cMSG_CHANNEL_OPEN + len(STREAMLOCAL).to_bytes(4, "big") + STREAMLOCAL.encode("ascii")
