"""Logging in through the socket or TCP port of a host, and logging out."""

from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.wire.failures import XapiError


def login_with_password(call: Call, name: str, password: str, _version: str = "1.0", originator: str = "") -> str:
    """session.login_with_password: the local socket needs no password, TCP does."""
    sessions = call.pool.sessions
    if call.local:
        return sessions.open(call.host, None, name, originator).ref
    if call.host is not call.pool.coordinator:
        raise XapiError("HOST_IS_SLAVE", call.pool.coordinator.address)
    user = sessions.users.get(name)
    if user is None:
        raise XapiError("SESSION_AUTHENTICATION_FAILED", name, "User not known to the underlying authentication module")
    if password != user.password:
        raise XapiError("SESSION_AUTHENTICATION_FAILED", name, "Authentication failure")
    return sessions.open(call.host, user, name, originator).ref


def slave_local_login_with_password(call: Call, name: str, password: str) -> str:
    """session.slave_local_login_with_password: root only, on the host itself."""
    user = call.pool.sessions.users.get(name)
    if user is None or user.role is not None or password != user.password:
        raise XapiError("SESSION_AUTHENTICATION_FAILED", name, "Authentication failure")
    return call.pool.sessions.open(call.host, None, name, "").ref


def logout(call: Call) -> str:
    """session.logout: end the caller's session."""
    call.pool.sessions.end([call.session])
    return ""


HANDLERS = {
    "session.login_with_password": login_with_password,
    "session.slave_local_login_with_password": slave_local_login_with_password,
    "session.logout": logout,
    "session.local_logout": logout,
}
