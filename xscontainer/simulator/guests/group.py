"""Many guests with their engines in one process, started and closed together."""

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional

from xscontainer.simulator.engines import Acceptor, EmbeddedEngine, Identity, NotAvailable, SimulatorError
from xscontainer.simulator.engines.started import Started
from xscontainer.simulator.guests.addresses import AddressBlock, bind_all
from xscontainer.simulator.guests.base import Guest
from xscontainer.simulator.guests.openssh import OpenSSHGuest

MAX_REAL = 8
"""With more guests than this ``auto`` takes embedded engines: a dockerd costs 80 MB."""


class Guests(Started):
    """``count`` guests on one common port, each at an address of its own, each with ``guest.engine``.

    A context manager (entering starts all, leaving closes all) and a sequence.

    :param directory: for all files; None makes one and removes it at the end. Keep it short: sockets live below it.
    :param kind: ``openssh``, ``embedded`` or ``auto`` (sshd where there is one).
    :param engine: ``real``, ``embedded``, ``none`` or ``auto`` (dockerd where it can run and the guests are few).
    :param port: 0 picks a free one.
    :param guest_options: more arguments for each guest (options=, tools=, mode=, forwarding=, host_key_type= ...).
    :param passwords: by index, the password that a guest accepts; these guests are embedded ones.
    """

    def __init__(
        self, directory: Optional[str] = None, count: int = 1, kind: str = "auto", engine: str = "auto", port: int = 0,
        guest_options: Optional[Mapping[str, Any]] = None, passwords: Optional[Mapping[int, str]] = None,
    ) -> None:
        self.count = count
        self.kind = _choose(kind, "openssh", OpenSSHGuest.missing())
        self._engine_auto = engine == "auto"
        self.engine = _choose_engine(engine, count)
        self._made = directory is None
        self.directory = os.path.abspath(directory or tempfile.mkdtemp(prefix="xs-"))
        self._port = port
        self.identity = Identity()
        """The version and name that embedded engines report; to be set before start()."""
        self._guest_options = dict(guest_options or {})
        self._passwords = dict(passwords or {})
        self._acceptor = Acceptor()
        self._guests: List[Guest] = []

    def __len__(self) -> int:
        return len(self._guests)

    def __getitem__(self, index: int) -> Guest:
        return self._guests[index]

    def __iter__(self) -> Iterator[Guest]:
        return iter(self._guests)

    def start(self) -> None:
        """Make and start all guests and engines.

        :raises SimulatorError: one could not be started; the text names it. close() removes the others.
        """
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        addresses = AddressBlock().addresses(self.count)
        listeners = bind_all(addresses, self._port) if addresses else []
        for index, (address, listener) in enumerate(zip(addresses, listeners)):
            try:
                self._guests.append(self._make(index, address, listener))
            except BaseException:
                for unused in listeners[index:]:
                    unused.close()
                raise
        _together(self._start_one, self._guests)

    def _make(self, index: int, address: str, listener: Any) -> Guest:
        place = os.path.join(self.directory, f"g{index:03d}")
        common = dict(self._guest_options, address=address, listener=listener, port=listener.getsockname()[1],
                      acceptor=self._acceptor)
        if index in self._passwords:
            common["password"] = self._passwords[index]
        elif self.kind == "openssh":
            return OpenSSHGuest(place, **common)
        # Measured: importing paramiko takes 150 ms and 20 MB, which sshd guests do not need.
        from xscontainer.simulator.guests.embedded import EmbeddedSSHGuest

        return EmbeddedSSHGuest(place, **common)

    def _start_one(self, guest: Guest) -> None:
        guest.start()
        if self.engine == "none":
            return
        guest.engine = self._make_engine(guest)
        try:
            guest.engine.start()
        except SimulatorError:
            if not self._engine_auto or self.engine != "real":
                raise
            # dockerd is installed but cannot run here (no cgroups, no mounts ...): ``auto`` falls back.
            guest.engine.close()
            self.engine = "embedded"
            guest.engine = self._make_engine(guest)
            guest.engine.start()

    def _make_engine(self, guest: Guest) -> Any:
        if self.engine == "embedded":
            return EmbeddedEngine(guest.directory, guest.engine_socket, self.identity, self._acceptor)
        # Measured: the docker package takes 30 MB, which embedded engines do not need.
        from xscontainer.simulator.engines.real import RealEngine

        return RealEngine(os.path.join(guest.directory, "engine"), guest.engine_socket)

    def authorize(self, public_key_line: str) -> None:
        """Let a public key into every guest."""
        for guest in self._guests:
            guest.authorize(public_key_line)

    def close(self) -> None:
        """End all guests and engines and remove their files. May be called twice."""
        try:
            _together(_close_one, self._guests)
        finally:
            self._guests = []
            self._acceptor.close()
            if self._made:
                shutil.rmtree(self.directory, ignore_errors=True)


def _close_one(guest: Guest) -> None:
    try:
        if guest.engine is not None:
            guest.engine.close()
    finally:
        guest.close()


def _together(do: Callable[[Guest], None], guests: Iterable[Guest]) -> None:
    """Call ``do`` with all guests in parallel, then raise the first error with the guest's address."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = [(guest, pool.submit(do, guest)) for guest in guests]
    for guest, result in results:
        error = result.exception()
        if isinstance(error, SimulatorError):
            raise SimulatorError(f"guest {guest.address}: {error}") from error
        if error is not None:
            raise error


def _choose(kind: str, real: str, missing: str) -> str:
    if kind not in ("auto", real, "embedded"):
        raise ValueError(f"no such kind of guest: {kind}")
    if kind == real and missing:
        raise NotAvailable(missing)
    return ("embedded" if missing else real) if kind == "auto" else kind


def _choose_engine(engine: str, count: int) -> str:
    if engine not in ("auto", "real", "embedded", "none"):
        raise ValueError(f"no such kind of engine: {engine}")
    if engine in ("embedded", "none") or (engine == "auto" and count > MAX_REAL):
        return "embedded" if engine == "auto" else engine
    # As above: embedded engines do not need the docker package.
    from xscontainer.simulator.engines.real import RealEngine

    missing = RealEngine.missing()
    if missing and engine == "real":
        raise NotAvailable(missing)
    return "embedded" if missing else "real"
