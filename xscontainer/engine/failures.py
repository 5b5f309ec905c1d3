"""Translate the exceptions of the libraries in this room into those of xscontainer.errors.

The tables name each class, even where a base class would do: a test compares them with the exceptions of the installed
release, so that a person decides about each new exception before it occurs.
"""

import re
from contextlib import contextmanager
from typing import Dict, Iterator, Optional, Type

from xscontainer import errors
from xscontainer.errors import XSContainerError
from xscontainer.sanitize import line

MOST_WORDS = 300

_Table = Dict[str, Type[XSContainerError]]

PARAMIKO: _Table = {
    "paramiko.SSHException": errors.TransportLost,
    "paramiko.AuthenticationException": errors.KeyNotAccepted,
    "paramiko.BadAuthenticationType": errors.KeyNotAccepted,
    "paramiko.PartialAuthentication": errors.KeyNotAccepted,
    "paramiko.UnableToAuthenticate": errors.KeyNotAccepted,
    "paramiko.PasswordRequiredException": errors.KeyPairError,
    "paramiko.ChannelException": errors.ForwardingRefused,
    "paramiko.BadHostKeyException": errors.HostKeyChanged,
    "paramiko.IncompatiblePeer": errors.GuestSilent,
    "paramiko.AuthFailure": errors.KeyNotAccepted,
    "paramiko.UnknownKeyType": errors.HostKeyUnreadable,
    "paramiko.SFTPError": errors.TransportLost,
    "paramiko.MessageOrderError": errors.GuestSilent,
    "paramiko.ProxyCommandFailure": errors.TransportLost,
    "paramiko.NoValidConnectionsError": errors.GuestUnreachable,
    "paramiko.CouldNotCanonicalize": errors.GuestUnreachable,
    "paramiko.ConfigParseError": errors.TransportLost,
}

# Exceptions of the socket module, also by way of paramiko.
SOCKET: _Table = {
    "socket.timeout": errors.EngineTimeout,
    "builtins.TimeoutError": errors.EngineTimeout,
    "socket.gaierror": errors.GuestUnreachable,
    "socket.herror": errors.GuestUnreachable,
    "builtins.EOFError": errors.TransportLost,
    "builtins.OSError": errors.TransportLost,
}

# Exceptions of a TLS handshake.
TLS: _Table = {
    "ssl.SSLError": errors.TLSProtocol,
    # The peer closed the connection. CPython raises one of these three, depending on its version and OpenSSL's.
    "ssl.SSLZeroReturnError": errors.GuestSilent,
    "ssl.SSLEOFError": errors.GuestSilent,
    "ssl.SSLSyscallError": errors.GuestSilent,
    # The timeout has passed.
    "ssl.SSLWantReadError": errors.GuestSilent,
    "ssl.SSLWantWriteError": errors.GuestSilent,
    # One class since CPython 3.7.
    "ssl.CertificateError": errors.TLSCertificateInvalid,
    "ssl.SSLCertVerificationError": errors.TLSCertificateInvalid,
}

HTTP: _Table = {
    "http.HTTPException": errors.EngineGarbage,
    "http.BadStatusLine": errors.EngineGarbage,
    "http.RemoteDisconnected": errors.EngineLost,
    "http.IncompleteRead": errors.EngineLost,
    "http.LineTooLong": errors.EngineTooMuch,
    "http.UnknownProtocol": errors.EngineGarbage,
    "http.UnknownTransferEncoding": errors.EngineGarbage,
    "http.NotConnected": errors.EngineLost,
    "http.InvalidURL": errors.ArgumentError,
    "http.UnimplementedFileMode": errors.EngineGarbage,
    "http.ImproperConnectionState": errors.EngineGarbage,
    "http.CannotSendRequest": errors.EngineGarbage,
    "http.CannotSendHeader": errors.EngineGarbage,
    "http.ResponseNotReady": errors.EngineGarbage,
}

REQUESTS: _Table = {
    "requests.RequestException": errors.EngineGarbage,
    "requests.InvalidJSONError": errors.EngineGarbage,
    "requests.JSONDecodeError": errors.EngineGarbage,
    "requests.HTTPError": errors.EngineRefused,
    "requests.ConnectionError": errors.EngineLost,
    "requests.ProxyError": errors.EngineLost,
    "requests.SSLError": errors.EngineLost,
    "requests.Timeout": errors.EngineTimeout,
    "requests.ConnectTimeout": errors.EngineTimeout,
    "requests.ReadTimeout": errors.EngineTimeout,
    "requests.URLRequired": errors.ArgumentError,
    "requests.TooManyRedirects": errors.EngineGarbage,
    "requests.MissingSchema": errors.ArgumentError,
    "requests.InvalidSchema": errors.ArgumentError,
    "requests.InvalidURL": errors.ArgumentError,
    "requests.InvalidHeader": errors.EngineGarbage,
    "requests.InvalidProxyURL": errors.ArgumentError,
    "requests.ChunkedEncodingError": errors.EngineGarbage,
    "requests.ContentDecodingError": errors.EngineGarbage,
    "requests.StreamConsumedError": errors.EngineLost,
    "requests.RetryError": errors.EngineLost,
    "requests.UnrewindableBodyError": errors.EngineLost,
}

DOCKER: _Table = {
    "docker.DockerException": errors.EngineRefused,
    "docker.APIError": errors.EngineRefused,
    "docker.NotFound": errors.EngineRefused,
    "docker.ImageNotFound": errors.EngineRefused,
    "docker.InvalidVersion": errors.EngineTooOld,
    "docker.InvalidRepository": errors.ArgumentError,
    "docker.InvalidConfigFile": errors.ArgumentError,
    "docker.InvalidArgument": errors.ArgumentError,
    "docker.DeprecatedMethod": errors.EngineTooOld,
    "docker.TLSParameterError": errors.ArgumentError,
    "docker.NullResource": errors.ArgumentError,
    "docker.ContainerError": errors.EngineRefused,
    "docker.StreamParseError": errors.EngineGarbage,
    "docker.BuildError": errors.EngineRefused,
    "docker.ImageLoadError": errors.EngineRefused,
    "docker.MissingContextParameter": errors.ArgumentError,
    "docker.ContextAlreadyExists": errors.ArgumentError,
    "docker.ContextException": errors.ArgumentError,
    "docker.ContextNotFound": errors.ArgumentError,
}

# Exceptions of code that reads an answer of an unexpected form.
UNEXPECTED_FORM: _Table = {
    "builtins.ValueError": errors.EngineGarbage,
    "builtins.TypeError": errors.EngineGarbage,
    "builtins.LookupError": errors.EngineGarbage,
    "builtins.AttributeError": errors.EngineGarbage,
    "builtins.RecursionError": errors.EngineGarbage,
    "builtins.MemoryError": errors.EngineTooMuch,
}

# Exceptions of the cryptography library for a certificate or key that it cannot read or use: its own, and those of the
# decoding code. A panic of its Rust code is a BaseException, not an Exception.
CRYPTOGRAPHY: _Table = {name: errors.TLSCredentialsInvalid for name in (
    "cryptography.AlreadyFinalized", "cryptography.AlreadyUpdated", "cryptography.NotYetFinalized",
    "cryptography.InvalidTag", "cryptography.InvalidSignature", "cryptography.InternalError", "cryptography.InvalidKey",
    "cryptography.UnsupportedAlgorithm", "cryptography.AttributeNotFound", "cryptography.DuplicateExtension",
    "cryptography.ExtensionNotFound", "cryptography.UnsupportedGeneralNameType", "cryptography.InvalidVersion",
    "cryptography.InterfaceNotImplemented", "cryptography.VerificationError", "cryptography.InvalidToken",
    "cryptography.InvalidUnwrap",
    "pyo3_runtime.PanicException", "builtins.ValueError", "builtins.TypeError", "builtins.LookupError",
    "builtins.AttributeError", "builtins.ArithmeticError", "builtins.RecursionError")}

SSH_SIDE: _Table = {**PARAMIKO, **SOCKET}
API_SIDE: _Table = {**SSH_SIDE, **HTTP, **REQUESTS, **DOCKER, **UNEXPECTED_FORM}


def meaning(error: BaseException, table: _Table) -> Optional[Type[XSContainerError]]:
    """Return our class for ``error``: that of the nearest base class in ``table``; None if there is none."""
    for kind in type(error).__mro__:
        found = table.get(f"{kind.__module__.split('.')[0]}.{kind.__name__}")
        if found is not None:
            return found
    return None


@contextmanager
def translating(operation: str, table: _Table) -> Iterator[None]:
    """Translate exceptions in ``table`` to "<operation> failed: <the library's message>". Others pass unchanged."""
    try:
        yield
    except XSContainerError:
        raise
    except Exception as error:
        short = errors.shortage(error)
        if short is not None:
            raise short from error
        ours = meaning(error, table)
        if ours is None:
            raise
        raise ours(f"{operation} failed: {words(errors.cause(error))}.") from error


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Translate exceptions in CRYPTOGRAPHY to ``ValueError("<what> is malformed")``. Others pass unchanged.

    The library's message is left out, because it may quote a secret.
    """
    try:
        yield
    except BaseException as error:
        if meaning(error, CRYPTOGRAPHY) is None:
            raise
        raise ValueError(f"{what} is malformed") from error


def words(value: object) -> str:
    """Return an error, or text from a guest, fit for a message: limited, on one line, printable."""
    if isinstance(value, bytes):
        value = value[:4 * MOST_WORDS].decode("utf-8", "replace")
    text = line(value, MOST_WORDS).rstrip(".")
    return text or "no message"


_VERSION_MISMATCH = re.compile(r"client (version|is too|API version)|client is newer|API version", re.IGNORECASE)


# Older engines answer 500 where newer ones answer 409.
_CONFLICT = re.compile(r"is (not paused|already paused|not running|paused|restarting|dead|marked for removal)|"
                       r"container state improper",
                       re.IGNORECASE)


def refusal(status: int, explanation: object, operation: str, container: Optional[str] = None) -> XSContainerError:
    """Return our error for an HTTP ``status`` of 400 or more.

    :param explanation: the engine's message: text or bytes, if it conforms to the API.
    :param operation: begins the message, as "Starting the container".
    :param container: the container that the request was about.
    """
    reason = words(explanation) if explanation else f"HTTP status {status}"
    if status == 404 and container is not None:
        return errors.ContainerNotFound(f"The engine has no container {container}.")
    if status == 409 or (status == 500 and container is not None and _CONFLICT.search(reason)):
        return errors.ContainerConflict(f"{operation} failed: {reason}.")
    if status == 400 and _VERSION_MISMATCH.search(reason):
        return errors.EngineTooOld(f"{operation} failed: {reason}.")
    return errors.EngineRefused(f"{operation} failed: {reason}.")
