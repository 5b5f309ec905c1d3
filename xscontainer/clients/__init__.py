"""The documents that clients read, in XML and JSON; every quirk of a client is explained here."""
