"""The keys xscontainer reads and writes in XAPI's other_config maps.

Every read-only user can read other_config, and every vm-admin can write it. So nothing secret is written there, and
nothing that is read from it is trusted.
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
OWNER = "xscontainer-owner"  # uuid of the VM that published keys and pinned host key belong to; differs in a clone
STATUS = "xscontainer-status"  # published: JSON {"code", "message"}: why there is no list, or what else is missing
ACCEPTED = "xscontainer-hostkey-accepted"  # SHA256 fingerprint of the host key that an admin accepted for this VM
ADDRESS = "xscontainer-address"  # IPv4, IPv6 or name, instead of what the guest tools report
SSH_PORT = "xscontainer-ssh-port"  # TCP port of the guest's sshd; [ssh] port of the settings if absent
SSH_WEAK = "xscontainer-ssh-weak"  # weak algorithms of SSH that an old guest needs, such as "sha1,rsa1024"
ENGINE_SOCKET = "xscontainer-engine-socket"  # path of the engine's socket in the guest; searched for if absent
ENGINE = "xscontainer-engine"  # "docker" or "podman"; the first one found if absent
TLS_WARNED = "xscontainer-tls-warned"  # VM uuid, expiry of the certificate in the message, time of the message
TLS_PORT = "xscontainer-tls-port"  # TCP port of the engine in mode tls; [engine] tls_port of the settings if absent
POOL_KEY = "xscontainer-key"  # SHA256 fingerprint of the pool's key that the guest is known to accept

# The keys that a monitor publishes and a wipe removes.
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
ROTATOR = "xscontainer-key-rotation-"  # prefix of the claims (xapi.lease) to replace the SSH key
INTERNAL_NETWORK = "xscontainer-use-hostinternalnetwork"  # 1/yes/true/on: prefer 169.254.* addresses


def is_true(value: str) -> bool:
    """Return whether a switch in other_config is on, in any of the historic spellings."""
    return value.strip().lower() in ("1", "yes", "true", "on")
