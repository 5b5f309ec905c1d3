"""A verb: a function that clients may call, with everything that is declared of it. Pure.

Each file in verbs/ ends in its rows, and verbs/table.py lists them. Dispatch, argument checks, policy, routing, the
command line and docs/api.md read the rows and declare nothing of their own.
"""

from typing import Callable, Dict, Mapping, NamedTuple, Tuple

from xscontainer.errors import ArgumentError

# Where a verb is served. The texts stand in docs/api.md.
ANY_HOST = "any host"  # it needs nothing but XAPI
ENGINE_HOST = "the VM's host"  # which alone is sure to reach the engine; the VM must run and be registered
VM_HOST = "the VM's host if it runs, else any host"  # registered or not
STORAGE_HOST = "the VM's host if it runs, else a host that the storage is attached to"

# Lanes: which workers of the daemon serve a verb, by how long its calls may take.
QUICK = "quick"  # milliseconds, if the guest and its engine are well
PATIENT = "patient"  # as long as a container takes to stop
PROBING = "probing"  # connects to the guest, which may be hung: the caller asks exactly that
READING = "reading"  # waits on purpose until there is something new, or reads much; has workers of its own
LONG = "long"  # minutes; has workers of its own


class PolicyClass(NamedTuple):
    """A class of verbs by what they reveal or change.

    The plugin's door does not look at it: XAPI lets nobody below vm-operator call a plugin, and on a member of the pool
    it does not say who calls. It is for a door that knows its callers, such as one over HTTP. That door asks a caller
    for the role of the verb's class, and for the verb's permission as the plugin's door does.

    :ivar role: the lowest role of XAPI whose callers such a door lets through by default.
    :ivar reason: why, for docs/api.md.
    """

    name: str
    role: str
    reason: str


SEE = PolicyClass("see", "read-only", "XAPI shows it, or parts of it, to every user of the pool")
READ = PolicyClass("read", "vm-operator", "logs and environment variables hold secrets")
OPERATE = PolicyClass("operate", "vm-operator", "like starting and stopping the VM")
CHANGE = PolicyClass("change", "vm-power-admin", "what is lost or replaced does not come back by itself")
ROOT = PolicyClass("root", "pool-admin", "gives root in guests")
CLASSES = (SEE, READ, OPERATE, CHANGE, ROOT)


class Permission(NamedTuple):
    """A permission that a caller needs.

    :ivar name: of the XAPI permission for doing by hand what the verb does; "": none is needed.
    :ivar role: the lowest role of XAPI that has it.
    """

    name: str
    role: str


EVERYONE = Permission("", "vm-operator")
VM_ADMIN = Permission("vm.add_to_other_config", "vm-admin")
POOL_OPERATOR = Permission("secret.create", "pool-operator")


class Argument(NamedTuple):
    """An argument of a verb. Its value is always a string.

    :ivar check: (name, value) -> the value for the action; raises ArgumentError.
    :ivar permission: what a caller needs in order to give the argument; EVERYONE: no more than the verb needs.
    :ivar form: the unit or the allowed values, for docs/api.md.
    """

    name: str
    check: Callable[[str, str], str]
    required: bool = True
    permission: Permission = EVERYONE
    form: str = ""

    def optional(self, permission: Permission = EVERYONE) -> "Argument":
        """Return the same argument as one that callers may leave out."""
        return self._replace(required=False, permission=permission)


class Verb(NamedTuple):
    """A verb.

    :ivar action: action(context, **arguments) -> "True" and the result.
    :ivar help: one sentence: what the verb does.
    :ivar permission: who may call it.
    :ivar policy_class: what a call reveals or changes; see PolicyClass.
    :ivar command: the command of the CLI that calls it, or why there is none: see NO_COMMAND.
    :ivar place: which host serves it.
    :ivar lane: which workers of the daemon serve it.
    :ivar patience: seconds that it may take beyond the time of every call.
    :ivar result: what follows "True", as Markdown.
    """

    name: str
    action: Callable[..., str]
    help: str
    arguments: Tuple[Argument, ...]
    permission: Permission
    policy_class: PolicyClass
    command: str
    place: str = ANY_HOST
    lane: str = QUICK
    patience: float = 0.0
    result: str = "nothing"

    @property
    def required(self) -> "Tuple[str, ...]":
        """Names of the arguments that every call must have."""
        return tuple(argument.name for argument in self.arguments if argument.required)

    @property
    def optional(self) -> "Tuple[str, ...]":
        """Names of the arguments that a call may have."""
        return tuple(argument.name for argument in self.arguments if not argument.required)

    def checked(self, given: "Mapping[str, str]") -> "Dict[str, str]":
        """The arguments for the action. Unknown ones are left out: a newer client may send them.

        :raises ArgumentError: one is missing or malformed.
        """
        found = {}
        for argument in self.arguments:
            if argument.name in given:
                found[argument.name] = argument.check(argument.name, given[argument.name])
            elif argument.required:
                raise ArgumentError(f"The function '{self.name}' needs the argument '{argument.name}'.")
        return found


# How ``command`` begins for a verb without a command; the reason follows.
NO_COMMAND = "none: "
