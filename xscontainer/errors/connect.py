"""Errors on the way to an engine: TCP, SSH, login and TLS."""

from xscontainer.errors.base import XSContainerError


class ConnectError(XSContainerError):
    """The engine cannot be reached.

    :cvar rank: how much the error says about the VM. If all of a VM's addresses fail, the error with the highest rank
        is raised: an address that does not answer says least, an answer of the VM itself says most.
    :cvar login_refused: the guest counts the attempt as a failed login, so it is not retried as an outage is.
    :cvar no_answer: nothing answered. Whether something answers now can be seen without a login.
    :cvar may_be_ban: a guest that bans this host after failed logins fails in this way.
    :ivar suspect_address: the address at which the failure occurred, if another machine may have that address by now.
    :ivar retry_in: seconds until the next attempt; 0.0: as the usual backoff says.
    """

    code = "CONNECT_ERROR"
    rank = 10
    login_refused = False
    no_answer = False
    may_be_ban = False
    suspect_address = ""
    retry_in = 0.0


class GuestUnreachable(ConnectError):
    """Nothing answers at the VM's addresses."""

    code = "GUEST_UNREACHABLE"
    rank = 0
    transient = True
    during_setup = True
    no_answer = True
    may_be_ban = True
    default_hint = "Check that sshd runs in the VM and that no firewall blocks connections from this host."


class GuestRefused(GuestUnreachable):
    """The VM answers, but nothing listens on the port: sshd is stopped or uses another port."""

    code = "GUEST_REFUSED"
    default_hint = ("Start sshd in the VM, or set xscontainer-ssh-port in its other_config if sshd listens on another "
                    "port.")


class GuestFiltered(GuestUnreachable):
    """There is no answer at all: a firewall drops packets, the address is wrong, or the network is down."""

    code = "GUEST_FILTERED"
    default_hint = ("Check that the VM has this address and its network is up, and that no firewall drops connections "
                    "from this host.")


class GuestNoRoute(GuestUnreachable):
    """The network or a firewall reports that there is no route to the address."""

    code = "GUEST_NO_ROUTE"
    default_hint = ("Check that this host has a route to the VM's network and that the VM has this address. Check that "
                    "no firewall rejects connections from this host.")


class GuestSilent(ConnectError):
    """The connection is accepted, but then nothing is sent: the VM hangs or is overloaded."""

    code = "GUEST_SILENT"
    rank = 3
    transient = True
    during_setup = True
    no_answer = True
    may_be_ban = True
    default_hint = "Check that sshd listens on that port and that the VM is not overloaded."


class GuestNotSSH(GuestSilent):
    """A server other than sshd listens on the port."""

    code = "GUEST_NOT_SSH"
    rank = 1
    no_answer = False
    default_hint = "Set xscontainer-ssh-port in the VM's other_config to the port of its sshd."


class SSHBusy(GuestSilent):
    """sshd has as many connections without a login as `MaxStartups` allows."""

    code = "SSH_BUSY"
    no_answer = False
    default_hint = ("Wait a moment. If this continues, find the connections that do not log in, or raise MaxStartups "
                    "in the VM's sshd_config.")


class SSHPenalty(GuestSilent):
    """sshd locks this host out for some time, because logins failed (OpenSSH 9.8 and newer)."""

    code = "SSH_PENALTY"
    no_answer = False
    default_hint = ("Find out why earlier logins from this host failed. Then wait up to 10 minutes, or add this host's "
                    "address to PerSourcePenaltyExemptList in the VM's sshd_config.")


class SSHClosed(GuestSilent):
    """The connection is closed before sshd greets: TCP wrappers, fail2ban, a limit, or a port forwarded to nothing."""

    code = "SSH_CLOSED"
    no_answer = False
    default_hint = ("Check in the VM whether something keeps this host out: /etc/hosts.allow and /etc/hosts.deny, "
                    "fail2ban or denyhosts, too many connections at once. The log of sshd in the VM may name the "
                    "cause.")


class SSHIncompatible(GuestSilent):
    """sshd and this host have no SSH version or algorithm in common."""

    code = "SSH_INCOMPATIBLE"
    transient = False
    no_answer = False
    default_hint = "Update sshd in the VM, or allow current algorithms in its sshd_config."


class SSHWeak(SSHIncompatible):
    """The guest offers only weak algorithms or keys: SHA-1, CBC, 3DES, MD5, DSS, or RSA keys below 2048 bits."""

    code = "SSH_WEAK"
    default_hint = "Update sshd in the VM, and give it a host key of type ed25519 or an RSA key of 2048 bits or more."


class LoginEnded(GuestSilent):
    """sshd ends the connection during the login: the account expired or is locked (PAM), or `MaxAuthTries` is 1."""

    code = "LOGIN_ENDED"
    login_refused = True
    no_answer = False
    default_hint = ("The log of sshd in the VM says why: the account has expired or is locked, MaxAuthTries is 1 and "
                    "the key is unknown, or there are too many connections at once.")


class ScriptSilent(GuestSilent):
    """The guest accepts a command but does not finish it in time: the shell's start-up files may wait for something."""

    code = "SCRIPT_SILENT"
    no_answer = False
    default_hint = ("Check the start-up files of this user's shell in the VM (such as ~/.bashrc): they must not wait "
                    "for anything. Check also that the VM is not overloaded.")


class HostKeyChanged(ConnectError):
    """The guest's SSH host key differs from the pinned one: the VM was reinstalled, or another machine answers.

    :ivar shown: the fingerprint of the key that was shown, "" if unknown.
    :ivar pinned: the fingerprint of the pinned key, "" if unknown.
    """

    code = "HOST_KEY_CHANGED"
    rank = 6
    default_hint = ("If the VM was reinstalled on purpose, accept its new key ('xscontainer hostkey-accept VM'). If "
                    "not, another machine answers at its address.")

    def __init__(self, message: str, hint: str = "", shown: str = "", pinned: str = "") -> None:
        super().__init__(message, hint)
        self.shown = shown
        self.pinned = pinned


class HostKeyUnreadable(ConnectError):
    """`xscontainer-sshhostkey` does not hold an SSH host key."""

    code = "HOST_KEY_UNREADABLE"
    default_hint = "Remove the key xscontainer-sshhostkey from the VM's other_config to pin the guest's key again."


class HostKeyUnconfirmed(ConnectError):
    """Nobody has confirmed the guest's host key, so no password is sent to the guest."""

    code = "HOST_KEY_UNCONFIRMED"
    default_hint = ("Compare the fingerprint with that of the host key on the VM's console, then repeat the call with "
                    "that fingerprint.")


class AnotherVM(ConnectError):
    """Another VM answers, as its guest or its pinned host key shows.

    This VM reports an address of the other VM, or is a clone with the same host key.
    """

    code = "ANOTHER_VM"
    rank = 9
    default_hint = ("Check that the two VMs do not have or report the same address. Give a clone SSH host keys of its "
                    "own (ssh-keygen -A). Only if this VM really has that host key, accept it ('xscontainer "
                    "hostkey-accept VM').")


class AddressConflict(ConnectError):
    """Another running VM reports the same address, and nothing shows which of the two VMs answers."""

    code = "ADDRESS_CONFLICT"
    rank = 8
    default_hint = ("Give each VM an address of its own. If the address belongs to this VM, compare the host key on "
                    "its console and accept it ('xscontainer hostkey-accept VM').")


class KeyNotAccepted(ConnectError):
    """The guest does not accept the pool's SSH key for this user.

    :ivar limits: how the type of the key may be the reason, as part of a sentence; "" if it cannot be the reason.
    """

    code = "KEY_NOT_ACCEPTED"
    rank = 7
    login_refused = True
    limits = ""
    default_hint = ("Prepare the VM ('xscontainer prepare VM'), or add the pool's public key to the authorized_keys of "
                    "that user in the VM.")


class PublicKeyOff(KeyNotAccepted):
    """sshd accepts no public keys at all."""

    code = "PUBLIC_KEY_OFF"
    default_hint = "Set PubkeyAuthentication in the VM's sshd_config to yes."


class KeyTypeRefused(KeyNotAccepted):
    """sshd in the VM does not accept signatures of the type that the pool's key makes."""

    code = "KEY_TYPE_REFUSED"
    default_hint = ("Add rsa-sha2-512 to PubkeyAcceptedAlgorithms in the VM's sshd_config (PubkeyAcceptedKeyTypes "
                    "before OpenSSH 8.5), or to its crypto policy.")


class LoginNeedsMore(KeyNotAccepted):
    """sshd accepts the key but also requires a password."""

    code = "LOGIN_NEEDS_MORE"
    default_hint = "Let this user log in with a key alone (AuthenticationMethods in the VM's sshd_config)."


class UserWrong(KeyNotAccepted):
    """The guest accepts the pool's key only for another user: the user of the settings, `core` or `root`."""

    code = "USER_WRONG"
    default_hint = "Set xscontainer-username in the VM's other_config to the user that can log in."


class PasswordNotAccepted(ConnectError):
    """The guest refuses the password."""

    code = "PASSWORD_NOT_ACCEPTED"
    default_hint = "Check the user's name and password."


class PasswordLoginOff(ConnectError):
    """sshd accepts no passwords."""

    code = "PASSWORD_LOGIN_OFF"
    default_hint = ("Use a key of an SSH agent ('xscontainer prepare VM --agent'), or allow PasswordAuthentication in "
                    "the VM's sshd_config. Or add the pool's public key to the user's authorized_keys by other means.")


class KeyInstallFailed(ConnectError):
    """The pool's key cannot be written to `authorized_keys` in the guest."""

    code = "KEY_INSTALL_FAILED"
    default_hint = ("Check in the VM that the user's home directory exists, and that the user owns it and may write to "
                    "it.")


class KeyLineRestricted(KeyInstallFailed):
    """The pool's key is in `authorized_keys` already, in a line whose options keep this host out."""

    code = "KEY_LINE_RESTRICTED"
    default_hint = "Change these options in the VM, or remove the line and prepare the VM again."


class KeyNotRemoved(ConnectError):
    """The pool's key cannot be removed from `authorized_keys` in the guest, or the guest accepts it nevertheless."""

    code = "KEY_NOT_REMOVED"
    default_hint = "Remove the line with the pool's public key in the VM by hand, then repeat the call."


class ScriptNotRun(ConnectError):
    """The guest runs no commands for this user: sftp only, nologin, a forced command, or start-up files that exit."""

    code = "SCRIPT_NOT_RUN"
    default_hint = ("Let this user run commands: check its login shell, the shell's start-up files (such as "
                    "~/.bashrc), ForceCommand in the VM's sshd_config and command= in its authorized_keys.")


class ForwardingRefused(ConnectError):
    """sshd opens no channel to the engine's socket, and no program in the guest can connect to the socket instead."""

    code = "FORWARDING_REFUSED"
    default_hint = ("Set AllowStreamLocalForwarding in the VM's sshd_config to yes, or install the docker CLI, socat "
                    "or ncat in the VM.")


class TLSProtocol(ConnectError):
    """The server on the engine's port does not speak TLS."""

    code = "TLS_PROTOCOL"
    rank = 2
    during_setup = True
    default_hint = "Check that the engine in the VM is started with --tlsverify and listens on that port."


class TLSCertificateInvalid(ConnectError):
    """The engine's certificate has expired, is signed by another CA, or names another address or VM."""

    code = "TLS_CERTIFICATE_INVALID"
    rank = 5
    during_setup = True
    default_hint = ("Check that the engine has the certificate that was made for it, and that no other server answers "
                    "at that address.")


class TLSClientRefused(ConnectError):
    """The engine refuses the client certificate."""

    code = "TLS_CLIENT_REFUSED"
    during_setup = True
    login_refused = True
    default_hint = "Check that the engine's --tlscacert is the CA that signed the VM's client certificate."


class TransportLost(ConnectError):
    """The connection to the guest broke."""

    code = "TRANSPORT_LOST"
    rank = 4
    transient = True
    during_setup = True
    no_answer = True
    default_hint = "Repeat the call. If that does not help, see the log of sshd in the VM."
