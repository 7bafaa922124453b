"""The compiled core: bytes in, bytes out. It knows nothing about domains, servers or settings."""
