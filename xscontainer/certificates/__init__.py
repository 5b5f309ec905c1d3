"""Certificates for engines that are reached over TLS."""
