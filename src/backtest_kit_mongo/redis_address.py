"""The address of Redis, from a URL or from single settings: one server, a primary behind Sentinels, or a cluster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import Config

__all__ = ["RedisAddress", "redis_address"]

Address = tuple[str, int]

_SENTINEL_PORT: Final = 26379
_SWITCHES: Final = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS: Final = ("ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_path", "ssl_ca_data", "ssl_password", "ssl_ciphers", *_FILES)
"""The redis-py parameters that ``CC_REDIS_URL`` may carry."""
_FORM: Final = "redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix://[user:password@]/path[?db=0]"


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where Redis is and how to log in. Only one applies: ``path`` if set, else ``sentinels`` if set, else ``address``."""

    address: Address = ("", 0)
    path: str = ""
    user: str = ""
    password: str = ""
    db: int = 0
    tls: bool = False
    tls_options: dict[str, Any] = msgspec.field(default_factory=dict)
    sentinels: tuple[Address, ...] = ()
    sentinel_user: str = ""
    sentinel_password: str = ""
    service: str = ""
    cluster: bool = False

    def __str__(self) -> str:
        """Return the address without secrets."""
        if self.path:
            address = self.path
        elif self.sentinels:
            address = f"{','.join(map(_shown, self.sentinels))}/{self.service} (Sentinel)"
        else:
            address = _shown(self.address)
        more = [f"database {self.db}"] * bool(self.db) + ["TLS"] * self.tls + ["cluster"] * self.cluster
        return f"{address} ({', '.join(more)})" if more else address

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("address", str(self))]

    def __repr__(self) -> str:
        return f"<RedisAddress {self}>"


def redis_address(config: Config) -> RedisAddress:
    """Return the address that the settings describe.

    Raises ConfigError if they contradict each other. The error never contains a secret.
    """
    address = _of_url(config.CC_REDIS_URL) if config.CC_REDIS_URL else RedisAddress() if config.CC_REDIS_SENTINEL else _of_settings(config)
    others: dict[str, Any] = {"cluster": config.CC_REDIS_CLUSTER}
    if not (address.user or address.password):
        others |= {"user": config.CC_REDIS_USER, "password": config.CC_REDIS_PASSWORD}
    if config.CC_REDIS_DB:
        if address.db not in (0, config.CC_REDIS_DB):
            raise ConfigError(
                f"CC_REDIS_URL names database {address.db}, but CC_REDIS_DB is {config.CC_REDIS_DB}", hint="set only one of them"
            )
        others["db"] = config.CC_REDIS_DB
    if config.CC_REDIS_TLS:
        if address.path or (config.CC_REDIS_URL and not address.tls):
            raise ConfigError(
                "CC_REDIS_TLS is on, but the address of Redis is a Unix socket or a URL without TLS",
                hint="use CC_REDIS_URL=rediss://host:port, or CC_REDIS_HOST and CC_REDIS_PORT",
            )
        others["tls"] = True
    if config.CC_REDIS_SENTINEL:
        if config.CC_REDIS_CLUSTER:
            raise ConfigError("CC_REDIS_SENTINEL and CC_REDIS_CLUSTER cannot be combined")
        others |= _of_sentinel(config.CC_REDIS_SENTINEL)
    address = msgspec.structs.replace(address, **others)
    if address.cluster and (address.db or address.path):
        limitation = "has only database 0" if address.db else "cannot be reached over a Unix socket"
        raise ConfigError(f"a Redis cluster {limitation}", hint="set CC_REDIS_PREFIX to separate two databases that share a cluster")
    return address


def _of_settings(config: Config) -> RedisAddress:
    host = config.CC_REDIS_HOST
    return RedisAddress(path=host) if host.startswith("/") else RedisAddress(address=(host, config.CC_REDIS_PORT))


def _of_url(url: str) -> RedisAddress:
    try:
        parts = urlsplit(url)
        host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
    except ValueError:
        raise _bad_url("host or port") from None
    if parts.scheme not in ("redis", "rediss", "unix") or parts.fragment:
        raise _bad_url("scheme" if not parts.fragment else "a # must be written as %23")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = unquote(parts.path)
    database = options.pop("db", None)
    if parts.scheme == "unix":
        server: dict[str, Any] = {"path": path}
        if not path.startswith("/") or host:
            raise _bad_url("the path of a Unix socket must be absolute")
    else:
        server = {"address": (host or "", 6379 if port is None else port), "tls": parts.scheme == "rediss"}
        if not host or port == 0:
            raise _bad_url("host or port")
        database = path.strip("/") or database
    try:
        number = int(database or 0)
    except ValueError:
        number = -1
    if number < 0:
        raise _bad_url("the database must be a number")
    return RedisAddress(
        **server, db=number, user=unquote(user or ""), password=unquote(password or ""), tls_options=_tls_options(options, parts.scheme)
    )


def _tls_options(given: dict[str, str], scheme: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _TLS_OPTIONS or scheme != "rediss":
            hint = f"known, with rediss:// only: {', '.join(_TLS_OPTIONS)}; set timeouts with CC_REDIS_TIMEOUT_MS"
            raise ConfigError("CC_REDIS_URL has an unknown option, or a TLS option without rediss://", hint=hint)
        if name == "ssl_check_hostname":
            if value.lower() not in _SWITCHES:
                raise ConfigError("CC_REDIS_URL: ssl_check_hostname must be true or false")
            options[name] = _SWITCHES[value.lower()]
        elif name == "ssl_cert_reqs" and value not in ("none", "optional", "required"):
            raise ConfigError("CC_REDIS_URL: ssl_cert_reqs must be none, optional or required")
        else:
            options[name] = value
        if name in _FILES and not os.access(value, os.R_OK):
            raise ConfigError(f"CC_REDIS_URL: the file that {name} names cannot be read")
    if options.get("ssl_cert_reqs") == "none":
        options.setdefault("ssl_check_hostname", False)  # the host name is part of the certificate, which nobody verifies
    return options


def _of_sentinel(text: str) -> dict[str, Any]:
    credentials, _, rest = text.rpartition("@")
    hosts, slash, service = rest.partition("/")
    addresses = [_address(item.strip()) for item in hosts.split(",") if item.strip()]
    if not addresses or None in addresses or not service.strip() or not slash:
        raise ConfigError(
            "CC_REDIS_SENTINEL is not a valid list of Sentinels",
            hint="expected [user:password@]host:port,host:port/name, where name is what they call the primary",
        )
    user, _, password = credentials.partition(":")
    return {
        "sentinels": tuple(addresses), "service": service.strip(), "sentinel_user": unquote(user), "sentinel_password": unquote(password),
    }  # fmt: skip


def _address(text: str) -> Address | None:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # an IPv6 address in brackets may come without a port
        host, port = text, str(_SENTINEL_PORT)
    if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    return host.strip("[]"), int(port)


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bad_url(what: str) -> ConfigError:
    return ConfigError(f"CC_REDIS_URL is not a valid Redis URL ({what})", hint=f"expected {_FORM}; percent-encode special characters")
