"""The arguments that verbs take, with their checks. Pure.

A check takes the argument's name and value and returns the value for the action. It raises ArgumentError if the value
does not have the form that the argument needs.
"""

import re
from typing import Callable

from xscontainer.core import log_times
from xscontainer.core.container import ID_OR_NAME
from xscontainer.core.verb import Argument
from xscontainer.core.vm_record import UUID
from xscontainer.errors import ArgumentError

LONGEST_NAME = 255  # characters of a new VM's name
LONGEST_SHOWN = 100  # characters of a caller's text in an error text
_MOMENT = "`90s`, `2h30m`, RFC 3339, or seconds since 1970"
DATASOURCES = ("configdrive", "nocloud")  # configdrive.image.LAYOUTS, whose import would load pycdlib

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?\Z")
_SECONDS = re.compile(r"[0-9]{0,4}\Z")
_DIGITS = re.compile(r"[0-9]{1,15}\Z")


def shown(text: str, most: int = LONGEST_SHOWN) -> str:
    """A caller's text for a log or an error text: ASCII, quoted, at most ``most`` characters."""
    return ascii(text if len(text) <= most else text[:most] + "...")


def _wrong(name: str, form: str, value: str) -> ArgumentError:
    return ArgumentError(f"The argument '{name}' must be {form}, not {shown(value)}.")


def any_text(name: str, value: str) -> str:
    """Any string; the action checks it."""
    return value


def uuid(name: str, value: str) -> str:
    """A uuid, in lower case."""
    lowered = value.strip().lower()
    if not UUID.match(lowered):
        raise _wrong(name, "a uuid", value)
    return lowered


def secret_uuid(name: str, value: str) -> str:
    """The uuid of a XAPI secret. The error does not repeat the value, which may be the secret itself."""
    try:
        return uuid(name, value)
    except ArgumentError:
        raise ArgumentError(f"The argument '{name}' must be a uuid.") from None


def container(name: str, value: str) -> str:
    """The id or name of a container; nothing that looks like an option or a path."""
    if not ID_OR_NAME.match(value):
        raise _wrong(name, "a container's id or name", value)
    return value


def fingerprint(name: str, value: str) -> str:
    """The SHA-256 fingerprint of an SSH key."""
    if not _FINGERPRINT.match(value):
        raise _wrong(name, "as ssh-keygen -l prints it, SHA256:...", value)
    return value


def seconds(name: str, value: str) -> str:
    """Whole seconds; "": the default."""
    if not _SECONDS.match(value):
        raise _wrong(name, "whole seconds", value)
    return value


def seconds_up_to(most: int) -> "Callable[[str, str], str]":
    """A check that takes whole seconds from 0 to ``most``; "": the default."""
    def check(name: str, value: str) -> str:
        if seconds(name, value) and int(value) > most:
            raise _wrong(name, f"whole seconds from 0 to {most}", value)
        return value

    return check


def moment(name: str, value: str) -> str:
    """A time as docker's ``--since`` takes it; the action gets its meaning from core.log_times.moment()."""
    if log_times.moment(value, 0.0) is None:
        raise _wrong(name, "a time such as 90s, 2h30m, 2026-12-01T08:00:00Z or seconds since 1970", value)
    return value


def whole(least: int, most: int) -> "Callable[[str, str], str]":
    """A check that takes whole numbers from ``least`` (not negative) to ``most``."""
    def check(name: str, value: str) -> str:
        if not (_DIGITS.match(value) and least <= int(value) <= most):
            raise _wrong(name, f"a whole number from {least} to {most}", value)
        return value

    return check


def printable(name: str, value: str) -> str:
    """A name that people read."""
    if not (value.strip() and value.isprintable() and len(value) <= LONGEST_NAME):
        raise _wrong(name, f"1 to {LONGEST_NAME} printable characters", value)
    return value


def datasource(name: str, value: str) -> str:
    """A data source of cloud-init."""
    if value not in DATASOURCES:
        raise _wrong(name, f"one of {', '.join(DATASOURCES)}", value)
    return value


def one_of(*values: str) -> "Callable[[str, str], str]":
    """A check that takes only these values."""
    def check(name: str, value: str) -> str:
        if value not in values:
            raise _wrong(name, " or ".join(values), value)
        return value

    return check


def wait(most: int) -> Argument:
    """The argument for how long a call may wait until there is something new.

    :param most: seconds. A call must be answered 28 s after it came in, and the answer takes time, too.
    """
    return Argument("wait", whole(0, most), required=False, form=f"seconds, at most {most}")


VM_UUID = Argument("vmuuid", uuid)
SR_UUID = Argument("sruuid", uuid)
TEMPLATE_UUID = Argument("templateuuid", uuid)
CONTAINER = Argument("container", container)
CONFIGURATION = Argument("configuration", any_text)
DATASOURCE = Argument("datasource", datasource, required=False, form=" or ".join(f"`{name}`" for name in DATASOURCES))
FINGERPRINT = Argument("fingerprint", fingerprint)
SINCE = Argument("since", moment, required=False, form=_MOMENT)
UNTIL = Argument("until", moment, required=False, form=_MOMENT)
WAIT = Argument("wait", seconds, required=False)
