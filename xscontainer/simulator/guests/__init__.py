"""Guests: SSH servers at the addresses of VMs. The embedded kind is in .embedded: it needs paramiko."""

from xscontainer.simulator.guests.base import Guest
from xscontainer.simulator.guests.group import Guests
from xscontainer.simulator.guests.openssh import OpenSSHGuest

__all__ = ["Guest", "Guests", "OpenSSHGuest"]
