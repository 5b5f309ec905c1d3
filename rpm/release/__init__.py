"""Build a release from a clean tag, and verify that a release was built from that tag."""
