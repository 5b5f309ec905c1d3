"""A pool of simulated hosts, each with the plugin installed and, if wanted, a daemon's half of the plugin path."""

import os
from contextlib import ExitStack
from typing import Any, Dict, Optional

import XenAPI

from tests.plugin.verbs import made
from xscontainer import settings
from xscontainer.access.opener import Access, session_pool
from xscontainer.core.arguments import uuid
from xscontainer.core.verb import ANY_HOST, ENGINE_HOST, STORAGE_HOST, Argument, Verb
from xscontainer.plugin import dispatch
from xscontainer.plugin.context import LocalContext
from xscontainer.service.server import Server
from xscontainer.settings import Settings
from xscontainer.simulator.install import install_plugin
from xscontainer.simulator.xapi import Pool
from xscontainer.verbs.table import VERBS
from xscontainer.xapi.session import SessionPool

# Says which host served it, in the places where a verb may be served.
_ASKED = tuple(Argument(name, uuid, False) for name in ("vmuuid", "vdiuuid", "sruuid"))
PROBES = {f"where_{name}": made(f"where_{name}", lambda context, **arguments: "True" + context.this_host_ref(),
                                rows=_ASKED, place=place)
          for name, place in (("anywhere", ANY_HOST), ("resident", ENGINE_HOST), ("storage", STORAGE_HOST))}


class Host:
    """One host: its settings, its plugin, and the context and server that a daemon would have."""

    def __init__(self, pool: Pool, host: Any, directory: str, inventory: Optional[str] = None) -> None:
        self.sim = host
        self.calls = 0
        self.verbs: Dict[str, Verb] = {**VERBS, **PROBES}
        os.makedirs(directory)
        self.conf = os.path.join(directory, "xscontainer.conf")
        with open(self.conf, "w", encoding="utf-8") as conf:
            conf.write(f"[daemon]\nsocket = {directory}/r/d\ninventory = {inventory or host.inventory_path}\n"
                       f"[xapi]\nsocket = {host.socket_path}\ntimeout = 10\n[address]\nallow_loopback = yes\n")
        self.settings: Settings = settings.load(self.conf).settings
        self.sessions = session_pool(self.settings)
        self.forwarding: SessionPool = session_pool(self.settings)
        self.context = LocalContext(self.settings, Access(self.settings, self.sessions), self.forwarding)
        self.server = Server(self.settings.daemon.socket, self._handle, self.settings.daemon.workers)
        install_plugin(host.plugin_dir, self.conf)

    def _handle(self, argument: bytes) -> bytes:
        self.calls += 1
        return dispatch.handle(argument, self.context, self.verbs)

    def close(self) -> None:
        self.server.stop()
        self.sessions.close()
        self.forwarding.close()


class PluginPool:
    """``pool`` is the simulator's; ``hosts`` are ours, the coordinator's first. A context manager."""

    def __init__(self, directory: str, hosts: int = 3, daemons: bool = True, https: bool = False) -> None:
        self._directory = directory
        self._daemons = daemons
        self._stack = ExitStack()
        self.pool = Pool(os.path.join(directory, "p"), hosts=hosts, https=https)

    def __enter__(self) -> "PluginPool":
        with ExitStack() as stack:
            stack.enter_context(self.pool)
            self.hosts = []
            for number, sim in enumerate(self.pool.hosts):
                host = Host(self.pool, sim, os.path.join(self._directory, str(number)))
                stack.callback(host.close)
                self.hosts.append(host)
                if self._daemons:
                    host.server.start()
            self.client = self.new_client()
            # Its connection would outlive it.
            stack.callback(lambda: self.client("close")())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def new_client(self) -> Any:
        """Another session on the coordinator; ``session("close")()`` closes its connection."""
        client = XenAPI.Session(f"http://127.0.0.1:{self.pool.coordinator.tcp_port}/")
        client.xenapi.login_with_password("root", "root-pw", "1.0", "test")
        return client

    def call(self, host: Host, function: str, **arguments: str) -> str:
        """host.call_plugin as a client makes it; a failure raises XenAPI.Failure."""
        return str(self.client.xenapi.host.call_plugin(host.sim.ref, "xscontainer", function, arguments))

    def failure(self, host: Host, function: str, **arguments: str) -> Any:
        try:
            value = self.call(host, function, **arguments)
        except XenAPI.Failure as failure:
            return failure.details
        raise AssertionError(f"{function} was no failure but {value!r}")

    def uuid(self, ref: str, cls: str = "VM") -> str:
        return str(self.pool.record(cls, ref)["uuid"])
