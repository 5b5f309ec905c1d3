"""Every exception of the libraries in this room, and what it means in the words of xscontainer.errors.

The tables name each class by itself, also where a base class would do: a test compares them with what
the installed release defines, so that a new exception is judged by a person before it is met.
"""

import re
from contextlib import contextmanager
from typing import Dict, Iterator, Optional, Type

from xscontainer import errors
from xscontainer.errors import XSContainerError
from xscontainer.harmless import clean_text

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

# What the socket module and paramiko's own use of it raise.
SOCKET: _Table = {
    "socket.timeout": errors.EngineTimeout,
    "builtins.TimeoutError": errors.EngineTimeout,
    "socket.gaierror": errors.GuestUnreachable,
    "socket.herror": errors.GuestUnreachable,
    "builtins.EOFError": errors.TransportLost,
    "builtins.OSError": errors.TransportLost,
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

# What code that reads an answer stumbles on when the answer is not what it should be.
STUMBLES: _Table = {
    "builtins.ValueError": errors.EngineGarbage,
    "builtins.TypeError": errors.EngineGarbage,
    "builtins.LookupError": errors.EngineGarbage,
    "builtins.AttributeError": errors.EngineGarbage,
    "builtins.RecursionError": errors.EngineGarbage,
    "builtins.MemoryError": errors.EngineTooMuch,
}

SSH_SIDE: _Table = {**PARAMIKO, **SOCKET}
API_SIDE: _Table = {**SSH_SIDE, **HTTP, **REQUESTS, **DOCKER, **STUMBLES}


def meaning(error: BaseException, table: _Table) -> Optional[Type[XSContainerError]]:
    """Our class for ``error`` by the nearest of its classes that ``table`` names; None if it names none."""
    for kind in type(error).__mro__:
        found = table.get(f"{kind.__module__.split('.')[0]}.{kind.__name__}")
        if found is not None:
            return found
    return None


@contextmanager
def translating(doing: str, table: _Table) -> Iterator[None]:
    """Raise what ``table`` knows as ours: "<doing> failed: <the library's words>"; let all else pass."""
    try:
        yield
    except XSContainerError:
        raise
    except Exception as error:
        ours = meaning(error, table)
        if ours is None:
            raise
        raise ours(f"{doing} failed: {words(error)}.") from error


def words(value: object) -> str:
    """An error, or a guest's own words, fit for a message: bounded, on one line, printable."""
    if isinstance(value, bytes):
        value = value[:4 * MOST_WORDS].decode("utf-8", "replace")
    text = " ".join(clean_text(str(value), MOST_WORDS).split()).rstrip(".")
    return text or type(value).__name__


_VERSION_MISMATCH = re.compile(r"client (version|is too|API version)|client is newer|API version", re.IGNORECASE)


# Older engines answer 500 where newer ones answer 409.
_CONFLICT = re.compile(r"is (not paused|already paused|not running|paused|restarting|dead|marked for removal)|"
                       r"container state improper",
                       re.IGNORECASE)


def refusal(status: int, explanation: object, doing: str, container: Optional[str] = None) -> XSContainerError:
    """Our error for an HTTP ``status`` of 400 or more.

    :param explanation: the engine's own words: text or bytes, if it keeps to the API.
    :param container: the container the request was about.
    """
    said = words(explanation) if explanation else f"HTTP status {status}"
    if status == 404 and container is not None:
        return errors.ContainerNotFound(f"The engine knows no container {container}.")
    if status == 409 or (status == 500 and container is not None and _CONFLICT.search(said)):
        return errors.ContainerConflict(f"{doing} failed: {said}.")
    if status == 400 and _VERSION_MISMATCH.search(said):
        return errors.EngineTooOld(f"{doing} failed: {said}.")
    return errors.EngineRefused(f"{doing} failed: {said}.")
