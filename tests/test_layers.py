"""Imports go down only: the directories are the layers, checked against the code.

A module's room is the directory that it lies in, directly below the package. LAYERS puts the rooms on top of each
other; a room that it does not name is a failure, so a new one finds its place here before it finds callers.
"""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Set, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "xscontainer"

# From the ground up. Modules directly in the package are rooms of their own.
LAYERS: Tuple[FrozenSet[str], ...] = tuple(frozenset(rooms.split()) for rooms in (
    "errors keys sanitize settings",  # known to everybody
    "core",  # pure: what is decided, and the values that it is decided from
    "clients",  # pure: the documents that clients read
    "xapi engine host",  # doors to the outside, which do not see each other
    "access publish configdrive certificates",  # a VM and its engine, brought together
    "monitoring verbs",  # what is done with them
    "plugin",  # one call, from XAPI's process to the host that serves it
    "service cli",  # the other processes
))
GROUND, PURE_LAYERS, FIRST_ENTRY = 0, 2, 6
BESIDE = "simulator"  # may use every room, and no room may use it
# The simulator's own rooms, from the ground up: directories or modules below it.
SIMULATOR_LAYERS: Tuple[FrozenSet[str], ...] = tuple(frozenset(rooms.split()) for rooms in (
    "engines install xapi.wire",  # servers that containers live in; bytes that XAPI understands
    "guests xapi.database",  # SSH servers in front of engines; records and who may touch them
    "xapi.state",  # what all API methods work on
    "xapi.objects",  # the API's methods, by class of object
    "xapi.service",  # a host's HTTP server, and a call's way to its method
    "xapi.pool",  # the pool as tests and the demo change it
    "xapi",  # what the others import
    "world",  # a pool, guests and daemons together
    "demo",
))

# A library outside the standard library stays behind its door. Its types in annotations may be used anywhere.
LIBRARIES = {
    "engine": {"paramiko", "docker", "requests", "urllib3", "cryptography"},
    "configdrive": {"pycdlib"},
    "certificates": {"cryptography"},
    "cli": {"rich", "argcomplete"},
    BESIDE: {"paramiko", "docker", "requests", "urllib3", "cryptography", "pycdlib"},
}

# All that words may use of the standard library: nothing here reaches outside the process.
PURE = set(
    "abc base64 binascii bisect collections copy datetime decimal difflib enum functools hashlib heapq hmac html "
    "ipaddress itertools json math numbers operator posixpath re string struct textwrap typing unicodedata uuid".split()
)
# Settings are parsed purely, too, but for the one function that reads the file; XML is parsed from memory.
PURE_MORE = {
    "settings": {"configparser", "os"},
    "clients.xmlform.reading": {"xml"},
    "errors.base": {"errno"},
    "core.bounded": {"xml"},
    "core.budget": {"contextlib", "threading", "time"},
    "core.current_call": {"contextlib", "threading", "time"},
    "core.event_log": {"sys"},
    "core.kept_answers": {"threading"},
    "core.memory_budget": {"contextlib", "threading", "time"},
    "core.wire": {"xmlrpc"},
    "core.pacing": {"random"},
}

# Only entries talk to the terminal, end the process, or set up what belongs to the whole process.
ENTRY_IMPORTS = {"argparse", "logging.config", "logging.handlers"}
ENTRY_CALLS = {
    "print",
    "input",
    "exit",
    "quit",
    "breakpoint",
    "sys.exit",
    "os._exit",
    "signal.signal",
    "signal.setitimer",
    "logging.basicConfig",
    "logging.disable",
}
ENTRY_METHODS = {"addHandler", "removeHandler", "setLevel"}
# The simulator's own entries.
SIMULATOR_ENTRIES = {"demo", "__main__", "cli", "spawner", "xe"}


class Import(NamedTuple):
    """``names``: what may be meant, the longest first (``from a import b`` names a.b or a)."""

    names: Tuple[str, ...]
    line: int
    runs: bool  # false under `if TYPE_CHECKING`
    at_top: bool  # when the module is imported, not when a function is called


def sources() -> Dict[str, str]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


def is_package(module: str) -> bool:
    return (ROOT.joinpath(*module.split("."))).is_dir()


def room_of(module: str) -> str:
    return (module.split(".") + [""])[1]


def layer_of(room: str) -> Optional[int]:
    return next((number for number, rooms in enumerate(LAYERS) if room in rooms), None)


def is_pure(room: str) -> bool:
    layer = layer_of(room)
    return layer is not None and layer <= PURE_LAYERS


def is_entry(room: str) -> bool:
    return (layer_of(room) or GROUND) >= FIRST_ENTRY


def imports(module: str, text: str, package: bool = False) -> List[Import]:
    """Every import in ``text``, wherever it stands. ``package``: it is an __init__."""
    found: List[Import] = []

    def visit(node: ast.AST, runs: bool, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import((alias.name,), node.lineno, runs, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = module.split(".")
                anchor = anchor[: len(anchor) - node.level + (1 if package else 0)]
                base = ".".join(anchor + ([node.module] if node.module else []))
            found.extend(Import((f"{base}.{alias.name}", base), node.lineno, runs, at_top) for alias in node.names)
        elif isinstance(node, ast.If) and ast.dump(node.test).find("'TYPE_CHECKING'") >= 0:
            for statement in node.body:
                visit(statement, False, at_top)
            for statement in node.orelse:
                visit(statement, runs, at_top)
            return
        inner = at_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, runs, inner)

    visit(ast.parse(text), True, True)
    return found


def ours(modules: Dict[str, str]) -> Iterator[Tuple[str, str, Import]]:
    """(importing module, imported module, import) for all imports within the package."""
    for module, text in modules.items():
        for imported in imports(module, text, is_package(module)):
            if imported.names[-1].split(".")[0] == PACKAGE:
                target = next((name for name in imported.names if name in modules), imported.names[-1])
                yield module, target, imported


def wrong_directions(modules: Dict[str, str]) -> List[str]:
    wrong = []
    for module, target, imported in ours(modules):
        room, other = room_of(module), room_of(target)
        if room == other or not other or room == BESIDE:
            continue
        here, there = layer_of(room), layer_of(other)
        where = f"{module}:{imported.line} imports {target}"
        if other == BESIDE:
            wrong.append(f"{where}: nothing imports the simulator")
        elif here is None or there is None:
            continue  # unplaced() tells
        elif there > here:
            wrong.append(f"{where}: upward, from L{here} to L{there}")
        elif there == here != GROUND:
            wrong.append(f"{where}: sideways in L{here}")
    return wrong


def unplaced(modules: Dict[str, str]) -> List[str]:
    rooms = {room_of(module) for module in modules} - {"", BESIDE}
    return sorted(room for room in rooms if layer_of(room) is None)


def simulator_room_of(module: str) -> str:
    """The longest of SIMULATOR_LAYERS that the module lies in; its own name if none does."""
    parts = module.split(".")[2:]
    rooms = frozenset().union(*SIMULATOR_LAYERS)
    # A directory beside those of xapi/ is a room of its own, not a part of the facade's.
    shortest = 2 if parts[:1] == ["xapi"] and len(parts) > 1 else 1
    found = [".".join(parts[:length]) for length in range(len(parts), shortest - 1, -1)]
    return next((room for room in found if room in rooms), ".".join(parts))


def simulator_layer_of(room: str) -> Optional[int]:
    return next((number for number, rooms in enumerate(SIMULATOR_LAYERS) if room in rooms), None)


def wrong_directions_in_the_simulator(modules: Dict[str, str]) -> List[str]:
    wrong = []
    for module, target, imported in ours(modules):
        if room_of(module) != BESIDE or room_of(target) != BESIDE:
            continue
        room, other = simulator_room_of(module), simulator_room_of(target)
        here, there = simulator_layer_of(room), simulator_layer_of(other)
        if here is None or there is None or room == other:
            continue
        if there >= here:
            way = "upward" if there > here else "sideways"
            wrong.append(f"{module}:{imported.line} imports {target}: {way}, from L{here} to L{there}")
    return wrong


def unplaced_in_the_simulator(modules: Dict[str, str]) -> List[str]:
    rooms = {simulator_room_of(module) for module in modules if room_of(module) == BESIDE} - {""}
    return sorted(room for room in rooms if simulator_layer_of(room) is None)


def circles(modules: Dict[str, str]) -> List[str]:
    """Circles of imports, also those hidden in functions; in the simulator also those for annotations only."""
    graph: Dict[str, Set[str]] = {module: set() for module in modules}
    for module, target, imported in ours(modules):
        counted = imported.runs or room_of(module) == BESIDE
        if counted and target in graph and target != module:
            graph[module].add(target)
    # Remove the modules that are on no circle, from both ends, until only circles are left.
    while True:
        wanted = set().union(*graph.values()) if graph else set()
        done = [module for module, targets in graph.items() if not targets or module not in wanted]
        if not done:
            return sorted(f"{module} -> {', '.join(sorted(targets))}" for module, targets in graph.items())
        for module in done:
            del graph[module]
        for targets in graph.values():
            targets.difference_update(done)


def is_standard(module: str) -> bool:
    """Part of CPython: built in, or found outside site-packages."""
    if module in sys.builtin_module_names:
        return True
    spec = importlib.util.find_spec(module)
    if spec is None or (spec.origin is None and spec.submodule_search_locations is not None):
        return False
    return "site-packages" not in (spec.origin or "") and str(ROOT) not in (spec.origin or "")


def strange_libraries(modules: Dict[str, str]) -> List[str]:
    wrong = []
    for module, text in modules.items():
        room = room_of(module)
        for imported in imports(module, text, is_package(module)):
            top = imported.names[-1].split(".")[0]
            if top == PACKAGE or top in LIBRARIES.get(room, set()) or not imported.runs:
                continue
            if not is_standard(top):
                wrong.append(f"{module}:{imported.line} imports {top}, which is not behind its door")
            elif is_pure(room) and top not in PURE | PURE_MORE.get(module.partition(".")[2], set()):
                wrong.append(f"{module}:{imported.line} imports {top}, which reaches outside the process")
    return wrong


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return _dotted(node.value) + "." + node.attr
    return node.id if isinstance(node, ast.Name) else ""


def entry_matters(modules: Dict[str, str]) -> List[str]:
    """List the lines where a module that is no entry does what only entries do."""
    wrong = []
    for module, text in modules.items():
        if is_entry(room_of(module)):
            continue
        if room_of(module) == BESIDE and module.split(".")[-1] in SIMULATOR_ENTRIES:
            continue
        for imported in imports(module, text, is_package(module)):
            if ENTRY_IMPORTS.intersection(imported.names):
                wrong.append(f"{module}:{imported.line} imports {imported.names[-1]}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                name = _dotted(node.func)
                if name in ENTRY_CALLS or ("." in name and name.split(".")[-1] in ENTRY_METHODS):
                    wrong.append(f"{module}:{node.lineno} calls {name}")
            elif isinstance(node, ast.Raise) and node.exc is not None and "'SystemExit'" in ast.dump(node.exc):
                wrong.append(f"{module}:{node.lineno} raises SystemExit")
    return wrong


Check = Callable[[Dict[str, str]], List[str]]
CHECKS: List[Check] = [
    unplaced, wrong_directions, unplaced_in_the_simulator, wrong_directions_in_the_simulator, circles,
    strange_libraries, entry_matters,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_package_keeps_to_the_picture(check: Check) -> None:
    modules = sources()
    assert f"{PACKAGE}.errors" in modules
    wrong = check(modules)
    assert not wrong, "\n".join(wrong)


# A violation for each check, so that no check can pass without finding it.
BROKEN: List[Tuple[Check, Dict[str, str], str]] = [
    (unplaced, {"kitchen.sink": ""}, "kitchen"),
    (unplaced, {"kitchen": ""}, "kitchen"),
    (wrong_directions, {"core.container": "from xscontainer.access import opener"}, "upward"),
    (wrong_directions, {"core.container": "def f():\n    from xscontainer.xapi import vm"}, "upward"),
    (wrong_directions, {"core.container": "from ..clients import xml"}, "upward"),
    (wrong_directions, {"xapi.vm": "from ..engine import api"}, "sideways"),
    (wrong_directions, {"engine.ssh.login": "import xscontainer.xapi.vm"}, "sideways"),
    (wrong_directions, {"publish": "from .access import opener"}, "sideways"),
    (wrong_directions, {"publish": "if TYPE_CHECKING:\n    from xscontainer.monitoring import monitor"}, "upward"),
    (wrong_directions, {"plugin.dispatch": "def f():\n    from xscontainer.service import daemon"}, "upward"),
    (wrong_directions, {"service.daemon": "from xscontainer.cli import list"}, "sideways"),
    (wrong_directions, {"service.daemon": "from xscontainer.simulator import xapi"}, "simulator"),
    (circles, {"core.a": "import xscontainer.core.b", "core.b": "def f():\n    from . import a"}, "core.b"),
    (circles, {"xapi.vm": "from . import host", "xapi.host": "from .vm import x"}, "host"),
    (circles, {"simulator.xapi.pool.pool": "from . import populate", "simulator.xapi.pool.populate":
               "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .pool import Pool"}, "populate"),
    (circles, {"simulator.engines.real": "from . import trial", "simulator.engines.trial":
               "def f():\n    from xscontainer.simulator.engines.real import RealEngine"}, "trial"),
    (unplaced_in_the_simulator, {"simulator.kitchen": ""}, "kitchen"),
    (unplaced_in_the_simulator, {"simulator.kitchen.sink": ""}, "kitchen"),
    (unplaced_in_the_simulator, {"simulator.xapi.kitchen.sink": ""}, "kitchen"),
    (wrong_directions_in_the_simulator, {"simulator.xapi.wire.values": "from ..database import query"}, "upward"),
    (wrong_directions_in_the_simulator, {"simulator.xapi.objects.vms":
                                         "if TYPE_CHECKING:\n    from ..pool.pool import Pool"}, "upward"),
    (wrong_directions_in_the_simulator, {"simulator.xapi.state.call":
                                         "def f():\n    import xscontainer.simulator.xapi"}, "upward"),
    (wrong_directions_in_the_simulator, {"simulator.engines.real": "from ..guests import base"}, "upward"),
    (wrong_directions_in_the_simulator, {"simulator.guests.base": "from ..xapi.database import query"}, "sideways"),
    (strange_libraries, {"access.opener": "import paramiko"}, "door"),
    (strange_libraries, {"engine.ssh.login": "import pycdlib"}, "door"),
    (strange_libraries, {"core.container": "import socket"}, "outside"),
    (strange_libraries, {"clients.documents": "import os"}, "outside"),
    (strange_libraries, {"keys": "def f():\n    import os"}, "outside"),
    (entry_matters, {"monitoring.monitor": "print(1)"}, "print"),
    (entry_matters, {"engine.ssh.login": "import argparse"}, "argparse"),
    (entry_matters, {"xapi.vm": "import sys\ndef f():\n    sys.exit(1)"}, "sys.exit"),
    (entry_matters, {"access.opener": "raise SystemExit(1)"}, "SystemExit"),
    (entry_matters, {"monitoring.registry": "logging.getLogger().setLevel(1)\nlogging.basicConfig()"}, "basicConfig"),
    (entry_matters, {"simulator.guests.ssh": "print(1)"}, "print"),
]


@pytest.mark.parametrize("check, broken, word", BROKEN)
def test_each_break_is_found(check: Check, broken: Dict[str, str], word: str) -> None:
    modules = {f"{PACKAGE}.{name}": text for name, text in broken.items()}
    for _, _, imported in list(ours(modules)):
        if not modules.keys() & set(imported.names):
            modules[imported.names[0]] = ""
    assert any(word in line for line in check(modules)), check(modules)


def test_an_import_that_the_layers_allow_is_accepted() -> None:
    modules = {
        "errors": "",
        "settings": "import os\nfrom xscontainer.errors import SettingsError",
        "core.container": "import json\nimport xscontainer.errors",
        "clients.xmlform.reading": (
            "from xml.etree import ElementTree\nfrom xscontainer.core.container import Container"),
        "engine.api": "import docker\nfrom ..errors import EngineError\nfrom .ssh import login",
        "engine.ssh.login": "import paramiko, socket\nif TYPE_CHECKING:\n    from xscontainer.engine.api import Engine",
        "access.opener": "from xscontainer.engine.ssh import login\nfrom xscontainer.xapi import vm",
        "xapi.vm": "import ssl",
        "plugin.forward": "import sys\ndef f():\n    from xscontainer.plugin import dispatch\n    sys.exit(0)",
        "plugin.dispatch": "",
        "simulator.world": "from .xapi import Pool",
        "simulator.xapi": "from xscontainer.simulator.xapi.pool.pool import Pool",
        "simulator.xapi.pool.pool": "from ..state.call import Call",
        "simulator.xapi.state.call": "if TYPE_CHECKING:\n    from ..wire.values import Time",
        "simulator.xapi.wire.values": "",
        "simulator.demo": "import argparse\nfrom xscontainer.service import daemon\nprint(1)",
        "service.daemon": "import signal\nfrom xscontainer.plugin import dispatch\nsignal.signal(1, 2)",
    }
    whole = {f"{PACKAGE}.{name}": text for name, text in modules.items()}
    assert [check(whole) for check in CHECKS] == [[]] * len(CHECKS)


def in_a_fresh_interpreter(code: str) -> str:
    code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, timeout=60, check=True)
    return done.stdout.decode()


def test_forward_loads_nothing_that_the_interpreter_does_not_hold_already() -> None:
    """Each import delays every plugin call, as each call is a process of its own."""
    code = "before = set(sys.modules)\nimport xscontainer.plugin.forward\nprint(*sorted(set(sys.modules) - before))"
    ours_alone = {PACKAGE, f"{PACKAGE}.plugin", f"{PACKAGE}.plugin.forward"}
    assert set(in_a_fresh_interpreter(code).split()) <= ours_alone | {"_socket", "time"}


SIDE_EFFECTS = """
import importlib, logging, os, signal, threading
def state():
    paths = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")]
    held = sorted(os.readlink(path) for path in paths if os.path.lexists(path))
    return (held, threading.active_count(), logging.getLogger().handlers, logging.getLogger().level,
            [signal.getsignal(n) for n in range(1, 32)], os.getcwd(), dict(os.environ))
before = state()
for name in MODULES:
    importlib.import_module(name)
after = state()
print("same" if before == after else (before, after))
"""


def test_importing_does_nothing_else() -> None:
    """No descriptor, thread, log or signal handler comes from an import."""
    modules = sorted(name for name in sources() if room_of(name) != BESIDE and not name.endswith("__main__"))
    assert in_a_fresh_interpreter(f"MODULES = {modules!r}\n" + SIDE_EFFECTS).strip() == "same"
