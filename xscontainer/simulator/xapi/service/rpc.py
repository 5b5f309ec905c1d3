"""A call's way from the body of an HTTP request to the body of its answer."""

from xscontainer.simulator.xapi.service.dispatch import BareList, Dispatcher
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.wire.decode import invalid_utf8, json_call, xml_call
from xscontainer.simulator.xapi.wire.encode import json_failure, json_success, xml_bare, xml_failure, xml_success
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.http_server import Answer, HttpRequest


def respond(dispatcher: Dispatcher, host: HostData, request: HttpRequest) -> Answer:
    """Serve one call that came in at ``host``, in XML-RPC or at /jsonrpc in JSON-RPC."""
    if request.path == "/jsonrpc":
        return _json(dispatcher, host, request)
    call = xml_call(request.body)
    try:
        value = dispatcher.serve(host, call, request.local, len(request.body))
    except XapiError as failed:
        return Answer(200, "text/xml", xml_failure(failed.description))
    return Answer(200, "text/xml", xml_bare(list(value)) if isinstance(value, BareList) else xml_success(value))


def _json(dispatcher: Dispatcher, host: HostData, request: HttpRequest) -> Answer:
    call = json_call(request.body)
    bad = invalid_utf8(call.params)
    if bad is not None:
        body = '{{"jsonrpc":"2.0","error":["INVALID_VALUE","Invalid UTF-8 string in parameter","S({})"],"id":0}}'
        return Answer(200, "application/json", body.format(bad).encode("utf-8", "surrogateescape"))
    try:
        value = dispatcher.serve(host, call, request.local, len(request.body))
    except XapiError as failed:
        return Answer(200, "application/json", json_failure(call.version, call.identity, failed.description))
    if isinstance(value, BareList):
        value = list(value)
    return Answer(200, "application/json", json_success(call.version, call.identity, value))
