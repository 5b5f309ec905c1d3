"""Left-overs of calls of ``create``: mark a VM that is being made, and remove it if the call died half-way.

A call holds a file lock. The kernel frees the lock with the process, and a restart of the host removes the file. So a
call whose lock is free, or whose file is gone, has ended.
"""

import contextlib
import logging
import os
import re
import uuid
from typing import Iterator, List

from xscontainer.host import hostlock
from xscontainer.verbs.context import Context
from xscontainer.xapi import unfinished
from xscontainer.xapi.session import Session
from xscontainer.xapi.unfinished import Left, Making

_FILE = re.compile(r"making-([0-9a-f-]{36})\.lock\Z")

log = logging.getLogger(__name__)


@contextlib.contextmanager
def making(context: Context) -> "Iterator[Making]":
    """Keep objects with this mark from being removed for the duration of the block."""
    host = context.sessions.run(lambda session: str(session.xenapi.host.get_uuid(context.this_host_ref())))
    by = Making(host, str(uuid.uuid4()))
    with hostlock.held(_directory(context), _file(by.id), 0.0):
        yield by
        # Not after an error: an object that is left may have no mark yet, and is found by the name of this file.
        os.unlink(os.path.join(_directory(context), _file(by.id)))


def sweep(context: Context, session: Session) -> None:
    """Remove the objects that dead calls of this host left unfinished.

    :param session: interrupting it ends the sweep.
    :raises XapiError: XAPI does not answer or refuses a removal, which is tried again at the next sweep.
    """
    ended = [making_id for making_id in _known(context) if _has_ended(context, making_id)]

    host = str(session.xenapi.host.get_uuid(context.this_host_ref()))
    for left in unfinished.found(session, host, ended):
        _remove(context, session, left)
    for making_id in ended:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(_directory(context), _file(making_id)))


def _remove(context: Context, session: Session, left: Left) -> None:
    if not _has_ended(context, left.making):
        return
    log.warning("removing the %s %s, which a call of 'create' left when it died", left.cls, left.ref)
    unfinished.remove(session, left)


def _known(context: Context) -> "List[str]":
    try:
        names = os.listdir(_directory(context))
    except OSError:
        return []
    return [match.group(1) for match in map(_FILE.match, names) if match]


def _has_ended(context: Context, making_id: str) -> bool:
    path = os.path.join(_directory(context), _file(making_id))
    if not os.path.exists(path):
        return True
    with hostlock.held(_directory(context), _file(making_id), 0.0) as ended:
        return ended


def _file(making_id: str) -> str:
    return f"making-{making_id}.lock"


def _directory(context: Context) -> str:
    return os.path.dirname(context.settings.daemon.socket)
