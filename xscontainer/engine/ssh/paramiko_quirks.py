"""paramiko's transport, with everything that we do against the library's grain.

Seen in paramiko 3.5.1 (the last for CPython 3.6) and 5.1.0, unless noted; check each item when a pin in requirements/
changes. What concerns packets is in :mod:`.packetizer`.

=============================== ==================================================================================
what the library does           what we do instead, and why
=============================== ==================================================================================
buffers all channel data        Limited. paramiko buffers data beyond the window that it granted, so a guest could
                                fill the memory.
takes an RSA signature with     Refused (3.5.1 only, CVE-2026-44405): the signature must be of the algorithm that was
SHA-1 for one with SHA-2        negotiated.
``preferred_pubkeys``           Overridden: weak signatures of our own key are off unless the VM allows them.
logs errors with a traceback    Logged at debug level: the same error is raised, and the caller reports it.
``get_exception`` returns any   Turned into an SSHException: for instance UnicodeDecodeError for a text from the
exception                       guest that is not UTF-8.
``open_channel`` sends no       Added to the message: a channel to a Unix socket needs the socket's path and two
payload for unknown kinds       reserved fields.
``Channel.exec_command`` has    Replaced by :meth:`MendedTransport.exec_on`.
no timeout
one AuthenticationException     Told apart by the text: see :func:`login_failure`.
for a refusal, a timeout and a
closed connection
sends on a channel after its    Dropped: Dropbear (2022.83) then closes the whole connection. One thread may send while
end was confirmed               another confirms the end.
=============================== ==================================================================================
"""

import logging
from typing import Any, Callable, Iterable, Optional, Set, Tuple

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_WINDOW_ADJUST,
    cMSG_CHANNEL_OPEN,
    cMSG_CHANNEL_REQUEST,
)

from xscontainer.engine.ssh import algorithms

STREAMLOCAL = "direct-streamlocal@openssh.com"
# Bytes that a guest may send on one channel before they are read. They are kept for each guest whose events are not
# read in time. 64 KiB allow 320 MB/s over 0.2 ms to a guest of the same host.
WINDOW_BYTES = 64 * 1024
MOST_UNREAD = WINDOW_BYTES + 32 * 1024  # one packet more, for guests that exceed the window a little

_CHANNEL_MESSAGES = range(MSG_CHANNEL_WINDOW_ADJUST, MSG_CHANNEL_FAILURE + 1)  # each begins with a channel number
_STREAMLOCAL_OPEN = cMSG_CHANNEL_OPEN + len(STREAMLOCAL).to_bytes(4, "big") + STREAMLOCAL.encode("ascii")

REFUSED, NO_ANSWER, CLOSED = "refused", "no answer", "closed"

Handler = Callable[[paramiko.Channel, paramiko.Message], None]


def _limited(feed: Handler) -> Handler:
    def checked(channel: paramiko.Channel, message: paramiko.Message) -> None:
        feed(channel, message)
        unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
        if unread > getattr(channel, "most_unread", MOST_UNREAD):
            raise paramiko.SSHException("the guest sends more than the channel's window")
    return checked


def login_failure(error: paramiko.AuthenticationException) -> str:
    """Return REFUSED, NO_ANSWER or CLOSED for the exception of a login that failed."""
    if "EOF" in str(error):
        return CLOSED
    return NO_ANSWER if "timeout" in str(error) else REFUSED


class MendedTransport(paramiko.Transport):
    """See the module's table.

    :param packetizer: makes the packetizer from a socket.
    :param weak: words of algorithms.WEAK: weak algorithms that are allowed.
    :ivar known: all algorithms of paramiko. :ivar ours: those that are offered.
    :ivar kex_name: the key exchange in use, which paramiko does not keep.
    """

    _channel_handler_table = dict(paramiko.Transport._channel_handler_table)
    _channel_handler_table[MSG_CHANNEL_DATA] = _limited(_channel_handler_table[MSG_CHANNEL_DATA])
    _channel_handler_table[MSG_CHANNEL_EXTENDED_DATA] = _limited(_channel_handler_table[MSG_CHANNEL_EXTENDED_DATA])

    def __init__(self, sock: Any, packetizer: Any, weak: "Iterable[str]") -> None:
        super().__init__(sock, default_window_size=WINDOW_BYTES, packetizer_class=packetizer)
        self.weak = frozenset(weak)
        options = self.get_security_options()
        self.known = algorithms.Algorithms(
            tuple(options.kex), tuple(options.key_types), tuple(options.ciphers), tuple(options.digests))
        self.ours = algorithms.ours(self.known, self.weak)
        options.kex, options.key_types, options.ciphers, options.digests = self.ours
        self.kex_name = ""
        self._socket_path = ""  # of the channel that is being opened
        self._ended_channels: Set[bytes] = set()  # the guest's numbers of channels whose end we have confirmed

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        super()._verify_key(host_key, sig)
        assert self.host_key is not None
        self.kex_name = str(getattr(self.kex_engine, "name", ""))
        algorithms.check_host_key(self.host_key, str(self.host_key_type), sig, self.weak)

    @property
    def signatures(self) -> "Tuple[str, ...]":
        """The signature algorithms that sshd accepts (RFC 8308), known after a login attempt; () if it names none."""
        said = self.server_extensions.get("server-sig-algs", b"")
        return algorithms.names(said) if said else ()

    @property
    def preferred_pubkeys(self) -> "Tuple[str, ...]":
        # paramiko reads this when our key must sign. By then it is known what sshd accepts.
        off = algorithms.signatures_off(self.weak,
                                        old_server=not self.signatures and "ssh-rsa" in self._preferred_pubkeys)
        return tuple(name for name in self._preferred_pubkeys if name not in off)

    def _log(self, level: int, msg: Any, *args: Any) -> None:
        super()._log(logging.DEBUG, msg, *args)

    def get_exception(self) -> Optional[Exception]:
        """Return the exception that ended the transport, once: an SSHException, EOFError or OSError."""
        error: Optional[Exception] = super().get_exception()
        if error is None or isinstance(error, (paramiko.SSHException, EOFError, OSError)):
            return error
        unreadable = paramiko.SSHException("the guest sent data that cannot be decoded")
        unreadable.__cause__ = error
        return unreadable

    def open_to(self, kind: str, path: str, timeout: float, window: int = WINDOW_BYTES) -> paramiko.Channel:
        """Open a channel; only one thread at a time may call this.

        :param path: the socket in the guest that a STREAMLOCAL channel leads to.
        :param window: bytes that the guest may send before they are read.
        """
        # paramiko keeps the refusal of an earlier channel here and would raise it for this one.
        self.saved_exception = None
        self._socket_path = path
        return self.open_channel(kind, window_size=window, timeout=timeout)

    def exec_on(self, channel: paramiko.Channel, command: str, timeout: float) -> "Tuple[bool, bool]":
        """Ask the guest to run ``command``. Return whether it answered in time, and whether it agreed."""
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        channel._event_pending()
        self._send_user_message(message)
        answered = channel.event.wait(max(0.0, timeout))
        return answered, bool(answered and channel.event_ready)

    def _send_user_message(self, data: paramiko.Message) -> None:
        if data.asbytes().startswith(_STREAMLOCAL_OPEN):
            data.add_string(self._socket_path)
            data.add_string("")
            data.add_int(0)
        super()._send_user_message(data)

    def _send_message(self, data: paramiko.Message) -> None:
        # paramiko sends messages on channels under a lock, so no other thread changes the set meanwhile.
        start = data.asbytes()[:5]
        if start[:1] and start[0] in _CHANNEL_MESSAGES:
            if start[1:] in self._ended_channels:
                return
            if start[0] == MSG_CHANNEL_CLOSE:
                self._ended_channels.add(start[1:])
        super()._send_message(data)

    def _parse_channel_open_success(self, m: paramiko.Message) -> None:
        self._ended_channels.discard(m.asbytes()[4:8])  # the guest uses the number again
        super()._parse_channel_open_success(m)
