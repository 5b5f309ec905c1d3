"""XAPI messages: alerts that XenCenter and Xen Orchestra show."""

from xscontainer.xapi.session import Session

# (xapi: 1 is the most urgent of 5.)
WARNING = 3


def create(session: Session, name: str, vm_uuid: str, body: str, priority: int = WARNING) -> str:
    """Post a message about a VM; returns its ref.

    The pool keeps 10000 messages for everybody: post changes of state, never repetitions.

    :param name: upper case, one word, the error's code for instance.
    """
    return session.xenapi.message.create(name, str(priority), "VM", vm_uuid, body)
