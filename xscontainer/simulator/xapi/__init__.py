"""A XAPI pool on one machine: real sockets, real sessions and roles, events, plugins; no hypervisor."""

from xscontainer.simulator.xapi.pool.pool import ROOT_PASSWORD, Pool
from xscontainer.simulator.xapi.service.sim_host import SimHost

__all__ = ["Pool", "SimHost", "ROOT_PASSWORD"]
