"""What hosts and the pool answer beyond their fields."""

from typing import TYPE_CHECKING, Any

from .clock import now
from .failures import XapiError
from .values import Time

if TYPE_CHECKING:
    from .dispatch import Call


def get_servertime(call: "Call", ref: str) -> Time:
    """host.get_servertime."""
    call.pool.db.find("host", ref)
    return now()


def list_methods(_call: "Call") -> Any:
    """host.list_methods: XAPI has it in name only."""
    raise XapiError("NOT_IMPLEMENTED", "list_method")


HANDLERS = {
    "host.get_servertime": get_servertime,
    "host.get_server_localtime": get_servertime,
    "host.list_methods": list_methods,
}
