"""Every way in which xscontainer fails, one class per cause.

::

    XSContainerError
    +-- SettingsError              SETTINGS_INVALID        the INI file does not say what it must
    +-- SocketUnusable             SOCKET_UNUSABLE         the daemon cannot listen where it should
    +-- ArgumentError              ARGUMENT_INVALID        a caller's argument is missing or malformed
    +-- NotPermitted               NOT_PERMITTED           the caller's role is too low for the function
    +-- CalledOff                  CALLED_OFF              a client cancelled its task
    +-- XapiError                  XAPI_ERROR              XAPI answered with a failure of its own
    |   +-- XapiUnavailable        XAPI_UNAVAILABLE        no answer from XAPI in time, or none at all
    |   +-- XapiSessionLost        XAPI_SESSION_LOST       our login is gone (restart, join, expiry)
    |   +-- ObjectGone             OBJECT_GONE             the VM, host, ... does not exist (any more)
    +-- VMError                                            a VM cannot be served as it is
    |   +-- VMNotRunning           VM_NOT_RUNNING
    |   +-- VMNotRegistered        VM_NOT_REGISTERED
    |   +-- VMElsewhere            VM_ELSEWHERE            it left for another host during the call
    |   +-- ModeUnsupported        MODE_UNSUPPORTED        its xscontainer-mode is neither ssh nor tls
    |   +-- NotPublished           NOT_PUBLISHED           all works, and yet no list is published
    |   +-- AddressUnknown         ADDRESS_UNKNOWN         the guest reports no address
    |   +-- NameUnresolved         NAME_UNRESOLVED         its xscontainer-address is a name without an address
    |   +-- AddressRefused         ADDRESS_REFUSED         none of its addresses may be contacted
    |   +-- TLSCredentialsMissing  TLS_CREDENTIALS_MISSING  no certificate to connect with, or its secret is gone
    |   +-- TLSCredentialsInvalid  TLS_CREDENTIALS_INVALID  what its secrets hold is no certificate or key
    +-- StorageError                                       a disk cannot be made, filled, read or attached
    |   +-- StorageElsewhere       STORAGE_ELSEWHERE       the disk's storage left for another host during the call
    |   +-- StorageNotAttached     STORAGE_NOT_ATTACHED    the storage is not attached where it is needed
    |   +-- TransferFailed         DISK_TRANSFER_FAILED    a disk's content did not arrive whole
    |   +-- DriveBusy              DRIVE_BUSY              the guest holds on to a drive, or another disc is in it
    |   +-- DriveMissing           DRIVE_MISSING           the VM has no CD drive and cannot be given one
    |   +-- NotConfigDrive         NOT_A_CONFIG_DRIVE      the disk holds no configuration
    +-- KeyPairError               KEY_PAIR_INVALID        the pool's SSH key pair is unusable
    +-- KeyRotationUnfinished      KEY_ROTATION_UNFINISHED  VMs would be lost without the previous key
    +-- ConnectError                                       no way to the engine
    |   +-- GuestUnreachable       GUEST_UNREACHABLE       nothing answers at the address
    |   |   +-- GuestRefused       GUEST_REFUSED           a machine is there, nothing listens on the port
    |   |   +-- GuestFiltered      GUEST_FILTERED          no answer at all
    |   |   +-- GuestNoRoute       GUEST_NO_ROUTE          the network says that there is no way
    |   +-- GuestSilent            GUEST_SILENT            it answers, but not in time
    |   |   +-- GuestNotSSH        GUEST_NOT_SSH           it speaks, but not SSH
    |   |   +-- SSHIncompatible    SSH_INCOMPATIBLE        no SSH version or algorithm in common
    |   |   +-- LoginEnded         LOGIN_ENDED             it hung up in the middle of the login
    |   +-- HostKeyChanged         HOST_KEY_CHANGED        not the guest we pinned
    |   +-- HostKeyUnreadable      HOST_KEY_UNREADABLE     what other_config pins is no host key
    |   +-- HostKeyUnconfirmed     HOST_KEY_UNCONFIRMED    no password goes to a guest that nobody vouched for
    |   +-- KeyNotAccepted         KEY_NOT_ACCEPTED        the guest refuses the pool's key
    |   |   +-- PublicKeyOff       PUBLIC_KEY_OFF          its sshd takes no keys at all
    |   |   +-- LoginNeedsMore     LOGIN_NEEDS_MORE        it takes the key and wants a password, too
    |   |   +-- UserWrong          USER_WRONG              it takes the key from another user
    |   +-- PasswordNotAccepted    PASSWORD_NOT_ACCEPTED   the guest refuses the password
    |   +-- PasswordLoginOff       PASSWORD_LOGIN_OFF      its sshd takes no passwords
    |   +-- KeyInstallFailed       KEY_INSTALL_FAILED      the pool's key cannot be put into the guest
    |   +-- ForwardingRefused      FORWARDING_REFUSED      no channel, and no program to stand in
    |   +-- TLSProtocol            TLS_PROTOCOL            no TLS where the engine should speak it
    |   +-- TLSCertificateInvalid  TLS_CERTIFICATE_INVALID  the engine's certificate is not one to trust
    |   +-- TLSClientRefused       TLS_CLIENT_REFUSED      the engine refuses our certificate
    |   +-- TransportLost          TRANSPORT_LOST          the connection broke
    +-- EngineError                                        the way is there, the engine does not serve
        +-- EngineUnavailable      ENGINE_UNAVAILABLE      no socket, or nobody listens on it
        |   +-- EngineSocketAbsent  ENGINE_SOCKET_ABSENT   no socket
        |   +-- EngineStopped      ENGINE_STOPPED          a socket, and nobody listens on it
        +-- EngineForbidden        ENGINE_FORBIDDEN        the user may not open the socket
        +-- EngineTooOld           ENGINE_TOO_OLD          no API version in common
        +-- EngineTimeout          ENGINE_TIMEOUT          no whole answer within the deadline
        +-- EngineLost             ENGINE_LOST             the stream or answer ended half-way
        +-- EngineGarbage          ENGINE_GARBAGE          the answer is not what the API describes
        +-- EngineTooMuch          ENGINE_TOO_MUCH         the answer is larger than the bound
        +-- ContainerNotFound      CONTAINER_NOT_FOUND
        +-- ContainerConflict      CONTAINER_CONFLICT      not possible in the container's state
        +-- EngineRefused          ENGINE_REFUSED          any other error the engine reports

The plugin's own process, which has no time to import this module, adds PLUGIN_INCOMPLETE (a part
of the installation is missing) and DAEMON_LOST (the daemon took the call and gave no reply).

A code is part of the interface (clients and scripts compare it) and never changes.
"""

from typing import List


class XSContainerError(Exception):
    """Base of the tree.

    :param message: a sentence for a person: what failed, where, why.
    :param hint: what to do next, as a sentence; may be empty.
    """

    code = "XSCONTAINER_ERROR"
    default_hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def description(self) -> List[str]:
        """The ErrorDescription of the XAPI failure that carries this error: [code, sentences]."""
        return [self.code, str(self)]


class SettingsError(XSContainerError):
    code = "SETTINGS_INVALID"


class SocketUnusable(XSContainerError):
    code = "SOCKET_UNUSABLE"


class ArgumentError(XSContainerError):
    code = "ARGUMENT_INVALID"


class NotPermitted(XSContainerError):
    code = "NOT_PERMITTED"
    default_hint = "Call it as a user with that role, with host.call_plugin or 'xscontainer' on a host."


class CalledOff(XSContainerError):
    code = "CALLED_OFF"


class XapiError(XSContainerError):
    """XAPI's own failure; ``details`` is its ErrorDescription (a list of strings)."""

    code = "XAPI_ERROR"

    def __init__(self, message: str, hint: str = "", details: "List[str]" = ()) -> None:  # type: ignore[assignment]
        super().__init__(message, hint)
        self.details = list(details)


class XapiUnavailable(XapiError):
    code = "XAPI_UNAVAILABLE"
    default_hint = "Check that the toolstack of this host and of the pool coordinator is running."


class XapiSessionLost(XapiError):
    code = "XAPI_SESSION_LOST"
    default_hint = "It is opened again by itself; repeat the call."


class ObjectGone(XapiError):
    code = "OBJECT_GONE"


class VMError(XSContainerError):
    code = "VM_ERROR"


class VMNotRunning(VMError):
    code = "VM_NOT_RUNNING"
    default_hint = "Start the VM first."


class VMNotRegistered(VMError):
    code = "VM_NOT_REGISTERED"
    default_hint = ("Switch container management on for it: 'xscontainer prepare VM' on any host, or the plugin's "
                    "function 'register'.")


class VMElsewhere(VMError):
    code = "VM_ELSEWHERE"
    default_hint = "Repeat the call."


class ModeUnsupported(VMError):
    code = "MODE_UNSUPPORTED"
    default_hint = "Set xscontainer-mode in its other_config to ssh or tls, or remove the key."


class NotPublished(VMError):
    code = "NOT_PUBLISHED"
    default_hint = "Check that xscontainer-monitor runs on the VM's host (systemctl status xscontainer-monitor)."


class AddressUnknown(VMError):
    code = "ADDRESS_UNKNOWN"
    default_hint = ("Check that the Xen guest tools run in the VM and that its network is up, or set "
                    "xscontainer-address in its other_config.")


class NameUnresolved(VMError):
    code = "NAME_UNRESOLVED"
    default_hint = ("Check xscontainer-address in the VM's other_config and the name service of this host, or give an "
                    "IP address there.")


class AddressRefused(VMError):
    code = "ADDRESS_REFUSED"
    default_hint = ("Give the VM an address that is neither loopback, multicast nor that of a host of the pool, or set "
                    "xscontainer-address in its other_config to one.")


class TLSCredentialsMissing(VMError):
    code = "TLS_CREDENTIALS_MISSING"
    default_hint = ("Have certificates made for the VM ('xscontainer prepare VM --mode tls --generate-certs'), or name "
                    "the secrets in xscontainer-tls-ca-cert, xscontainer-tls-client-cert and "
                    "xscontainer-tls-client-key.")


class TLSCredentialsInvalid(VMError):
    code = "TLS_CREDENTIALS_INVALID"
    default_hint = ("Check the secrets that xscontainer-tls-ca-cert, xscontainer-tls-client-cert and "
                    "xscontainer-tls-client-key in the VM's other_config name.")


class StorageError(XSContainerError):
    code = "STORAGE_ERROR"


class StorageElsewhere(StorageError):
    code = "STORAGE_ELSEWHERE"
    default_hint = "Repeat the call."


class StorageNotAttached(StorageError):
    code = "STORAGE_NOT_ATTACHED"
    default_hint = "Attach the storage repository to that host, or name one that is."


class TransferFailed(StorageError):
    code = "DISK_TRANSFER_FAILED"


class DriveBusy(StorageError):
    code = "DRIVE_BUSY"


class DriveMissing(StorageError):
    code = "DRIVE_MISSING"
    default_hint = "Shut the VM down, repeat the call, which then gives it one, and start the VM again."


class NotConfigDrive(StorageError):
    code = "NOT_A_CONFIG_DRIVE"


class KeyPairError(XSContainerError):
    code = "KEY_PAIR_INVALID"
    default_hint = ("Check the secrets that xscontainer-private-secret-uuid and xscontainer-public-secret-uuid "
                    "in the pool's other_config name.")


class KeyRotationUnfinished(XSContainerError):
    code = "KEY_ROTATION_UNFINISHED"
    default_hint = ("Start these VMs and call 'xscontainer key-rotate' again, or give them up with "
                    "'xscontainer key-rotate --finish --force'.")


class ConnectError(XSContainerError):
    """``stranger``: the address at which it was met, where that need not be the VM's."""

    code = "CONNECT_ERROR"
    stranger = ""


class GuestUnreachable(ConnectError):
    code = "GUEST_UNREACHABLE"
    default_hint = "Check that sshd runs in the VM and that no firewall stands between it and this host."


class GuestRefused(GuestUnreachable):
    code = "GUEST_REFUSED"
    default_hint = ("Start sshd in the VM, or set xscontainer-ssh-port in its other_config if it listens on another "
                    "port.")


class GuestFiltered(GuestUnreachable):
    code = "GUEST_FILTERED"
    default_hint = ("Check that the VM has this address and its network is up, and that no firewall drops connections "
                    "from this host.")


class GuestNoRoute(GuestUnreachable):
    code = "GUEST_NO_ROUTE"
    default_hint = ("Check that this host has a way to the VM's network, that the VM has this address, and that no "
                    "firewall rejects connections from this host.")


class GuestSilent(ConnectError):
    code = "GUEST_SILENT"
    default_hint = "Check that it is sshd that listens there and that the VM is not overloaded."


class GuestNotSSH(GuestSilent):
    code = "GUEST_NOT_SSH"
    default_hint = "Set xscontainer-ssh-port in the VM's other_config to the port of its sshd."


class SSHIncompatible(GuestSilent):
    code = "SSH_INCOMPATIBLE"
    default_hint = "Update sshd in the VM, or allow current algorithms in its sshd_config."


class LoginEnded(GuestSilent):
    code = "LOGIN_ENDED"
    default_hint = ("The log of sshd in the VM says why: an account that has expired or is locked, a key that it does "
                    "not know where MaxAuthTries is 1, or too many connections at once.")


class HostKeyChanged(ConnectError):
    """``shown``, ``pinned``: fingerprints, as far as they are known."""

    code = "HOST_KEY_CHANGED"
    default_hint = (
        "If the VM was reinstalled on purpose, accept its new key ('xscontainer hostkey-accept'); "
        "if not, something else answers at its address."
    )

    def __init__(self, message: str, hint: str = "", shown: str = "", pinned: str = "") -> None:
        super().__init__(message, hint)
        self.shown = shown
        self.pinned = pinned


class HostKeyUnreadable(ConnectError):
    code = "HOST_KEY_UNREADABLE"
    default_hint = "Remove the key xscontainer-sshhostkey from the VM's other_config to pin the guest's key anew."


class HostKeyUnconfirmed(ConnectError):
    code = "HOST_KEY_UNCONFIRMED"
    default_hint = "Compare the fingerprint with that of the VM's own key, on its console, and give it along."


class KeyNotAccepted(ConnectError):
    code = "KEY_NOT_ACCEPTED"
    default_hint = ("Prepare the VM ('xscontainer prepare'), or add the pool's public key to the authorized_keys of "
                    "that user in it.")


class PublicKeyOff(KeyNotAccepted):
    code = "PUBLIC_KEY_OFF"
    default_hint = "Set PubkeyAuthentication in the VM's sshd_config to yes."


class LoginNeedsMore(KeyNotAccepted):
    code = "LOGIN_NEEDS_MORE"
    default_hint = "Let this user log in with a key alone (AuthenticationMethods in the VM's sshd_config)."


class UserWrong(KeyNotAccepted):
    code = "USER_WRONG"
    default_hint = "Set xscontainer-username in the VM's other_config to the user who may."


class PasswordNotAccepted(ConnectError):
    code = "PASSWORD_NOT_ACCEPTED"
    default_hint = "Check the user's name and password."


class PasswordLoginOff(ConnectError):
    code = "PASSWORD_LOGIN_OFF"
    default_hint = ("Add the pool's public key to the authorized_keys of that user by other means, allow "
                    "PasswordAuthentication in the VM's sshd_config, or use a key of an SSH agent "
                    "('xscontainer prepare --agent').")


class KeyInstallFailed(ConnectError):
    code = "KEY_INSTALL_FAILED"
    default_hint = "Check that the user's home directory in the VM exists and is the user's own to write to."


class ForwardingRefused(ConnectError):
    code = "FORWARDING_REFUSED"
    default_hint = ("Allow AllowStreamLocalForwarding in the VM's sshd_config, "
                    "or install the docker CLI, socat or ncat there.")


class TLSProtocol(ConnectError):
    code = "TLS_PROTOCOL"
    default_hint = "Check that the engine in the VM is started with --tlsverify and listens on that port."


class TLSCertificateInvalid(ConnectError):
    code = "TLS_CERTIFICATE_INVALID"
    default_hint = ("Check that the engine has the certificate that was made for it, and that nothing else answers "
                    "there.")


class TLSClientRefused(ConnectError):
    code = "TLS_CLIENT_REFUSED"
    default_hint = "Check that the engine's --tlscacert is the CA that signed the VM's client certificate."


class TransportLost(ConnectError):
    code = "TRANSPORT_LOST"
    default_hint = "Repeat it; if that does not help, look into the log of sshd in the VM."


class EngineError(XSContainerError):
    code = "ENGINE_ERROR"


class EngineUnavailable(EngineError):
    code = "ENGINE_UNAVAILABLE"
    default_hint = "Check that the container engine is installed and running in the VM."


class EngineSocketAbsent(EngineUnavailable):
    code = "ENGINE_SOCKET_ABSENT"
    default_hint = ("Install and start the container engine in the VM, or set xscontainer-engine-socket in its "
                    "other_config to where its socket is.")


class EngineStopped(EngineUnavailable):
    code = "ENGINE_STOPPED"
    default_hint = "Start the container engine in the VM (systemctl start docker)."


class EngineForbidden(EngineError):
    code = "ENGINE_FORBIDDEN"
    default_hint = "Add the user to the group that owns the engine's socket (usually 'docker')."


class EngineTooOld(EngineError):
    code = "ENGINE_TOO_OLD"
    default_hint = "Update the container engine in the VM; API version 1.24 (Docker 1.12) is the oldest that works."


class EngineTimeout(EngineError):
    code = "ENGINE_TIMEOUT"
    default_hint = "Check that the engine in the VM is well ('docker ps' there answers) and the VM is not overloaded."


class EngineLost(EngineError):
    code = "ENGINE_LOST"
    default_hint = "Repeat it; if that does not help, look into the engine's log in the VM."


class EngineGarbage(EngineError):
    code = "ENGINE_GARBAGE"
    default_hint = "Check that it is a container engine that listens on the socket in the VM."


class EngineTooMuch(EngineError):
    code = "ENGINE_TOO_MUCH"
    default_hint = "Remove containers that are not needed, or raise max_response_bytes in the settings."


class ContainerNotFound(EngineError):
    code = "CONTAINER_NOT_FOUND"


class ContainerConflict(EngineError):
    code = "CONTAINER_CONFLICT"


class EngineRefused(EngineError):
    code = "ENGINE_REFUSED"
    default_hint = "The engine's own words say why; its log in the VM may say more."
