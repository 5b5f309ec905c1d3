"""The exit codes of the commands, and the errors that lead to each code."""

from typing import Dict, Iterator, List, NamedTuple, Tuple, Type

from xscontainer import errors
from xscontainer.errors import XapiError, XSContainerError

DONE = 0
FAILED = 1
USAGE = 2
CAUSE_FOUND = 3
NOT_FOUND = 4
UNREACHABLE = 5
NOT_PERMITTED = 6

MEANINGS = {
    DONE: "done",
    FAILED: "the act failed",
    USAGE: "wrong arguments or settings",
    CAUSE_FOUND: "the help of the command says what was found",
    NOT_FOUND: "not found or ambiguous",
    UNREACHABLE: "XAPI, guest or engine not reachable",
    NOT_PERMITTED: "not permitted",
}

# A class decides for its subclasses, too, unless one of them has a row of its own. Without a row: FAILED.
_CLASSES: "Dict[int, Tuple[Type[XSContainerError], ...]]" = {
    # The guest answers, and the way is there: the step that was asked for failed.
    FAILED: (errors.HostKeyUnconfirmed, errors.PasswordNotAccepted, errors.PasswordLoginOff, errors.KeyInstallFailed),
    USAGE: (errors.ArgumentError, errors.SettingsError),
    NOT_FOUND: (errors.NotFound, errors.Ambiguous, errors.ObjectGone, errors.ContainerNotFound),
    UNREACHABLE: (
        errors.XapiUnavailable, errors.XapiSessionLost, errors.ConnectError, errors.VMNotRunning,
        errors.AddressUnknown, errors.AddressRefused, errors.NameUnresolved, errors.GuestThrottled,
        errors.TLSCredentialsMissing, errors.TLSCredentialsInvalid, errors.EngineUnavailable, errors.EngineForbidden,
        errors.EngineTimeout, errors.EngineLost),
    NOT_PERMITTED: (errors.NotPermitted,),
}
# Codes of XAPI itself.
_XAPI = {"RBAC_PERMISSION_DENIED": NOT_PERMITTED, "SESSION_AUTHENTICATION_FAILED": NOT_PERMITTED}


class Row(NamedTuple):
    """An exit code for the documentation.

    :ivar errors: the stable error codes that lead to it; empty: the command itself decides, or any other error.
    """

    code: int
    meaning: str
    errors: Tuple[str, ...]


def of(error: XSContainerError) -> int:
    """Return the exit code for an error; the failure of a plugin function counts by its stable code."""
    if isinstance(error, XapiError) and error.details:
        by_code = {kind.code: _of_class(kind) for kind in _below(XSContainerError)}
        by_code.update(_XAPI)
        found = by_code.get(error.details[0])
        if found is not None:
            return found
    return _of_class(type(error))


def _of_class(kind: Type[XSContainerError]) -> int:
    codes = {each: code for code, kinds in _CLASSES.items() for each in kinds}
    return next((codes[each] for each in kind.__mro__ if each in codes), FAILED)


def _below(kind: Type[XSContainerError]) -> "Iterator[Type[XSContainerError]]":
    yield kind
    for child in kind.__subclasses__():
        yield from _below(child)


def rows() -> "List[Row]":
    """Return each exit code with its meaning and the error codes that lead to it."""
    found: Dict[int, List[str]] = {code: [] for code in MEANINGS}
    for kind in _below(XSContainerError):
        # Groups of errors have no documented code, and tests define classes of their own.
        if kind.__module__.startswith(errors.__name__ + ".") and "code" in vars(kind):
            found[_of_class(kind)].append(kind.code)
    for name, code in _XAPI.items():
        found[code].append(name)
    found[FAILED] = []  # any other error
    return [Row(code, meaning, tuple(found[code])) for code, meaning in MEANINGS.items()]


def in_words() -> str:
    """Return sentences that explain all exit codes."""
    return "Exit code " + " ".join(f"{code}: {meaning}." for code, meaning in MEANINGS.items())
