"""Reading calls and writing replies, without XAPI and without an engine."""

import re
import xmlrpc.client
from typing import Any, Dict, List, Type

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.plugin.process import call, decode
from tests.plugin.verbs import made
from xscontainer import errors, keys
from xscontainer.access.opener import require_running_here
from xscontainer.core import wire
from xscontainer.core.verb import Verb
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.engine.calls import DEFAULT_LIMITS
from xscontainer.errors import ArgumentError, ObjectGone, VMNotRunning, XapiError, XSContainerError
from xscontainer.plugin import dispatch, routing
from xscontainer.plugin.admission import Unlimited
from xscontainer.plugin.forward import REPLY_TIMEOUT
from xscontainer.settings import Settings
from xscontainer.verbs.table import VERBS

VM = "4a1b2c3d-0000-4000-8000-123456789abc"
LEGAL = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*\\Z")


class NoContext:
    """For calls that must be answered before anything is asked of the world."""

    admission = Unlimited()


NOWHERE: Any = NoContext()
ECHO = {"echo": made("echo", lambda context, **arguments: "True" + arguments["text"], "text")}


def answer(argument: bytes, verbs: Dict[str, Verb] = VERBS) -> Dict[str, Any]:
    return decode(dispatch.handle(argument, NOWHERE, verbs))


def refused(function: str, **arguments: str) -> str:
    reply = answer(call(function, **arguments))
    assert reply["Status"] == "Failure"
    code, sentence = reply["ErrorDescription"]
    assert code == ArgumentError.code
    return sentence


# --- any bytes ----------------------------------------------------------------------------------


@given(st.binary(max_size=200))
@example(b"")
@example(b"<methodCall/>")
@example(b"<?xml version='1.0' encoding='utf-16'?><methodCall><methodName>x</methodName></methodCall>")
@example("<methodCall><methodName>start</methodName></methodCall>".encode("utf-16"))
@example(b"<methodResponse><fault><value><struct></struct></value></fault></methodResponse>")
@example(b"<methodCall><methodName>start</methodName><params></methodCall>")
@example(b"<methodCall><methodName>start</methodName><params><param><value><int>x</int></value></param></params></methodCall>")
@example(b"<methodCall><methodName></methodName><params></params></methodCall>")
@example(b"<a>" * 30000)
@example(b"<value><array><data>" * 6000)
def test_any_bytes_get_a_well_formed_failure(argument: bytes) -> None:
    assert answer(argument)["Status"] == "Failure"


markup = st.lists(st.sampled_from([
    "<methodCall>", "</methodCall>", "<methodName>", "</methodName>", "start", "echo", "<params>", "</params>",
    "<param>", "</param>", "<value>", "</value>", "<struct>", "</struct>",
    "<member>", "</member>", "<name>", "</name>",
    "vmuuid", VM, "<array><data>", "</data></array>", "<int>", "</int>", "7", "<string>", "</string>", "<nil/>",
    "<base64>",
    "</base64>", "<boolean>", "</boolean>", "<dateTime.iso8601>", "</dateTime.iso8601>", "<double>", "</double>",
    "<bigdecimal>", "</bigdecimal>", "&amp;", "&#0;", "&x;", "<![CDATA[", "]]>", "\x00", "\x1b", "\ufffe",
    "\U0001f600", "text",
]), max_size=40).map(lambda parts: "".join(parts).encode("utf-8"))


@given(markup)
def test_any_markup_gets_a_well_formed_reply(argument: bytes) -> None:
    answer(argument, ECHO)


@given(st.text(max_size=20), st.dictionaries(st.text(max_size=10), st.text(max_size=30), max_size=4))
def test_any_function_and_arguments_get_a_well_formed_reply(function: str, arguments: Dict[str, str]) -> None:
    argument = xmlrpc.client.dumps(("OpaqueRef:x", arguments), function).encode("utf-8", "surrogatepass")
    assert answer(argument)["Status"] == "Failure"


def test_a_growing_entity_is_refused_unread() -> None:
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 9))
    text = (f"<!DOCTYPE methodCall [<!ENTITY e0 'grows'>{entities}]><methodCall><methodName>&e8;</methodName>"
            "<params></params></methodCall>")
    assert "document type" in decode(dispatch.handle(text.encode(), NOWHERE))["ErrorDescription"][1]
    assert answer(text.encode("utf-16"))["Status"] == "Failure"


# --- any value ----------------------------------------------------------------------------------


odd = st.characters(whitelist_categories=["Cc", "Cs", "Cn"], whitelist_characters="<&>]\r\n\ufffe\uffff")


@given(st.text() | st.text(odd))
@example("\x1b[31m\x00 a\r\nb\r ]]> &amp; <b/> \ud83d \ufffe \U0001f600 \U0010ffff")
def test_any_result_arrives_unchanged_except_for_characters_that_xml_forbids(value: str) -> None:
    reply = wire.success("True" + value)
    assert LEGAL.match(reply.decode("utf-8"))
    expected = "".join(character if LEGAL.match(character) else "\ufffd" for character in value)
    assert decode(reply) == {"Status": "Success", "Value": "True" + expected}


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_error_description_arrives_unchanged_except_for_characters_that_xml_forbids(description: List[str]) -> None:
    reply = wire.failure(["CODE", *description])
    assert LEGAL.match(reply.decode("utf-8"))
    expected = ["".join(c if LEGAL.match(c) else "\ufffd" for c in part) for part in description]
    assert decode(reply)["ErrorDescription"] == ["CODE", *expected]


@pytest.mark.parametrize("text", ["", " ", "h\u00e9", "\u4f60\u597d", "\U0001f600", "a\nb\tc", "<&>]]>'\"",
                                  "x" * 120000])
def test_any_argument_arrives_unchanged(text: str) -> None:
    assert answer(call("echo", text=text), ECHO) == {"Status": "Success", "Value": "True" + text}


def test_control_characters_in_an_argument_do_no_harm() -> None:
    """Through JSON-RPC XAPI accepts them, and writes them raw into the plugin's XML."""
    argument = call("echo", text="a\x1bb\x00c")
    assert b"\x1b" in argument
    assert answer(argument, ECHO)["Value"] == "Truea\ufffdb\ufffdc"


def test_xapis_own_spelling_is_read() -> None:
    """Untyped values, as recorded from xapi 26.1.4."""
    argument = ("<methodCall><methodName>echo</methodName><params><param><value>OpaqueRef:1</value></param><param>"
                "<value><struct><member><name>text</name><value>v</value></member></struct></value></param>"
                "</params></methodCall>")
    assert answer(argument.encode(), ECHO)["Value"] == "Truev"


# --- checks -------------------------------------------------------------------------------------


def test_the_functions_are_those_of_the_contract() -> None:
    on_container = dict.fromkeys(("start", "stop", "restart", "pause", "unpause"), ("vmuuid", "container"))
    on_object = dict.fromkeys(("get_inspect", "get_top"), ("vmuuid", "object"))
    on_vm = dict.fromkeys(("register", "deregister"), ("vmuuid",))
    drives = {"get_config_drive_default": ("templateuuid",), "get_config_drive_configuration": ("vdiuuid",),
              "create_config_drive": ("vmuuid", "sruuid", "configuration")}
    contract: Dict[str, Any] = {**on_container, **on_object, **on_vm, **drives}
    assert {name: verb.required for name, verb in VERBS.items() if name in contract} == contract


@pytest.mark.parametrize("name", ["nonesuch", "START", "start ", "__init__", "<b>&", "\u00e9", "x" * 100])
def test_an_unknown_function_is_named(name: str) -> None:
    assert answer(call(xmlrpc.client.escape(name)))["ErrorDescription"] == ["UNKNOWN_XENAPI_PLUGIN_FUNCTION", name]


@pytest.mark.parametrize("function", sorted(VERBS))
def test_every_argument_of_every_function_is_needed(function: str) -> None:
    full = {"vmuuid": VM, "container": "web", "object": "web", "sruuid": VM, "vdiuuid": VM, "templateuuid": VM,
            "networkuuid": VM, "name": "x", "configuration": "x", "fingerprint": "SHA256:" + "x" * 43}
    for name in VERBS[function].required:
        given_ = {key: value for key, value in full.items() if key != name}
        assert f"'{name}'" in refused(function, **given_)


def test_a_password_in_a_uuids_place_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        assert "hunter2" not in refused("prepare", vmuuid=VM, passwordsecret="hunter2")
    assert "passwordsecret" in caplog.text and "hunter2" not in caplog.text


@pytest.mark.parametrize("argument, logged", [
    (call("start", vmuuid="no uuid", container="web"), "plugin: start failed: \"ARGUMENT_INVALID"),
    (call("nonesuch", vmuuid=VM), "plugin: nonesuch failed: 'UNKNOWN_XENAPI_PLUGIN_FUNCTION"),
    (call("start").replace(b"<string>", b"<int>"), "plugin: start failed: \"ARGUMENT_INVALID"),
    (b"no call", "plugin: a call failed: \"ARGUMENT_INVALID")], ids=range(4))
def test_a_refused_call_is_logged_with_its_function(caplog: pytest.LogCaptureFixture, argument: bytes,
                                                    logged: str) -> None:
    answer(argument)
    assert logged in caplog.text


@pytest.mark.parametrize("power_state, hint", [
    ("Halted", "Start the VM first."), ("Suspended", "Resume the VM first."), ("Paused", "Unpause the VM first.")])
def test_the_error_for_a_vm_that_does_not_run_says_how_to_start_it(power_state: str, hint: str) -> None:
    vm = VMRecord("ref", VM, "web", power_state, NULL_REF, -1, NULL_REF, {keys.MONITOR: "True"}, True)
    error = routing._hindrance(vm)
    assert error is not None and error.code == "VM_NOT_RUNNING" and str(error).endswith(hint)
    with pytest.raises(VMNotRunning) as caught:
        require_running_here(vm, "here")
    assert str(caught.value) == str(error)


@pytest.mark.parametrize("arguments", [{"finish": "no"}, {"finish": "yes", "force": "status"}, {"force": ""}])
def test_a_switch_is_on_or_absent(arguments: Dict[str, str]) -> None:
    assert "must be yes" in refused("key_rotate", **arguments)


@pytest.mark.parametrize("container", [
    "a" * 64, "0123456789ab", "0123456789", "web", "Web_1.2-x", "9", "x" * 255,
])
def test_ids_short_ids_and_names_are_accepted(container: str) -> None:
    read = dispatch.read_call(call("start", vmuuid=VM, container=container), VERBS)
    assert read.arguments == {"vmuuid": VM, "container": container}


@pytest.mark.parametrize("container", [
    "", " ", "-x", "--help", ".", "..", "../etc", "/web", "a/b", "a b", "a\n", "a\x00", "a;b", "$(x)", "a%2f",
    "\u00e9", "\u0661", "x" * 256, "_x", "a?b=c", "a#b",
])
@pytest.mark.parametrize("function", ["start", "get_inspect"])
def test_a_container_name_that_looks_like_an_option_or_a_path_is_refused(function: str, container: str) -> None:
    sentence = refused(function, vmuuid=VM, container=container, object=container)
    assert "id or name" in sentence and len(sentence) < 400


@pytest.mark.parametrize("uuid", ["", "x", VM[:-1], VM + "0", VM + "\n0", VM.replace("-", ""), "OpaqueRef:NULL",
                                  "../" + VM])
def test_a_malformed_uuid_is_refused(uuid: str) -> None:
    assert "uuid" in refused("register", vmuuid=uuid)


def test_a_uuid_may_be_written_in_capitals() -> None:
    assert dispatch.read_call(call("register", vmuuid=VM.upper()), VERBS).arguments == {"vmuuid": VM}


def test_unknown_arguments_are_ignored() -> None:
    read = dispatch.read_call(call("register", vmuuid=VM, newer="thing", container="-"), VERBS)
    assert read.arguments == {"vmuuid": VM}


@pytest.mark.parametrize("hops", ["", "x", "-1", "10", "1.0", "\u0661"])
def test_a_malformed_hop_count_is_refused(hops: str) -> None:
    argument = xmlrpc.client.dumps(("x", {"vmuuid": VM, wire.HOPS: hops}), "register").encode()
    assert answer(argument)["ErrorDescription"][0] == ArgumentError.code


@pytest.mark.parametrize("value", [1, True, 1.5, None, ["a"], {"a": "b"}, b"binary"])
def test_values_that_are_not_strings_are_refused(value: Any) -> None:
    argument = xmlrpc.client.dumps(("x", {"vmuuid": value}), "register", allow_none=True).encode()
    assert answer(argument)["ErrorDescription"][0] == ArgumentError.code


@pytest.mark.parametrize("parameters", [(), ("x",), ("x", "y"), ("x", {}, {}), ({}, "x")])
def test_other_parameters_than_a_session_and_a_map_are_refused(parameters: Any) -> None:
    argument = xmlrpc.client.dumps(parameters, "register").encode()
    assert answer(argument)["ErrorDescription"][0] == ArgumentError.code


@pytest.mark.parametrize("function", sorted(VERBS))
def test_a_call_to_another_host_outlasts_what_the_engine_may_take(function: str) -> None:
    settings = Settings()
    longest = settings.engine.request_timeout + (DEFAULT_LIMITS.stop_seconds if function in ("stop", "restart") else 0)
    assert routing.longest_action(VERBS[function], settings) > settings.guest.longest_connect + longest
    assert routing.longest_action(VERBS[function], settings) < REPLY_TIMEOUT


# --- errors -------------------------------------------------------------------------------------


def subclasses(root: Type[XSContainerError]) -> List[Type[XSContainerError]]:
    return [root] + [found for child in root.__subclasses__() for found in subclasses(child)]


@pytest.mark.parametrize("kind", [kind for kind in subclasses(XSContainerError)
                                  if kind.__module__.startswith(errors.__name__)])
def test_an_error_of_ours_is_its_code_and_a_sentence(kind: Type[XSContainerError]) -> None:
    def fail(context: Any, text: str) -> str:
        raise kind("The sky fell.")

    code, sentence = answer(call("fail", text=""), {"fail": made("fail", fail, "text")})["ErrorDescription"]
    assert code == kind.code
    assert sentence.startswith("The sky fell.")


def test_a_failure_of_xapi_keeps_its_code_and_parameters() -> None:
    def fail(context: Any, text: str) -> str:
        raise XapiError("XAPI refused.", details=["SR_FULL", "10", ""])

    description = answer(call("fail", text=""), {"fail": made("fail", fail, "text")})["ErrorDescription"]
    assert description == ["SR_FULL", "10", ""]


def test_an_object_that_is_not_there_is_named() -> None:
    def fail(context: Any, text: str) -> str:
        raise ObjectGone("XAPI refused.", details=["UUID_INVALID", "VM", VM])

    assert answer(call("fail", text=""), {"fail": made("fail", fail, "text")})["ErrorDescription"] == [
        "OBJECT_GONE", f"There is no VM with the uuid {VM}."]


@pytest.mark.parametrize("error", [KeyError("x"), ValueError(), RecursionError("deep"),
                                   UnicodeDecodeError("a", b"", 0, 1, "b")])
def test_an_unexpected_error_is_reported_without_pythons_words(error: Exception) -> None:
    def fail(context: Any, text: str) -> str:
        raise error

    description = answer(call("fail", text=""), {"fail": made("fail", fail, "text")})["ErrorDescription"]
    assert description[:3] == ["XENAPI_PLUGIN_FAILURE", "fail", "XSCONTAINER_ERROR"]
    assert "log of xscontainer-monitor" in description[3]
    assert type(error).__name__ not in " ".join(description)
