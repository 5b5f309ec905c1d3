"""Shows and steers the containers inside the VMs of an XCP-ng or XenServer pool."""

__version__ = "0.1.0"
