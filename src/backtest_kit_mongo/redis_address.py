"""Where Redis is: one server, the primary that Sentinels know, or a cluster; from a URL or from single settings."""

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
"""Parameters of redis-py that a URL may carry."""
_FORM: Final = "redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix://[user:password@]/path[?db=0]"


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where Redis is, and how to log in. Exactly one of ``path``, ``sentinels`` and ``address`` counts."""

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
        """Without secrets."""
        if self.path:
            place = self.path
        elif self.sentinels:
            place = f"{','.join(map(_shown, self.sentinels))}/{self.service} (Sentinel)"
        else:
            place = _shown(self.address)
        more = [f"database {self.db}"] * bool(self.db) + ["TLS"] * self.tls + ["cluster"] * self.cluster
        return f"{place} ({', '.join(more)})" if more else place

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("place", str(self))]

    def __repr__(self) -> str:
        return f"<RedisAddress {self}>"


def redis_address(config: Config) -> RedisAddress:
    """The place that the settings name; ConfigError, without any secret in it, where they contradict each other."""
    place = _of_url(config.CC_REDIS_URL) if config.CC_REDIS_URL else RedisAddress() if config.CC_REDIS_SENTINEL else _of_settings(config)
    others: dict[str, Any] = {"cluster": config.CC_REDIS_CLUSTER}
    if not (place.user or place.password):
        others |= {"user": config.CC_REDIS_USER, "password": config.CC_REDIS_PASSWORD}
    if config.CC_REDIS_DB:
        if place.db not in (0, config.CC_REDIS_DB):
            raise ConfigError(f"CC_REDIS_URL names database {place.db}, and CC_REDIS_DB {config.CC_REDIS_DB}", hint="set one of them")
        others["db"] = config.CC_REDIS_DB
    if config.CC_REDIS_TLS:
        if place.path or (config.CC_REDIS_URL and not place.tls):
            raise ConfigError(
                "CC_REDIS_TLS is on, and the place of Redis has none", hint="rediss://host:port, or CC_REDIS_HOST with a port"
            )
        others["tls"] = True
    if config.CC_REDIS_SENTINEL:
        if config.CC_REDIS_CLUSTER:
            raise ConfigError("CC_REDIS_SENTINEL and CC_REDIS_CLUSTER exclude each other")
        others |= _of_sentinel(config.CC_REDIS_SENTINEL)
    place = msgspec.structs.replace(place, **others)
    if place.cluster and (place.db or place.path):
        what = "has database 0 only" if place.db else "is not reached over a Unix socket"
        raise ConfigError(f"a Redis cluster {what}", hint="CC_REDIS_PREFIX keeps two that share one apart")
    return place


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
        place: dict[str, Any] = {"path": path}
        if not path.startswith("/") or host:
            raise _bad_url("a Unix socket has an absolute path")
    else:
        place = {"address": (host or "", 6379 if port is None else port), "tls": parts.scheme == "rediss"}
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
        **place, db=number, user=unquote(user or ""), password=unquote(password or ""), tls_options=_tls_options(options, parts.scheme)
    )


def _tls_options(given: dict[str, str], scheme: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _TLS_OPTIONS or scheme != "rediss":
            known = f"known: {', '.join(_TLS_OPTIONS)}, with rediss://; time-outs are CC_REDIS_TIMEOUT_MS"
            raise ConfigError("CC_REDIS_URL has an option that is none of TLS", hint=known)
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
        options.setdefault("ssl_check_hostname", False)  # which only makes sense with a certificate that is checked
    return options


def _of_sentinel(text: str) -> dict[str, Any]:
    credentials, _, rest = text.rpartition("@")
    hosts, slash, service = rest.partition("/")
    addresses = [_address(item.strip()) for item in hosts.split(",") if item.strip()]
    if not addresses or None in addresses or not service.strip() or not slash:
        raise ConfigError(
            "CC_REDIS_SENTINEL names no Sentinels",
            hint="[user:password@]host:port,host:port/name, with the name of what they monitor",
        )
    user, _, password = credentials.partition(":")
    return {
        "sentinels": tuple(addresses), "service": service.strip(), "sentinel_user": unquote(user), "sentinel_password": unquote(password),
    }  # fmt: skip


def _address(text: str) -> Address | None:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # an IPv6 address may stand alone in its brackets
        host, port = text, str(_SENTINEL_PORT)
    if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    return host.strip("[]"), int(port)


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bad_url(what: str) -> ConfigError:
    return ConfigError(f"CC_REDIS_URL is no valid URL of Redis ({what})", hint=f"{_FORM}; percent-encode special characters in them")
