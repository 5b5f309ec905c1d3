"""Lists and controls the containers inside the VMs of an XCP-ng or XenServer pool."""

__version__ = "0.9.0"
# The commit that the code was built from; "git archive" and the pack's build put it in place of the placeholder.
__commit__ = "$Format:%H$"


def version_text(program: str) -> str:
    """Return the line that ``program --version`` prints: name, version and commit."""
    built = __commit__[:12] if not __commit__.startswith("$") else "unknown, run from its sources"
    return f"{program} {__version__} (commit {built})"
