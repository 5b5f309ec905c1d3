"""The support matrix: dom0, Python, engines and clients. Its only source.

docs/generate.py makes the tables in README.md and docs/tested.md from it. tests/pack/test_support.py compares the
classifiers of setup.cfg and the build targets of the pack with it.
"""

from typing import Iterable, List, NamedTuple, Sequence


class Dom0(NamedTuple):
    """A host system.

    :ivar python: version of its python3.
    :ivar pack: tag in the name of the pack's ISO.
    """

    name: str
    python: str
    pack: str
    tested: str


class Python(NamedTuple):
    """A version of CPython that the code supports, and where it is tested."""

    version: str
    tested: str


class Engine(NamedTuple):
    """An engine in a guest, and the ways it is reached."""

    name: str
    ways: str
    tested: str


class Client(NamedTuple):
    """A program that shows or controls containers.

    :ivar connects: whether it connects to pools of XCP-ng 8.3 and XenServer 8.
    :ivar tested: with which of its parts it was tested.
    """

    name: str
    connects: str
    lists: str
    controls: str
    tested: str


DOM0S = (
    Dom0("XCP-ng 8.3, XenServer 8", "3.6", "cp36", "pack installed into a stub dom0; XAPI simulated, "
                                                   "compared with a real xapi 26.1.4"),
    Dom0("XenServer 9", "3.11", "cp311", "pack installed and started, without a pool"),
    Dom0("XCP-ng 9 (pre-alpha)", "3.12", "cp312", "pack installed and started, without a pool"),
)

PYTHONS = (
    Python("3.6", "the whole suite"),
    Python("3.7", "only checked by vermin"),
    Python("3.8", "only checked by vermin"),
    Python("3.9", "only checked by vermin"),
    Python("3.10", "only checked by vermin"),
    Python("3.11", "the whole suite in a fresh Debian 12; the pack's programs"),
    Python("3.12", "the pack's programs"),
    Python("3.13", "the tests that start no real server"),
)

ENGINES = (
    Engine("Docker 1.12 and later on Linux", "SSH, TLS", "20.10; scripted engines for other versions"),
    Engine("Podman 4.3 and later, root's or a user's", "SSH", "4.3"),
    Engine("Docker on Windows", "TLS, SSH", "not tested"),
)

CLIENTS = (
    Client("Xen Orchestra 5", "yes", "yes", "stop, restart and pause for `Up`, unpause for `Up (Paused)`, "
                                            "start for `Exited (137)` only",
           "its XML parser (fast-xml-parser 4.5.6, 5.8) and library (xen-api 4.7.6)"),
    Client("XCP-ng Center 24.11 and later", "yes", "yes", "no", ".NET's XmlDocument (mono)"),
    Client("XCP-ng Center 20.04, XenCenter", "no: refuse API 2.21", "on older pools", "on older pools",
           ".NET's XmlDocument (mono)"),
    Client("Xen Orchestra 6, XO Lite", "yes", "no", "no", "not tested"),
    Client("`xscontainer` on any host, or anywhere with `--server`", "yes", "yes", "yes",
           "the command itself"),
    Client("`xe`, scripts", "yes", "the XML in `VM.other_config`",
           "`xe host-call-plugin`, all [functions](docs/api.md)", "PyPI's XenAPI"),
)


def classifiers() -> List[str]:
    """Return the lines of setup.cfg that name the supported versions of Python."""
    return [f"Programming Language :: Python :: {python.version}" for python in PYTHONS]


def readme() -> str:
    """Return the tables for README.md: dom0, engines and clients."""
    return "\n\n".join((
        _table(("host", "Python of dom0", "pack", "tested"), DOM0S),
        _table(("engine in the VM", "reached over", "tested with"), ENGINES),
        _table(("client", "connects to XCP-ng 8.3", "lists containers", "controls containers"),
               (client[:4] for client in CLIENTS))))


def tested() -> str:
    """Return the tables for docs/tested.md: what each supported version was tested with."""
    return "\n\n".join((
        _table(("CPython", "tested by"), PYTHONS),
        _table(("client", "tested with"), ((client.name, client.tested) for client in CLIENTS))))


def _table(header: "Sequence[str]", rows: "Iterable[Sequence[str]]") -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    lines.insert(1, "|---" * len(header) + "|")
    return "\n".join(lines)
