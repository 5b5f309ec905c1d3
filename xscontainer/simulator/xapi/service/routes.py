"""Handlers of HTTP paths that are no API calls. A new door behind xapi's HTTP server is registered here."""

from typing import Callable, Dict, Optional

from xscontainer.simulator.xapi.service import plugin_proxy, transfer
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.exchange import Exchange

Handler = Callable[[PoolData, HostData, Exchange], None]
# By method and path, such as "PUT /import_raw_vdi". The handler reads the request's body itself.
HANDLERS: Dict[str, Handler] = {name: transfer.serve for name in transfer.PERMISSIONS}


def find(name: str) -> Optional[Handler]:
    """Return the handler of "METHOD /path", None if the path is none of these."""
    method, _space, path = name.partition(" ")
    if path.startswith(plugin_proxy.PREFIX) and method in plugin_proxy.PERMISSIONS:
        return plugin_proxy.serve
    return HANDLERS.get(name)
