"""The host key of a guest, and the public keys that may log in."""

import os

from xscontainer.simulator.guests.hostkey import HostKey, make_host_key, read_host_key, write_private


class GuestKeys:
    """The keys of a guest, in files of its directory.

    :param host_key_type: ``ed25519``, ``ecdsa`` or ``rsa``.
    """

    def __init__(self, directory: str, host_key_type: str) -> None:
        self.host_key_path = os.path.join(directory, "host_key")
        self.authorized_keys_path = os.path.join(directory, "authorized_keys")
        self._host_key_type = host_key_type
        self._host_key = make_host_key(host_key_type)
        write_private(self.host_key_path, self._host_key.private)
        write_private(self.authorized_keys_path, b"")

    @property
    def host_key(self) -> HostKey:
        return self._host_key

    @property
    def host_key_base64(self) -> str:
        """Return the public half of the host key, as in known_hosts and xscontainer-sshhostkey."""
        return self._host_key.base64

    def rotate_host_key(self, kind: str = "") -> str:
        """Make a new host key for all new connections; return its base64."""
        self._host_key = make_host_key(kind or self._host_key_type)
        write_private(self.host_key_path, self._host_key.private)
        return self._host_key.base64

    def set_host_key(self, private: str) -> None:
        """Use this host key, an OpenSSH PEM, for all new connections."""
        self._host_key = read_host_key(private.encode("ascii"))
        write_private(self.host_key_path, self._host_key.private)

    def authorize(self, public_key_line: str) -> None:
        """Authorize a public key (one line, as in authorized_keys)."""
        with open(self.authorized_keys_path, "rb") as file:
            before = file.read()
        write_private(self.authorized_keys_path, before + public_key_line.strip().encode("utf-8") + b"\n")

    def revoke_all(self) -> None:
        """Remove all authorized keys."""
        write_private(self.authorized_keys_path, b"")
