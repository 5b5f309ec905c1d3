"""The registry of the VMs that this host monitors, and the life of each monitor."""
