"""Imports go down only: the picture of the house, checked against the code.

The tables below are the picture. A module that none of them names is a failure, so a new one finds
its place here before it finds callers.
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

# A room is what stands directly in the package: a module, or a package with all that is in it.
LAYERS: List[FrozenSet[str]] = [
    frozenset(
        "errors keys harmless model engineevent xmlform vmrecord eligibility policy settings addresses cloudconfig "
        "reach diagnosis calls pacing fingerprint documents".split()
    ),  # L0 words
    frozenset("xapi engine systemd names hostlock".split()),  # L1 doors
    frozenset("access publish configdrive certificates".split()),  # L2 joins
    frozenset("monitor registry actions".split()),  # L3 work
    frozenset("daemon plugin forward prepare_vm cli server context".split()),  # L4 entries
]
BESIDE = "simulator"  # may use every room, and no room may use it
ENTRIES = 4

# Within a layer nothing imports its neighbours, with two exceptions: words may be made of words (in no
# circle), and an entry hands a call on to the next one.
SIDEWAYS_ENTRIES = {
    ("forward", "plugin"),
    ("server", "plugin"),
    ("server", "forward"),
    ("daemon", "server"),
    ("daemon", "plugin"),
    ("daemon", "context"),
    ("plugin", "context"),
    ("cli", "forward"),
    ("cli", "context"),
    ("prepare_vm", "cli"),
}
# A neighbour that is handed in may be named in annotations, under `if TYPE_CHECKING`.
SIDEWAYS_TYPES = {("registry", "monitor")}

# What is not in the standard library (its types in annotations excepted) stays behind the door it belongs to.
LIBRARIES = {
    "xapi": {"XenAPI"},
    "engine": {"paramiko", "docker", "requests", "urllib3", "cryptography"},
    "configdrive": {"pycdlib"},
    "certificates": {"cryptography"},
    BESIDE: {"paramiko", "docker", "requests", "urllib3", "cryptography", "pycdlib"},
}

# All that words may use of the standard library: nothing here reaches outside the process.
PURE = set(
    "abc base64 binascii bisect collections copy datetime decimal enum functools hashlib hmac html ipaddress "
    "itertools json math numbers operator posixpath re string struct textwrap typing unicodedata uuid".split()
)
# Settings are parsed purely, too, but for the one function that reads the file; XML is parsed from memory.
PURE_MORE = {"settings": {"configparser", "os"}, "xmlform": {"xml"}, "calls": {"xmlrpc"}, "pacing": {"random"}}

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
SIMULATOR_ENTRIES = {"demo", "__main__", "cli", "spawner"}


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
        elif not imported.runs and (room, other) in SIDEWAYS_TYPES:
            continue
        elif there == here and here != 0 and (room, other) not in SIDEWAYS_ENTRIES:
            wrong.append(f"{where}: sideways in L{here}")
    return wrong


def unplaced(modules: Dict[str, str]) -> List[str]:
    rooms = {room_of(module) for module in modules} - {"", BESIDE}
    return sorted(room for room in rooms if layer_of(room) is None)


def circles(modules: Dict[str, str]) -> List[str]:
    """Circles of imports that run, also those hidden in functions."""
    graph: Dict[str, Set[str]] = {module: set() for module in modules}
    for module, target, imported in ours(modules):
        if imported.runs and target in graph and target != module:
            graph[module].add(target)
    # What is not on a circle goes, from both ends, until only circles are left.
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
            elif layer_of(room) == 0 and top not in PURE | PURE_MORE.get(room, set()):
                wrong.append(f"{module}:{imported.line} imports {top}, which reaches outside the process")
    return wrong


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return _dotted(node.value) + "." + node.attr
    return node.id if isinstance(node, ast.Name) else ""


def entry_matters(modules: Dict[str, str]) -> List[str]:
    """Where something that is not an entry does what only entries do."""
    wrong = []
    for module, text in modules.items():
        if layer_of(room_of(module)) == ENTRIES:
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
CHECKS: List[Check] = [unplaced, wrong_directions, circles, strange_libraries, entry_matters]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_package_keeps_to_the_picture(check: Check) -> None:
    modules = sources()
    assert f"{PACKAGE}.errors" in modules
    wrong = check(modules)
    assert not wrong, "\n".join(wrong)


# What each check must find, so that none of them can pass by looking away.
BROKEN: List[Tuple[Check, Dict[str, str], str]] = [
    (unplaced, {"kitchen": ""}, "kitchen"),
    (wrong_directions, {"model": "from xscontainer import access"}, "upward"),
    (wrong_directions, {"model": "def f():\n    from xscontainer.xapi import vm"}, "upward"),
    (wrong_directions, {"xapi.vm": "from ..engine import api"}, "sideways"),
    (wrong_directions, {"engine.api": "import xscontainer.xapi.vm"}, "sideways"),
    (wrong_directions, {"publish": "from . import access"}, "sideways"),
    (wrong_directions, {"publish": "if TYPE_CHECKING:\n    from xscontainer.monitor import Monitor"}, "upward"),
    (wrong_directions, {"registry": "from xscontainer.monitor import Monitor"}, "sideways"),
    (wrong_directions, {"daemon": "from xscontainer import cli"}, "sideways"),
    (wrong_directions, {"daemon": "from xscontainer.simulator import xapi"}, "simulator"),
    (circles, {"model": "import xscontainer.xmlform", "xmlform": "def f():\n    from . import model"}, "xmlform"),
    (circles, {"xapi.vm": "from . import host", "xapi.host": "from .vm import x"}, "host"),
    (strange_libraries, {"access": "import paramiko"}, "door"),
    (strange_libraries, {"engine.ssh": "from XenAPI import Session"}, "door"),
    (strange_libraries, {"model": "import socket"}, "outside"),
    (strange_libraries, {"keys": "def f():\n    import os"}, "outside"),
    (entry_matters, {"monitor": "print(1)"}, "print"),
    (entry_matters, {"engine.ssh": "import argparse"}, "argparse"),
    (entry_matters, {"xapi.vm": "import sys\ndef f():\n    sys.exit(1)"}, "sys.exit"),
    (entry_matters, {"access": "raise SystemExit(1)"}, "SystemExit"),
    (entry_matters, {"registry": "logging.getLogger().setLevel(1)\nlogging.basicConfig()"}, "basicConfig"),
    (entry_matters, {"simulator.guests.ssh": "print(1)"}, "print"),
]


@pytest.mark.parametrize("check, broken, word", BROKEN)
def test_each_break_is_found(check: Check, broken: Dict[str, str], word: str) -> None:
    modules = {f"{PACKAGE}.{name}": text for name, text in broken.items()}
    for _, _, imported in list(ours(modules)):
        if not modules.keys() & set(imported.names):
            modules[imported.names[0]] = ""
    assert any(word in line for line in check(modules)), check(modules)


def test_what_the_picture_allows_is_let_through() -> None:
    modules = {
        "errors": "",
        "model": "import json\nimport xscontainer.errors",
        "xmlform": "from xscontainer.model import Container",
        "engine.api": "import docker\nfrom ..errors import EngineError\nfrom . import ssh",
        "engine.ssh": "import paramiko, socket\nif TYPE_CHECKING:\n    from xscontainer.engine.api import Engine",
        "access": "from xscontainer.engine import ssh\nfrom xscontainer.xapi import vm",
        "xapi.vm": "import XenAPI",
        "forward": "import sys\ndef f():\n    from xscontainer import plugin\n    sys.exit(0)",
        "plugin": "",
        "simulator.demo": "import argparse\nfrom xscontainer import daemon\nprint(1)",
        "daemon": "import signal\nsignal.signal(1, 2)",
    }
    whole = {f"{PACKAGE}.{name}": text for name, text in modules.items()}
    assert [check(whole) for check in CHECKS] == [[]] * len(CHECKS)


def in_a_fresh_interpreter(code: str) -> str:
    code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, timeout=60, check=True)
    return done.stdout.decode()


def test_forward_loads_nothing_that_the_interpreter_does_not_hold_already() -> None:
    """It runs once for every plugin call: each import is latency."""
    code = "before = set(sys.modules)\nimport xscontainer.forward\nprint(*sorted(set(sys.modules) - before))"
    assert set(in_a_fresh_interpreter(code).split()) <= {PACKAGE, f"{PACKAGE}.forward", "_socket", "time"}


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
