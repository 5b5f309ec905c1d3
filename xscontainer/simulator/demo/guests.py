"""The guests of the demo's pool."""

from typing import List

from xscontainer.simulator.world import ContainerSpec, GuestSpec

CLASSIC = "classic"
BUILD, FAILING = "build", "deploy"  # a VM, and its container that ends with an error when it is started
REASON = "cannot connect to registry.example.com: connection refused"
PASSWORD = "only its owner knows"
GUESTS = (
    GuestSpec(CLASSIC, (
        ContainerSpec("hadoop", "hadoop:3.3", ("sleep", "100000")), ContainerSpec("tomcat", "tomcat:10", port=8080),
        ContainerSpec("mysql", "mysql:8.0"), ContainerSpec("apache", "httpd:2.4", port=80))),
    GuestSpec("shop", (
        ContainerSpec("front", "nginx:1.27", project="shop", port=443),
        ContainerSpec("sessions", "redis:7", state="paused", project="shop"))),
    GuestSpec(BUILD, (
        ContainerSpec("runner", "runner:5"), ContainerSpec("last-job", "builder:12", state="exited"),
        ContainerSpec(FAILING, "deployer:4", ("sh", "-c", f"echo Deploying release 12; echo '{REASON}' >&2; exit 3"),
                      state="created"))),
    GuestSpec("fresh"),
    GuestSpec("legacy", (ContainerSpec("erp", "erp:9"),), monitored=False, prepared=False, password=PASSWORD),
)
# With --stay only: a VM that the user of the demo can prepare.
YOURS = GuestSpec("yours", (ContainerSpec("wiki", "wiki:4"),), monitored=False, prepared=False, password=PASSWORD)


def guest_specs(count: int, stay: bool = False) -> List[GuestSpec]:
    """Return ``count`` guests: the well-known ones, then smaller ones; one more if the pool stays."""
    more = [GuestSpec(f"vm{number}", (ContainerSpec("app", "app:1"),)) for number in range(len(GUESTS) + 1, count + 1)]
    return list(GUESTS[:count]) + more + [YOURS] * stay
