"""The way to an engine over SSH."""
