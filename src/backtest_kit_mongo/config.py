"""Settings: one frozen Struct, filled from the defaults, then the environment, then the caller. Later sources override earlier ones."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote

import msgspec
from pymongo.errors import InvalidURI, PyMongoError
from pymongo.uri_parser import parse_uri

from .arguments import plain_scalar
from .domains import DOMAINS, DomainName
from .errors import ConfigError
from .logs import log
from .mode_defaults import KINDS, PROFILES, Kind, LookAhead
from .redis_address import redis_address

__all__ = [
    "DEFAULT_DATABASE", "DEFAULT_TIMEOUT_MS", "OTHER_VARIABLES", "SETTINGS", "Config", "ConfigInForce", "checked", "in_force",
    "load_config", "redacted", "unknown_settings",
]  # fmt: skip

DEFAULT_DATABASE = "backtest-kit"
DEFAULT_TIMEOUT_MS = 15_000
_FALSE, _TRUE = ("", "0", "false", "no", "off"), ("1", "true", "yes", "on")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force. Each attribute has the name of its environment variable."""

    CC_MONGO_CONNECTION_STRING: str = f"mongodb://localhost:27017/{DEFAULT_DATABASE}?wtimeoutMS=15000"
    """MongoDB connection string: servers, database, credentials, TLS and timeouts (15 s for those it does not set)."""
    CC_REDIS_HOST: str = "127.0.0.1"
    """Redis host name, or the path of a Unix socket."""
    CC_REDIS_PORT: int = 6379
    """Redis TCP port."""
    CC_REDIS_USER: str = ""
    """Redis user; empty for the default user."""
    CC_REDIS_PASSWORD: str = ""
    """Redis password; empty for none."""
    CC_REDIS_URL: str = ""
    """Redis URL, instead of host and port: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database."""
    CC_REDIS_DB: int = 0
    """Redis database number."""
    CC_REDIS_TLS: bool = False
    """Connect to Redis over TLS and verify its certificate. ``CC_REDIS_URL`` takes further TLS options."""
    CC_REDIS_SENTINEL: str = ""
    """Sentinels to ask for the primary: ``host:port,host:port/name``, preceded by ``user:password@`` if they require a login."""
    CC_REDIS_CLUSTER: bool = False
    """Host and port are one node of a Redis cluster; the client learns the other nodes from it."""
    CC_REDIS_PREFIX: str = ""
    """Prefix of all Redis keys, for two MongoDB databases that share one Redis; empty as in the TypeScript package."""
    CC_REDIS_TIMEOUT_MS: int = 1000
    """Timeout in ms of one cache operation; after it the store continues without Redis."""
    CC_REDIS_IDS: Literal["keyed", "all"] = "keyed"
    """Which ids Redis caches: ``keyed`` those of domains that are read by key, ``all`` those of all domains (unbounded: one per candle)."""
    CC_MODE: Literal["", "backtest", "live", "paper"] = ""
    """Kind of run. It sets the defaults of stores, durability and look-ahead below."""
    CC_PAPER_DATABASE: str = ""
    """Database of a paper run; empty for the database of the connection string with ``-paper`` appended."""
    CC_STORES: dict[str, Kind] = msgspec.field(default_factory=lambda: _stores(""))
    """Store of each domain: mongo, file, memory, jsonl (log only) or dummy. As text: ``log=jsonl,memory=file``."""
    CC_DURABILITY: Literal["journal", "memory"] = "journal"
    """When a write returns: ``journal`` once on disk (of a majority or the one server), ``memory`` once in memory (primary or OS)."""
    CC_LOOK_AHEAD: LookAhead = "off"
    """How reads treat records of a later simulation time: ``off`` returns them, ``hide`` hides them, ``raise`` raises LookAheadError."""
    CC_HISTORY: tuple[DomainName, ...] = ()
    """Domains that keep versions, so that a read returns the value as of its simulation time. As text: ``state,session``."""
    CC_HISTORY_LIMIT: int = 1000
    """Maximum number of versions per record, including the current one; 0 for no limit."""
    CC_HISTORY_DAYS: int = 0
    """Maximum age of a version, in days of simulation time before the newest version; 0 for no limit."""
    CC_DUMP_DIR: str = "./dump"
    """Folder of the file store and of the JSON lines of the log; the default of a paper run is ``./dump-paper``."""
    CC_LOG_ROTATE_MB: int = 64
    """Size in MiB at which a file of JSON lines is rotated."""
    CC_PROCESS_IDS: int = 100_000
    """Maximum number of ids per domain in the cache of this process; 0 disables that cache."""
    CC_CANDLE_MEMORY_MB: int = 256
    """Maximum memory in MiB in which this process caches candles that it has read; 0 disables that cache."""
    CC_CANDLE_FORMAT: Literal["items", "packed"] = "items"
    """How candles are stored: ``items`` one per document, as the TypeScript package does, or ``packed`` 4,096, which it cannot read."""
    CC_WIRE_LANE: bool = True
    """Send prebuilt messages over the connections of pymongo and redis-py; 0 makes every call through their public methods."""
    CC_TICK_SECONDS: float = 60.0
    """How often a live or paper run polls the market, in seconds; at most 60."""
    CC_SCHEDULE_AWAIT_MINUTES: float = 120.0
    """How many minutes a signal waits for its price."""
    CC_EMBEDDED: bool = False
    """Start an embedded mongod and redis-server instead of connecting to other servers."""
    CC_EMBEDDED_DIR: str = ""
    """Data folder of the embedded servers; empty for ``backtest-kit-mongo`` in the user's data home."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # The method that msgspec.Struct defines would make rich print the secrets.
        shown = msgspec.structs.asdict(self)
        shown["CC_MONGO_CONNECTION_STRING"] = redacted(self.CC_MONGO_CONNECTION_STRING)
        shown["CC_REDIS_PASSWORD"] = "***" if self.CC_REDIS_PASSWORD else ""
        shown["CC_REDIS_URL"] = redacted(self.CC_REDIS_URL) if self.CC_REDIS_URL else ""
        credentials, at, hosts = self.CC_REDIS_SENTINEL.rpartition("@")
        shown["CC_REDIS_SENTINEL"] = _without_password(credentials) + at + hosts
        return list(shown.items())

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    __str__ = __repr__


class ConfigInForce(Config, frozen=True, kw_only=True, dict=True):
    """The settings in force, with the topology, write concern and read concern of the MongoDB in use.

    Those are None until MongoDB is first used (``wait_for_init`` uses it). The fields of the Struct (``msgspec.structs``) are the
    settings alone, so that you can pass them to ``setup`` again.
    """

    @property
    def topology(self) -> str | None:
        """One of "standalone", "replica set NAME" and "sharded cluster"."""
        topology: str | None = self.__dict__.get("topology")
        return topology

    @property
    def write_concern(self) -> dict[str, Any] | None:
        """MongoDB's write concern, such as ``{"w": "majority", "j": True, "wtimeout": 11250}``: when a write counts as done."""
        concern: dict[str, Any] | None = self.__dict__.get("write_concern")
        return concern

    @property
    def read_concern(self) -> dict[str, Any] | None:
        """MongoDB's read concern, such as ``{"level": "majority"}``: what reads see. Empty for MongoDB's default, ``local``."""
        concern: dict[str, Any] | None = self.__dict__.get("read_concern")
        return concern

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [*super().__rich_repr__(), *((name, getattr(self, name)) for name in ("topology", "write_concern", "read_concern"))]


def in_force(config: Config, **reported: Any) -> ConfigInForce:
    """Return ``config`` as a ConfigInForce. ``reported`` has its topology, write_concern and read_concern, if known."""
    settings = ConfigInForce(**msgspec.structs.asdict(config))
    settings.__dict__.update(reported)
    return settings


def _stores(mode: str) -> dict[str, Kind]:
    """Return the store of every domain in a mode."""
    return {name: PROFILES[mode].stores.get(name, "mongo") for name in DOMAINS}


def redacted(uri: str) -> str:
    """Return a connection string without its password and without option values that may be another secret.

    This works on malformed strings too: everything between the user and the last @ counts as the password.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "***"
    credentials, at, address = rest.rpartition("@")
    address, question, options = address.partition("?")
    pairs = [
        f"{pair.partition('=')[0]}=***" if "password" in pair.lower() or "properties" in pair.lower() else pair
        for pair in options.split("&")
    ]
    return f"{scheme}://{_without_password(credentials)}{at}{address}{question}{'&'.join(pairs)}"


def _without_password(credentials: str) -> str:
    user, colon, _ = credentials.partition(":")
    return f"{user}:***" if colon else user


def _choice(value: Any, sources: _Sources) -> dict[str, Kind]:
    """Convert ``CC_STORES``, a mapping or text, to a dict of domain -> kind of store."""
    if isinstance(value, str):
        pairs = [item.partition("=") for item in value.split(",") if item.strip()]
        value = {name.strip(): kind.strip() for name, _, kind in pairs}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"CC_STORES must be a mapping of domains to stores, or text like log=jsonl,memory=file; got {type(value).__name__}"
        )
    for name, kind in value.items():
        _known_domain("CC_STORES", name, sources)
        if not isinstance(kind, str) or kind not in KINDS:
            shown = f"not {kind!r}" if _may_be_shown(kind, KINDS, sources) else _UNSHOWN
            raise ConfigError(f"CC_STORES: the store of {name} must be one of {', '.join(KINDS)}, {shown}", hint=_did_you_mean(kind, KINDS))
        if kind == "jsonl" and name != "log":
            raise ConfigError(f"CC_STORES: jsonl stores only log, not {name}", hint=f"{name}=file stores it in files")
    return dict(value)


def _with_history(value: Any, sources: _Sources) -> tuple[DomainName, ...]:
    """Convert ``CC_HISTORY``, a collection or text, to a tuple of domain names without duplicates."""
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"CC_HISTORY must be a list of domains, or text like state,session; got {type(value).__name__}")
    names: list[DomainName] = []
    for name in value:
        _known_domain("CC_HISTORY", name, sources)
        names += [] if name in names else [name]
        if not DOMAINS[name].when:
            timed = ", ".join(domain.name for domain in DOMAINS.values() if domain.when)
            raise ConfigError(
                f"CC_HISTORY: {name} stores no simulation time, so it cannot keep versions", hint=f"domains that can: {timed}"
            )
    return tuple(names)


def _known_domain(setting: str, name: Any, sources: _Sources) -> None:
    if not isinstance(name, str) or name not in DOMAINS:
        near = difflib.get_close_matches(str(name).lower(), DOMAINS, n=1, cutoff=0.0)
        shown = f" {name!r}" if _may_be_shown(name, DOMAINS, sources) else f"; {_UNSHOWN}"
        raise ConfigError(f"{setting}: unknown domain{shown}", hint=f"did you mean {near[0]}? Known: {', '.join(DOMAINS)}")


def _convert(name: str, value: Any, kind: Any, sources: _Sources) -> Any:
    """Convert one raw setting to its type. Any type may come as text, as from the environment.

    ``sources`` are the mappings that settings come from. No error contains a secret that is in them. Raises ConfigError.
    """
    if name == "CC_STORES":
        return _choice(value, sources)
    if name == "CC_HISTORY":
        return _with_history(value, sources)
    value = plain_scalar(value)
    try:
        if kind is bool and isinstance(value, str):
            if value.strip().lower() in _TRUE:
                return True
            if value.strip().lower() in _FALSE:
                return False
        if kind is bool and type(value) is int and value in (0, 1):  # like "0" and "1" in the environment
            return bool(value)
        if kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        return msgspec.convert(value, kind, strict=not (kind in (int, float) and isinstance(value, str)))
    except msgspec.ValidationError:
        raise _wrong(name, value, kind, sources) from None


# --- errors that show the wrong value, but never a secret ---

_Sources = tuple[Mapping[str, Any], ...]
_SECRETS: Final = ("CC_MONGO_CONNECTION_STRING", "CC_REDIS_URL", "CC_REDIS_SENTINEL", "CC_REDIS_USER", "CC_REDIS_PASSWORD")
_UNSHOWN: Final = "the value is not shown because it may be a secret"
_WANTED: Final = {int: "a whole number", float: "a number", bool: "0 or 1", str: "text"}


def _wrong(name: str, value: Any, kind: Any, sources: _Sources) -> ConfigError:
    """Return the error for an invalid value. It suggests the nearest valid one, and shows the value unless that may be a secret."""
    choices = [choice for choice in get_args(kind) if choice]
    expected = _WANTED.get(kind) or f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
    if not isinstance(value, (str, int, float)):
        return ConfigError(f"{name} must be {expected}, got {type(value).__name__}")
    if name in _SECRETS or not _may_be_shown(value, choices, sources):
        return ConfigError(f"{name} must be {expected}; {_UNSHOWN}")
    return ConfigError(f"{name} is {value!r}; it must be {expected}", hint=_did_you_mean(value, choices))


def _may_be_shown(value: Any, choices: Iterable[str], sources: _Sources) -> bool:
    """Return whether an error may quote a wrong value. A password under the wrong name is rarely a plain word or a number."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z _-]{0,19}|[-+]?[\d., ]{1,12}[A-Za-z]{0,2}", str(value))
    return bool(plain or _did_you_mean(value, choices)) and not _secret(value, sources)


def _did_you_mean(value: Any, choices: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(str(value).strip().lower(), choices, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def _secret(value: Any, sources: _Sources) -> bool:
    """Return whether a value must not be shown: it looks like a connection string, or it is a secret of another setting or part of one."""
    text = str(value)
    if "@" in text or "://" in text:
        return True
    secrets = [
        str(other)
        for source in sources
        for name, other in source.items()
        if name in _SECRETS or re.search("PASSW|SECRET|TOKEN|KEY", str(name).upper())
    ]
    parts = {part for secret in secrets for part in (secret, *re.split("[:@/?]+", secret))}
    return text in parts or text in map(unquote, parts)


def _is_text(name: str) -> bool:
    """Return whether a file name can be encoded. Lone surrogates cannot."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def checked(config: Config) -> Config:
    """Return ``config``, or raise ConfigError for what would otherwise fail later, or with a secret in the message."""
    try:
        uri = config.CC_MONGO_CONNECTION_STRING
        if uri.startswith("mongodb+srv://"):  # DNS resolves it when connecting; check only the syntax here
            authority = uri.removeprefix("mongodb+srv://").partition("/")[0]
            if authority.count("@") > 1 or "#" in authority or "?" in authority.rpartition("@")[0]:
                raise InvalidURI("user")
        else:
            parse_uri(uri, warn=False)
    except InvalidURI as error:
        # pymongo's message may quote the string, so do not show it; ``from None`` keeps it out of the traceback.
        kind = "scheme" if "Invalid URI scheme" in str(error) else "host, port, user or options"
        raise ConfigError(
            f"CC_MONGO_CONNECTION_STRING is not a valid connection string ({kind})",
            hint="expected mongodb://[user:password@]host:port/database; percent-encode special characters in user and password",
        ) from None
    except (PyMongoError, ValueError, TypeError):
        raise ConfigError("CC_MONGO_CONNECTION_STRING has an option with an invalid value, or its host cannot be resolved") from None
    except OSError as error:  # a certificate file that an option names; strerror contains no secret
        raise ConfigError(f"CC_MONGO_CONNECTION_STRING names a file that cannot be read: {error.strerror}") from None
    if not 0 < config.CC_REDIS_PORT < 65536:
        raise ConfigError(f"CC_REDIS_PORT must be from 1 to 65535, got {config.CC_REDIS_PORT}")
    for name, least, most in (
        ("CC_REDIS_TIMEOUT_MS", 1, 86_400_000),
        ("CC_REDIS_DB", 0, 2**31 - 1),
        ("CC_PROCESS_IDS", 0, 10**9),
        ("CC_CANDLE_MEMORY_MB", 0, 2**24),
        ("CC_HISTORY_LIMIT", 0, 10**9),
        ("CC_HISTORY_DAYS", 0, 10**6),
        ("CC_LOG_ROTATE_MB", 1, 2**24),
    ):
        value = getattr(config, name)
        if value < least:
            raise ConfigError(f"{name} must not be {'less than 1' if least else 'negative'}, got {value}")
        if value > most:
            raise ConfigError(f"{name} must be at most {most}, got {value}")
    for name, longest in (("CC_TICK_SECONDS", 60.0), ("CC_SCHEDULE_AWAIT_MINUTES", math.inf)):
        value = getattr(config, name)
        if not 0 < value <= longest:
            raise ConfigError(f"{name} must be above 0{'' if longest == math.inf else f' and at most {longest:g}'}, got {value}")
    if re.search(r'[\0/\\. "$]', config.CC_PAPER_DATABASE) or len(config.CC_PAPER_DATABASE.encode()) > 63:
        raise ConfigError('CC_PAPER_DATABASE must be a name of at most 63 bytes without / \\ . " $ or spaces')
    if "\0" in config.CC_DUMP_DIR or not _is_text(config.CC_DUMP_DIR):
        raise ConfigError("CC_DUMP_DIR contains a character that a folder name cannot have")
    if "://" in config.CC_REDIS_HOST or "@" in config.CC_REDIS_HOST:
        raise ConfigError(
            "CC_REDIS_HOST must be a host name or the path of a Unix socket, not a URL",
            hint="set CC_REDIS_URL instead, or put the other parts in CC_REDIS_PORT, CC_REDIS_USER and CC_REDIS_PASSWORD",
        )
    if not re.fullmatch(r"[!-~]{0,64}", config.CC_REDIS_PREFIX):
        raise ConfigError("CC_REDIS_PREFIX must be at most 64 printable ASCII characters without spaces")
    redis_address(config)
    return config


SETTINGS: Final[Mapping[str, Any]] = {field.name: field.type for field in msgspec.structs.fields(Config)}
"""The name and type of each setting. Made once, since it evaluates every annotation, which takes 3 ms."""

OTHER_VARIABLES: Final = ("CC_EXCHANGE_KEY", "CC_EXCHANGE_SECRET", "CC_EXCHANGE_MAX_WAIT_SECONDS")
"""Environment variables that other parts of the library read."""

_reported: set[str] = set()


def unknown_settings(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the probably misspelt settings in ``environ`` (default: ``os.environ``), each with the nearest setting.

    The TypeScript framework and other tools of the same stack read CC_* variables of their own (CC_TELEGRAM_TOKEN, CC_WWWROOT_PORT),
    and there is no list of all of them. So a name counts as misspelt only if it is close to one of ours, or if it starts with CC_MONGO
    or CC_REDIS.
    """
    settings = {name.removeprefix("CC_"): name for name in (*SETTINGS, *OTHER_VARIABLES)}
    misspelt = {}
    for name in os.environ if environ is None else environ:
        word = name.upper().removeprefix("CC_")
        if word == name.upper() or name in settings.values():
            continue
        cutoff = 0.0 if word.startswith(("MONGO", "REDIS")) else 0.65
        near = difflib.get_close_matches(word, settings, n=1, cutoff=cutoff)
        if near:
            misspelt[name] = settings[near[0]]
    return misspelt


def load_config(given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Return the settings: the defaults, then those of the mode, then ``environ`` (default: ``os.environ``), then ``given``.

    Empty text and a zero port count as not given, as in the TypeScript package. Raises ConfigError for an unknown name in ``given``
    (and suggests the nearest one) and for a value of the wrong type or range. Logs a warning, once, for a misspelt name in ``environ``.
    """
    environ = os.environ if environ is None else environ
    sources = ({} if given is None else given, environ)
    for name, nearest in unknown_settings(environ).items():
        if name not in _reported:
            _reported.add(name)
            log("warning", f"unknown setting {name} in the environment has no effect; did you mean {nearest}?")
    values: dict[str, Any] = {}
    for name, kind in SETTINGS.items():
        text = environ.get(name)
        if text:
            values[name] = _convert(name, text, kind, sources)
    stores = values.get("CC_STORES", {})
    for name, value in (given or {}).items():
        if name not in SETTINGS:
            near = difflib.get_close_matches(str(name).upper(), SETTINGS, n=1, cutoff=0.0)
            raise ConfigError(f"unknown setting {name!r}", hint=f"did you mean {near[0]}? Known: {', '.join(SETTINGS)}")
        if value is None or value == "" or (name == "CC_REDIS_PORT" and value == 0):
            continue
        values[name] = _convert(name, value, SETTINGS[name], sources)
    values["CC_STORES"] = stores | values.get("CC_STORES", {})
    _choose_redis(values, given or {}, environ)
    return checked(_resolved(values))


_PLACES: Final = (("CC_REDIS_URL",), ("CC_REDIS_HOST", "CC_REDIS_PORT"), ("CC_REDIS_SENTINEL",))


def _choose_redis(values: dict[str, Any], given: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Drop the environment's Redis address if the caller gave another kind of address: a URL, host and port, or Sentinels.

    Raises ConfigError if one source has two kinds.
    """
    for source, name in ((given, "setup()"), (environ, "the environment")):
        given_by_kind = [[setting for setting in kind if source.get(setting)] for kind in _PLACES]
        first = [settings[0] for settings in given_by_kind if settings]
        if len(first) > 1:
            raise ConfigError(f"{name} sets more than one Redis address: {' and '.join(first)}", hint="set only one of them")
        if first:
            for kind, settings in zip(_PLACES, given_by_kind, strict=True):
                for setting in kind if not settings else ():
                    values.pop(setting, None)
            return


def _resolved(values: dict[str, Any]) -> Config:
    """Return the settings; the mode decides those that were not given."""
    mode = values.get("CC_MODE", "")
    profile = PROFILES[mode]
    decided: dict[str, str] = {"CC_DURABILITY": profile.durability, "CC_LOOK_AHEAD": profile.look_ahead}
    if mode == "paper":  # keeps its records apart from those of a live run
        decided["CC_DUMP_DIR"] = "./dump-paper"
    return Config(**{**decided, **values, "CC_STORES": _stores(mode) | values["CC_STORES"]})
