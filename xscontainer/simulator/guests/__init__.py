"""Guests: what answers SSH at a VM's address."""

from xscontainer.simulator.guests.base import Guest
from xscontainer.simulator.guests.openssh import OpenSSHGuest

__all__ = ["Guest", "OpenSSHGuest"]
