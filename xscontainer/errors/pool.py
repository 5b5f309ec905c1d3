"""Errors of XAPI, of the pool's storage and of the pool's SSH key."""

from typing import List

from xscontainer.errors.base import XSContainerError


class XapiError(XSContainerError):
    """XAPI refused a call.

    :ivar details: XAPI's ErrorDescription, a list of strings.
    """

    code = "XAPI_ERROR"
    transient = True

    def __init__(self, message: str, hint: str = "", details: "List[str]" = ()) -> None:  # type: ignore[assignment]
        super().__init__(message, hint)
        self.details = list(details)


class XapiUnavailable(XapiError):
    """XAPI did not answer, or not in time."""

    code = "XAPI_UNAVAILABLE"
    default_hint = "Check that the toolstack of this host and of the pool coordinator is running."


class XapiNotTrusted(XapiUnavailable):
    """The certificate of XAPI on another machine is not valid, not confirmed, or not the one that was confirmed."""

    code = "XAPI_NOT_TRUSTED"
    transient = False
    default_hint = "Nothing was sent. Give the right CA file with --ca-file, or the fingerprint with --fingerprint."


class XapiSessionLost(XapiError):
    """XAPI ended the session: XAPI restarted, the host joined a pool, or the session expired."""

    code = "XAPI_SESSION_LOST"
    default_hint = "A new session is opened automatically: repeat the call."


class ObjectGone(XapiError):
    """The VM, host, disk or other object does not exist or has been destroyed."""

    code = "OBJECT_GONE"


class StorageError(XSContainerError):
    """A disk cannot be created, written, read or attached."""

    code = "STORAGE_ERROR"


class StorageElsewhere(StorageError):
    """The disk's storage repository moved to another host during the call."""

    code = "STORAGE_ELSEWHERE"
    moved = True
    default_hint = "Repeat the call."


class StorageNotAttached(StorageError):
    """The storage repository is not attached to the host that needs it."""

    code = "STORAGE_NOT_ATTACHED"
    default_hint = "Attach the storage repository to that host, or choose one that is attached."


class TransferFailed(StorageError):
    """The content of a disk was not transferred completely."""

    code = "DISK_TRANSFER_FAILED"


class DriveBusy(StorageError):
    """The guest does not release its CD drive, or another disc is in the drive."""

    code = "DRIVE_BUSY"


class DriveMissing(StorageError):
    """The VM has no CD drive, and a drive cannot be added while the VM runs."""

    code = "DRIVE_MISSING"
    default_hint = "Shut the VM down, repeat the call, which then adds a drive, and start the VM again."


class NotConfigDrive(StorageError):
    """The disk is not a configuration drive."""

    code = "NOT_A_CONFIG_DRIVE"


class KeyPairError(XSContainerError):
    """The pool's SSH key pair is missing, damaged or not created yet."""

    code = "KEY_PAIR_INVALID"
    default_hint = ("Check the secrets that are named by xscontainer-private-secret-uuid and "
                    "xscontainer-public-secret-uuid in the pool's other_config.")


class KeyRotationUnfinished(XSContainerError):
    """Some VMs do not have the pool's new SSH key yet. Without the previous key they could not be reached."""

    code = "KEY_ROTATION_UNFINISHED"
    default_hint = ("Start these VMs and run 'xscontainer key-rotate' again, or give them up: "
                    "'xscontainer key-rotate --finish --force'.")


class KeyRotationBusy(XSContainerError):
    """Another client is replacing the pool's SSH key."""

    code = "KEY_ROTATION_BUSY"
    default_hint = ("Wait until that client has finished, then run 'xscontainer key-rotate --status'. If the client "
                    "died, its claim expires within 90 s.")
