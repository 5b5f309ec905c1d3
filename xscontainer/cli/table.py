"""The table of the subcommands of xscontainer. ``xscontainer --help`` reads nothing else."""

from typing import NamedTuple, Tuple


class Command(NamedTuple):
    """A subcommand.

    :ivar help: one line for the list of commands, without a full stop.
    :ivar aliases: other names of the command.
    :ivar of: module of cli/ that has its ``add``; "": named as the command.
    """

    name: str
    help: str
    aliases: Tuple[str, ...] = ()
    of: str = ""

    @property
    def module(self) -> str:
        return "xscontainer.cli." + (self.of or self.name.replace("-", "_"))


COMMANDS: Tuple[Command, ...] = (
    Command("ps", "list the containers of the pool, also live", aliases=("list",)),
    Command("start", "start containers"),
    Command("stop", "stop containers", of="start"),
    Command("restart", "stop and start containers", of="start"),
    Command("pause", "freeze the processes of containers", of="start"),
    Command("unpause", "continue the processes of paused containers", of="start"),
    Command("status", "show what runs, what failed, and what to do"),
    Command("logs", "print the logs of containers"),
    Command("stats", "show the resources that containers use"),
    Command("top", "print the processes in a container"),
    Command("inspect", "print what the engine knows of containers"),
    Command("events", "print the last events of containers"),
    Command("create", "create a VM with containers from a template"),
    Command("prepare", "make an existing VM container-managed"),
    Command("unprepare", "take the pool's key out of VMs again"),
    Command("register", "switch container management on for VMs"),
    Command("deregister", "switch container management off for VMs", of="register"),
    Command("diagnose", "find out why a VM's containers are not shown"),
    Command("drive", "print and write config drives"),
    Command("hostkey-show", "compare a VM's SSH host key with the pinned one"),
    Command("hostkey-accept", "accept a VM's SSH host key"),
    Command("key-rotate", "replace the pool's SSH key pair"),
    Command("completion", "print the script that completes command lines in a shell"),
    Command("wipe", "remove the published lists of this host's VMs"),
)
