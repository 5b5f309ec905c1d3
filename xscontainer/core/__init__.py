"""Values and decisions: pure, without I/O. Imports nothing above it but errors, keys, settings and sanitize."""
