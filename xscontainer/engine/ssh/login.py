"""Log in to a guest that is not prepared yet, with what a person has: a password or the keys of an SSH agent."""

import contextlib
from typing import Iterator, List, Optional, Sequence, Tuple

import paramiko

from xscontainer.engine import failures
from xscontainer.engine.ssh import authentication
from xscontainer.engine.ssh.handshake import meet
from xscontainer.engine.ssh.hostkeys import HostKey
from xscontainer.engine.ssh.paramiko_quirks import CLOSED, NO_ANSWER, login_failure
from xscontainer.engine.ssh.shell import Shell
from xscontainer.errors import (
    ArgumentError,
    KeyNotAccepted,
    KeyTypeRefused,
    PasswordLoginOff,
    PasswordNotAccepted,
)
from xscontainer.settings import GuestSettings

MOST_AGENT_KEYS = 4  # sshd ends a connection after six failures
MOST_PASSWORD = 1024  # characters

_INTERACTIVE = "keyboard-interactive"


class Guest:
    """A guest that was met but not logged in to. A context manager, which closes the connection.

    :param weak: see connection.Target.
    :param pinned: a guest with several host keys shows the one of this kind. The caller compares it with ``host_key``.
    :raises ConnectError: if the guest does not answer (GuestUnreachable, GuestSilent), or the kind of the pinned key is
        not supported.
    :ivar where: address and port, for messages.
    :ivar shell: runs commands, after a login.
    """

    def __init__(self, addresses: Sequence[str], port: int, settings: GuestSettings,
                 pinned: Optional[HostKey] = None, weak: Sequence[str] = ()) -> None:
        self._settings = settings
        met = meet(addresses, port, pinned, settings, weak=weak)
        self.transport, self.address, self.where, self.host_key = met
        self.transport.auth_timeout = settings.login_timeout
        self.shell = Shell(self.transport)

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    def by_key(self, user: str, key: paramiko.PKey) -> bool:
        """Log in with a key. Return whether the guest accepted it.

        :raises PublicKeyOff: if the guest accepts no keys.
        :raises LoginNeedsMore: if the guest requires more than a key.
        """
        with self._translating():
            try:
                authentication.log_in(self.transport, user, key, self._settings.login_timeout, self.where)
            except KeyNotAccepted as error:
                if type(error) is not KeyNotAccepted:
                    raise
                return False
        return True

    def by_password(self, user: str, password: str) -> None:
        """Log in with a password, once: as a password, or as the answer to the guest's only question.

        :raises PasswordNotAccepted: if the password is wrong, or the guest requires more.
        :raises PasswordLoginOff: if the guest accepts no passwords.
        """
        if not 0 < len(password) <= MOST_PASSWORD:
            raise ArgumentError(f"A password must have 1 to {MOST_PASSWORD} characters.")
        with self._translating():
            offered = self._offered(user)
            try:
                if "password" in offered:
                    more = self.transport.auth_password(user, password, fallback=False)
                elif _INTERACTIVE in offered:
                    more = self.transport.auth_interactive(user, _Answers(password))
                else:
                    ways = failures.words(", ".join(offered) or "nothing")
                    raise PasswordLoginOff(f"The SSH server at {self.where} accepts no password from the user {user}; "
                                           f"it offers {ways}.")
            except paramiko.AuthenticationException as error:
                self._raise_unless_refused(error)
                raise PasswordNotAccepted(
                    f"The SSH server at {self.where} refused the password of the user {user}.") from error
            if more or not self.transport.is_authenticated():
                raise PasswordNotAccepted(
                    f"The SSH server at {self.where} requires more than a password from the user {user}.")

    def by_agent(self, user: str) -> None:
        """Log in with the keys of the SSH agent that the environment names, one after the other.

        :raises KeyNotAccepted: if the guest accepts none of them.
        :raises ArgumentError: if there is no agent, or it has no key.
        """
        agent = paramiko.Agent()
        try:
            held = agent.get_keys()
            if not held:
                raise ArgumentError("There is no SSH agent with a key in it.",
                                    "Start an agent and add a key (ssh-add), or forward yours to this host (ssh -A).")
            if not any(self._by_agents_key(user, key) for key in held[:MOST_AGENT_KEYS]):
                first = f"first {MOST_AGENT_KEYS} of the {len(held)} " if len(held) > MOST_AGENT_KEYS else ""
                raise KeyNotAccepted(f"The SSH server at {self.where} accepts none of the {first}keys in the agent for "
                                     f"the user {user}.",
                                     "Add the right key to the agent, as one of the first, or use a password.")
        finally:
            agent.close()

    def _by_agents_key(self, user: str, key: paramiko.PKey) -> bool:
        try:
            return self.by_key(user, key)
        except KeyTypeRefused:
            return False  # the next key may be of another kind

    def _offered(self, user: str) -> Tuple[str, ...]:
        try:
            self.transport.auth_none(user)
        except paramiko.BadAuthenticationType as error:
            return tuple(error.allowed_types)
        except paramiko.AuthenticationException as error:
            self._raise_unless_refused(error)
        return ()

    def _raise_unless_refused(self, error: paramiko.AuthenticationException) -> None:
        """Raise the error for a login that failed for another reason than a refusal."""
        failure = login_failure(error)
        if failure == CLOSED or not self.transport.is_active():
            raise authentication.connection_closed(self.transport, self.where) from error
        if failure == NO_ANSWER:
            raise authentication.no_answer(self.where, self._settings.login_timeout) from error

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        with failures.translating(f"The login at {self.where}", failures.SSH_SIDE):
            yield


class _Answers:
    """The answers to keyboard-interactive questions: the password to the first hidden question, nothing to others.

    A second question would be for a one-time code, or for a new password.
    """

    def __init__(self, password: str) -> None:
        self._password: Optional[str] = password

    def __call__(self, title: str, instructions: str, prompts: "Sequence[Tuple[str, bool]]") -> List[str]:
        if len(prompts) != 1 or prompts[0][1] or self._password is None:
            return [""] * len(prompts)
        password, self._password = self._password, None
        return [password]
