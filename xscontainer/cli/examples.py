"""Examples of the commands, for their help, the reference and the man page."""

from typing import Dict, NamedTuple, Tuple


class Example(NamedTuple):
    """A command line, and what it does, without a full stop."""

    line: str
    does: str


_EXAMPLES: Dict[str, Tuple[Tuple[str, str], ...]] = {
    "ps": (
        ("xscontainer ps", "list the containers that run"),
        ("xscontainer ps --all --vm web", "list all containers of the VM web"),
        ("xscontainer ps --health unhealthy", "list the containers whose health check fails"),
        ("xscontainer ps --state exited --state dead", "list the containers that have ended"),
        ("xscontainer ps --watch", "keep the list on the screen as it changes"),
        ("xscontainer ps --format ndjson", "print a line of JSON for each container"),
    ),
    "start": (("xscontainer start web/nginx", "start a container"),),
    "stop": (
        ("xscontainer stop web/nginx db/postgres", "stop two containers"),
        ("xscontainer stop --time 5 web/nginx", "kill the container if it has not ended after 5 seconds"),
    ),
    "restart": (("xscontainer restart web/nginx", "stop and start a container"),),
    "pause": (("xscontainer pause web/nginx", "freeze a container"),),
    "unpause": (("xscontainer unpause web/nginx", "let a frozen container go on"),),
    "status": (
        ("xscontainer status", "show the pool, and what failed"),
        ("xscontainer status web", "show one VM with its last events, and why its containers failed"),
    ),
    "logs": (
        ("xscontainer logs --tail 50 web/nginx", "print the last 50 lines"),
        ("xscontainer logs --follow --since 10m web/nginx db/postgres",
         "print what two containers have logged in 10 minutes, and go on"),
    ),
    "stats": (
        ("xscontainer stats", "show the resources of all containers until Ctrl-C"),
        ("xscontainer stats --no-stream web db/postgres", "print one reading of a VM and of a container"),
    ),
    "top": (("xscontainer top web/nginx", "print the processes in a container"),),
    "inspect": (
        ("xscontainer inspect web/nginx", "print what the engine knows"),
        ("xscontainer inspect --mask-environment web/nginx", "the same, without the values of secrets"),
    ),
    "events": (
        ("xscontainer events web", "print the last events of a VM"),
        ("xscontainer events --since 1h --follow", "print the events of the last hour in the pool, and go on"),
    ),
    "create": (
        ("xscontainer create web --template 'Docker on Debian' --network Guests --image debian.raw",
         "create a VM and wait until its containers are listed"),
    ),
    "prepare": (
        ("xscontainer prepare web --user root", "prepare a VM; asks for its host key and the password"),
        ("xscontainer prepare web db cache --user core", "prepare several VMs at once"),
        ("xscontainer prepare web --mode tls", "prepare a VM whose engine serves TLS"),
    ),
    "unprepare": (
        ("xscontainer unprepare web db", "undo the preparation of two VMs"),
        ("xscontainer unprepare --forget web", "undo it for a VM that does not start any more"),
    ),
    "register": (("xscontainer register web", "switch container management of a VM on"),),
    "deregister": (("xscontainer deregister web", "switch container management of a VM off"),),
    "diagnose": (("xscontainer diagnose web", "check the way to the engine in a VM step by step"),),
    "drive": (
        ("xscontainer drive default 'Docker on Debian'", "print the configuration to start from"),
        ("xscontainer drive write web configuration.yaml", "write a config drive for a VM"),
        ("xscontainer drive show web", "print what a config drive was made from"),
    ),
    "hostkey-show": (("xscontainer hostkey-show web", "compare the host key of a VM with the pinned one"),),
    "hostkey-accept": (("xscontainer hostkey-accept web", "pin the new host key of a VM that was reinstalled"),),
    "key-rotate": (
        ("xscontainer key-rotate", "make a new key and install it in all running VMs"),
        ("xscontainer key-rotate --status", "list the VMs that have it"),
        ("xscontainer key-rotate --finish", "destroy the old key"),
    ),
    "completion": (("xscontainer completion bash", "print the script for bash"),),
    "wipe": (("xscontainer wipe", "remove the published lists of this host's VMs"),),
}


def of(command: str) -> "Tuple[Example, ...]":
    """Return the examples of a command; none for an unknown one."""
    return tuple(Example(*each) for each in _EXAMPLES.get(command, ()))
