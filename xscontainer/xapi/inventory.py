"""Read the pool from XAPI: hosts, VMs and published containers."""

from xscontainer.clients.inventory import Pool, build
from xscontainer.errors import XapiError
from xscontainer.xapi.session import Session

# Every pool has dozens of templates, and snapshots hold copies of the published lists: XAPI leaves them out.
GUESTS = ('field "is_a_template" = "false" and field "is_a_snapshot" = "false" and '
          'field "is_control_domain" = "false"')


def read(session: Session, every_vm: bool = False, query: str = GUESTS) -> Pool:
    """Read the pool in one round trip.

    :param every_vm: include VMs that are not container-managed.
    :param query: which VMs to read, as XAPI's expression.
    :raises XapiError: when XAPI does not answer, or refuses.
    """
    answers = session.together(("pool.get_all_records", ()), ("host.get_all_records", ()),
                               ("VM.get_all_records_where", (query,)))
    for answer in answers:
        if isinstance(answer, XapiError):
            raise answer
    pools, hosts, vms = answers
    (pool_record,) = pools.values()
    return build(pool_record, hosts, vms, every_vm)
