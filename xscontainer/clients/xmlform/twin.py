"""Write containers and facts as plain lists and dicts, for JSON."""

from typing import Any, Sequence, Union

from xscontainer.core.container import Container
from xscontainer.core.engine_facts import EngineInfo, EngineVersion
from xscontainer.core.groups import NO_GROUP


def as_json(value: Union[Container, EngineInfo, EngineVersion, Sequence[Container]]) -> Any:
    """Return these facts as plain lists and dicts, for ``json.dumps``."""
    if isinstance(value, EngineInfo):
        return dict(value._asdict(), labels=list(value.labels))
    if isinstance(value, EngineVersion):
        return dict(value._asdict())
    if not isinstance(value, Container):
        return [as_json(container) for container in value]
    fields = dict(value._asdict(), status=value.status, actions=list(value.actions), reason=value.reason)
    del fields["uptime"]
    fields["group"] = None if value.group == NO_GROUP else dict(value.group._asdict())
    for name in ("ports", "networks", "mounts"):
        fields[name] = None if fields[name] is None else [dict(item._asdict()) for item in fields[name]]
    return fields
