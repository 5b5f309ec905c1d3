"""``xscontainer logs``: print the logs of containers, once or as they grow."""

import argparse
import functools
import json
import sys
from typing import Any, Dict, Iterator, List, Optional, TextIO, Tuple

from xscontainer.cli import lookup, plugin_call, several
from xscontainer.cli.log_reader import MOST_TAIL, Entry, Following, LogPage, merged, read
from xscontainer.cli.ui.columns import neutral, width
from xscontainer.cli.ui.output import complain, say
from xscontainer.cli.ui.terminal import Terminal
from xscontainer.core.log_lines import visible, without_colours
from xscontainer.core.naming import NamedContainer
from xscontainer.errors import ArgumentError
from xscontainer.settings import Settings
from xscontainer.xapi.session import Session

TEXT, NDJSON = "text", "ndjson"
_RESET = "\x1b[0m"
_PREFIX_COLOURS = (36, 33, 32, 35, 34)  # SGR, in turn


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "logs",
        description="Print the logs of containers: standard output on standard output, standard error on standard "
                    "error. With several containers each line begins with VM/NAME. A call gives at most 5000 lines "
                    "and 256 KiB of a log, the newest.")
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="container, as VM/NAME or NAME")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with the lines that are written from now on")
    parser.add_argument("-n", "--tail", metavar="N", default=MOST_TAIL,
                        help="only the last N lines, at most 5000 ('all' means 5000; default: all)")
    parser.add_argument("--since", metavar="TIME",
                        help="only lines since then: a duration before now such as 10m or 1h30m, RFC 3339, or seconds "
                             "since 1970")
    parser.add_argument("--until", metavar="TIME", help="only lines until then, as --since")
    parser.add_argument("-t", "--timestamps", action="store_true", help="begin each line with its time, in UTC")
    parser.add_argument("--format", choices=(TEXT, NDJSON), default=TEXT,
                        help="ndjson: one JSON object for each line, for programs (default: text)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    if options.follow and options.until is not None:
        raise ArgumentError("--until cannot be given with --follow.", "Leave one of them out.")
    arguments = {"tail": MOST_TAIL if options.tail == "all" else options.tail}
    arguments.update({name: value for name in ("since", "until") for value in [getattr(options, name)] if value})
    with plugin_call.logged_in(options, settings) as session:
        found = lookup.containers(session, options.containers)
        printer = _Printer(options, found)
        if options.follow:
            return _follow(session, settings, found, arguments, printer)
        return _read_once(session, settings, found, arguments, printer)


def _ask(session: Session, settings: Settings, container: NamedContainer, **arguments: str) -> str:
    from xscontainer.verbs.logs import GET_LOGS  # here for start-up time, see cli/__init__.py

    return plugin_call.call(session, settings, GET_LOGS, vmuuid=container.vm_uuid, container=container.argument,
                            **arguments)


def _read_once(session: Session, settings: Settings, found: "List[NamedContainer]", arguments: "Dict[str, str]",
               printer: "_Printer") -> int:
    pages: List[Tuple[NamedContainer, LogPage]] = []
    code = several.each(session, found, lambda container: container.label,
                        lambda session, container: read(_ask(session, settings, container, **arguments)),
                        lambda container, page: pages.append((container, page)))
    for container, page in pages:
        printer.gaps(container, page)
    for container, line in merged(pages):
        printer.line(container, line)
    printer.flush()
    return code


def _follow(session: Session, settings: Settings, found: "List[NamedContainer]", arguments: "Dict[str, str]",
            printer: "_Printer") -> int:
    def pages(own: Session, container: NamedContainer) -> "Iterator[LogPage]":
        following = Following(functools.partial(_ask, own, settings, container), arguments,
                              lambda error: complain(error, container.label, "Trying again."))
        return following.pages()

    return several.follow(session, found, lambda container: container.label, pages, printer.page)


class _Printer:
    """Prints lines of logs.

    :param containers: all whose lines are printed.
    """

    def __init__(self, options: argparse.Namespace, containers: "List[NamedContainer]") -> None:
        self._terminal = Terminal.of(options)
        self._json = options.format == NDJSON
        self._stamps = options.timestamps
        room = max(width(container.label) for container in containers)
        self._prefixes = {container: self._prefix(container.label, number, room)
                          for number, container in enumerate(containers)} if len(containers) > 1 else {}
        # Colours are for eyes: each stream has its own.
        self._colours = {sys.stdout: self._terminal.coloured,
                         sys.stderr: self._terminal.coloured and sys.stderr.isatty()}

    def _prefix(self, label: str, number: int, room: int) -> "Tuple[str, str]":
        """Return the beginning of a container's lines, plain and coloured."""
        text = neutral(label)
        plain = text + (" " * (room - width(text)) if self._terminal.is_terminal else "") + " | "
        return plain, f"\x1b[{_PREFIX_COLOURS[number % len(_PREFIX_COLOURS)]}m{plain}{_RESET}"

    def page(self, container: NamedContainer, page: LogPage) -> None:
        """Print a page, so that it can be seen at once."""
        self.gaps(container, page)
        for line in page.lines:
            self.line(container, line)
        self.flush()

    def gaps(self, container: NamedContainer, page: LogPage) -> None:
        """Say which lines are missing before those of a page."""
        if page.truncated:
            self._notice(container, "Older lines are not shown: the log is longer than one call gives.", truncated=True)
        if page.dropped:
            lines = "1 line was" if page.dropped == 1 else f"{page.dropped} lines were"
            self._notice(container, f"{lines} dropped here: the container writes too fast.", dropped=page.dropped)

    def line(self, container: NamedContainer, line: Entry) -> None:
        """Print a line, on standard error if it is no line of standard output."""
        if self._json:
            self._write_json(container, {"time": line.time, "stream": line.stream, "text": visible(line.text)})
            return
        stream = sys.stdout if line.stream == "stdout" else sys.stderr
        coloured = self._colours[stream]
        text = visible(line.text)
        text = text if coloured else without_colours(text)
        if coloured and "\x1b" in text:
            text += _RESET
        prefix = self._prefixes.get(container, ("", ""))[coloured]
        stamp = f"{neutral(line.time or '-')} " if self._stamps else ""
        self._write(stream, f"{prefix}{stamp}{text}\n")

    def flush(self) -> None:
        sys.stdout.flush()

    def _notice(self, container: NamedContainer, sentence: str, **fields: Any) -> None:
        if self._json:
            self._write_json(container, fields)
        else:
            self.flush()
            say(f"xscontainer: {container.label}: {sentence}")

    def _write_json(self, container: NamedContainer, fields: "Dict[str, Any]") -> None:
        self._write(sys.stdout, json.dumps({
            "vm": {"uuid": container.vm_uuid, "name": container.vm_name}, "container": container.name or container.id,
            **fields}) + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        encoding: Optional[str] = stream.encoding
        if stream is sys.stderr:
            self.flush()  # both may be one terminal
        stream.write(text.encode(encoding or "ascii", "replace").decode(encoding or "ascii"))
        if stream is sys.stderr:
            stream.flush()
