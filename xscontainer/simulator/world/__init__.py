"""A pool, guests with engines, and the real daemon and plugin on every host, on one machine."""

from xscontainer.simulator.world.parts import OWN, ContainerSpec, GuestSpec, Parts
from xscontainer.simulator.world.view import Interrupted, by_name
from xscontainer.simulator.world.vm import WorldVM
from xscontainer.simulator.world.world import Failure, World

__all__ = ["OWN", "ContainerSpec", "Failure", "GuestSpec", "Interrupted", "Parts", "World", "WorldVM", "by_name"]
