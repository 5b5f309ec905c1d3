"""Answer a shell that completes a command line of xscontainer.

Nothing is printed but the answer, and no error: the shell shows what it gets beside the line that is typed.
"""

import contextlib
import json
import os
from typing import Any, Mapping, Optional, Tuple

from xscontainer.cli.completion import candidates, line, quoting

SECONDS = 1.0  # that XAPI may take; then only commands and options are completed
_TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "words.json")
_ANSWER = 8  # the file descriptor that argcomplete's scripts read
_SETTINGS = "/etc/xscontainer/xscontainer.conf"  # as settings.DEFAULT_PATH
_MOST_SETTINGS = 1 << 20  # characters
_SOCKET, _ORIGINATOR = "/var/lib/xcp/xapi", "xscontainer"  # equal to the defaults of settings.XapiSettings


def main() -> int:
    """Write the answer to the request in the environment; return 0 whatever happens."""
    try:
        text = answer(os.environ)
    except Exception:  # noqa: BLE001 - an error on the terminal would stand in the middle of what is typed
        text = ""
    try:
        name = os.environ.get("_ARGCOMPLETE_STDOUT_FILENAME")
        with open(name or _ANSWER, "wb") as stream:
            stream.write(text.encode("utf-8", "replace"))
    except OSError:
        pass
    return 0


def answer(environment: "Mapping[str, str]") -> str:
    """Return the answer to the request of a shell, as argcomplete's scripts send it.

    :raises OSError, ValueError, KeyError: when something is not as expected.
    """
    text = environment["COMP_LINE"][:int(environment["COMP_POINT"])]
    shell = environment.get("_ARGCOMPLETE_SHELL", "bash")
    # Where bash divides words. The others complete whole words.
    breaks = environment.get("_ARGCOMPLETE_COMP_WORDBREAKS", "") if shell == quoting.BASH else ""
    typed = line.divide(text, "".join(set(breaks) & set("=:@")))
    with open(_TABLE, encoding="utf-8") as file:
        table = json.load(file)
    names = [os.path.basename(word) for word in typed.words]
    begin = names.index("xscontainer") + 1  # after sudo and the like
    at = candidates.position(typed.words[begin:], table)
    if at is None:
        return ""
    with _Pool(at, environment) as pool:
        return quoting.written(candidates.candidates(at, typed.current, pool), typed, shell)


class _Pool:
    """The pool, asked only if its names are needed."""

    def __init__(self, at: candidates.Position, environment: "Mapping[str, str]") -> None:
        self._at = at
        self._environment = environment
        self._xapi: Any = None

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._xapi is not None:
            self._xapi.__exit__(None, None, None)

    def __call__(self) -> Any:
        """Return a connection to XAPI of this host.

        :raises ValueError: when the command is for a server, whose password would have to be asked for.
        """
        if "--server" in self._at.given or self._environment.get("XSCONTAINER_SERVER"):
            raise ValueError("names on a server are not completed")
        from xscontainer.xapi.names import Xapi

        self._xapi = Xapi(*_xapi(self._at.given.get("--config") or self._environment.get("XSCONTAINER_CONF")), SECONDS)
        return self._xapi.__enter__()


def _xapi(settings: Optional[str]) -> Tuple[str, str]:
    """Return XAPI's socket and the originator of sessions, from the settings file; settings.py would take 30 ms."""
    import configparser

    ini = configparser.RawConfigParser(default_section="", comment_prefixes=("#", ";"), delimiters=("=",))
    with contextlib.suppress(FileNotFoundError), open(settings or _SETTINGS, encoding="utf-8") as file:
        ini.read_string(file.read(_MOST_SETTINGS))
    return ini.get("xapi", "socket", fallback=_SOCKET), ini.get("xapi", "originator", fallback=_ORIGINATOR)
