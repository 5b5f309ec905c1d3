"""XAPI messages: alerts that XenCenter and Xen Orchestra show."""

from xscontainer.xapi.session import Session

# (xapi: 1 is the most urgent of 5.)
WARNING = 3


def create(session: Session, name: str, vm_uuid: str, body: str, priority: int = WARNING) -> str:
    """Post a message about a VM and return its ref.

    The pool keeps 10000 messages of all programs together: post changes of state, never repetitions.

    :param name: one word in upper case, such as an error code.
    """
    return session.xenapi.message.create(name, str(priority), "VM", vm_uuid, body)
