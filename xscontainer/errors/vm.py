"""Errors of a VM: its power state, its settings and its addresses."""

from xscontainer.errors.base import XSContainerError


class VMError(XSContainerError):
    """The state or the settings of the VM do not allow the call."""

    code = "VM_ERROR"


class VMNotRunning(VMError):
    """The VM is halted, suspended or paused."""

    code = "VM_NOT_RUNNING"
    during_setup = True
    default_hint = "Start the VM first."
    HINTS = {"Suspended": "Resume the VM first.", "Paused": "Unpause the VM first."}

    @classmethod
    def of(cls, label: str, power_state: str) -> "VMNotRunning":
        """Return the error for a VM.

        :param label: VMRecord.label.
        :param power_state: in XAPI's words, such as "Halted".
        """
        return cls(f"The VM {label} is {power_state.lower()}, so its containers cannot be reached.",
                   cls.HINTS.get(power_state, ""))


class VMNotRegistered(VMError):
    """Container management is switched off for the VM."""

    code = "VM_NOT_REGISTERED"
    default_hint = ("Switch container management on: run 'xscontainer prepare VM' on any host, or call the plugin's "
                    "function 'register'.")


class VMElsewhere(VMError):
    """The VM moved to another host during the call."""

    code = "VM_ELSEWHERE"
    moved = True
    default_hint = "Repeat the call."


class ModeUnsupported(VMError):
    """`xscontainer-mode` is neither `ssh` nor `tls`."""

    code = "MODE_UNSUPPORTED"
    default_hint = "Set xscontainer-mode in the VM's other_config to ssh or tls, or remove the key."


class GuestThrottled(VMError):
    """The guest causes more work than one VM may cause, so its list is not refreshed in time."""

    code = "GUEST_THROTTLED"
    transient = True
    default_hint = ("Check in the VM what starts or changes containers all the time, or what floods its container "
                    "engine.")


class NotPublished(VMError):
    """The engine can be reached, but no monitor on the VM's host refreshes the list.

    A list that clients still show is out of date.
    """

    code = "NOT_PUBLISHED"
    default_hint = "Check that xscontainer-monitor runs on the VM's host (systemctl status xscontainer-monitor)."


class AddressUnknown(VMError):
    """The guest tools report no IP address, and `xscontainer-address` is not set."""

    code = "ADDRESS_UNKNOWN"
    transient = True
    during_setup = True
    default_hint = ("Check that the Xen guest tools run in the VM and that its network is up, or set "
                    "xscontainer-address in its other_config.")


class NameUnresolved(VMError):
    """The host name in `xscontainer-address` cannot be resolved to an IP address."""

    code = "NAME_UNRESOLVED"
    transient = True
    during_setup = True
    default_hint = ("Check xscontainer-address in the VM's other_config and the DNS settings of this host, or set an "
                    "IP address instead of a name.")


class AddressRefused(VMError):
    """None of the VM's addresses may be used: they are loopback, multicast or a host's own addresses."""

    code = "ADDRESS_REFUSED"
    default_hint = ("Give the VM an address that is neither loopback, multicast nor a pool host's own. Or set "
                    "xscontainer-address in its other_config to such an address.")


class TLSCredentialsMissing(VMError):
    """The mode is `tls`, but the VM's other_config names no certificate to connect with, or the secret is gone."""

    code = "TLS_CREDENTIALS_MISSING"
    default_hint = ("Create certificates for the VM ('xscontainer prepare VM --mode tls --generate-certs'), or name "
                    "your secrets in xscontainer-tls-ca-cert, xscontainer-tls-client-cert and "
                    "xscontainer-tls-client-key.")


class TLSCredentialsInvalid(VMError):
    """The secrets that the VM names do not hold a certificate or key."""

    code = "TLS_CREDENTIALS_INVALID"
    default_hint = ("Check the secrets that are named by xscontainer-tls-ca-cert, xscontainer-tls-client-cert and "
                    "xscontainer-tls-client-key in the VM's other_config.")
