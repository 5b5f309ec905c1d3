"""Tests of the decision whether a peer is the VM: one table, and rules that hold in every case."""

import itertools
from typing import Any, Dict, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer import keys
from xscontainer.core import identity
from xscontainer.core.identity import ANOTHER_VM, ASK, CONFLICT, TAKE, Census, OtherVM, Peer, claimants_of, decide
from xscontainer.core.vm_record import NULL_REF, VMChange, VMRecord

OWN, HONEST, THIRD = (f"{digit}1111111-2222-4333-8444-555555555555" for digit in "abc")
HERE, THERE = "10.0.0.1", "10.0.0.2"
KEY, OTHER_KEY = "SHA256:key", "SHA256:other"
HOST = "OpaqueRef:host"


def vm(uuid: str = OWN, *addresses: str, pin: str = "", accepted: str = "", published: bool = False,
       host: str = HOST) -> OtherVM:
    return OtherVM(uuid, "web", host, frozenset(addresses or (HERE,)), pin, accepted, published)


def judged(own: OtherVM, met: Peer, *others: OtherVM, answer: Optional[str] = "") -> str:
    return decide(own, met, claimants_of(own, met, others), answer).action


SSH, TLS = Peer(HERE, KEY), Peer(HERE, "")


@pytest.mark.parametrize("what, own, met, others, silent, own_answer, others_answer", [
    # An honest answer decides each case, unless an admin has decided it.
    ("first pin, no other VM there", vm(), SSH, (), TAKE, TAKE, ANOTHER_VM),
    ("another's pinned host key", vm(), SSH, (vm(HONEST, pin=KEY),), ANOTHER_VM, TAKE, ANOTHER_VM),
    ("another's pinned host key at another address: a relay, or a clone", vm(), SSH, (vm(HONEST, THERE, pin=KEY),),
     ANOTHER_VM, TAKE, ANOTHER_VM),
    ("an address reported by a VM without a pin", vm(), SSH, (vm(HONEST),), CONFLICT, TAKE, ANOTHER_VM),
    ("an address handed over by DHCP: it has another host key", vm(), SSH, (vm(HONEST, pin=OTHER_KEY),), TAKE, TAKE,
     ANOTHER_VM),
    ("the honest VM, with a newcomer at its address", vm(pin=KEY), SSH, (vm(HONEST),), TAKE, TAKE, ANOTHER_VM),
    ("the honest VM, with a newcomer, after its pin was removed", vm(published=True), SSH, (vm(HONEST),), TAKE, TAKE,
     ANOTHER_VM),
    ("both published, nothing pinned", vm(published=True), SSH, (vm(HONEST, published=True),), CONFLICT, TAKE,
     ANOTHER_VM),
    ("both pinned with one host key at one address", vm(pin=KEY), SSH, (vm(HONEST, pin=KEY),), ANOTHER_VM, TAKE,
     ANOTHER_VM),
    ("both pinned with one host key, but it was reached there before", vm(pin=KEY), SSH._replace(served=True),
     (vm(HONEST, pin=KEY),), TAKE, TAKE, ANOTHER_VM),
    ("two clones with one host key, both pinned", vm(pin=KEY), SSH, (vm(HONEST, THERE, pin=KEY),), TAKE, TAKE,
     ANOTHER_VM),
    ("an address that an admin set", vm(), SSH._replace(chosen=True), (vm(HONEST, pin=KEY),), TAKE, TAKE, ANOTHER_VM),
    ("a host key that an admin accepted", vm(accepted=KEY), SSH, (vm(HONEST, pin=KEY),), TAKE, TAKE, TAKE),
    ("another host key than the accepted one", vm(accepted=OTHER_KEY), SSH, (vm(HONEST, pin=KEY),), ANOTHER_VM, TAKE,
     ANOTHER_VM),
    ("accepted for the other VM at this address", vm(pin=KEY), SSH, (vm(HONEST, accepted=KEY),), ANOTHER_VM, TAKE,
     ANOTHER_VM),
    ("a person has confirmed the host key", vm(), SSH._replace(confirmed=True), (vm(HONEST),), TAKE, TAKE, ANOTHER_VM),
    ("a person has confirmed another's host key", vm(), SSH._replace(confirmed=True), (vm(HONEST, pin=KEY),),
     ANOTHER_VM, TAKE, ANOTHER_VM),
])
def test_identity_over_ssh_is_decided_as_in_the_table(what: str, own: OtherVM, met: Peer, others: Tuple[OtherVM, ...],
                                                      silent: str, own_answer: str, others_answer: str) -> None:
    found = tuple(judged(own, met, *others, answer=answer) for answer in ("", OWN, HONEST))
    assert found == (silent, own_answer, others_answer), what


@pytest.mark.parametrize("own, met, others, action", [
    (vm(), TLS, (), TAKE),
    (vm(), TLS, (vm(HONEST),), CONFLICT),
    (vm(), TLS, (vm(HONEST, pin=KEY),), CONFLICT),
    (vm(published=True), TLS, (vm(HONEST),), TAKE),
    (vm(published=True), TLS, (vm(HONEST, published=True),), CONFLICT),
    (vm(), TLS._replace(served=True), (vm(HONEST, published=True),), TAKE),
    (vm(), TLS._replace(chosen=True), (vm(HONEST, published=True),), TAKE),
])
def test_identity_over_tls_is_decided_as_in_the_table(own: OtherVM, met: Peer, others: Tuple[OtherVM, ...],
                                                      action: str) -> None:
    assert judged(own, met, *others, answer=None) == action


@pytest.mark.parametrize("own, others, asks", [
    (vm(), (), True), (vm(pin=KEY), (), False), (vm(pin=KEY), (vm(HONEST),), True),
    (vm(pin=KEY), (vm(HONEST, THERE),), False), (vm(accepted=KEY), (vm(HONEST, pin=KEY),), False)])
def test_the_guest_is_asked_before_pinning_and_if_another_vm_claims_it(own: OtherVM, others: Any,
                                                                       asks: bool) -> None:
    assert judged(own, SSH, *others, answer=None) == (ASK if asks else TAKE)


def test_the_refusal_names_the_holder() -> None:
    found = decide(vm(), SSH, (vm(THIRD), vm(HONEST, pin=KEY)), "")
    assert found.holder is not None and found.holder.uuid == HONEST
    found = decide(vm(), SSH, (vm(THIRD), vm(HONEST)), HONEST)
    assert found.holder is not None and found.holder.uuid == HONEST


@pytest.mark.parametrize("end", ["000000000000", "000000000001"])
def test_a_uuid_during_a_migration_counts_as_no_answer(end: str) -> None:
    assert judged(vm(), SSH, answer=OWN[:24] + end) == TAKE
    assert judged(vm(), SSH, vm(HONEST, pin=KEY), answer=OWN[:24] + end) == ANOTHER_VM
    assert judged(vm(pin=KEY), SSH, vm(HONEST), answer=OWN[:24] + end) == TAKE


@pytest.mark.parametrize("form", ["::ffff:10.0.0.1", "::ffff:a00:1", "64:ff9b::a00:1"])
def test_an_address_in_another_form_is_the_same(form: str) -> None:
    assert judged(vm(OWN, form), Peer(form, KEY), vm(HONEST)) == CONFLICT
    twin = OtherVM.of(record(HONEST, networks={"0/ipv6/0": form}))
    assert judged(vm(), SSH, twin) == CONFLICT


def test_host_internal_addresses_are_the_same_on_every_host() -> None:
    met, far, near = Peer("169.254.0.7", KEY), vm(HONEST, "169.254.0.7", host="OpaqueRef:far"), vm(THIRD, "169.254.0.7")
    assert [other.uuid for other in claimants_of(vm(), met, (far, near))] == [THIRD]


VMS: Any = st.builds(
    lambda places, pin, accepted, published: (places, pin, accepted, published),
    st.sampled_from([(HERE,), (THERE,), (HERE, THERE)]), st.sampled_from(["", KEY, OTHER_KEY]),
    st.sampled_from(["", "", KEY]), st.booleans())


def build(uuid: str, given: Any) -> OtherVM:
    places, pin, accepted, published = given
    return vm(uuid, *places, pin=pin, accepted=accepted, published=published)


@given(VMS, VMS, st.booleans())
def test_a_host_key_pinned_for_another_vm_is_never_pinned_without_an_answer(own: Any, other: Any, served: bool) -> None:
    """The guest has not answered, and no admin has decided."""
    newcomer = build(OWN, own)._replace(pin="", accepted="")
    holder = build(HONEST, other)._replace(pin=KEY)
    assert judged(newcomer, SSH, holder) == ANOTHER_VM


@given(VMS, VMS)
def test_a_later_vm_never_stops_the_first_one(own: Any, other: Any) -> None:
    honest = build(OWN, own)._replace(pin=KEY)
    newcomer = build(HONEST, other)._replace(pin="", accepted="")
    assert judged(honest, SSH, newcomer) == TAKE


@given(VMS, VMS, st.booleans(), st.booleans())
def test_two_silent_vms_at_one_address_are_never_both_accepted(first: Any, second: Any, served: bool,
                                                               tls: bool) -> None:
    """Exceptions: an admin has accepted one, or one was reached there before the other."""
    one, two = (build(uuid, given_)._replace(accepted="", addresses=frozenset({HERE}))
                for uuid, given_ in ((OWN, first), (HONEST, second)))
    for each in (one, two):
        if not tls and each.pin not in ("", KEY):
            return  # this VM would be refused for its host key
    if served:  # a served VM is pinned, and only one VM can have the pin of this host key
        one, two = one._replace(pin="" if tls else KEY, published=True), two._replace(pin="", published=False)
    met = TLS if tls else SSH
    assert (judged(one, met._replace(served=served), two), judged(two, met, one)) != (TAKE, TAKE)


# --- the guest's answer


@pytest.mark.parametrize("said, answer", [
    (f"{OWN}\n", OWN),
    (f"cat: a warning\r\n{HONEST}\r\n{OWN}\r\n", OWN),
    (f"it is {OWN}\n", ""),
    (f"{OWN}x\n", ""),
    ("cat: /sys/hypervisor/uuid: No such file or directory\n", ""),
    (f"{OWN.upper()}\n", ""),
    ("00000000-0000-0000-0000-000000000000\n", ""),
    ("------------------------------------\n", ""),
    ("", ""), ("\0" * 5000, "")])
def test_only_the_uuid_of_a_guest_counts_as_an_answer(said: str, answer: str) -> None:
    assert identity.parse_answer(said.encode()) == answer


# --- all VMs of the pool

BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIGVsc2VlbHNlZWxzZWVsc2VlbHNlZWxzZWVsc2Vl"


def record(uuid: str, power_state: str = "Running", is_guest: bool = True, **more: Any) -> VMRecord:
    networks: Dict[str, str] = more.pop("networks", {"0/ip": HERE})
    return VMRecord("OpaqueRef:" + uuid, uuid, "web", power_state, HOST, 1, NULL_REF, more, is_guest, networks)


def test_the_census_knows_running_vms_by_address_and_host_key() -> None:
    from xscontainer.engine.ssh import hostkeys

    census = Census()
    pinned: Any = {keys.HOST_KEY: f"ssh-ed25519 {BLOB} comment", keys.OWNER: OWN}
    networks = {"0/ip": HERE, "0/ipv6/0": "2001:DB8::0:1", "0/ipv6/1": "fe80::1"}
    census.apply([VMChange(OWN, record(OWN, networks=networks, **pinned))], False)
    incomplete = not census.complete
    census.apply([VMChange(HONEST, record(HONEST, "Halted")), VMChange(THIRD, record(THIRD, is_guest=False))], True)
    assert incomplete and census.complete
    key = hostkeys.parse_pin(BLOB).fingerprint
    assert identity.fingerprint(BLOB) == key
    for claims in ((HERE,), ("2001:db8::1",), ("::ffff:" + HERE,), ("", key), (HERE, key)):
        assert [found.uuid for found in census.holders(*claims)] == [OWN], claims
    assert census.holders("", "") == () == census.holders(THERE, "SHA256:none")
    assert census.holders("fe80::1") == ()  # link-local addresses are not unique
    # A second holder of the address comes and goes.
    census.apply([VMChange(HONEST, record(HONEST))], False)
    assert [found.uuid for found in census.holders(HERE, key)] == [OWN, HONEST]
    census.apply([VMChange(HONEST, record(HONEST, networks={"0/ip": THERE}))], False)
    assert [found.uuid for found in census.holders(HERE)] == [OWN]
    census.apply([VMChange(HONEST, None)], False)
    # The inherited pin of a clone counts for its original only.
    census.apply([VMChange(THIRD, record(THIRD, networks={}, **pinned))], False)
    assert [found.uuid for found in census.holders("", key)] == [OWN]
    # The VM gets another address, and is shut down.
    census.apply([VMChange(OWN, record(OWN, networks={"0/ip": THERE}, **pinned))], False)
    assert census.holders(HERE) == () and [found.uuid for found in census.holders(THERE)] == [OWN]
    census.apply([VMChange(OWN, record(OWN, "Halted", **pinned))], False)
    assert census.holders(HERE, key) == () == census.holders(THERE) and census.get(OWN) is None
    census.apply([VMChange(THIRD, None)], False)
    assert census.get(THIRD) is None and not census._holders


def test_a_guest_that_reports_thousands_of_addresses_claims_few() -> None:
    networks = {f"0/ipv6/{number}": f"2001:db8::{number:x}" for number in range(1, 5000)}
    found = OtherVM.of(record(OWN, networks=networks))
    assert len(found.addresses) == 32


def test_every_verdict_has_one_of_four_actions() -> None:
    for own_pin, pin, answer in itertools.product(("", KEY), ("", KEY, OTHER_KEY), (None, "", OWN, HONEST)):
        assert judged(vm(pin=own_pin), SSH, vm(HONEST, pin=pin), answer=answer) in (TAKE, ASK, ANOTHER_VM, CONFLICT)
