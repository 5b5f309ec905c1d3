"""Access rights: the roles, and the keys of maps that have rules of their own."""

from typing import Any, List, Optional

from xscontainer.simulator.xapi.database.datamodel import ROLE_ORDER, Method, Model
from xscontainer.simulator.xapi.wire.failures import XapiError


def required(model: Model, method: Method, spelled: str, params: List[Any]) -> str:
    """Return the permission that a call needs; `spelled` is the method's name as it was sent."""
    if spelled != method.name:
        return spelled.lower()
    if method.permission in model.keyed and len(params) > 1 and isinstance(params[1], str):
        key = params[1].lower()
        for pattern, permission in model.keyed[method.permission]:
            if key == pattern or (pattern.endswith("*") and key.startswith(pattern[:-1])):
                return permission
    return method.permission


def denied(model: Model, permission: str) -> XapiError:
    """Return the refusal of a call that needs `permission`."""
    roles = model.roles.get(permission, frozenset())
    names = ", ".join(role for role in ROLE_ORDER if role in roles)
    return XapiError(
        "RBAC_PERMISSION_DENIED",
        permission,
        "No permission in user session. (Roles with this permission: {})".format(names),
    )


def check(model: Model, role: Optional[str], permission: str) -> None:
    """Raise RBAC_PERMISSION_DENIED unless `role` (None: a local superuser) has `permission`."""
    if role is not None and role not in model.roles.get(permission, frozenset()):
        raise denied(model, permission)
