"""The pool's key pair is replaced: both pairs are kept in secrets until the old one is given up.

Every step leaves the pool with a key that all guests accept, whoever dies after it, and every step may be taken again:

1. the old pair's secrets are named as the previous ones, too
2. a new pair's secret takes the old one's place: the previous key is the current one in the moment between
3. so does its public half, which could be had from the private one
4. at the end the previous secrets are destroyed, then their names are removed

A XAPI that is killed forgets the last minutes. Before the end all guests accept both keys, so whatever is forgotten
they accept what is left; after it they know the new one only, which has to be remembered by then: :func:`too_new`.
"""

import contextlib
import re
import time
from typing import Callable, Dict, NamedTuple

from xscontainer import keys
from xscontainer.errors import KeyRotationUnfinished, ObjectGone
from xscontainer.xapi import pool, secret
from xscontainer.xapi.secret import KeyPair
from xscontainer.xapi.session import Session

# In the other_config of the new private key's secret: when it was made, seconds since 1970.
SINCE = "xscontainer-since"


class State(NamedTuple):
    """:ivar current: uuid of the private key's secret, "" if there is none; so for ``previous``."""

    current: str
    previous: str

    @classmethod
    def of(cls, pool_config: "Dict[str, str]") -> "State":
        return cls(pool_config.get(keys.PRIVATE_SECRET, ""), pool_config.get(keys.PREVIOUS_PRIVATE_SECRET, ""))

    @property
    def running(self) -> bool:
        """Whether there are two keys."""
        return bool(self.current and self.previous and self.current != self.previous)


def begin(session: Session, pool_ref: str, generate: "Callable[[], KeyPair]",
          public_of: "Callable[[str], str]") -> None:
    """Replace the pool's key pair, or go on with what was broken off. No error if it is done already.

    :param public_of: private key -> public one.
    """
    config = session.xenapi.pool.get_other_config(pool_ref)
    if not State.of(config).previous:
        # The private key last: with it the replacement has begun.
        for name, previous in ((keys.PUBLIC_SECRET, keys.PREVIOUS_PUBLIC_SECRET),
                               (keys.PRIVATE_SECRET, keys.PREVIOUS_PRIVATE_SECRET)):
            if config.get(name):
                pool.claim(session, pool_ref, previous, config[name])
    if not State.of(session.xenapi.pool.get_other_config(pool_ref)).running:
        _switch(session, pool_ref, generate().private)
    config = session.xenapi.pool.get_other_config(pool_ref)
    public = config.get(keys.PUBLIC_SECRET, "")
    if not public or public == config.get(keys.PREVIOUS_PUBLIC_SECRET):
        private = session.xenapi.secret.get_value(session.xenapi.secret.get_by_uuid(config[keys.PRIVATE_SECRET]))
        uuid, _ = secret.create(session, public_of(private))
        session.xenapi.pool.remove_from_other_config(pool_ref, keys.PUBLIC_SECRET)
        pool.claim(session, pool_ref, keys.PUBLIC_SECRET, uuid)


def _switch(session: Session, pool_ref: str, private: str) -> None:
    uuid, ref = secret.create(session, private, {SINCE: str(int(time.time()))})
    if not State.of(session.xenapi.pool.get_other_config(pool_ref)).running:
        session.xenapi.pool.remove_from_other_config(pool_ref, keys.PRIVATE_SECRET)
        if pool.claim(session, pool_ref, keys.PRIVATE_SECRET, uuid):
            return
    session.xenapi.secret.destroy(ref)  # another host was faster


def too_new(session: Session, pool_ref: str, grace: float, now: float) -> float:
    """Seconds until the new key is old enough for the previous one to be given up; 0.0 if it is.

    :param grace: s after which XAPI has surely written it to its disk. :param now: s since 1970.
    """
    state = State.of(session.xenapi.pool.get_other_config(pool_ref))
    if not state.running:
        return 0.0
    config = session.xenapi.secret.get_other_config(session.xenapi.secret.get_by_uuid(state.current))
    since = config.get(SINCE, "")
    # One from the future was made by a host whose clock was wrong: that must not hold it up for ever.
    if not re.match(r"[0-9]{1,12}\Z", since) or abs(now - int(since)) >= grace:
        return 0.0
    return min(grace, grace - (now - int(since)))


def end(session: Session, pool_ref: str) -> None:
    """Give the previous pair up; no error if there is none.

    :raises KeyRotationUnfinished: the previous one is still the only one.
    """
    config = session.xenapi.pool.get_other_config(pool_ref)
    state = State.of(config)
    if state.previous and not state.running:
        raise KeyRotationUnfinished("The change of the pool's key was broken off before there was a new one.",
                                    "Call 'xscontainer key-rotate' again.")
    kept = {config.get(keys.PRIVATE_SECRET), config.get(keys.PUBLIC_SECRET)}
    for name in (keys.PREVIOUS_PUBLIC_SECRET, keys.PREVIOUS_PRIVATE_SECRET):
        if name in config:
            if config[name] not in kept:
                with contextlib.suppress(ObjectGone):
                    session.xenapi.secret.destroy(session.xenapi.secret.get_by_uuid(config[name]))
            session.xenapi.pool.remove_from_other_config(pool_ref, name)
