"""From a decoded request to a handler: sessions, roles, parameters, tasks of Async calls, in XAPI's order."""

import logging
from typing import TYPE_CHECKING, Any, Callable, Dict, List

from . import (
    events,
    generic,
    hosts,
    lifecycle,
    messages,
    networks,
    plugins,
    secrets,
    sessions,
    storage,
    tasks,
    templates,
    vbds,
    vdis,
    vms,
)
from .datamodel import Method, Model
from .decode import Request
from .failures import Dropped, HttpError, XapiError, internal
from .rbac import check, required

if TYPE_CHECKING:
    from .host import SimHost
    from .pool import Pool

log = logging.getLogger(__name__)
Handler = Callable[..., Any]
HANDLERS: Dict[str, Handler] = {}
_MODULES = (
    events, hosts, lifecycle, messages, networks, plugins, secrets,
    sessions, storage, tasks, templates, vbds, vdis, vms,
)
for _module in _MODULES:
    HANDLERS.update(_module.HANDLERS)
_PREFIXES = ("Async.", "InternalAsync.")


class BareList(list):
    """An answer that XML-RPC sends without XAPI's envelope."""


class Call:
    """One call while it is served: whose it is, where it came in, and the pool it works on."""

    __slots__ = ("pool", "host", "local", "session", "method", "task", "life")

    def __init__(self, pool: "Pool", host: "SimHost", local: bool, method: str) -> None:
        self.pool = pool
        self.host = host
        self.local = local
        self.method = method
        self.session: Any = None
        self.task = ""
        self.life = host.life

    @property
    def originator(self) -> str:
        """The originator of the caller's session, "" before the login."""
        return self.session.originator if self.session else ""

    def serving(self) -> bool:
        """False once the host's xapi that took the call, or the coordinator's, is no more."""
        return self.host.life == self.life and self.host.up and self.pool.coordinator.up


def _miscounted(method: Method, given: int) -> XapiError:
    return XapiError("MESSAGE_PARAMETER_COUNT_MISMATCH", method.name, str(method.minimum), str(given))


class Dispatcher:
    """Serves the calls of all hosts of a pool."""

    def __init__(self, pool: "Pool", model: Model) -> None:
        self._pool = pool
        self._model = model
        self._spelled = {name: name for name in model.methods}
        self._spelled.update({name.replace(".", "_"): name for name in model.methods})
        self._resolved: Dict[str, Handler] = {}

    def serve(self, host: "SimHost", request: Request, local: bool, size: int) -> Any:
        """The value that the call returns; raises XapiError. `size` is that of the request's body."""
        call = Call(self._pool, host, local, request.method)
        try:
            return self._serve(call, request)
        finally:
            self._pool.stats.count(request.method, call.originator, size)

    def _serve(self, call: Call, request: Request) -> Any:
        spelled, params = request.method, request.params
        if spelled == "system.listMethods":
            return BareList(self._model.method_names)
        asynchronous = spelled.startswith(_PREFIXES)
        bare = spelled.partition(".")[2] if asynchronous else spelled
        name = self._spelled.get(bare)
        method = self._model.methods[name] if name else None
        if not call.host.is_coordinator:
            if not call.local and bare != "session.slave_local_login_with_password":
                raise XapiError("HOST_IS_SLAVE", self._pool.coordinator.address)
            self._pool.wait_for_coordinator(call)
        if method is None:
            self._unknown(call, spelled, params)
            return None
        if method.session:
            self._enter(call, method, params)
            params = params[1:]
        permission = required(self._model, method, bare, params)
        checked = self._check(method, params)
        if asynchronous:
            lose = self._pool.faults.apply(spelled, others=False)
            task = tasks.run_async(call, spelled, lambda: self._run(call, method, permission, checked))
            if lose:
                raise Dropped()
            return task
        return self._run(call, method, permission, checked)

    def _unknown(self, call: Call, spelled: str, params: List[Any]) -> None:
        if params and isinstance(params[0], str):
            call.session = self._pool.sessions.find(params[0])
            if call.session.role is not None:
                # XAPI takes it for an extension's method, and asks for a permission that the session cannot have.
                raise XapiError("RBAC_PERMISSION_DENIED", "host.call_extension", "no session in context")
        raise XapiError("MESSAGE_METHOD_UNKNOWN", spelled)

    def _enter(self, call: Call, method: Method, params: List[Any]) -> None:
        if not params:
            # XAPI counts without the session, also where it is missing.
            raise _miscounted(method, -1)
        self._model.types.checker("string")(params[0])
        call.session = self._pool.sessions.find(params[0])

    def _check(self, method: Method, params: List[Any]) -> List[Any]:
        checkers = method.checkers
        if checkers is None:
            return params
        if len(params) < method.minimum or (len(params) > len(checkers) and method.minimum == len(checkers)):
            raise _miscounted(method, len(params))
        return [checker(value) for checker, value in zip(checkers, params)]

    def _run(self, call: Call, method: Method, permission: str, params: List[Any]) -> Any:
        if call.session is not None:
            if method.internal:
                raise XapiError(
                    "INTERNAL_ERROR",
                    'Internal API "{}" call attempted with non-pool (external) session'.format(method.name),
                )
            if call.session.role is not None:
                check(self._model, call.session.role, permission)
        if method.removed:
            raise XapiError("MESSAGE_REMOVED")
        lose = self._pool.faults.apply(method.name)
        handler = self._resolved.get(method.name)
        if handler is None:
            handler = HANDLERS.get(method.name) or generic.handler(self._model, method)
            self._resolved[method.name] = handler
        try:
            value = handler(call, *params)
        except (XapiError, HttpError, Dropped):
            raise
        except Exception as error:
            log.exception("%s failed", method.name)
            raise internal(repr(error)) from error
        if lose:
            raise Dropped()
        return value
