"""All errors of xscontainer: one class, with one stable code, for each cause.

::

    XSContainerError
    +-- SettingsError              SETTINGS_INVALID
    +-- SocketUnusable             SOCKET_UNUSABLE
    +-- HostExhausted              HOST_EXHAUSTED
    +-- ArgumentError              ARGUMENT_INVALID
    |   +-- NotFound               NOT_FOUND
    |   +-- Ambiguous              AMBIGUOUS
    +-- NotPermitted               NOT_PERMITTED
    +-- CalledOff                  CALLED_OFF
    +-- Busy                       BUSY
    +-- FollowLost                 FOLLOW_LOST
    +-- FollowUnavailable          FOLLOW_UNAVAILABLE
    +-- XapiError                  XAPI_ERROR
    |   +-- XapiUnavailable        XAPI_UNAVAILABLE
    |   |   +-- XapiNotTrusted     XAPI_NOT_TRUSTED
    |   +-- XapiSessionLost        XAPI_SESSION_LOST
    |   +-- ObjectGone             OBJECT_GONE
    +-- VMError                                            a VM cannot be served as it is
    |   +-- VMNotRunning           VM_NOT_RUNNING
    |   +-- VMNotRegistered        VM_NOT_REGISTERED
    |   +-- VMElsewhere            VM_ELSEWHERE
    |   +-- ModeUnsupported        MODE_UNSUPPORTED
    |   +-- GuestThrottled         GUEST_THROTTLED
    |   +-- NotPublished           NOT_PUBLISHED
    |   +-- AddressUnknown         ADDRESS_UNKNOWN
    |   +-- NameUnresolved         NAME_UNRESOLVED
    |   +-- AddressRefused         ADDRESS_REFUSED
    |   +-- TLSCredentialsMissing  TLS_CREDENTIALS_MISSING
    |   +-- TLSCredentialsInvalid  TLS_CREDENTIALS_INVALID
    +-- StorageError                                       a disk cannot be made, filled, read or attached
    |   +-- StorageElsewhere       STORAGE_ELSEWHERE
    |   +-- StorageNotAttached     STORAGE_NOT_ATTACHED
    |   +-- TransferFailed         DISK_TRANSFER_FAILED
    |   +-- DriveBusy              DRIVE_BUSY
    |   +-- DriveMissing           DRIVE_MISSING
    |   +-- NotConfigDrive         NOT_A_CONFIG_DRIVE
    +-- KeyPairError               KEY_PAIR_INVALID
    +-- KeyRotationUnfinished      KEY_ROTATION_UNFINISHED
    +-- KeyRotationBusy            KEY_ROTATION_BUSY
    +-- ConnectError                                       no way to the engine
    |   +-- GuestUnreachable       GUEST_UNREACHABLE
    |   |   +-- GuestRefused       GUEST_REFUSED
    |   |   +-- GuestFiltered      GUEST_FILTERED
    |   |   +-- GuestNoRoute       GUEST_NO_ROUTE
    |   +-- GuestSilent            GUEST_SILENT
    |   |   +-- GuestNotSSH        GUEST_NOT_SSH
    |   |   +-- SSHBusy            SSH_BUSY
    |   |   +-- SSHPenalty         SSH_PENALTY
    |   |   +-- SSHClosed          SSH_CLOSED
    |   |   +-- SSHIncompatible    SSH_INCOMPATIBLE
    |   |   |   +-- SSHWeak        SSH_WEAK
    |   |   +-- LoginEnded         LOGIN_ENDED
    |   |   +-- ScriptSilent       SCRIPT_SILENT
    |   +-- HostKeyChanged         HOST_KEY_CHANGED
    |   +-- HostKeyUnreadable      HOST_KEY_UNREADABLE
    |   +-- HostKeyUnconfirmed     HOST_KEY_UNCONFIRMED
    |   +-- AnotherVM              ANOTHER_VM
    |   +-- AddressConflict        ADDRESS_CONFLICT
    |   +-- KeyNotAccepted         KEY_NOT_ACCEPTED
    |   |   +-- PublicKeyOff       PUBLIC_KEY_OFF
    |   |   +-- KeyTypeRefused     KEY_TYPE_REFUSED
    |   |   +-- LoginNeedsMore     LOGIN_NEEDS_MORE
    |   |   +-- UserWrong          USER_WRONG
    |   +-- PasswordNotAccepted    PASSWORD_NOT_ACCEPTED
    |   +-- PasswordLoginOff       PASSWORD_LOGIN_OFF
    |   +-- KeyInstallFailed       KEY_INSTALL_FAILED
    |   |   +-- KeyLineRestricted  KEY_LINE_RESTRICTED
    |   +-- KeyNotRemoved          KEY_NOT_REMOVED
    |   +-- ScriptNotRun           SCRIPT_NOT_RUN
    |   +-- ForwardingRefused      FORWARDING_REFUSED
    |   +-- TLSProtocol            TLS_PROTOCOL
    |   +-- TLSCertificateInvalid  TLS_CERTIFICATE_INVALID
    |   +-- TLSClientRefused       TLS_CLIENT_REFUSED
    |   +-- TransportLost          TRANSPORT_LOST
    +-- EngineError                                        the way is there, the engine does not serve
        +-- EngineUnavailable      ENGINE_UNAVAILABLE
        |   +-- EngineSocketAbsent  ENGINE_SOCKET_ABSENT
        |   +-- EngineStopped      ENGINE_STOPPED
        +-- EngineForbidden        ENGINE_FORBIDDEN
        +-- EngineTooOld           ENGINE_TOO_OLD
        +-- EngineTimeout          ENGINE_TIMEOUT
        +-- EngineLost             ENGINE_LOST
        +-- EngineGarbage          ENGINE_GARBAGE
        +-- EngineTooMuch          ENGINE_TOO_MUCH
        +-- EngineWithoutEvents    EVENTS_UNAVAILABLE
        +-- EngineWithoutFacts     FACTS_UNAVAILABLE
        +-- MemoryBusy             MEMORY_BUSY
        +-- ContainerNotFound      CONTAINER_NOT_FOUND
        +-- ContainerConflict      CONTAINER_CONFLICT
        +-- ContainerStopping      CONTAINER_STOPPING
        +-- EngineRefused          ENGINE_REFUSED
        +-- LogsUnreadable         LOGS_UNREADABLE
        +-- StatsUnavailable       STATS_UNAVAILABLE

The plugin's own process, where start-up time counts, does not import this package: its codes are in PLUGIN_CODES.

A code is part of the interface (clients and scripts compare codes) and never changes. What callers decide by is a trait
of the class: see XSContainerError and ConnectError.
"""

# ruff: noqa: F401 - importing code names this package only

from xscontainer.errors.base import (
    MOST_MESSAGE,
    PLUGIN_CODES,
    Ambiguous,
    ArgumentError,
    Busy,
    CalledOff,
    FollowLost,
    FollowUnavailable,
    HostExhausted,
    NotFound,
    NotPermitted,
    SettingsError,
    SocketUnusable,
    XSContainerError,
    cause,
    shortage,
)
from xscontainer.errors.connect import (
    AddressConflict,
    AnotherVM,
    ConnectError,
    ForwardingRefused,
    GuestFiltered,
    GuestNoRoute,
    GuestNotSSH,
    GuestRefused,
    GuestSilent,
    GuestUnreachable,
    HostKeyChanged,
    HostKeyUnconfirmed,
    HostKeyUnreadable,
    KeyInstallFailed,
    KeyLineRestricted,
    KeyNotAccepted,
    KeyNotRemoved,
    KeyTypeRefused,
    LoginEnded,
    LoginNeedsMore,
    PasswordLoginOff,
    PasswordNotAccepted,
    PublicKeyOff,
    ScriptNotRun,
    ScriptSilent,
    SSHBusy,
    SSHClosed,
    SSHIncompatible,
    SSHPenalty,
    SSHWeak,
    TLSCertificateInvalid,
    TLSClientRefused,
    TLSProtocol,
    TransportLost,
    UserWrong,
)
from xscontainer.errors.engine import (
    ContainerConflict,
    ContainerNotFound,
    ContainerStopping,
    EngineError,
    EngineForbidden,
    EngineGarbage,
    EngineLost,
    EngineRefused,
    EngineSocketAbsent,
    EngineStopped,
    EngineTimeout,
    EngineTooMuch,
    EngineTooOld,
    EngineUnavailable,
    EngineWithoutEvents,
    EngineWithoutFacts,
    LogsUnreadable,
    MemoryBusy,
    StatsUnavailable,
)
from xscontainer.errors.pool import (
    DriveBusy,
    DriveMissing,
    KeyPairError,
    KeyRotationBusy,
    KeyRotationUnfinished,
    NotConfigDrive,
    ObjectGone,
    StorageElsewhere,
    StorageError,
    StorageNotAttached,
    TransferFailed,
    XapiError,
    XapiNotTrusted,
    XapiSessionLost,
    XapiUnavailable,
)
from xscontainer.errors.vm import (
    AddressRefused,
    AddressUnknown,
    GuestThrottled,
    ModeUnsupported,
    NameUnresolved,
    NotPublished,
    TLSCredentialsInvalid,
    TLSCredentialsMissing,
    VMElsewhere,
    VMError,
    VMNotRegistered,
    VMNotRunning,
)
