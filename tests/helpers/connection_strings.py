"""Connection strings for tests."""

from urllib.parse import parse_qsl, urlencode


def with_options(settings, options):
    """Return the connection string of settings with other options; those of the same name are replaced."""
    address, _, given = settings["CC_MONGO_CONNECTION_STRING"].partition("?")
    merged = dict(parse_qsl(given)) | dict(parse_qsl(options))
    return f"{address}?{urlencode(merged)}" if merged else address
