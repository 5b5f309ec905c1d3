"""Methods of hosts and the pool beyond their fields."""

from typing import Any

from xscontainer.simulator.xapi.database.clock import now
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import Time


def get_servertime(call: Call, ref: str) -> Time:
    """host.get_servertime."""
    call.pool.db.find("host", ref)
    return now()


def list_methods(_call: Call) -> Any:
    """host.list_methods: refused, as XAPI does."""
    raise XapiError("NOT_IMPLEMENTED", "list_method")


HANDLERS = {
    "host.get_servertime": get_servertime,
    "host.get_server_localtime": get_servertime,
    "host.list_methods": list_methods,
}
