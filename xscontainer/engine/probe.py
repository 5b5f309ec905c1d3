"""Connect to an engine once and record each step, for diagnose; with the same code as the monitor."""

import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

from xscontainer.core.diagnosis import OVER_TLS, Step, Trace
from xscontainer.core.engine_facts import EngineVersion
from xscontainer.engine.api import Engine
from xscontainer.engine.connection import Connection
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh import hostkeys
from xscontainer.errors import (
    AddressConflict,
    AnotherVM,
    ConnectError,
    EngineError,
    EngineRefused,
    EngineTimeout,
    EngineWithoutEvents,
    EngineWithoutFacts,
    GuestSilent,
    GuestUnreachable,
    HostKeyChanged,
    HostKeyUnreadable,
    KeyNotAccepted,
    ScriptNotRun,
    ScriptSilent,
    TLSCertificateInvalid,
    TLSClientRefused,
    TLSProtocol,
    TransportLost,
    UserWrong,
    VMError,
    XSContainerError,
)
from xscontainer.settings import EngineSettings, GuestSettings

if TYPE_CHECKING:
    import paramiko

    from xscontainer.engine.tls import connection as tls

# Seconds, shorter than a monitor's, because a person waits. TCP repeats an unanswered SYN after 1 s and 3 s.
CONNECT_SECONDS = 5.0
HANDSHAKE_SECONDS = 4.0
LOGIN_SECONDS = 6.0
_TLS_SECONDS = (4.0, 3.0, 4.0)  # the same three over TLS
ANSWER_SECONDS = 2.0  # reserved for the engine's answer
EVENTS_SECONDS = 3.0  # for the engine to begin its event stream, and for its facts
OTHER_USER_SECONDS = 3.0  # for each try as another user
OUTPUT_SECONDS = 1.0  # of these, reserved for the output of a command that does not reach the engine
IDENTITY = "identity"  # the step that decides which VM answers
USUAL_USERS = ("core", "root")
MOST_USERS = 3

_TLS_STEPS = ((VMError, "certificates"), (GuestUnreachable, "tcp"), (GuestSilent, "tls"), (TLSProtocol, "tls"),
              (TLSCertificateInvalid, "tls"), (TLSClientRefused, "login"), (EngineError, "engine"))


def failed_step(error: XSContainerError, trace: Trace) -> str:
    """Return the step that this error belongs to, "" if it belongs to the next step."""
    if isinstance(error, (HostKeyChanged, HostKeyUnreadable)):
        return "hostkey"
    if isinstance(error, (AnotherVM, AddressConflict)):
        return IDENTITY
    if trace.ladder == OVER_TLS and trace.steps[-1].step == "address":
        return next((step for kind, step in _TLS_STEPS if isinstance(error, kind)), "")
    return ""


def other_users(user: str, default: str, most: int) -> List[str]:
    """Return at most ``most`` users to try where the guest does not accept ``user``.

    :param default: the SSH user of the settings.
    """
    return [other for other in dict.fromkeys((default,) + USUAL_USERS) if other != user][:min(most, MOST_USERS)]


def _at_most(guest: GuestSettings, connect: float, handshake: float, login: float) -> GuestSettings:
    """Return the settings with timeouts of at most these seconds."""
    return guest._replace(connect_timeout=min(connect, guest.connect_timeout),
                          handshake_timeout=min(handshake, guest.handshake_timeout),
                          login_timeout=min(login, guest.login_timeout))


def over_ssh(target: ssh.Target, private_key: "paramiko.PKey", guest: GuestSettings,
             engine_settings: EngineSettings, trace: Trace,
             previous: "Optional[paramiko.PKey]" = None, others: Sequence[str] = ()) -> ssh.SSHConnection:
    """Connect over SSH as the monitor does, without pinning a host key.

    :param previous: the pool's previous key, which the guest may still accept while the key is being replaced.
    :param others: users to try if the guest does not accept the target's user.
    :raises XSContainerError: as ssh.connect. :raises UserWrong: if the guest accepts another user.
    """
    # By address, because more than one may be tried: the host key (if none is pinned), and steps and facts.
    shown: Dict[str, str] = {}
    recorded: Dict[str, Tuple[List[Step], Dict[str, Any]]] = {}
    steps, facts = trace.steps, trace.facts

    def tell(stage: str, found: str) -> None:
        if stage == ssh.TCP:
            trace.steps, trace.facts = recorded[found] = list(steps), dict(facts, address=found)
            found = f"{found} port {target.port}"
        elif stage == ssh.HOST_KEY:
            key = hostkeys.parse_pin(target.host_key or shown[trace.facts["address"]])
            trace.facts["fingerprint"] = key.fingerprint
            found = f"{key}, {'as pinned' if target.host_key else 'not pinned yet'}"
        trace.done(stage, found)

    def show(key: str, fingerprint: str) -> None:
        shown[trace.facts["address"]] = key

    shortened = _at_most(guest, CONNECT_SECONDS, HANDSHAKE_SECONDS, LOGIN_SECONDS)
    dial = functools.partial(ssh.connect, guest=shortened, engine=engine_settings)
    try:
        return dial(target, private_key, on_host_key=show, on_stage=tell, deadline=trace.deadline)
    except ConnectError as error:
        trace.steps, trace.facts = recorded.get(error.suspect_address, (trace.steps, trace.facts))
        if isinstance(error, HostKeyChanged):
            trace.facts.update(fingerprint=error.shown, pinned_fingerprint=error.pinned)
        if not isinstance(error, KeyNotAccepted):
            raise
        trace.facts["public_key"] = f"{private_key.get_name()} {private_key.get_base64()}"
        trace.facts["refused_logins"] = 1
        if type(error) is not KeyNotAccepted:
            raise
        # Only the server that refused us may answer the next attempts.
        address = str(trace.facts["address"])
        target = target._replace(addresses=(address,), host_key=target.host_key or shown[address])
        if previous is not None:
            connection = _with_previous_key(lambda: dial(target, previous, deadline=trace.deadline), target.user, trace)
            if connection is not None:
                return connection
        raise _explained(error, target._replace(judge=None), others, lambda other, deadline: _use(
            dial(other, private_key, deadline=deadline), engine_settings, deadline), trace) from error


def _with_previous_key(dial: "Callable[[], ssh.SSHConnection]", user: str,
                       trace: Trace) -> "Optional[ssh.SSHConnection]":
    """Return the connection that the pool's previous key gives, None if the guest refuses that key, too."""
    try:
        connection = dial()
    except KeyNotAccepted:
        trace.facts["refused_logins"] = 2
        return None
    trace.done(ssh.LOGIN, f"{user}, with the pool's previous key")
    return connection


def _use(connection: ssh.SSHConnection, settings: EngineSettings, deadline: float) -> None:
    """Ask the engine for its version, and close the connection.

    :raises XSContainerError: if the engine is not reached, or does not answer before the deadline.
    """
    guard = threading.Timer(max(0.0, deadline - time.monotonic()), connection.hang_up)
    guard.start()
    try:
        connection.open_stream(max(0.1, deadline - OUTPUT_SECONDS - time.monotonic())).close()
        engine = Engine(connection, settings._replace(request_timeout=max(0.1, deadline - time.monotonic())))
        try:
            engine.version()
        finally:
            engine.close()
    finally:
        guard.cancel()
        guard.join()
        connection.close()


def _explained(refused: KeyNotAccepted, target: ssh.Target, others: Sequence[str],
               use: "Callable[[ssh.Target, float], None]", trace: Trace) -> KeyNotAccepted:
    """Return the error for a refused key, more precise if another user reaches the engine.

    sshd gives the same answer for an unknown user and for a user without our key. The login of another user alone
    proves nothing: cloud images give root the same key with a command that only prints which user may log in.

    :param use: logs in to a target, asks the engine for its version before a deadline, and logs out again.
    """
    entered = ""
    hint = refused.hint
    for user in others:
        try:
            use(target._replace(user=user), time.monotonic() + min(OTHER_USER_SECONDS, trace.left()))
        except KeyNotAccepted:
            trace.facts["refused_logins"] = trace.facts.get("refused_logins", 0) + 1
            continue
        except (GuestSilent, GuestUnreachable, TransportLost) as error:
            if isinstance(error, ScriptSilent):
                entered += f" The user {user} can, but does not reach the engine: {error.message}"
                continue
            break  # sshd accepts no more attempts
        except XSContainerError as error:
            entered += f" The user {user} can, but does not reach the engine: {error.message}"
            hint = error.hint if isinstance(error, ScriptNotRun) else hint
            continue
        trace.facts["other_user"] = user
        return UserWrong(f"The user {target.user} cannot log in with the pool's key, but {user} can.",
                         f"Set xscontainer-username in the VM's other_config to {user}, or add the pool's public key "
                         f"to the authorized_keys of {target.user} in the VM.")
    root = " For root, PermitRootLogin in the VM's sshd_config must not be no." if target.user == "root" else ""
    return KeyNotAccepted(
        f"The user {target.user} at {target.addresses[0]} port {target.port} cannot log in with the pool's key: there "
        "is no such user, or the key is not in the user's authorized_keys, or the user may not log in at all"
        f"{refused.limits}.{entered}",
        f"{hint}{root} The log of sshd in the VM has the reason.")


def over_tls(target: "tls.Target", credentials: "tls.Credentials", guest: GuestSettings,
             engine_settings: EngineSettings, trace: Trace) -> Connection:
    """Connect over TLS as the monitor does, and record all steps at the end.

    :raises XSContainerError: as tls.connect.
    """
    # Imported here because cryptography.x509 takes 30 to 50 ms, and most VMs are reached over SSH.
    from xscontainer.engine.tls import connection as tls

    # All three timeouts may be needed in full. Looking up a name may already have taken some of the time.
    fraction = min(1.0, max(0.1, trace.left() - ANSWER_SECONDS) / sum(_TLS_SECONDS))
    connection = tls.connect(target, credentials, _at_most(guest, *(fraction * seconds for seconds in _TLS_SECONDS)),
                             engine_settings)
    trace.facts["address"] = connection.address
    trace.done("certificates", "the VM's secrets hold a certificate and its key")
    trace.done("tcp", f"{connection.address} port {target.port}")
    trace.done("tls", "the engine's certificate is valid")
    trace.done("login", "the engine accepts our certificate")
    return connection


def ask(connection: Connection, settings: EngineSettings, trace: Trace) -> "Tuple[str, Optional[EngineError]]":
    """Ask the engine for everything that a monitor asks for.

    The connection ends when the trace's time is over.

    :return: a sentence about the engine, and the error for what it does not provide besides a list; None: nothing.
    :raises XSContainerError: as Connection.open_stream and Engine.
    """
    # A guest that begins a key exchange and does not end it blocks everything that we send, even a disconnect.
    guard = threading.Timer(trace.left(), connection.hang_up)
    guard.start()
    try:
        return _ask_over(connection, settings, trace)
    finally:
        guard.cancel()
        guard.join()


def _ask_over(connection: Connection, settings: EngineSettings, trace: Trace) -> "Tuple[str, Optional[EngineError]]":
    if "socket" in trace.ladder:
        connection.open_stream(max(1.0, trace.left() - ANSWER_SECONDS)).close()
        trace.done("socket", connection.describe())
    engine = Engine(connection, settings._replace(request_timeout=min(settings.request_timeout, trace.left() / 2)))
    try:
        return _ask_engine(engine, trace)
    finally:
        engine.close()


def _ask_engine(engine: Engine, trace: Trace) -> "Tuple[str, Optional[EngineError]]":
    name, missing = "An engine", None  # type: Tuple[str, Optional[EngineError]]
    try:
        version = EngineVersion.from_api(engine.version())
    except (EngineRefused, EngineTimeout) as error:
        try:
            count = engine.count()
        except (EngineError, TransportLost):
            raise error from None  # it answers no request
        missing = EngineWithoutFacts(f"The engine does not say what it is. {error.message}")
        trace.done("engine", error.message)
    else:
        name = f"{engine.kind.capitalize()} {version.version} (API {version.api_version})"
        trace.facts["engine"] = {"kind": engine.kind, "version": version.version, "api_version": version.api_version}
        trace.done("engine", name)
        count = engine.count()
    way = engine.connection.describe()
    trace.facts.update(containers=count, way=way)
    trace.done("containers", str(count))
    sentence = f"{name} with {count} container{'' if count == 1 else 's'}, reached as {way}"
    return sentence, missing or _without_events(engine, trace.left() / 2) or _without_facts(engine, trace.left() / 2)


def missing_parts(engine: Engine) -> "Optional[EngineError]":
    """Return the error for what the engine does not provide to a monitor besides a list; None: it provides all."""
    return _without_events(engine, EVENTS_SECONDS) or _without_facts(engine, EVENTS_SECONDS)


def _without_events(engine: Engine, seconds: float) -> "Optional[EngineError]":
    """Return why the engine's events cannot be followed; None: they can, or there was no time to find out."""
    try:
        with engine.events(min(EVENTS_SECONDS, seconds)) as stream:
            stream.get(0.0)
    except EngineWithoutEvents as error:
        return error
    except (EngineError, TransportLost) as error:
        no_time = isinstance(error, EngineTimeout) and seconds < EVENTS_SECONDS
        if not no_time and not engine.connection.closed:
            return EngineWithoutEvents(f"The engine reports no changes, so its list is polled. {error.message}")
    return None


def _without_facts(engine: Engine, seconds: float) -> "Optional[EngineError]":
    """Return why the engine's facts are not shown; None: they are, or there was no time to find out."""
    try:
        engine.version(seconds / 2)
        engine.info(seconds / 2)
    except (EngineError, TransportLost) as error:
        if not isinstance(error, EngineTimeout) and not engine.connection.closed:
            return EngineWithoutFacts(f"The engine does not say what it is. {error.message}")
    return None
