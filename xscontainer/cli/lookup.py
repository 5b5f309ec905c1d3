"""Find objects of the pool by name or uuid, and read configurations from files.

:func:`vms` and :func:`containers` take words of a command line; ``core/naming.py`` has the rules. One call of XAPI
serves all words of a command line. If each word has a VM's whole name or uuid, XAPI sends only these VMs.
"""

import contextlib
import re
import sys
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

from xscontainer import keys
from xscontainer.clients import inventory
from xscontainer.core import eligibility
from xscontainer.core.naming import Listed, NamedContainer, NamedVM, Names, did_you_mean, splits
from xscontainer.core.vm_record import NULL_REF, UUID, VMRecord
from xscontainer.errors import Ambiguous, ArgumentError, NotFound, ObjectGone, XapiError
from xscontainer.xapi.inventory import GUESTS
from xscontainer.xapi.session import Session

MOST_CONFIGURATION = 120000  # bytes; a plugin call accepts no more

_MOST_NARROWED = 50  # names and uuids in one query
# XAPI's parser of queries knows escapes, but not all characters that a name may hold.
_PLAIN = re.compile(r"[\w ./:@+-]{1,200}\Z", re.ASCII)
# A name of such characters stands in a published list as it is.
_UNESCAPED = re.compile(r"[\w.-]+\Z", re.ASCII)

Meant = TypeVar("Meant", NamedVM, NamedContainer)


def vms(session: Session, words: "Sequence[str]") -> "List[NamedVM]":
    """Return the VMs that these words mean, in their order and each once: by name, uuid, or a beginning of either.

    :raises NotFound, Ambiguous: when a word does not mean exactly one VM.
    """
    return _meant(session, words, lambda names, word: names.vm(word), [(word,) for word in words])


def containers(session: Session, words: "Sequence[str]") -> "List[NamedContainer]":
    """Return the containers that these words mean, in their order and each once: VM/NAME, VM/ID, NAME or ID.

    :raises NotFound, Ambiguous: when a word does not mean exactly one container.
    """
    return _meant(session, words, lambda names, word: names.container(word),
                  [tuple(vm_word for vm_word, _ in splits(word)) for word in words])


def vm(session: Session, wanted: str) -> str:
    """Return the uuid of the VM that this word means. The uuid of a template or snapshot is returned, too.

    :raises NotFound, Ambiguous: when the word does not mean exactly one VM.
    """
    try:
        return vms(session, [wanted])[0].uuid
    except NotFound:
        if UUID.match(wanted.lower()):
            with contextlib.suppress(ObjectGone):
                session.xenapi.VM.get_by_uuid(wanted.lower())
                return wanted.lower()  # the verb says why it does not serve this object
        raise


def _meant(session: Session, words: "Sequence[str]", find: "Callable[[Names, str], Meant]",
           vm_words: "Sequence[Tuple[str, ...]]") -> "List[Meant]":
    """Return the objects that the words mean.

    :param vm_words: for each word the names or uuids of a VM that it may begin with.
    """
    for each in filter(None, (query(vm_words), GUESTS)):
        try:
            names = _read(session, each, whole=each == GUESTS)
            return list(dict.fromkeys(find(names, word) for word in words))
        except (Ambiguous, NotFound):
            if each == GUESTS:
                raise
        except XapiError as error:
            if each == GUESTS or not error.details:
                raise  # XAPI did not refuse the query
    return []


def query(vm_words: "Sequence[Tuple[str, ...]]") -> str:
    """Return a query for the VMs with these names and uuids alone; "" if a word needs all VMs."""
    every = [word for words in vm_words for word in words]
    if not every or not all(vm_words) or not all(map(_PLAIN.match, every)) or len(every) > _MOST_NARROWED:
        return ""
    tests = [f'field "name__label" = "{word}"' for word in every]
    tests += [f'field "uuid" = "{word.lower()}"' for word in every if UUID.match(word.lower())]
    return f"{GUESTS} and ({' or '.join(tests)})"


def _read(session: Session, where: str, whole: bool) -> Names:
    records = {record.uuid: record for record in VMRecord.all_of(session.xenapi.VM.get_all_records_where(where))
               if record.is_guest}
    read: Dict[str, Listed] = {}

    def listed(vm: NamedVM, word: str) -> Listed:
        record = records[vm.uuid]
        text = record.other_config.get(keys.PS, "")
        if _UNESCAPED.match(word) and word not in text and word.lower() not in text:
            return Listed()
        if vm.uuid not in read:
            read[vm.uuid] = _listed(record)
        return read[vm.uuid]

    def host_name(ref: str) -> str:
        try:
            return str(session.xenapi.host.get_name_label(ref))
        except ObjectGone:
            return ref

    return Names((NamedVM(record.uuid, record.name, record.resident_on, record.power_state)
                  for record in records.values()), listed, host_name, whole)


def _listed(record: VMRecord) -> Listed:
    """Return the containers of a VM; incomplete if it publishes no list, or none that says all."""
    view = inventory.view(record)
    complete = (keys.PS in record.other_config and record.is_owner and not view.left_out
                and eligibility.enabled(record) and (view.problem is None or bool(view.containers)))
    return Listed(tuple((each.id, each.name) for each in view.containers), complete)


def uuid(session: Session, kind: str, wanted: str, what: str, where: str = "true") -> str:
    """Return the uuid of the object with that name or uuid.

    :param kind: class in XAPI, for example "network".
    :param what: name of the class for people.
    :param where: query of XAPI that restricts the search by name.
    :raises NotFound: when there is no such object. :raises Ambiguous: when several have the name.
    """
    xapi = getattr(session.xenapi, kind)
    if UUID.match(wanted.lower()):
        try:
            xapi.get_by_uuid(wanted.lower())
            return wanted.lower()
        except ObjectGone:
            pass  # a name may look like a uuid
    records: Mapping[str, Any] = xapi.get_all_records_where(where)
    found = [record["uuid"] for record in records.values() if record["name_label"] == wanted]
    if not found:
        raise NotFound(f"The pool has no {what} {wanted!r}.", did_you_mean(
            wanted, [record["name_label"] for record in records.values()]) or "Give its name or its uuid.")
    if len(found) > 1:
        raise Ambiguous(f"{len(found)} {what}s are named {wanted!r}.", "Give a uuid.", candidates=found)
    return str(found[0])


def template(session: Session, wanted: str) -> str:
    return uuid(session, "VM", wanted, "template", 'field "is_a_template" = "true" and field "is_a_snapshot" = "false"')


def storage(session: Session, wanted: "Optional[str]") -> str:
    """Return the uuid of a storage repository; for None the pool's default one."""
    if wanted is not None:
        return uuid(session, "SR", wanted, "storage repository")
    (pool,) = session.xenapi.pool.get_all_records().values()
    if pool["default_SR"] != NULL_REF:
        try:
            return str(session.xenapi.SR.get_uuid(pool["default_SR"]))
        except ObjectGone:
            pass
    raise ArgumentError("The pool has no default storage repository.", "Name one with --sr.")


def configuration(path: str) -> str:
    """Read a configuration from a file, or from standard input if the path is "-".

    :raises ArgumentError: when it cannot be read, is empty, or is too long for a call.
    """
    try:
        if path == "-":
            content = sys.stdin.buffer.read(MOST_CONFIGURATION + 1)
        else:
            with open(path, "rb") as stream:
                content = stream.read(MOST_CONFIGURATION + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not UTF-8 text.") from error
    if not text.strip():
        raise ArgumentError("The configuration is empty.", "'xscontainer drive default' prints one to start from.")
    if len(content) > MOST_CONFIGURATION:
        raise ArgumentError(f"{path} is longer than {MOST_CONFIGURATION} bytes, more than a call accepts.")
    return text
