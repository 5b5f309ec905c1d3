"""Connection faults of a guest."""

import socket
from typing import Callable

from xscontainer.simulator.engines import relay
from xscontainer.simulator.engines.faults import Fault


def play_fault(
    connection: socket.socket, fault: Fault, serve: Callable[[socket.socket], None], threads: relay.Threads
) -> None:
    """Play a fault on a connection; ``serve`` gives the correct bytes for faults of transmission."""
    with relay.closing_on_stop(connection, threads):
        if relay.play(connection, fault, threads.stopping):
            return
        # "late", "slow" and "cut" pass on the bytes of a correct server.
        near, far = socket.socketpair()
        with near:
            serve(far)
            relay.pump(connection, near, fault, threads.stopping)
