"""The command xscontainer: one module for each subcommand, named as the subcommand.

``table`` lists the subcommands. The module of a subcommand has a function ``add``, which takes argparse's subparsers
and sets ``run``: (options, settings) -> exit code. It is imported when its command is used. ``prepare_vm`` is a program
of its own, xscontainer-prepare-vm. The other modules help the commands:

* ``program`` runs a command, ``parsing`` makes the parser, ``exit_codes`` has the exit codes,
* ``completion/`` answers shells that complete a command line,
* ``plugin_call`` logs in to XAPI and calls functions of the host plugin,
* ``server`` logs in to XAPI of another machine, ``server_options`` has the options for that,
* ``lookup`` finds objects of the pool by name or uuid,
* ``listing/`` selects and shows the containers for ``ps``,
* ``image`` uploads a system's image for ``create``,
* ``tls_options`` has the options for certificates of ``prepare`` and xscontainer-prepare-vm,
* ``ui/`` has what people see: columns, progress, prompts.

A command imports its verb inside its function: all verbs together take 10 to 30 ms of the start (CPython 3.6).
"""

import os
from typing import List, Optional


def main(arguments: "Optional[List[str]]" = None) -> int:
    """Run a command line and return its exit code."""
    # Imported here for start-up time: a shell that completes a word waits for the answer.
    if "_ARGCOMPLETE" in os.environ:
        from xscontainer.cli.completion import answer

        return answer.main()
    from xscontainer.cli import program

    return program.main(arguments)
