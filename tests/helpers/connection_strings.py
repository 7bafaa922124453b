"""Connection strings for tests."""


def with_options(settings, options):
    uri = settings["CC_MONGO_CONNECTION_STRING"]
    return f"{uri}{'&' if '?' in uri else '?'}{options}" if options else uri
