"""The way to an engine over TLS."""
