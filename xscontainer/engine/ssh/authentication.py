"""Log in to a guest with one key, and explain a refusal."""

import paramiko

from xscontainer.engine import failures
from xscontainer.engine.ssh import algorithms
from xscontainer.engine.ssh.paramiko_quirks import CLOSED, NO_ANSWER, login_failure
from xscontainer.engine.ssh.transport import GuestTransport
from xscontainer.errors import (
    GuestSilent,
    KeyNotAccepted,
    KeyTypeRefused,
    LoginEnded,
    LoginNeedsMore,
    PublicKeyOff,
)
from xscontainer.keys import SSH_WEAK


def log_in(transport: GuestTransport, user: str, private_key: paramiko.PKey, timeout: float, where: str) -> None:
    """Log in with one key.

    :param timeout: seconds.
    :param where: address and port, for messages.
    :raises KeyNotAccepted: if the guest does not accept the key, or requires more than a key.
    :raises GuestSilent: if the guest does not answer, or closes the connection.
    """
    transport.auth_timeout = timeout
    try:
        transport.auth_publickey(user, private_key)
    except paramiko.BadAuthenticationType as error:
        if "publickey" not in error.allowed_types:
            offered = failures.words(", ".join(error.allowed_types) or "nothing")
            raise PublicKeyOff(f"The SSH server at {where} accepts no keys from the user {user}; it offers "
                               f"{offered}.") from error
        raise _not_accepted(transport, private_key, user, where, error) from error
    except paramiko.AuthenticationException as error:
        failure = login_failure(error)
        if failure == CLOSED:
            raise connection_closed(transport, where) from error
        if failure == NO_ANSWER:
            raise no_answer(where, timeout) from error
        raise _not_accepted(transport, private_key, user, where, error) from error
    if not transport.is_authenticated():
        raise LoginNeedsMore(f"The SSH server at {where} requires more than the pool's key from the user {user}.")


def connection_closed(transport: GuestTransport, where: str) -> LoginEnded:
    """Return the error for a connection that the server closed during the login, with its reason if it gave one."""
    reason = transport.packetizer.farewell
    return LoginEnded(f"The SSH server at {where} closed the connection during the login"
                      f"{': ' if reason else ''}{reason}.")


def no_answer(where: str, timeout: float) -> GuestSilent:
    return GuestSilent(f"The SSH server at {where} did not answer the login within {timeout:g} s.")


def _not_accepted(transport: GuestTransport, key: paramiko.PKey, user: str, where: str,
                  error: Exception) -> KeyNotAccepted:
    """Return the error for a refused key. sshd gives no reason, so add what else is known about the server."""
    message = f"The user {user} at {where} may not log in with the pool's key: {failures.words(error)}."
    if key.get_name() != "ssh-rsa":
        return KeyNotAccepted(message)
    bits, accepted = key.get_bits(), transport.signatures
    ours = [name for name in transport.preferred_pubkeys if "rsa" in name]
    if accepted and not set(ours) & set(accepted):
        return KeyTypeRefused(f"The SSH server at {where} accepts none of the signatures of an RSA key of {bits} bits "
                              f"({', '.join(ours)}); it accepts {failures.words(', '.join(accepted))}.",
                              algorithms.weak_hint(["sha1"]) if "ssh-rsa" in accepted else "")
    refused = KeyNotAccepted(message)
    refused.limits = f", or its sshd refuses RSA keys of {bits} bits (PubkeyAcceptedAlgorithms, RequiredRSASize)"
    if bits < algorithms.RSA_BITS:
        refused.hint += " The pool's key is short for an RSA key: 'xscontainer key-rotate' makes one of 3072 bits."
    if not accepted and "sha1" not in transport.weak:
        refused.message += (f" This sshd does not report which signatures it accepts. One before OpenSSH 7.2 accepts "
                            f"RSA keys with SHA-1 only, which sha1 in {SSH_WEAK} of the VM's other_config allows.")
    return refused
