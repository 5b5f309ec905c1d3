"""The errors are an interface: their codes, and the tree that the module's text draws."""

import errno
import re
import socket
from pathlib import Path
from typing import Any, Dict, List, Type

import pytest

from xscontainer import errors
from xscontainer.errors import XapiError, XSContainerError


def classes(of: Type[XSContainerError]) -> List[Type[XSContainerError]]:
    return [of] + [below for child in of.__subclasses__() for below in classes(child)]


def is_ours(cls: Type[XSContainerError]) -> bool:
    """Return whether the package defines the class: tests define others."""
    return cls.__module__.split(".")[:2] == errors.__name__.split(".")


def test_every_class_has_a_code_of_its_own() -> None:
    found = [cls.code for cls in classes(XSContainerError) if is_ours(cls)]
    assert len(set(found)) == len(found)
    assert all(re.match(r"[A-Z][A-Z_]+\Z", code) for code in found)


def drawing() -> Dict[str, List[str]]:
    """Read the drawing in the module's docstring: class -> [parent, code ("" for a group of causes)]."""
    drawn: Dict[str, List[str]] = {}
    path: List[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([|+ -]*)([A-Z]\w+)(?: +([A-Z_]{4,}))?", line)
        if match:
            path[len(match.group(1)) // 4:] = [match.group(2)]
            drawn[match.group(2)] = [path[-2] if len(path) > 1 else "Exception", match.group(3) or ""]
    return drawn


def test_the_drawing_is_the_tree() -> None:
    drawn = drawing()
    real = {cls.__name__: cls for cls in classes(XSContainerError) if is_ours(cls)}
    assert set(drawn) == set(real)
    for name, (parent, code) in drawn.items():
        assert real[name].__bases__[0].__name__ == parent, name
        assert code in ("", real[name].code), name


def test_every_code_is_documented() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "troubleshooting.md").read_text("utf-8")
    told = re.findall(r"(?m)^### ([A-Z_]+)$", page)
    real = [cls.code for cls in classes(XSContainerError) if is_ours(cls)]
    assert sorted(told) == sorted(set(real) - {"XSCONTAINER_ERROR"} | set(errors.PLUGIN_CODES))


def test_every_class_has_a_sentence_for_the_documentation() -> None:
    undocumented = [cls.__name__ for cls in classes(XSContainerError)
                    if is_ours(cls) and not re.match(r".+\.(\s|$)", cls.__doc__ or "")]
    assert undocumented == []


# Trait -> the codes of all classes that have it. A new class is placed here before it is met.
TRAITS = {
    "transient": """
        HOST_EXHAUSTED XAPI_ERROR XAPI_UNAVAILABLE XAPI_SESSION_LOST OBJECT_GONE
        GUEST_THROTTLED ADDRESS_UNKNOWN NAME_UNRESOLVED
        GUEST_UNREACHABLE GUEST_REFUSED GUEST_FILTERED GUEST_NO_ROUTE
        GUEST_SILENT GUEST_NOT_SSH SSH_BUSY SSH_PENALTY SSH_CLOSED LOGIN_ENDED SCRIPT_SILENT TRANSPORT_LOST
        ENGINE_ERROR ENGINE_UNAVAILABLE ENGINE_SOCKET_ABSENT ENGINE_STOPPED ENGINE_FORBIDDEN ENGINE_TOO_OLD
        ENGINE_TIMEOUT ENGINE_LOST ENGINE_GARBAGE ENGINE_TOO_MUCH EVENTS_UNAVAILABLE FACTS_UNAVAILABLE MEMORY_BUSY
        CONTAINER_NOT_FOUND CONTAINER_CONFLICT CONTAINER_STOPPING ENGINE_REFUSED""",
    "during_setup": """
        VM_NOT_RUNNING ADDRESS_UNKNOWN NAME_UNRESOLVED
        GUEST_UNREACHABLE GUEST_REFUSED GUEST_FILTERED GUEST_NO_ROUTE
        GUEST_SILENT GUEST_NOT_SSH SSH_BUSY SSH_PENALTY SSH_CLOSED SSH_INCOMPATIBLE SSH_WEAK LOGIN_ENDED SCRIPT_SILENT
        TLS_PROTOCOL TLS_CERTIFICATE_INVALID TLS_CLIENT_REFUSED TRANSPORT_LOST
        ENGINE_UNAVAILABLE ENGINE_SOCKET_ABSENT ENGINE_STOPPED ENGINE_TIMEOUT ENGINE_LOST""",
    "moved": "VM_ELSEWHERE STORAGE_ELSEWHERE",
    "login_refused": """
        KEY_NOT_ACCEPTED PUBLIC_KEY_OFF KEY_TYPE_REFUSED LOGIN_NEEDS_MORE USER_WRONG LOGIN_ENDED TLS_CLIENT_REFUSED""",
    "no_answer": "GUEST_UNREACHABLE GUEST_REFUSED GUEST_FILTERED GUEST_NO_ROUTE GUEST_SILENT TRANSPORT_LOST",
    "may_be_ban": """
        GUEST_UNREACHABLE GUEST_REFUSED GUEST_FILTERED GUEST_NO_ROUTE
        GUEST_SILENT GUEST_NOT_SSH SSH_BUSY SSH_PENALTY SSH_CLOSED SSH_INCOMPATIBLE SSH_WEAK LOGIN_ENDED SCRIPT_SILENT
        """,
}
# From the error that says least about the VM to those that say most, of which the first that was met is raised.
RANKS = (
    "GUEST_UNREACHABLE GUEST_REFUSED GUEST_FILTERED GUEST_NO_ROUTE", "GUEST_NOT_SSH", "TLS_PROTOCOL",
    "GUEST_SILENT SSH_BUSY SSH_PENALTY SSH_CLOSED SSH_INCOMPATIBLE SSH_WEAK LOGIN_ENDED SCRIPT_SILENT",
    "TRANSPORT_LOST", "TLS_CERTIFICATE_INVALID", "HOST_KEY_CHANGED",
    "KEY_NOT_ACCEPTED PUBLIC_KEY_OFF KEY_TYPE_REFUSED LOGIN_NEEDS_MORE USER_WRONG", "ADDRESS_CONFLICT", "ANOTHER_VM",
    """CONNECT_ERROR HOST_KEY_UNREADABLE HOST_KEY_UNCONFIRMED PASSWORD_NOT_ACCEPTED PASSWORD_LOGIN_OFF
    KEY_INSTALL_FAILED KEY_LINE_RESTRICTED KEY_NOT_REMOVED SCRIPT_NOT_RUN FORWARDING_REFUSED
    TLS_CLIENT_REFUSED""")


@pytest.mark.parametrize("trait", sorted(TRAITS))
def test_exactly_these_classes_have_the_trait(trait: str) -> None:
    real = {cls.code for cls in classes(XSContainerError) if is_ours(cls) and getattr(cls, trait, False)}
    assert real == set(TRAITS[trait].split())


def test_every_trait_is_listed_and_documented() -> None:
    kinds = [cls for cls in classes(XSContainerError) if is_ours(cls)]
    traits = {name for cls in kinds for name, value in vars(cls).items() if isinstance(value, bool)}
    assert traits == set(TRAITS)
    documented = {name for cls in kinds for name in re.findall(r":cvar (\w+):", cls.__doc__ or "")}
    assert documented == set(TRAITS) | {"rank"}


def test_errors_rank_by_how_much_they_say_about_the_vm() -> None:
    real = {cls.code: cls.rank for cls in classes(errors.ConnectError) if is_ours(cls)}  # type: ignore[attr-defined]
    assert real == {code: rank for rank, codes in enumerate(RANKS) for code in codes.split()}


def test_an_error_is_sentences_and_an_xapi_failure() -> None:
    for cls in classes(XSContainerError):
        error = cls("It failed.")
        assert error.description() == [cls.code, str(error)]
        assert str(error).startswith("It failed.") and str(error).endswith(".")
    assert str(XSContainerError("It failed.", "Mend it.")) == "It failed. Mend it."


def test_a_hint_replaces_the_hint_of_the_class() -> None:
    assert str(errors.VMElsewhere("Gone.", "Look there.")) == "Gone. Look there."
    assert str(errors.VMElsewhere("Gone.")) == "Gone. Repeat the call."


def test_an_xapi_error_keeps_xapis_details() -> None:
    assert XapiError("x", details=["CODE", "a"]).details == ["CODE", "a"]
    assert XapiError("x").details == []


@pytest.mark.parametrize("error, words", [
    (ValueError("the port is no number."), "the port is no number"),
    (EOFError(), "the connection ended"),
    (BrokenPipeError(), "the connection ended"),
    (socket.timeout(), "it took too long"),
    (MemoryError(), "there is not enough memory"),
    (KeyError("Id"), "it has an unexpected form"),
    (TypeError("'NoneType' object is not iterable"), "it has an unexpected form"),
    (KeyboardInterrupt(), "it was interrupted"),
])
def test_a_cause_contains_no_class_name(error: BaseException, words: str) -> None:
    assert errors.cause(error) == words


@pytest.mark.parametrize("between", ["\n", "\r\n\t", "\x1b[31m", "\u202e", "\u2028", "\x85", "\x00", "\ud800"])
def test_a_message_is_one_line_of_visible_characters(between: str) -> None:
    raw = f"begin{between}end"
    error = errors.GuestSilent(f"It says '{raw}'.", f"Look at '{raw}'.")
    for text in (error.message, error.hint, str(error), error.args[0], error.description()[1]):
        assert text.isprintable() and "begin" in text and "end" in text


def test_a_message_is_bounded() -> None:
    assert len(str(errors.GuestSilent("x" * 10 ** 6, "y" * 10 ** 6))) <= 2 * errors.MOST_MESSAGE + 1


def chained(inner: BaseException) -> BaseException:
    try:
        try:
            raise inner
        except BaseException as error:
            raise errors.GuestUnreachable("It cannot be reached.") from error
    except errors.GuestUnreachable as error:
        return error


@pytest.mark.parametrize("error, what", [
    (OSError(errno.EMFILE, "?"), "file descriptors"), (OSError(errno.ENFILE, "?"), "file descriptors"),
    (chained(OSError(errno.EMFILE, "?")), "file descriptors"), (RuntimeError("can't start new thread"), "threads"),
    (chained(RuntimeError("can't start new thread")), "threads"), (OSError(errno.ENOMEM, "?"), "memory"),
])
def test_a_shortage_is_found_in_the_chain_of_any_error(error: BaseException, what: str) -> None:
    found = errors.shortage(error)
    assert found is not None and found.code == "HOST_EXHAUSTED" and what in found.message


@pytest.mark.parametrize("error", [None, OSError(errno.ECONNREFUSED, "?"), RuntimeError("?"), chained(ValueError("?"))])
def test_other_errors_are_not_a_shortage(error: Any) -> None:
    assert errors.shortage(error) is None
