"""All verbs by name: the functions of the plugin."""

from typing import Dict

from xscontainer.core.verb import Verb
from xscontainer.verbs import (
    containers,
    create,
    diagnose,
    drives,
    events,
    hostkeys,
    key_rotation,
    logs,
    prepare,
    registration,
    stats,
    summary,
    unprepare,
)

FAMILIES = (containers, logs, stats, events, summary, registration, diagnose, prepare, unprepare, hostkeys,
            key_rotation, drives, create)

VERBS: "Dict[str, Verb]" = {verb.name: verb for family in FAMILIES for verb in family.VERBS}
