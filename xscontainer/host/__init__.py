"""This machine: systemd, locks between its processes, the name service."""
