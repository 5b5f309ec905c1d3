"""Config drives: from a configuration to a disk on a VM, and back."""
