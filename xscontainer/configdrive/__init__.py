"""A guest's config drive: from a configuration to a disk on its VM, and back."""
