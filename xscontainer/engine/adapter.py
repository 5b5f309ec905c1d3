"""The transport adapter that carries the requests library, and so the docker library, over an engine connection."""

import time
from typing import Any, Callable, Mapping, Optional

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from xscontainer.core import memory_budget as memory
from xscontainer.engine.connection import Connection, EngineStream
from xscontainer.engine.http import Answer, Bounds, decode_json, exchange
from xscontainer.engine.listing import Sink
from xscontainer.errors import EngineLost, EngineTimeout, MemoryBusy, TransportLost, XSContainerError

BASE_URL = "http+engine://engine"
IDEMPOTENT = ("GET", "HEAD")


def _ignore(size: int) -> None:
    pass


class EngineResponse(requests.Response):
    """A response from an engine, whose JSON is decoded within the limits for untrusted documents."""

    adapter: "EngineAdapter"

    def json(self, **kwargs: Any) -> Any:
        """Decode the body in the memory.workshop, which this thread keeps until EngineAdapter.forget().

        :raises ValueError: if the body is not JSON; the docker library then uses the body as the error message.
        """
        self.adapter.announce(len(self.content))
        self.adapter.enter_workshop()
        return decode_json(self.content)


class EngineAdapter(BaseAdapter):
    """Carries requests over one stream and keeps the stream for the next request. For one thread at a time.

    :param most_bytes: length of the longest answer.
    :param budget: the memory that answers are charged to.
    :ivar announce: called with the length of a JSON document before it is decoded.
    :ivar make_sink: makes the sink for the body of the next successful answer; None: the answer has the body.
    :ivar sink: the sink that received the last answer.
    """

    def __init__(self, connection: Connection, most_bytes: int, budget: memory.Budget) -> None:
        super().__init__()
        self._connection = connection
        self._most_bytes = most_bytes
        self._claim = budget.claim(connection.address or str(id(connection)), connection.hang_up)
        self._in_workshop = False
        self.announce: Callable[[int], None] = _ignore
        self.make_sink: Optional[Callable[[], Sink]] = None
        self.sink: Optional[Sink] = None
        self._stream: Optional[EngineStream] = None

    def send(self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, verify: Any = True,
             cert: Any = None, proxies: Any = None) -> requests.Response:
        """Send a request of the requests library and return the response.

        :param timeout: seconds for the whole exchange.
        :raises XSContainerError: as ``exchange`` and Connection.open_stream.
        """
        body: Any = request.body
        headers: Any = request.headers
        content = body.encode("utf-8") if isinstance(body, str) else body
        answer = self.ask(request.method or "", request.path_url, content, headers, float(timeout))
        response = _response(request, answer)
        response.adapter = self
        return response

    def ask(self, method: str, path: str, body: Optional[bytes], headers: "Mapping[str, str]",
            timeout: float) -> Answer:
        """Send a request without the requests library; parameters and errors as for :meth:`send`."""
        deadline = time.monotonic() + timeout
        reused = self._have_stream(deadline)
        try:
            return self._exchange(method, path, body, headers, deadline)
        except EngineLost:
            # The engine may have closed the idle stream just before, without having read the request.
            if not reused or method not in IDEMPOTENT:
                raise
            self._have_stream(deadline)
            return self._exchange(method, path, body, headers, deadline)

    def _have_stream(self, deadline: float) -> bool:
        """Open a stream if no usable one is kept; return whether the stream has carried a request before."""
        if self._stream is not None and self._stream.stale:
            self.close()
        if self._stream is not None:
            return True
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise EngineTimeout("The engine did not answer in time.")
        self._stream = self._connection.open_stream(remaining)
        return False

    def _exchange(self, method: str, path: str, body: Optional[bytes], headers: "Mapping[str, str]",
                  deadline: float) -> Answer:
        stream, self._stream = self._stream, None
        if stream is None:
            raise TransportLost("The connection to the VM was closed.")
        stream.deadline = deadline
        stream.set_idle(False)
        self.sink = self.make_sink() if self.make_sink else None
        try:
            answer = exchange(stream, method, path, body, headers, Bounds(self._most_bytes, self._claim.set, self.sink))
        except XSContainerError as error:
            stream.close()
            if self._claim.lost and not isinstance(error, MemoryBusy):
                raise MemoryBusy("The engine's answer was dropped: other VMs needed the memory.") from error
            raise
        except BaseException:
            stream.close()
            raise
        if answer.keep:
            stream.set_idle(True)
            self._stream = stream
        else:
            stream.close()
        return answer

    @property
    def idle(self) -> bool:
        """True if the adapter keeps a stream that can carry a request."""
        return self._stream is not None and not self._stream.stale

    def forget(self) -> None:
        """Release the memory of the last answer, and the memory.workshop."""
        self.sink, self.announce = None, _ignore
        self._claim.release()
        if self._in_workshop:
            self._in_workshop = False
            memory.workshop.release()

    def enter_workshop(self) -> None:
        """Enter the memory.workshop until forget(); only for the thread that uses the adapter."""
        if not self._in_workshop:
            memory.workshop.acquire()
            self._in_workshop = True

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def _response(request: requests.PreparedRequest, answer: Answer) -> EngineResponse:
    response = EngineResponse()
    response.request = request
    response.url = request.url or ""
    response.status_code = answer.status
    response.reason = answer.reason
    response.headers = CaseInsensitiveDict(answer.headers)
    # Without an encoding requests runs a character set detection over the whole body, which takes seconds.
    response.encoding = "utf-8"
    response._content, response._content_consumed = answer.body, True
    return response
