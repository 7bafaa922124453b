"""The compiled core: bytes in, bytes out. It knows nothing of domains, servers or settings."""
