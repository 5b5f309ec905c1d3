"""Failures of a simulated engine or guest, apart from the faults that it plays on purpose."""


class SimulatorError(Exception):
    """A guest or engine could not be started, or cannot do what was requested."""


class NotAvailable(SimulatorError):
    """This machine lacks a program or a right that the real program needs. Use the embedded kind."""
