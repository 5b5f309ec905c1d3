"""Explain a server that does not identify itself as an SSH server.

An sshd that rejects a connection sends one unencrypted line and closes the connection. OpenSSH sends "Exceeded
MaxStartups" since 8.4 and "Not allowed at this time" since 9.8. Older releases, tcpwrappers and servers behind
systemd's socket close the connection without a word.
"""

import re

from xscontainer.engine import failures
from xscontainer.errors import GuestNotSSH, GuestSilent, SSHBusy, SSHClosed, SSHPenalty

_BUSY = re.compile(rb"maxstartups|too many (connections|sessions|users|logins)|(server|system) (is )?busy",
                   re.IGNORECASE)
_PENALTY = re.compile(rb"not allowed at this time|penal", re.IGNORECASE)
_CLOSED = re.compile(rb"denied|not allowed|not permitted|forbidden|refused|rejected|blocked|banned|blacklist|denylist",
                     re.IGNORECASE)
_OTHER_PROTOCOL = re.compile(rb"HTTP/|RTSP/|[0-9]{3}[ -]|\* OK|\+OK|RFB ")


def missing(received: bytes, closed: bool, seconds: float, where: str) -> GuestSilent:
    """Return the error for a server that sent no SSH identification string.

    :param received: the beginning of what the server sent.
    :param closed: whether the server closed the connection; False: it sent no more within ``seconds``.
    :param where: address and port, for the message.
    """
    if b"SSH-".startswith(received[:4]):
        if closed and not received:
            return SSHClosed(f"The server at {where} closed the connection without a word.")
        why = "it closed the connection" if closed else f"no answer within {seconds:.2g} s"
        return GuestSilent(f"The server at {where} did not identify itself as an SSH server: {why}.")
    quoted = f"'{failures.words(received)}'" if received.strip() else "blank lines"
    if _OTHER_PROTOCOL.match(received):
        return GuestNotSSH(f"The server at {where} does not speak SSH: it sends {quoted}.")
    if _BUSY.search(received):
        return SSHBusy(f"The SSH server at {where} accepts no more connections: it sends {quoted}.")
    if _PENALTY.search(received):
        return SSHPenalty(f"The SSH server at {where} accepts no connections from this host for some time: it sends "
                          f"{quoted}.")
    if _CLOSED.search(received):
        return SSHClosed(f"The server at {where} rejected this host before the SSH handshake: it sends {quoted}.")
    return GuestNotSSH(f"The server at {where} does not speak SSH: it sends {quoted}.")
