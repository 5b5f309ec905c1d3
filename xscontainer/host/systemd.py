"""Notify systemd of readiness and liveness. Without systemd nothing happens."""

import os
import socket


def notify(*lines: str) -> None:
    """Send assignments such as ``READY=1`` to the service manager, see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(1.0)
            manager.sendto("\n".join(lines).encode("utf-8"), address)
    except OSError:
        pass  # a service manager that does not listen must not stop the service


def watchdog_interval() -> float:
    """Return the seconds between two notifications that satisfy systemd's watchdog, 0.0 if the watchdog is off."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        return 0.0
