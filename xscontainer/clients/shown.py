"""The documents of one VM that clients are shown, as its monitor or XAPI knows them."""

from typing import NamedTuple, Optional

from xscontainer.core.tally import Tally
from xscontainer.core.usage import Total
from xscontainer.core.vm_record import VMRecord


class Resources(NamedTuple):
    """The resources that the containers of a VM used when somebody looked last.

    :ivar at: seconds since the epoch.
    """

    at: float
    total: Total


class Shown(NamedTuple):
    """The documents of a VM.

    :ivar vm: the VM's record, with the documents themselves, which other records replace by digests.
    :ivar tally: the numbers of containers in its list; None: clients are shown no list.
    :ivar version: another object after each list that the engine gave; None: the list is not known to be current.
    :ivar resources: None: nobody has looked lately.
    """

    vm: VMRecord
    tally: Optional[Tally] = None
    version: Optional[object] = None
    resources: Optional[Resources] = None
