"""A plain SSH client for the tests here: paramiko, with the streamlocal channels that it has no call for."""

import logging
import socket
import threading
import time
from typing import Any, Optional, Tuple

import paramiko
from paramiko.common import cMSG_CHANNEL_OPEN
from paramiko.message import Message

from xscontainer.simulator.guests import Guest

# The faults played here make paramiko log stack traces.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

KEY = paramiko.ECDSAKey.generate()
KEY_LINE = f"{KEY.get_name()} {KEY.get_base64()} test"
PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"


class Client:
    """One SSH connection, logged in; a context manager."""

    def __init__(self, guest: Guest, key: Optional[paramiko.PKey] = None, timeout: float = 10.0) -> None:
        sock = socket.create_connection((guest.address, guest.port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = paramiko.Transport(sock)
        try:
            self.transport.banner_timeout = timeout
            self.transport.start_client(timeout=timeout)
            self.host_key = self.transport.get_remote_server_key().get_base64()
            self.transport.auth_publickey(guest.user, key or KEY)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()
        self.transport.join(10)

    def run(self, command: str, data: bytes = b"") -> Tuple[int, bytes, bytes]:
        """Run a command; return exit code, stdout and stderr."""
        channel = self.transport.open_session(timeout=10)
        channel.settimeout(10)
        channel.exec_command(command)
        channel.sendall(data)
        channel.shutdown_write()
        out, err = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
        code = channel.recv_exit_status()
        channel.close()
        return code, out, err

    def ask(self, command: str, data: bytes, end: bytes) -> bytes:
        """Send to a command, read until the answer ends with ``end``, and leave the command."""
        channel = self.transport.open_session(timeout=10)
        channel.settimeout(10)
        channel.exec_command(command)
        try:
            return exchange(channel, data, end)
        finally:
            channel.close()

    def streamlocal(self, path: str) -> paramiko.Channel:
        """Open a direct-streamlocal@openssh.com channel.

        :raises paramiko.ChannelException: the guest refuses it.
        """
        transport: Any = self.transport
        number = transport._next_channel()
        channel = paramiko.Channel(number)
        opened = threading.Event()
        with transport.lock:
            transport._channels.put(number, channel)
            transport.channel_events[number] = opened
            transport.channels_seen[number] = True
            channel._set_transport(transport)
            channel._set_window(transport.default_window_size, transport.default_max_packet_size)
        message = Message()
        message.add_byte(cMSG_CHANNEL_OPEN)
        message.add_string("direct-streamlocal@openssh.com")
        for value in (number, transport.default_window_size, transport.default_max_packet_size):
            message.add_int(value)
        message.add_string(path)
        message.add_string("")
        message.add_int(0)
        transport._send_user_message(message)
        assert opened.wait(10)
        if transport._channels.get(number) is None:
            raise transport.get_exception()
        channel.settimeout(10)
        return channel


def exchange(channel: paramiko.Channel, data: bytes, end: bytes) -> bytes:
    channel.sendall(data)
    answer = b""
    while not answer.endswith(end):
        more = channel.recv(65536)
        assert more, answer
        answer += more
    return answer


def soon(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)
