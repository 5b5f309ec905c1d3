"""Engines for simulated guests. The real one is in .real, since the docker package takes 30 MB of memory."""

from xscontainer.simulator.engines.acceptor import Acceptor
from xscontainer.simulator.engines.call import Identity
from xscontainer.simulator.engines.embedded import EmbeddedEngine
from xscontainer.simulator.engines.errors import NotAvailable, SimulatorError
from xscontainer.simulator.engines.faults import Fault, Faults

__all__ = ["Acceptor", "EmbeddedEngine", "Fault", "Faults", "Identity", "NotAvailable", "SimulatorError"]
