"""The way to an engine, walked once and told stage by stage: by what the product itself connects with."""

import contextlib
import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

from xscontainer.diagnosis import OVER_TLS, Step, Trace
from xscontainer.engine import hostkeys, ssh
from xscontainer.engine.api import Engine
from xscontainer.engine.connection import Connection
from xscontainer.errors import (
    ConnectError,
    EngineError,
    GuestSilent,
    GuestUnreachable,
    HostKeyChanged,
    HostKeyUnreadable,
    KeyNotAccepted,
    TLSCertificateInvalid,
    TLSClientRefused,
    TLSProtocol,
    UserWrong,
    VMError,
    XSContainerError,
)
from xscontainer.model import EngineVersion
from xscontainer.settings import EngineSettings, SSHSettings

if TYPE_CHECKING:
    import paramiko

    from xscontainer.engine import tls

# Seconds. Shorter than what a monitor allows: a person waits. TCP repeats an unanswered call after 1 s and 3 s.
CONNECTING = 5.0
GREETING = 4.0
LOGGING_IN = 6.0
_TLS_SECONDS = (4.0, 3.0, 4.0)  # the same over TLS
# Kept for the engine's own answer.
ANSWERING = 2.0
# For each try as another user.
ANOTHER = 3.0
USUAL_USERS = ("core", "root")
MOST_USERS = 3

_TLS_STEPS = ((VMError, "certificates"), (GuestUnreachable, "tcp"), (GuestSilent, "tls"), (TLSProtocol, "tls"),
              (TLSCertificateInvalid, "tls"), (TLSClientRefused, "login"), (EngineError, "engine"))


def failed_step(error: XSContainerError, trace: Trace) -> str:
    """The step that this error belongs to, "" if that is simply the next one."""
    if isinstance(error, (HostKeyChanged, HostKeyUnreadable)):
        return "hostkey"
    if trace.ladder == OVER_TLS and trace.steps[-1].step == "address":
        return next((step for kind, step in _TLS_STEPS if isinstance(error, kind)), "")
    return ""


def over_ssh(target: ssh.Target, private_key: "paramiko.PKey", ssh_settings: SSHSettings,
             engine_settings: EngineSettings, trace: Trace,
             previous: "Optional[paramiko.PKey]" = None) -> ssh.SSHConnection:
    """Connect as the product does, and pin nothing.

    :param previous: the key that the guest may still know instead, while the pool's is being replaced.
    :raises XSContainerError: as ssh.connect; UserWrong: the key lets another user in.
    """
    shown: Dict[str, str] = {}  # host keys, where none is pinned; both by address, as more than one may be tried
    ways: Dict[str, Tuple[List[Step], Dict[str, Any]]] = {}
    steps, facts = trace.steps, trace.facts

    def tell(stage: str, found: str) -> None:
        if stage == ssh.TCP:
            trace.steps, trace.facts = ways[found] = list(steps), dict(facts, address=found)
            found = f"{found} port {target.port}"
        elif stage == ssh.HOST_KEY:
            key = hostkeys.parse_pin(target.host_key or shown[trace.facts["address"]])
            trace.facts["fingerprint"] = key.fingerprint
            found = f"{key}, {'as pinned' if target.host_key else 'not pinned yet'}"
        trace.done(stage, found)

    def show(key: str, fingerprint: str) -> None:
        shown[trace.facts["address"]] = key

    hurried = ssh_settings._replace(
        connect_timeout=min(CONNECTING, ssh_settings.connect_timeout),
        banner_timeout=min(GREETING, ssh_settings.banner_timeout),
        auth_timeout=min(LOGGING_IN, ssh_settings.auth_timeout))
    dial = functools.partial(ssh.connect, ssh=hurried, engine=engine_settings)
    try:
        return dial(target, private_key, on_host_key=show, on_stage=tell, deadline=trace.deadline)
    except ConnectError as error:
        trace.steps, trace.facts = ways.get(error.stranger, (trace.steps, trace.facts))
        if isinstance(error, HostKeyChanged):
            trace.facts.update(fingerprint=error.shown, pinned_fingerprint=error.pinned)
        if not isinstance(error, KeyNotAccepted):
            raise
        trace.facts["public_key"] = f"{private_key.get_name()} {private_key.get_base64()}"
        if type(error) is not KeyNotAccepted:
            raise
        # Whoever answers from here on must be the one that has refused us.
        address = str(trace.facts["address"])
        target = target._replace(addresses=(address,), host_key=target.host_key or shown[address])
        if previous is not None:
            with contextlib.suppress(KeyNotAccepted):
                connection = dial(target, previous, deadline=trace.deadline)
                trace.done(ssh.LOGIN, f"{target.user}, with the pool's previous key")
                return connection
        others = [user for user in dict.fromkeys((ssh_settings.user,) + USUAL_USERS) if user != target.user]
        raise _explained(error, target, others[:MOST_USERS], lambda other, deadline: dial(
            other, private_key, deadline=deadline).close(), trace) from error


def _explained(refused: KeyNotAccepted, target: ssh.Target, others: Sequence[str],
               enter: "Callable[[ssh.Target, float], None]", trace: Trace) -> KeyNotAccepted:
    """sshd does not tell an unknown user from one without our key. Another who may log in tells.

    :param enter: logs in there before a deadline, and out again.
    """
    for user in others:
        try:
            enter(target._replace(user=user), time.monotonic() + min(ANOTHER, trace.left()))
        except KeyNotAccepted:
            continue
        except XSContainerError:
            break  # sshd has had enough of us
        trace.facts["other_user"] = user
        return UserWrong(f"The user {target.user} cannot log in with the pool's key, but {user} can.",
                         f"Set xscontainer-username in the VM's other_config to {user}, or add the pool's public key "
                         f"to the authorized_keys of {target.user} in the VM.")
    root = " For root, PermitRootLogin in the VM's sshd_config must not be no." if target.user == "root" else ""
    return KeyNotAccepted(
        f"The user {target.user} at {target.addresses[0]} port {target.port} cannot log in with the pool's key: there "
        "is no such user, or the key is not in its authorized_keys, or it may not log in at all.",
        f"{refused.hint}{root} The log of sshd in the VM says which it is.")


def over_tls(target: "tls.Target", credentials: "tls.Credentials", ssh_settings: SSHSettings,
             engine_settings: EngineSettings, trace: Trace) -> Connection:
    """Connect as the product does; it does that in one go, so all its steps are told at the end.

    :raises XSContainerError: as tls.connect.
    """
    from xscontainer.engine import tls

    # All three may be used up; looking up a name may have taken from what there was.
    haste = min(1.0, max(0.1, trace.left() - ANSWERING) / sum(_TLS_SECONDS))
    connecting, shaking_hands, logging_in = (haste * seconds for seconds in _TLS_SECONDS)
    hurried = ssh_settings._replace(
        connect_timeout=min(connecting, ssh_settings.connect_timeout),
        banner_timeout=min(shaking_hands, ssh_settings.banner_timeout),
        auth_timeout=min(logging_in, ssh_settings.auth_timeout))
    connection = tls.connect(target, credentials, hurried, engine_settings)
    trace.facts["address"] = connection.address
    trace.done("certificates", "the VM's secrets hold what it takes")
    trace.done("tcp", f"{connection.address} port {target.port}")
    trace.done("tls", "the engine's certificate is good")
    trace.done("login", "it takes ours")
    return connection


def ask(connection: Connection, settings: EngineSettings, trace: Trace) -> str:
    """Ask the engine who it is and what it runs; what it said, as a sentence. The connection ends with the time.

    :raises XSContainerError: as Connection.open_stream and Engine.
    """
    # A guest that begins to exchange keys and does not end it keeps back whatever we say, even a good-bye.
    guard = threading.Timer(trace.left(), connection.hang_up)
    guard.start()
    try:
        return _ask(connection, settings, trace)
    finally:
        guard.cancel()
        guard.join()


def _ask(connection: Connection, settings: EngineSettings, trace: Trace) -> str:
    if "socket" in trace.ladder:
        connection.open_stream(max(1.0, trace.left() - ANSWERING)).close()
        trace.done("socket", connection.describe())
    engine = Engine(connection, settings._replace(request_timeout=min(settings.request_timeout, trace.left() / 2)))
    try:
        version = EngineVersion.from_api(engine.version())
        name = f"{engine.kind.capitalize()} {version.version} (API {version.api_version})"
        trace.facts["engine"] = {"kind": engine.kind, "version": version.version, "api_version": version.api_version}
        trace.done("engine", name)
        count = len(engine.containers())
    finally:
        engine.close()
    trace.facts.update(containers=count, way=connection.describe())
    trace.done("containers", str(count))
    return f"{name} with {count} container{'' if count == 1 else 's'}, reached as {connection.describe()}"
