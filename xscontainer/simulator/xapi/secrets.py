"""Secrets: all but introduce follows from the data model."""

from typing import TYPE_CHECKING, Dict

from .values import clean, clean_all

if TYPE_CHECKING:
    from .dispatch import Call


def introduce(call: "Call", identity: str, value: str, other_config: Dict[str, str]) -> str:
    """secret.introduce: a secret with a uuid of the caller's choice."""
    return call.pool.db.create(
        "secret", {"uuid": identity, "value": clean(value), "other_config": clean_all(other_config)}
    ).ref


HANDLERS = {"secret.introduce": introduce}
