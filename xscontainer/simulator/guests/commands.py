"""The commands of a process that runs many guests, one JSON object a line; see COMMANDS."""

import resource
import time
from typing import Any, Callable, Dict, List

from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.guests.base import Guest
from xscontainer.simulator.guests.group import Guests

COMMANDS = """
{"guest": 3, "do": "pause", "container": "name"}   start stop restart kill pause unpause remove rename (name) finish
                                                   (exit_code) health (status): verbs of the engine, with its options
{"guest": 3, "do": "run", "name": "x", ...}        make a container: command, image, Labels, state, health ...
{"guest": 3, "do": "list"}                         list its containers
{"do": "authorize", "key": "ssh-rsa AAAA..."}      authorize a public key in every guest
{"guest": 3, "do": "guest-restart", "down": 1}     guest-start -stop -kill -restart -freeze -thaw -rotate
{"guest": 3, "do": "engine-restart", "down": 1}    engine-start -stop -kill -restart -freeze -thaw
{"guest": 3, "do": "guest-fault", "kind": "slow"}  switch on a fault of the guest or (engine-fault) of the engine,
                                                   with its options
{"guest": 3, "do": "guest-says", "content": "uuid"}  the content of /sys/hypervisor/uuid; null: no such file
{"guest": 3, "do": "behave"}                       switch all faults off
{"do": "stats"}                                    show requests by verb, connections, CPU seconds, memory
"""
_CONTAINER_VERBS = ("start", "stop", "restart", "kill", "pause", "unpause", "remove", "rename", "finish", "health")
_LIFE = ("start", "stop", "kill", "restart", "freeze", "thaw")


def execute(guests: Guests, command: Dict[str, Any]) -> Dict[str, Any]:
    """Do one command; return its answer, with time.monotonic() just before (``before``) and after (``after``)."""
    before = time.monotonic()
    try:
        result = _dispatch(guests, dict(command))
        answer = {"ok": True, "result": result}
    except (SimulatorError, ValueError, LookupError, TypeError) as error:
        answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return {**answer, "before": before, "after": time.monotonic()}


def _dispatch(guests: Guests, details: Dict[str, Any]) -> Any:
    verb = details.pop("do")
    if verb == "stats":
        return _stats(guests)
    if verb == "authorize":
        return guests.authorize(details["key"])
    guest = guests[details.pop("guest")]
    if verb in _CONTAINER_VERBS:
        return guest.engine.do(verb, details.pop("container"), **details)
    if verb == "run":
        return _run(guest, **details)
    if verb == "list":
        return guest.engine.list()
    if verb == "behave":
        guest.behave()
        return guest.engine.faults.clear()
    subject, _, action = verb.partition("-")
    if subject == "guest":
        return _guest(guest, action, details)
    if subject == "engine" and action in _LIFE:
        return getattr(guest.engine, action)(**details)
    if verb == "engine-fault":
        return guest.engine.faults.set(details.pop("kind"), **_bytes(details))
    raise ValueError(f"no such command: {verb}")


def _run(guest: Guest, health: str = "", **details: Any) -> str:
    container: str = guest.engine.run(**details)
    if health:
        guest.engine.do("health", container, status=health)
    return container


def _guest(guest: Guest, action: str, details: Dict[str, Any]) -> Any:
    actions: Dict[str, Callable[..., Any]] = {name: getattr(guest, name) for name in _LIFE}
    actions["rotate"] = guest.rotate_host_key
    actions["fault"] = guest.misbehave
    actions["says"] = guest.hypervisor.says
    return actions[action](**details)


def _bytes(details: Dict[str, Any]) -> Dict[str, Any]:
    return {key: value.encode("utf-8") if key == "body" else value for key, value in details.items()}


def _stats(guests: Guests) -> Dict[str, Any]:
    requests: Dict[str, int] = {}
    for guest in guests:
        for verb, count in getattr(guest.engine, "requests", {}).items():
            requests[verb] = requests.get(verb, 0) + count
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "requests": requests, "accepted": sum(guest.accepted for guest in guests),
        "sessions": sum(guest.sessions for guest in guests), "cpu": usage.ru_utime + usage.ru_stime,
        "peak_rss_kib": usage.ru_maxrss,
    }


def describe(guests: Guests) -> List[Dict[str, Any]]:
    """Return addresses and paths of all guests, for the first line of output."""
    return [
        {"guest": index, "address": guest.address, "port": guest.port, "user": guest.user,
         "host_key": guest.host_key_base64, "engine_socket": guest.engine_socket,
         "containers": [entry["Names"][0].lstrip("/") for entry in guest.engine.list()] if guest.engine else []}
        for index, guest in enumerate(guests)
    ]
