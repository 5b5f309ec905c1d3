"""A call that is made for many VMs is made again where the host was busy."""

from typing import List

import pytest

from xscontainer.errors import XapiError
from xscontainer.verbs import key_rotation


@pytest.mark.parametrize("refusals, code", [(0, ""), (2, ""), (100, "BUSY")])
def test_a_busy_host_is_asked_again_for_a_while(refusals: int, code: str) -> None:
    pauses: List[float] = []

    def call() -> None:
        if len(pauses) < refusals:
            raise XapiError("Busy.", details=["BUSY", "It is busy.", "5"])

    outcome = ""
    try:
        key_rotation.when_not_busy(call, pauses.append)
    except XapiError as error:
        outcome = error.details[0]
    assert outcome == code and len(pauses) == min(refusals, key_rotation.BUSY_TRIES - 1)


def test_a_call_that_fails_otherwise_is_not_repeated() -> None:
    def call() -> None:
        raise XapiError("No.", details=["VM_NOT_RUNNING", "It is off."])

    pauses: List[float] = []
    with pytest.raises(XapiError):
        key_rotation.when_not_busy(call, pauses.append)
    assert pauses == []
