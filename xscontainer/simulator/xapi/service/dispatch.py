"""From a decoded request to a handler: sessions, roles, parameters, tasks of Async calls, in XAPI's order."""

import logging
from typing import Any, Dict, List

from xscontainer.simulator.xapi.database.datamodel import Method, Model
from xscontainer.simulator.xapi.database.roles import check, required
from xscontainer.simulator.xapi.objects import generic, tasks
from xscontainer.simulator.xapi.service.methods import HANDLERS, Handler
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.decode import Request
from xscontainer.simulator.xapi.wire.failures import Dropped, HttpError, XapiError, internal

log = logging.getLogger(__name__)
_PREFIXES = ("Async.", "InternalAsync.")


class BareList(list):
    """An answer that XML-RPC sends without XAPI's envelope."""


def _miscounted(method: Method, given: int) -> XapiError:
    return XapiError("MESSAGE_PARAMETER_COUNT_MISMATCH", method.name, str(method.minimum), str(given))


class Dispatcher:
    """Serves the calls of all hosts of a pool."""

    def __init__(self, pool: PoolData, model: Model) -> None:
        self._pool = pool
        self._model = model
        self._spelled = {name: name for name in model.methods}
        self._spelled.update({name.replace(".", "_"): name for name in model.methods})
        self._resolved: Dict[str, Handler] = {}

    def serve(self, host: HostData, request: Request, local: bool, size: int) -> Any:
        """Serve one call and return its value. `size` is that of the request's body.

        :raises XapiError: the call fails.
        """
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
        if call.host is not self._pool.coordinator:
            if not call.local and bare != "session.slave_local_login_with_password":
                raise XapiError("HOST_IS_SLAVE", self._pool.coordinator.address)
            if not self._pool.wait_for_coordinator(call.accepted):
                raise Dropped()
        if method is None:
            self._unknown(call, spelled, params)
            return None
        if method.session:
            self._enter(call, method, params)
            params = params[1:]
        permission = required(self._model, method, bare, params)
        checked = self._check(method, params)
        if asynchronous:
            answer_lost = self._pool.faults.apply(spelled, others=False)
            task = tasks.run_async(call, spelled, lambda: self._run(call, method, permission, checked))
            if answer_lost:
                raise Dropped()
            return task
        return self._run(call, method, permission, checked)

    def _unknown(self, call: Call, spelled: str, params: List[Any]) -> None:
        if params and isinstance(params[0], str):
            call.enter(self._pool.sessions.find(params[0]))
            if call.session.role is not None:
                # XAPI takes it for an extension's method, and requires a permission that no session has.
                raise XapiError("RBAC_PERMISSION_DENIED", "host.call_extension", "no session in context")
        raise XapiError("MESSAGE_METHOD_UNKNOWN", spelled)

    def _enter(self, call: Call, method: Method, params: List[Any]) -> None:
        if not params:
            # XAPI counts the parameters without the session, even if it is missing.
            raise _miscounted(method, -1)
        self._model.types.checker("string")(params[0])
        call.enter(self._pool.sessions.find(params[0]))

    def _check(self, method: Method, params: List[Any]) -> List[Any]:
        checkers = method.checkers
        if checkers is None:
            return params
        if len(params) < method.minimum or (len(params) > len(checkers) and method.minimum == len(checkers)):
            raise _miscounted(method, len(params))
        return [checker(value) for checker, value in zip(checkers, params)]

    def _run(self, call: Call, method: Method, permission: str, params: List[Any]) -> Any:
        if not call.anonymous:
            if method.internal:
                raise XapiError(
                    "INTERNAL_ERROR",
                    'Internal API "{}" call attempted with non-pool (external) session'.format(method.name),
                )
            if call.session.role is not None:
                check(self._model, call.session.role, permission)
        if method.removed:
            raise XapiError("MESSAGE_REMOVED")
        answer_lost = self._pool.faults.apply(method.name)
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
        if answer_lost:
            raise Dropped()
        return value
