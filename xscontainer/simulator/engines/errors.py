"""What can go wrong with a simulated engine or guest, apart from what it does on purpose."""


class SimulatorError(Exception):
    """A guest or engine could not be started, or was asked for something it cannot do; the text says what."""


class NotAvailable(SimulatorError):
    """This machine lacks a program or a right that the real part needs; use the embedded one."""
