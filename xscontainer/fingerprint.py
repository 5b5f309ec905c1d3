"""How a person learns a guest's host key where nothing can stand between: on its console. Pure."""

# Kinds of host keys, as they begin -> the word for it in the names of sshd's files.
_FILES = (("ssh-ed25519", "ed25519"), ("ecdsa-", "ecdsa"), ("ssh-rsa", "rsa"), ("rsa-", "rsa"))


def on_console(kind: str) -> str:
    """The command that shows the fingerprint of the guest's key of this kind, as sentences of ours quote it.

    :param kind: as the guest says: "ssh-ed25519", for instance.
    """
    for beginning, word in _FILES:
        if kind.startswith(beginning):
            return f"ssh-keygen -l -f /etc/ssh/ssh_host_{word}_key.pub"
    return "cat /etc/ssh/ssh_host_*_key.pub | ssh-keygen -l -f -"


def compare_hint(kind: str) -> str:
    """What to do about a key of this kind that is not the one expected, or that nobody confirmed.

    A sentence without its end.
    """
    return f"Compare it with the VM's own on its console: {on_console(kind)}"
