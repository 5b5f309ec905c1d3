"""Objects of the pool by name or uuid, and configurations by file: what commands that make things are told."""

import sys
from typing import Any, Mapping, Optional

from xscontainer.errors import ArgumentError, ObjectGone
from xscontainer.vmrecord import NULL_REF, UUID
from xscontainer.xapi.session import Session

# A plugin call takes no more.
MOST_CONFIGURATION = 120000

_MANY = 10  # uuids in an error text


def uuid(session: Session, kind: str, wanted: str, what: str, where: str = "true") -> str:
    """The object of that name or uuid.

    :param kind: XAPI's class. :param what: its name for people. :param where: a condition of XAPI's, to narrow names.
    :raises ArgumentError: there is none, or there are several.
    """
    xapi = getattr(session.xenapi, kind)
    if UUID.match(wanted.lower()):
        try:
            xapi.get_by_uuid(wanted.lower())
            return wanted.lower()
        except ObjectGone:
            pass  # somebody may have named one like that
    records: Mapping[str, Any] = xapi.get_all_records_where(where)
    found = [record["uuid"] for record in records.values() if record["name_label"] == wanted]
    if not found:
        raise ArgumentError(f"The pool has no {what} {wanted!r}.", "Give its name or its uuid.")
    if len(found) > 1:
        raise ArgumentError(f"{len(found)} {what}s are named {wanted!r}.", f"Give a uuid: {', '.join(found[:_MANY])}.")
    return str(found[0])


def vm(session: Session, wanted: str) -> str:
    """A VM; a name is not looked for among templates, snapshots and control domains."""
    return uuid(session, "VM", wanted, "VM", 'field "is_a_template" = "false" and field "is_a_snapshot" = "false" and '
                                             'field "is_control_domain" = "false"')


def template(session: Session, wanted: str) -> str:
    return uuid(session, "VM", wanted, "template", 'field "is_a_template" = "true" and field "is_a_snapshot" = "false"')


def storage(session: Session, wanted: "Optional[str]") -> str:
    """A storage repository; None: the pool's default one."""
    if wanted is not None:
        return uuid(session, "SR", wanted, "storage repository")
    (pool,) = session.xenapi.pool.get_all_records().values()
    if pool["default_SR"] != NULL_REF:
        try:
            return str(session.xenapi.SR.get_uuid(pool["default_SR"]))
        except ObjectGone:
            pass
    raise ArgumentError("The pool has no default storage repository.", "Name one with --sr.")


def configuration(path: str) -> str:
    """A configuration in a file, or on standard input with "-".

    :raises ArgumentError: it cannot be read, or is empty, or too long for a call.
    """
    try:
        if path == "-":
            content = sys.stdin.buffer.read(MOST_CONFIGURATION + 1)
        else:
            with open(path, "rb") as stream:
                content = stream.read(MOST_CONFIGURATION + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not UTF-8 text.") from error
    if not text.strip():
        raise ArgumentError("The configuration is empty.", "'xscontainer drive default' gives one to begin with.")
    if len(content) > MOST_CONFIGURATION:
        raise ArgumentError(f"{path} is longer than {MOST_CONFIGURATION} bytes, which is more than a call takes.")
    return text
