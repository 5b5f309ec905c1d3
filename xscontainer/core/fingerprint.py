"""The command that shows a guest's host key on its console, where no other machine can interfere. Pure."""

# Prefix of a host key's type -> the word for it in the names of sshd's files.
_FILES = (("ssh-ed25519", "ed25519"), ("ecdsa-", "ecdsa"), ("ssh-rsa", "rsa"), ("rsa-", "rsa"))


def on_console(kind: str) -> str:
    """Return the command that shows the fingerprint of the guest's host key.

    :param kind: type of the key in SSH's words, such as "ssh-ed25519".
    """
    for beginning, word in _FILES:
        if kind.startswith(beginning):
            return f"ssh-keygen -l -f /etc/ssh/ssh_host_{word}_key.pub"
    return "cat /etc/ssh/ssh_host_*_key.pub | ssh-keygen -l -f -"


def compare_hint(kind: str) -> str:
    """Return what to do about an unexpected or unconfirmed host key: a sentence without its full stop."""
    return f"Compare it with the host key on the VM's console: {on_console(kind)}"
