"""The only method of secrets that does not follow from the data model."""

from typing import Dict

from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.wire.values import clean, clean_all


def introduce(call: Call, identity: str, value: str, other_config: Dict[str, str]) -> str:
    """secret.introduce: make a secret with a given uuid."""
    return call.pool.db.create(
        "secret", {"uuid": identity, "value": clean(value), "other_config": clean_all(other_config)}
    ).ref


HANDLERS = {"secret.introduce": introduce}
