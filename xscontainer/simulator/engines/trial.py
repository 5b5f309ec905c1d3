"""A trial start of an installed engine, made once for this process and its children."""

import gc
import os
import re
import shutil
import tempfile
import threading
import warnings
from typing import Callable

import docker
import requests

from xscontainer.simulator.engines.docker_engine import DockerEngine
from xscontainer.simulator.engines.errors import SimulatorError

# The environment variable with the result, for child processes; the program's name follows in capitals.
VARIABLE = "XSCONTAINER_TRIED_"
_RUNS = "it runs"
MAX_REASON = 300  # characters
MAX_LOG = 100000  # bytes
SECONDS = 30.0
_FAILURE = re.compile(r"failed to |panic: |level=fatal|Error")
_lock = threading.Lock()


def why_not(program: str, make: Callable[[str], DockerEngine]) -> str:
    """Return why an engine cannot run a container here, on one line; "" if it can. The first call takes a second.

    :param program: the engine's own.
    :param make: makes an engine, not started, in a directory.
    """
    variable = VARIABLE + program.upper()
    with _lock:
        if variable not in os.environ:
            os.environ[variable] = _tried(program, make) or _RUNS
    found = os.environ[variable]
    return "" if found == _RUNS else found


def _tried(program: str, make: Callable[[str], DockerEngine]) -> str:
    directory = tempfile.mkdtemp(prefix="t")
    engine = make(os.path.join(directory, "e"))
    try:
        # docker's client drops its socket unclosed as long as the engine does not listen.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            engine.start(SECONDS)
            gc.collect()
        container = engine.run("trial")
        processes = engine.client().top(container)["Processes"]
        engine.do("remove", container)
        if len(processes) != 1:
            # podman reaches a container's /proc by a path that leads out of a chroot.
            return (f"{program} cannot run here: it lists {len(processes)} processes where a container has 1; "
                    "enter another root by pivot_root, not by chroot alone")
    except (SimulatorError, docker.errors.DockerException, requests.RequestException, OSError) as error:
        return f"{program} cannot run here: {_telling_line(engine, error)}"
    finally:
        engine.close()
        shutil.rmtree(directory, ignore_errors=True)
    return ""


def _telling_line(engine: DockerEngine, error: Exception) -> str:
    """Return the log's last line that names a failure, else that of the error."""
    logged = [line for line in engine.log_tail(MAX_LOG).splitlines() if _FAILURE.search(line)]
    # docker's own text names the container, whose id changes each time.
    text = getattr(error, "explanation", None) or str(error)
    return (logged or text.strip().splitlines() or [type(error).__name__])[-1].strip()[:MAX_REASON]
