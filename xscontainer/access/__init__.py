"""From a VM to its open engine: addresses, identity, credentials, refused logins."""
