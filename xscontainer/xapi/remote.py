"""Log in to XAPI from another machine, at the pool's coordinator."""

from typing import Callable, Union

from xscontainer.errors import ArgumentError, NotPermitted, XapiError, XapiUnavailable
from xscontainer.settings import XapiSettings
from xscontainer.xapi.https import HttpsServer
from xscontainer.xapi.session import Session

# XAPI ends the oldest of more than 500 logins of one originator: these must not end those of the hosts.
ORIGINATOR = "xscontainer-remote"


Password = Union[str, Callable[[], str]]


def login(server: HttpsServer, user: str, password: Password, settings: XapiSettings,
          moved: "Callable[[str, str], None]") -> Session:
    """Log in at a host, or at the coordinator if the host is another member of the pool.

    :param password: the password, or a function that asks a person for it, after the certificate was checked.
    :param moved: called with both addresses before the login at the coordinator.
    :raises NotPermitted: XAPI refuses user or password.
    :raises XapiNotTrusted: the certificate is not that of the server. XapiUnavailable: XAPI does not answer.
    """
    try:
        return _at(server, user, password, settings)
    except XapiError as error:
        if error.details[:1] != ["HOST_IS_SLAVE"] or len(error.details) < 2:
            raise
        try:
            coordinator = server.at(error.details[1])
        except ArgumentError:
            raise XapiUnavailable(f"The host {server.name} names no usable address of its pool's coordinator.",
                                  "Give the coordinator's address.") from error
    moved(server.name, coordinator.name)
    try:
        return _at(coordinator, user, password, settings)
    except XapiError as error:
        if error.details[:1] != ["HOST_IS_SLAVE"]:
            raise
        raise XapiUnavailable(f"The host {coordinator.name} is not the coordinator of its pool, although the host "
                              f"{server.name} says so.", "Repeat the command when the pool has elected a new "
                                                         "coordinator, or give its address.") from error


def _at(server: HttpsServer, user: str, password: Password, settings: XapiSettings) -> Session:
    if not isinstance(password, str):
        server.check(settings.login_timeout)
        password = password()
    try:
        return Session.login(server, ORIGINATOR, settings.timeout, settings.login_timeout, user, password)
    except XapiError as error:
        if error.details[:1] != ["SESSION_AUTHENTICATION_FAILED"]:
            raise
        raise NotPermitted(f"XAPI at {server.name} refused the login of the user {user!r}.",
                           "Check the user's name and the password.") from error
