"""Logging in to a guest that is not prepared yet: by what a person has, a password or the keys of an SSH agent."""

import contextlib
from typing import Iterator, List, Optional, Sequence, Tuple

import paramiko

from xscontainer.engine import failures, ssh
from xscontainer.engine.hostkeys import HostKey
from xscontainer.errors import (
    ArgumentError,
    GuestSilent,
    KeyNotAccepted,
    LoginEnded,
    PasswordLoginOff,
    PasswordNotAccepted,
)
from xscontainer.settings import SSHSettings

MOST_AGENT_KEYS = 4  # sshd ends a connection after six failures
MOST_PASSWORD = 1024  # characters

_INTERACTIVE = "keyboard-interactive"


class Guest:
    """A guest that was greeted. A context manager, which hangs up at its end.

    :param pinned: shown if the guest has several; it is for the caller to compare it with ``host_key``.
    :raises ConnectError: it does not answer (GuestUnreachable, GuestSilent), or the pin's kind is not known here.
    """

    def __init__(self, addresses: Sequence[str], port: int, ssh_settings: SSHSettings,
                 pinned: Optional[HostKey] = None) -> None:
        self._settings = ssh_settings
        met = ssh.meet(addresses, port, pinned, ssh_settings)
        self.transport, self.address, self.where, self.host_key = met
        self.transport.auth_timeout = ssh_settings.auth_timeout

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    def by_key(self, user: str, key: paramiko.PKey) -> bool:
        """Whether the user may log in with the pool's key alone; then we are in.

        :raises PublicKeyOff: keys are of no use here. LoginNeedsMore: nor is this one by itself.
        """
        with self._translating():
            try:
                ssh.log_in(self.transport, user, key, self._settings.auth_timeout, self.where)
            except KeyNotAccepted as error:
                if type(error) is not KeyNotAccepted:
                    raise
                return False
        return True

    def by_password(self, user: str, password: str) -> None:
        """Once, in the way that the guest offers: as a password, or as the answer to its one question.

        :raises PasswordNotAccepted: it is wrong, or not all that is asked for.
        :raises PasswordLoginOff: the guest takes none.
        """
        if not 0 < len(password) <= MOST_PASSWORD:
            raise ArgumentError(f"A password has 1 to {MOST_PASSWORD} characters.")
        with self._translating():
            offered = self._offered(user)
            try:
                if "password" in offered:
                    more = self.transport.auth_password(user, password, fallback=False)
                elif _INTERACTIVE in offered:
                    more = self.transport.auth_interactive(user, _Answers(password))
                else:
                    ways = failures.words(", ".join(offered) or "nothing")
                    raise PasswordLoginOff(f"{self.where} takes no password from the user {user}; it offers {ways}.")
            except paramiko.AuthenticationException as error:
                self._judge(error)
                raise PasswordNotAccepted(f"{self.where} refused the password of the user {user}.") from error
            if more or not self.transport.is_authenticated():
                raise PasswordNotAccepted(f"{self.where} wants more than a password from the user {user}.")

    def by_agent(self, user: str) -> None:
        """With the keys of the SSH agent that the environment names, one after the other.

        :raises KeyNotAccepted: none of them is accepted. ArgumentError: there is no agent, or it has no key.
        """
        agent = paramiko.Agent()
        try:
            held = agent.get_keys()
            if not held:
                raise ArgumentError("There is no SSH agent with a key in it.",
                                    "Start one and add a key (ssh-add), or let it be forwarded to this host (ssh -A).")
            if not any(self.by_key(user, key) for key in held[:MOST_AGENT_KEYS]):
                first = f"first {MOST_AGENT_KEYS} of the {len(held)} " if len(held) > MOST_AGENT_KEYS else ""
                raise KeyNotAccepted(f"{self.where} accepts none of the {first}keys in the agent for the user {user}.",
                                     "Have the agent hold the right key, as one of the first, or use a password.")
        finally:
            agent.close()

    def _offered(self, user: str) -> Tuple[str, ...]:
        try:
            self.transport.auth_none(user)
        except paramiko.BadAuthenticationType as error:
            return tuple(error.allowed_types)
        except paramiko.AuthenticationException as error:
            self._judge(error)
        return ()

    def _judge(self, error: Exception) -> None:
        # paramiko has one class for a refusal and for all else that ends a login.
        if "EOF" in str(error) or not self.transport.is_active():
            raise LoginEnded(f"{self.where} ended the connection during the login.") from error
        if "timeout" in str(error):
            raise GuestSilent(
                f"{self.where} did not answer the login within {self._settings.auth_timeout:g} s.") from error

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        with failures.translating(f"The login at {self.where}", failures.SSH_SIDE):
            yield


class _Answers:
    """To keyboard-interactive's questions: the password to the first one that hides what is typed, and no more.

    A second question would be for a one-time code, or for a new password.
    """

    def __init__(self, password: str) -> None:
        self._password: Optional[str] = password

    def __call__(self, title: str, instructions: str, prompts: "Sequence[Tuple[str, bool]]") -> List[str]:
        if len(prompts) != 1 or prompts[0][1] or self._password is None:
            return [""] * len(prompts)
        password, self._password = self._password, None
        return [password]
