"""The keys xscontainer reads and writes in XAPI's other_config maps.

other_config is readable by every read-only user and writable by every
vm-admin: nothing secret goes in, and nothing that comes out is trusted.
"""

# --- VM.other_config, known to XenCenter and Xen Orchestra -------------------
MONITOR = "xscontainer-monitor"  # "True": show and monitor the VM's containers; "False": capable, but off
PS = "docker_ps"  # published: the container list, XML
INFO = "docker_info"  # published: the engine's facts, XML
VERSION = "docker_version"  # published: the engine's versions, XML
USERNAME = "xscontainer-username"  # SSH user; [ssh] user of the settings if absent
MODE = "xscontainer-mode"  # "ssh" (default) or "tls"
HOST_KEY = "xscontainer-sshhostkey"  # base64 of the guest's pinned SSH host key
TLS_CA_CERT = "xscontainer-tls-ca-cert"  # uuid of the secret with the certificate that signs the engine's (PEM)
TLS_CLIENT_CERT = "xscontainer-tls-client-cert"  # uuid of the secret with our certificate (PEM)
TLS_CLIENT_KEY = "xscontainer-tls-client-key"  # uuid of the secret with its private key (PEM)
TLS_SECRETS = (TLS_CA_CERT, TLS_CLIENT_CERT, TLS_CLIENT_KEY)

# --- VM.other_config, our own ------------------------------------------------
OWNER = "xscontainer-owner"  # uuid of the VM the published keys and the host key pin belong to: a clone's differs
STATUS = "xscontainer-status"  # published: JSON {"code", "message"}, only while the engine cannot be shown
ADDRESS = "xscontainer-address"  # IPv4, IPv6 or name, instead of what the guest tools report
SSH_PORT = "xscontainer-ssh-port"  # TCP port of the guest's sshd; [ssh] port of the settings if absent
ENGINE_SOCKET = "xscontainer-engine-socket"  # path of the engine's socket in the guest; looked for if absent
ENGINE = "xscontainer-engine"  # "docker" or "podman"; whichever is found if absent
TLS_WARNED = "xscontainer-tls-warned"  # VM uuid, end of the certificate that a message was posted about, when
TLS_PORT = "xscontainer-tls-port"  # TCP port of the engine in mode tls; [engine] tls_port of the settings if absent
POOL_KEY = "xscontainer-key"  # SHA256 fingerprint of the pool's key that the guest is known to accept

# What a monitor publishes and a wipe removes.
PUBLISHED = (PS, INFO, VERSION, STATUS)

# --- VDI.other_config and VBD.other_config
CONFIG_DRIVE = "config-drive"  # "True": this disk is the VM's config drive; XenCenter and Xen Orchestra look for it

# --- pool.other_config -------------------------------------------------------
PRIVATE_SECRET = "xscontainer-private-secret-uuid"  # uuid of the secret with the pool's private SSH key
PUBLIC_SECRET = "xscontainer-public-secret-uuid"  # uuid of the secret with its public half
TLS_CA_SECRET = "xscontainer-tls-ca-secret-uuid"  # secret with the key of the pool's own CA; names the certificate's
TLS_CLIENT_SECRET = "xscontainer-tls-client-secret-uuid"  # the same for the pool's client certificate
PREVIOUS_PRIVATE_SECRET = "xscontainer-previous-private-secret-uuid"  # the same for the key that is being replaced
PREVIOUS_PUBLIC_SECRET = "xscontainer-previous-public-secret-uuid"
INTERNAL_NETWORK = "xscontainer-use-hostinternalnetwork"  # 1/yes/true/on: prefer 169.254.* addresses


def is_true(value: str) -> bool:
    """Whether an other_config switch is on, in the spellings the pool key has always known."""
    return value.strip().lower() in ("1", "yes", "true", "on")
