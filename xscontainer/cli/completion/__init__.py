"""``xscontainer completion``: complete commands, options, VMs and containers in bash, zsh and fish.

A shell calls ``xscontainer`` with the line in the environment, as the library argcomplete does; ``scripts`` has the
shells' part from that library. The answer must come within 100 ms: ``answer`` reads ``words.json``, which
``docs/generate.py`` makes from the parsers, and imports neither argparse nor a command.

* ``line`` divides the line into words and finds what stands at the cursor,
* ``candidates`` finds the words that may stand there,
* ``quoting`` writes them as the shell reads them.
"""

from typing import Any

SHELLS = ("bash", "zsh", "fish")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "completion",
        description="Print the script that lets a shell complete commands, options, VMs and containers. Load it in the "
                    "start-up file of your shell. On a host of the pool, the package bash-completion does that for "
                    "bash.")
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    parser.set_defaults(run=_run)


def _run(options: Any, _settings: object) -> int:
    from xscontainer.cli.completion import scripts
    from xscontainer.cli.ui.output import write

    write(scripts.script(options.shell))
    return 0
