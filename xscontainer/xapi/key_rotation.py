"""Replace the pool's SSH key pair. Both pairs are kept in secrets until the old pair is given up.

Every step can be repeated, and leaves the pool with a key that all guests accept, even if the process dies after it:

1. The secrets of the old pair get the names of the previous pair, too.
2. The secret of the new private key takes the place of the old one. In between, the previous key is used.
3. So does the secret of the new public key, which can be computed from the private one.
4. At the end the previous secrets are destroyed, then their names are removed.

A XAPI that is killed loses the last minutes of changes. Until step 4 all guests accept both keys, so it does not matter
which of them is lost. After it they accept only the new key, which XAPI must have saved by then: see :func:`too_new`.
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

# In the other_config of a new pair's secrets: when it was made, seconds since 1970. It identifies the secrets that a
# process left behind when it died before the pool named them.
SINCE = "xscontainer-since"

Check = Callable[[Session], None]


def _unchecked(_session: Session) -> None:
    pass


class State(NamedTuple):
    """The pool's private keys.

    :ivar current: uuid of the secret, "" if there is none. :ivar previous: likewise.
    """

    current: str
    previous: str

    @classmethod
    def of(cls, pool_config: "Dict[str, str]") -> "State":
        return cls(pool_config.get(keys.PRIVATE_SECRET, ""), pool_config.get(keys.PREVIOUS_PRIVATE_SECRET, ""))

    @property
    def running(self) -> bool:
        """True while there are two keys."""
        return bool(self.current and self.previous and self.current != self.previous)


def begin(session: Session, pool_ref: str, generate: "Callable[[], KeyPair]",
          public_of: "Callable[[str], str]", check: Check = _unchecked) -> None:
    """Replace the pool's key pair, or continue an interrupted replacement. No error if it is done already.

    :param public_of: private key -> public key.
    :param check: called before each write; raises if the lease is lost.
    """
    config = session.xenapi.pool.get_other_config(pool_ref)
    if not State.of(config).previous:
        # The private key last: it marks the beginning of the replacement.
        for name, previous in ((keys.PUBLIC_SECRET, keys.PREVIOUS_PUBLIC_SECRET),
                               (keys.PRIVATE_SECRET, keys.PREVIOUS_PRIVATE_SECRET)):
            if config.get(name):
                check(session)
                pool.claim(session, pool_ref, previous, config[name])
    if not State.of(session.xenapi.pool.get_other_config(pool_ref)).running:
        _switch(session, pool_ref, generate().private, check)
    config = session.xenapi.pool.get_other_config(pool_ref)
    public = config.get(keys.PUBLIC_SECRET, "")
    if not public or public == config.get(keys.PREVIOUS_PUBLIC_SECRET):
        private = session.xenapi.secret.get_value(session.xenapi.secret.get_by_uuid(config[keys.PRIVATE_SECRET]))
        check(session)
        uuid, _ = secret.create(session, public_of(private), _now())
        session.xenapi.pool.remove_from_other_config(pool_ref, keys.PUBLIC_SECRET)
        check(session)
        pool.claim(session, pool_ref, keys.PUBLIC_SECRET, uuid)
    _sweep(session, pool_ref, check)


def _now() -> "Dict[str, str]":
    return {SINCE: str(int(time.time()))}


def _switch(session: Session, pool_ref: str, private: str, check: Check) -> None:
    check(session)
    uuid, ref = secret.create(session, private, _now())
    if not State.of(session.xenapi.pool.get_other_config(pool_ref)).running:
        check(session)
        session.xenapi.pool.remove_from_other_config(pool_ref, keys.PRIVATE_SECRET)
        if pool.claim(session, pool_ref, keys.PRIVATE_SECRET, uuid):
            return
    session.xenapi.secret.destroy(ref)  # another host was faster


def _sweep(session: Session, pool_ref: str, check: Check) -> None:
    """Destroy secrets of new pairs that the pool does not name: the process that made them died."""
    made = {ref: record["uuid"] for ref, record in session.xenapi.secret.get_all_records().items()
            if SINCE in record["other_config"]}
    named = set(session.xenapi.pool.get_other_config(pool_ref).values())
    for ref, uuid in made.items():
        if uuid not in named:
            check(session)
            with contextlib.suppress(ObjectGone):
                session.xenapi.secret.destroy(ref)


def too_new(session: Session, pool_ref: str, grace: float, now: float) -> float:
    """Return the seconds until the new key is old enough to give up the previous one; 0.0 if it is.

    :param grace: s after which XAPI has certainly written the new key to its disk.
    :param now: s since 1970.
    """
    state = State.of(session.xenapi.pool.get_other_config(pool_ref))
    if not state.running:
        return 0.0
    config = session.xenapi.secret.get_other_config(session.xenapi.secret.get_by_uuid(state.current))
    since = config.get(SINCE, "")
    # A time in the future comes from a host with a wrong clock: it must not delay the end for ever.
    if not re.match(r"[0-9]{1,12}\Z", since) or abs(now - int(since)) >= grace:
        return 0.0
    return min(grace, grace - (now - int(since)))


def end(session: Session, pool_ref: str, check: Check = _unchecked) -> None:
    """Give up the previous pair; no error if there is none.

    :param check: see :func:`begin`.
    :raises KeyRotationUnfinished: the previous pair is still the only one.
    """
    config = session.xenapi.pool.get_other_config(pool_ref)
    state = State.of(config)
    if state.previous and not state.running:
        raise KeyRotationUnfinished("The replacement of the pool's SSH key was interrupted before a new key was made.",
                                    "Run 'xscontainer key-rotate' again.")
    kept = {config.get(keys.PRIVATE_SECRET), config.get(keys.PUBLIC_SECRET)}
    for name in (keys.PREVIOUS_PUBLIC_SECRET, keys.PREVIOUS_PRIVATE_SECRET):
        if name in config:
            check(session)
            if config[name] not in kept:
                with contextlib.suppress(ObjectGone):
                    session.xenapi.secret.destroy(session.xenapi.secret.get_by_uuid(config[name]))
            session.xenapi.pool.remove_from_other_config(pool_ref, name)
    _sweep(session, pool_ref, check)
