"""A few subcommands of ``xe`` for a shell beside the pool: ``python -m xscontainer.simulator.demo.xe SOCKET ...``.

Command lines of the documentation that call ``xe`` work with it as on a host. It knows host-call-plugin, host-list,
vm-list, vm-param-get, vm-param-set and vm-param-remove, with the arguments that the documentation uses, and refuses all
others.
"""

import sys
from typing import Callable, Dict, List

from xscontainer.errors import XapiError
from xscontainer.xapi.session import Session

SECONDS = 120.0


class Wrong(Exception):
    """A subcommand or an argument that this stand-in does not know; the text is for a person."""


def host_call_plugin(session: Session, given: Dict[str, str]) -> str:
    """Call a function of a plugin and return what it answers."""
    arguments = {name[len("args:"):]: given.pop(name) for name in sorted(given) if name.startswith("args:")}
    host = session.xenapi.host.get_by_uuid(given.pop("host-uuid"))
    plugin, function = given.pop("plugin"), given.pop("fn")
    return str(session.xenapi.host.call_plugin(host, plugin, function, arguments))


def host_list(session: Session, given: Dict[str, str]) -> str:
    return _minimal(session.xenapi.host.get_all_records(), given)


def vm_list(session: Session, given: Dict[str, str]) -> str:
    records = session.xenapi.VM.get_all_records()
    return _minimal({ref: record for ref, record in records.items()
                     if not record["is_a_template"] and not record["is_a_snapshot"]}, given)


def _minimal(records: Dict[str, Dict[str, str]], given: Dict[str, str]) -> str:
    """Return the uuids of the objects whose fields are as given, separated by commas."""
    if given.pop("--minimal", None) is None:
        raise Wrong("this stand-in for xe lists with --minimal only")
    wanted = {field.replace("-", "_"): given.pop(field) for field in ("uuid", "name-label") if field in given}
    return ",".join(sorted(str(record["uuid"]) for record in records.values()
                           if all(record[field] == value for field, value in wanted.items())))


def vm_param_get(session: Session, given: Dict[str, str]) -> str:
    """Return one value of a VM's other_config."""
    vm = session.xenapi.VM.get_by_uuid(given.pop("uuid"))
    _is_other_config(given.pop("param-name"))
    key = given.pop("param-key")
    other_config = session.xenapi.VM.get_other_config(vm)
    if key not in other_config:
        raise Wrong(f"Error: Key {key} not found in map")
    return str(other_config[key])


def vm_param_set(session: Session, given: Dict[str, str]) -> str:
    """Set values of a VM's other_config."""
    vm = session.xenapi.VM.get_by_uuid(given.pop("uuid"))
    for name in [name for name in given if name.startswith("other-config:")]:
        key, value = name[len("other-config:"):], given.pop(name)
        session.xenapi.VM.remove_from_other_config(vm, key)
        session.xenapi.VM.add_to_other_config(vm, key, value)
    return ""


def vm_param_remove(session: Session, given: Dict[str, str]) -> str:
    """Remove one value of a VM's other_config."""
    vm = session.xenapi.VM.get_by_uuid(given.pop("uuid"))
    _is_other_config(given.pop("param-name"))
    session.xenapi.VM.remove_from_other_config(vm, given.pop("param-key"))
    return ""


def _is_other_config(name: str) -> None:
    if name != "other-config":
        raise Wrong(f"this stand-in for xe knows no parameter {name}")


COMMANDS: Dict[str, Callable[[Session, Dict[str, str]], str]] = {
    "host-call-plugin": host_call_plugin,
    "host-list": host_list,
    "vm-list": vm_list,
    "vm-param-get": vm_param_get,
    "vm-param-set": vm_param_set,
    "vm-param-remove": vm_param_remove,
}


def main(arguments: List[str]) -> int:
    """Return the exit code: 0 done, 1 for an error, as xe has it."""
    socket_path, name, words = arguments[0], (arguments[1:2] or [""])[0], arguments[2:]
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    session = Session.login(socket_path, "xe", SECONDS, 10.0)
    try:
        if name not in COMMANDS:
            raise Wrong(f"this stand-in for xe knows no command {name!r}: {', '.join(COMMANDS)}")
        answer = COMMANDS[name](session, given)
        if given:
            raise Wrong(f"{name}: unknown arguments: {', '.join(given)}")
    except Wrong as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyError as error:
        sys.stderr.write(f"Required parameter not found: {error.args[0]}\n")
        return 1
    except XapiError as error:
        code, *parameters = error.details or [error.code, str(error)]
        sys.stderr.write(f"Error code: {code}\nError parameters: {', '.join(parameters)}\n")
        return 1
    finally:
        session.logout()
    if answer:
        print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
