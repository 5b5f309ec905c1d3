"""The docker library's client, and everything that we do against the library's grain.

Seen in docker 5.0.3 (the last for CPython 3.6) and 7.2.0; check each item when a pin in requirements/ changes.

=============================== ==================================================================================
what the library does           what we do instead, and why
=============================== ==================================================================================
``APIClient.__init__``          Not called. It reads DOCKER_* variables, ~/.docker/config.json and proxy settings of
                                the caller, and opens connections of its own.
default headers                 Cleared. requests offers gzip, which a guest could use for a decompression bomb.
``_url``                        Overridden. Without a version the engine uses its newest API, which the library
                                cannot ask for per client.
``stop``                        Overridden. The library adds 10 s to the timeout that it is given.
``restart``                     Overridden. The library always sends ``t=10``, which overrides the container's own
                                stop timeout.
``containers``                  Not used. It decodes the whole list at once; a sink takes the entries one by one.
``events``                      Not used. It blocks without a deadline; see :mod:`xscontainer.engine.events`.
redirects                       Off. An engine sends none, and a guest must not direct us to another request.
=============================== ==================================================================================
"""

from typing import Any, Callable, Dict, Optional

import docker
import requests

from xscontainer.core import memory_budget as memory
from xscontainer.engine.adapter import BASE_URL, EngineAdapter
from xscontainer.engine.http import Answer
from xscontainer.engine.listing import Sink
from xscontainer.errors import EngineGarbage

_EVERYTHING = {"all": 1, "limit": -1, "size": 0, "trunc_cmd": 0}


class EngineClient(docker.APIClient):
    """The docker library's client over one EngineAdapter. For one thread at a time.

    :param version: API version, as "1.41"; "": the engine's newest.
    :param timeout: seconds for each request.
    """

    def __init__(self, adapter: EngineAdapter, version: str, timeout: float) -> None:
        requests.Session.__init__(self)
        self.trust_env = False
        self.headers.clear()
        self.adapters.clear()
        self.mount(BASE_URL, adapter)
        self.base_url = BASE_URL
        self._general_configs: Dict[str, Any] = {}
        self.adapter = adapter
        self.use(version, timeout)

    def use(self, version: str, timeout: float) -> None:
        """Set the API version and the timeout of the next requests."""
        self._version, self.timeout = version, timeout

    def _url(self, pathfmt: str, *args: Any, **kwargs: Any) -> str:
        if not self._version:
            kwargs["versioned_api"] = False
        return str(super()._url(pathfmt, *args, **kwargs))

    def stop(self, container: str, seconds: "Optional[int]" = None) -> None:  # type: ignore[override, unused-ignore]
        """Stop a container; kill it after ``seconds``, None: after its own stop time."""
        self._end("stop", container, seconds)

    def restart(self, container: str, seconds: "Optional[int]" = None) -> None:  # type: ignore[override, unused-ignore]
        """Restart a container; the parameters are those of :meth:`stop`."""
        self._end("restart", container, seconds)

    def _end(self, verb: str, container: str, seconds: "Optional[int]") -> None:
        parameters = {} if seconds is None else {"t": seconds}
        self._raise_for_status(self._post(self._url("/containers/{0}/{1}", container, verb), params=parameters))

    def get_raw(self, path: str, timeout: float, make_sink: "Optional[Callable[[], Any]]" = None) -> Answer:
        """Return the answer to a GET request that the library has no call for, or decodes in another way.

        :param path: with the API version and the query.
        :param timeout: seconds for the whole exchange.
        :param make_sink: see :class:`EngineAdapter`.
        """
        self.adapter.make_sink = make_sink
        try:
            return self.adapter.ask("GET", path, None, {"Host": "engine"}, timeout)
        finally:
            self.adapter.make_sink = None

    def each_container(self, make_sink: Callable[[], Sink], all_states: bool = True) -> Any:
        """Pass each entry of GET /containers/json to a sink; return what the sink collected.

        :param all_states: whether to list containers that do not run, too.
        """
        self.adapter.make_sink = make_sink
        try:
            response = self._get(self._url("/containers/json"), params=dict(_EVERYTHING, all=int(all_states)))
            self._raise_for_status(response)
        finally:
            self.adapter.make_sink = None
        if response.status_code != 200 or self.adapter.sink is None:
            raise EngineGarbage(f"The engine answers with HTTP status {response.status_code} instead of a list.")
        if self.adapter.sink.size > memory.SMALL_BYTES:
            self.adapter.enter_workshop()
        return self.adapter.sink.collected

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None
