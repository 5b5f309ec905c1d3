"""A XAPI pool on one machine: real sockets, real sessions and roles, events, plugins; no hypervisor."""

from .host import SimHost
from .pool import ROOT_PASSWORD, Pool

__all__ = ["Pool", "SimHost", "ROOT_PASSWORD"]
