"""The door to XAPI: sessions, the event stream, and the few classes we touch. Knows nothing of Docker."""
