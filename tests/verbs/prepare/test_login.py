"""Logging in to a guest with what a person has, as real sshds judge it."""

import time
from typing import Any, Callable, Dict, List

import paramiko
import pytest

from tests.verbs.prepare.guests import PASSWORD, USER, FreshGuest
from xscontainer.engine.ssh.login import Guest, _Answers
from xscontainer.errors import (
    ArgumentError,
    GuestSilent,
    LoginEnded,
    LoginNeedsMore,
    PasswordLoginOff,
    PasswordNotAccepted,
    PublicKeyOff,
    XSContainerError,
)
from xscontainer.settings import GuestSettings

pytestmark = pytest.mark.real
Make = Callable[..., FreshGuest]
QUICK = GuestSettings(connect_timeout=5.0, handshake_timeout=5.0, login_timeout=10.0)

PAM: Dict[str, str] = {"UsePAM": "yes", "ChallengeResponseAuthentication": "yes", "PasswordAuthentication": "no"}


def meet(guest: FreshGuest, settings: GuestSettings = QUICK) -> Guest:
    return Guest([guest.address], guest.port, settings)


@pytest.mark.parametrize("options", [{}, PAM, {"UsePAM": "yes"}], ids=["password", "question", "PAM"])
def test_a_password(make_guest: Make, options: Any) -> None:
    guest = make_guest(options=options)
    with meet(guest) as met:
        assert met.host_key.base64 == guest.host_key_base64
        met.by_password(USER, PASSWORD)
        assert met.transport.is_authenticated()
    with meet(guest) as met, pytest.raises(PasswordNotAccepted, match="refused"):
        met.by_password(USER, PASSWORD + "x")


REFUSALS = [
    ({"PasswordAuthentication": "no"}, PasswordLoginOff, "publickey"),
    ({"AuthenticationMethods": "password,publickey"}, PasswordNotAccepted, "requires more"),
    ({"AllowUsers": "somebody"}, PasswordNotAccepted, "refused"),
    ({"MaxAuthTries": "1"}, LoginEnded, "closed the connection"),
]


@pytest.mark.parametrize("options, error, word", REFUSALS, ids=[str(row[1].__name__) + str(number) for number, row
                                                               in enumerate(REFUSALS)])
def test_a_login_method_that_sshd_does_not_offer_is_an_error(
        make_guest: Make, pool_key: paramiko.PKey, options: Any, error: Any, word: str) -> None:
    guest = make_guest(options=options)
    with meet(guest) as met, pytest.raises(error, match=word):
        if error is LoginEnded:
            met.by_key(USER, pool_key)
        met.by_password(USER, PASSWORD)


def test_a_login_that_needs_more_than_a_key_is_an_error(make_guest: Make, pool_key: paramiko.PKey) -> None:
    with meet(make_guest(options={"PubkeyAuthentication": "no"})) as met, pytest.raises(PublicKeyOff):
        met.by_key(USER, pool_key)
    guest = make_guest(options={"AuthenticationMethods": "publickey,password"})
    guest.write_keys(f"{pool_key.get_name()} {pool_key.get_base64()}\n".encode())
    with meet(guest) as met, pytest.raises(LoginNeedsMore):
        met.by_key(USER, pool_key)


@pytest.mark.parametrize("password", ["", "x" * 1025])
def test_a_malformed_password_is_refused(make_guest: Make, password: str) -> None:
    with meet(make_guest()) as met, pytest.raises(ArgumentError):
        met.by_password(USER, password)


def test_a_guest_that_hangs_in_the_middle(make_guest: Make) -> None:
    guest = make_guest()
    with meet(guest, QUICK._replace(login_timeout=0.5)) as met:
        guest.freeze()
        begun = time.monotonic()
        with pytest.raises(GuestSilent):
            met.by_password(USER, PASSWORD)
        assert time.monotonic() - begun < 5.0
        guest.thaw()


def test_the_password_answers_one_hidden_question_only() -> None:
    answers = _Answers("secret")
    assert answers("", "", []) == []
    assert answers("", "", [("Name:", True)]) == [""]
    assert answers("", "", [("Password:", False), ("Code:", False)]) == ["", ""]
    assert answers("", "", [("Password: ", False)]) == ["secret"]
    assert answers("", "", [("New password: ", False)]) == [""]


def test_no_error_quotes_the_password(make_guest: Make) -> None:
    guest = make_guest(options=PAM)
    with meet(guest) as met, pytest.raises(XSContainerError) as failure:
        met.by_password(USER, "do-not-quote-me")
    chain: List[BaseException] = [failure.value]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__ or Exception())
    assert len(chain) > 1 and "do-not-quote-me" not in "".join(repr(error) + str(error) for error in chain)
