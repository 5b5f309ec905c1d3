"""Engines for simulated guests."""

from xscontainer.simulator.engines.real import RealEngine

__all__ = ["RealEngine"]
