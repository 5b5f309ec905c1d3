"""Collect and print figures."""

from typing import List, Sequence


def quantile(values: "Sequence[float]", part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class Report:
    """Print each figure immediately, and at the end those that missed their target."""

    def __init__(self) -> None:
        self.missed: List[str] = []

    def title(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    def figure(self, what: str, value: float, unit: str, most: float) -> None:
        """Print one figure, which should be at most ``most``."""
        good = value <= most
        if not good:
            self.missed.append(what)
        print(f"  {what:<62} {value:>10.4g} {unit:<6} target <= {most:g}{'' if good else '   MISSED'}", flush=True)

    def note(self, what: str, value: object) -> None:
        print(f"  {what:<62} {value}", flush=True)
