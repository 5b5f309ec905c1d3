"""XAPI's data model at run time: classes, fields, methods, permissions (from datamodel.json, made by extract.py)."""

import json
import os
from functools import lru_cache
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from xscontainer.simulator.xapi.wire.values import Time, Types

ROLES = ("pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator", "read-only")
# How XAPI orders roles when it refuses a call.
ROLE_ORDER = ("vm-power-admin", "vm-admin", "vm-operator", "read-only", "pool-admin", "pool-operator")
# Methods whose last parameters are optional: the number of required ones after the session.
_OPTIONAL = {"session.login_with_password": 2, "VM.snapshot": 2}


class Field(NamedTuple):
    """A field of a class; `default` is None where the creator of a record must give a value."""

    name: str
    kind: str
    default: Any
    writable: bool
    given: bool


class Method(NamedTuple):
    """A method as the dispatcher needs it; `checkers` is None where its parameters are not known."""

    name: str
    cls: str
    verb: str
    checkers: Optional[List[Callable[[Any], Any]]]
    minimum: int
    removed: bool
    session: bool
    permission: str
    internal: bool


class Class:
    """One class: its fields in XAPI's order and the values a new record starts from."""

    def __init__(self, name: str, fields: List[Field], types: Types) -> None:
        self.name = name
        self.lower = name.lower()
        self.fields = {f.name: f for f in fields}
        self.checkers = {f.name: types.checker(f.kind) for f in fields}
        self._start: Dict[str, Any] = {}
        for field in fields:
            value = types.zero(field.kind) if field.default is None else field.default
            self._start[field.name] = Time(value) if field.kind == "datetime" else value

    def new_values(self) -> Dict[str, Any]:
        """Return every field with its default. Sets and maps are shared: replace them, never change them in place."""
        return dict(self._start)


class Model:
    """The whole data model; use load()."""

    def __init__(self, data: Dict[str, Any]) -> None:
        self.types = Types(data["enums"])
        self.enums: Dict[str, List[str]] = data["enums"]
        self.errors: FrozenSet[str] = frozenset(data["errors"])
        self.counted: List[str] = data["counted"]
        self.records: Dict[str, Dict[str, Any]] = data["records"]
        self.method_names: List[str] = data["methods"]
        self.roles: Dict[str, FrozenSet[str]] = {
            name: frozenset(roles) for name, roles in data["permissions"] if name not in ROLES
        }
        self.keyed: Dict[str, List[Tuple[str, str]]] = {}
        for name in self.roles:
            base, mark, key = name.partition("/key:")
            if mark:
                self.keyed.setdefault(base, []).append((key, name))
        self.classes: Dict[str, Class] = {}
        self.methods: Dict[str, Method] = {}
        for name, content in data["classes"].items():
            fields = [Field(n, k, d, q == "RW", q != "RO/runtime") for n, k, d, q in content["fields"]]
            self.classes[name] = Class(name, fields, self.types)
            for verb, (params, _result, flags) in content["messages"].items():
                self._add_method(name, verb, params, flags)
        self.by_lower = {c.lower: c for c in self.classes.values()}

    def _add_method(self, cls: str, verb: str, params: Optional[List[List[str]]], flags: str) -> None:
        name = "{}.{}".format(cls, verb)
        checkers = None if params is None else [self.types.checker(kind) for _name, kind in params]
        permission = name.lower()
        minimum = _OPTIONAL.get(name, len(checkers or ()))
        self.methods[name] = Method(
            name,
            cls,
            verb,
            checkers,
            minimum,
            "r" in flags,
            "n" not in flags,
            permission,
            permission not in self.roles and "n" not in flags,
        )

    def permissions_of(self, role: str) -> List[str]:
        """Return what session.rbac_permissions lists for a session with `role` only."""
        return [name for name, roles in self.roles.items() if role in roles] + [role]


@lru_cache(maxsize=1)
def load() -> Model:
    """Return the data model, which is read once."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "datamodel.json"), encoding="utf-8") as stream:
        return Model(json.load(stream))
