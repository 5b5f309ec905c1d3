"""Try the installed engines; print one line with the reason for each that cannot run here."""

from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.engines.real import RealEngine

if __name__ == "__main__":
    for kind in (RealEngine, PodmanEngine):
        reason = kind.missing()
        if reason:
            print(reason)
