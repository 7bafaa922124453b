"""Settings: one frozen Struct, filled from defaults, the environment and the caller, in rising order of weight."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote

import msgspec
from pymongo.errors import InvalidURI, PyMongoError
from pymongo.uri_parser import parse_uri

from .domains import DOMAINS, DomainName
from .errors import ConfigError
from .logs import log
from .mode_defaults import KINDS, PROFILES, Kind, LookAhead
from .redis_address import redis_address

__all__ = ["DEFAULT_DATABASE", "DEFAULT_TIMEOUT_MS", "Config", "ConfigInForce", "in_force", "load_config", "redacted", "unknown_settings"]

DEFAULT_DATABASE = "backtest-kit"
DEFAULT_TIMEOUT_MS = 15_000
_FALSE, _TRUE = ("", "0", "false", "no", "off"), ("1", "true", "yes", "on")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force. Attribute names are the names of the environment variables."""

    CC_MONGO_CONNECTION_STRING: str = f"mongodb://localhost:27017/{DEFAULT_DATABASE}?wtimeoutMS=15000"
    """Where MongoDB is; its database, credentials, TLS and time-outs (15 s where it is silent)."""
    CC_REDIS_HOST: str = "127.0.0.1"
    """Host name, or the path of a Unix socket."""
    CC_REDIS_PORT: int = 6379
    """TCP port of Redis."""
    CC_REDIS_USER: str = ""
    """User of Redis; empty: the default one."""
    CC_REDIS_PASSWORD: str = ""
    """Password of Redis; empty: none."""
    CC_REDIS_URL: str = ""
    """Redis in one piece, instead of host and port: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database."""
    CC_REDIS_DB: int = 0
    """Number of the Redis database."""
    CC_REDIS_TLS: bool = False
    """Speak TLS with Redis, and check its certificate; more about TLS can be said in ``CC_REDIS_URL``."""
    CC_REDIS_SENTINEL: str = ""
    """Ask these Sentinels for the primary: ``host:port,host:port/name``, with ``user:password@`` in front where they want a login."""
    CC_REDIS_CLUSTER: bool = False
    """Host and port are one node of a Redis cluster, which names the others."""
    CC_REDIS_PREFIX: str = ""
    """What all keys in Redis begin with, for two MongoDB databases that share one Redis; empty as in the original."""
    CC_REDIS_TIMEOUT_MS: int = 1000
    """How long one cache operation may wait before the store goes on without Redis, in ms."""
    CC_REDIS_IDS: Literal["keyed", "all"] = "keyed"
    """Whose ids go to Redis: the domains that are read by key, or all (one key per candle, without end)."""
    CC_MODE: Literal["", "backtest", "live", "paper"] = ""
    """The kind of run, which decides the settings below where they are not given: stores, durability and look-ahead."""
    CC_PAPER_DATABASE: str = ""
    """The database of a paper run; empty: that of the connection string with ``-paper`` behind its name."""
    CC_STORES: dict[str, Kind] = msgspec.field(default_factory=lambda: _stores(""))
    """What serves which domain: mongo, file, memory, jsonl (log only) or dummy. As text: ``log=jsonl,memory=file``."""
    CC_DURABILITY: Literal["journal", "memory"] = "journal"
    """When a write counts as done: on the disks of a majority (or the one server), or in memory, the primary's and the system's (files)."""
    CC_LOOK_AHEAD: LookAhead = "off"
    """What a read at a simulation time does with what was written at a later one: give it, hide it, or raise LookAheadError."""
    CC_HISTORY: tuple[DomainName, ...] = ()
    """Domains that keep versions, so that a read at a simulation time gives the value as of then. As text: ``state,session``."""
    CC_HISTORY_LIMIT: int = 1000
    """How many versions of a record are kept, the current one among them; 0: all."""
    CC_HISTORY_DAYS: int = 0
    """How long before its newest version a version is kept, in days of simulation time; 0: without end."""
    CC_DUMP_DIR: str = "./dump"
    """Where the file store and the JSON lines of the log are; a paper run has ``./dump-paper``."""
    CC_LOG_ROTATE_MB: int = 64
    """At which size a file of JSON lines is put aside and a new one begun, in MiB."""
    CC_PROCESS_IDS: int = 100_000
    """How many ids of each domain this process remembers; 0 turns that cache off."""
    CC_CANDLE_MEMORY_MB: int = 256
    """How much memory this process may keep candles in that it has read, in MiB; 0 keeps none."""
    CC_WIRE_LANE: bool = True
    """Exchange prebuilt messages on connections of pymongo and redis-py; 0: every call goes through their public methods."""
    CC_EMBEDDED: bool = False
    """Start a mongod and a redis-server of our own instead of connecting to others."""
    CC_EMBEDDED_DIR: str = ""
    """Where the embedded servers keep their data; empty: the user's data folder."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec brings one of its own, with which rich would print the secrets.
        shown = msgspec.structs.asdict(self)
        shown["CC_MONGO_CONNECTION_STRING"] = redacted(self.CC_MONGO_CONNECTION_STRING)
        shown["CC_REDIS_PASSWORD"] = "***" if self.CC_REDIS_PASSWORD else ""
        shown["CC_REDIS_URL"] = redacted(self.CC_REDIS_URL) if self.CC_REDIS_URL else ""
        credentials, at, place = self.CC_REDIS_SENTINEL.rpartition("@")
        shown["CC_REDIS_SENTINEL"] = f"{credentials.partition(':')[0]}:***@{place}" if at else place
        return list(shown.items())

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    __str__ = __repr__


class ConfigInForce(Config, frozen=True, kw_only=True, dict=True):
    """The settings in force, and what they have come to at MongoDB: None before the first use of it (``wait_for_init`` is one).

    As a Struct (for ``msgspec.structs``) it has the settings alone, so that they can be given to ``setup`` again.
    """

    @property
    def topology(self) -> str | None:
        """One of "standalone", "replica set NAME" and "sharded cluster"."""
        found: str | None = self.__dict__.get("topology")
        return found

    @property
    def write_concern(self) -> dict[str, Any] | None:
        """When a write counts as done, in MongoDB's words: ``{"w": "majority", "j": True, "wtimeout": 11250}``."""
        found: dict[str, Any] | None = self.__dict__.get("write_concern")
        return found

    @property
    def read_concern(self) -> dict[str, Any] | None:
        """What reads see, in MongoDB's words: ``{"level": "majority"}``; empty for its default, local."""
        found: dict[str, Any] | None = self.__dict__.get("read_concern")
        return found

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [*super().__rich_repr__(), *((name, getattr(self, name)) for name in ("topology", "write_concern", "read_concern"))]


def in_force(config: Config, **found: Any) -> ConfigInForce:
    """Settings with what they have come to."""
    settings = ConfigInForce(**msgspec.structs.asdict(config))
    settings.__dict__.update(found)
    return settings


def _stores(mode: str) -> dict[str, Kind]:
    """The stores of a mode, every domain named."""
    return {name: PROFILES[mode].stores.get(name, "mongo") for name in DOMAINS}


def redacted(uri: str) -> str:
    """A connection string without its password and without the option values that may hold another secret.

    Made for strings that are wrong, too: whatever stands between the user and the last @ is taken for the password.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "***"
    credentials, at, place = rest.rpartition("@")
    place, question, options = place.partition("?")
    kept = [
        f"{pair.partition('=')[0]}=***" if "password" in pair.lower() or "properties" in pair.lower() else pair
        for pair in options.split("&")
    ]
    user = credentials.partition(":")[0]
    return f"{scheme}://{f'{user}:***' if at else ''}{at}{place}{question}{'&'.join(kept)}"


def _choice(value: Any, sources: _Sources) -> dict[str, Kind]:
    """``CC_STORES``: domain -> kind of store, from a mapping or from text."""
    if isinstance(value, str):
        pairs = [item.partition("=") for item in value.split(",") if item.strip()]
        value = {name.strip(): kind.strip() for name, _, kind in pairs}
    if not isinstance(value, Mapping):
        raise ConfigError(f"CC_STORES must be a mapping of domains to stores, or text as log=jsonl,memory=file; got {type(value).__name__}")
    for name, kind in value.items():
        _known_domain("CC_STORES", name, sources)
        if not isinstance(kind, str) or kind not in KINDS:
            shown = f"not {kind!r}" if _may_be_shown(kind, KINDS, sources) else _UNSHOWN
            raise ConfigError(f"CC_STORES: {name} must be on one of {', '.join(KINDS)}, {shown}", hint=_did_you_mean(kind, KINDS))
        if kind == "jsonl" and name != "log":
            raise ConfigError(f"CC_STORES: only log can be on jsonl, {name} cannot", hint=f"{name}=file keeps it in files")
    return dict(value)


def _with_history(value: Any, sources: _Sources) -> tuple[DomainName, ...]:
    """``CC_HISTORY``: names of domains, from a collection or from text."""
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"CC_HISTORY must be a list of domains, or text as state,session; got {type(value).__name__}")
    names: list[DomainName] = []
    for name in value:
        _known_domain("CC_HISTORY", name, sources)
        names += [] if name in names else [name]
        if not DOMAINS[name].when:
            timed = ", ".join(domain.name for domain in DOMAINS.values() if domain.when)
            raise ConfigError(f"CC_HISTORY: {name} carries no simulation time, so it has no versions", hint=f"domains that do: {timed}")
    return tuple(names)


def _known_domain(setting: str, name: Any, sources: _Sources) -> None:
    if not isinstance(name, str) or name not in DOMAINS:
        near = difflib.get_close_matches(str(name).lower(), DOMAINS, n=1, cutoff=0.0)
        shown = f" {name!r}" if _may_be_shown(name, DOMAINS, sources) else f"; {_UNSHOWN}"
        raise ConfigError(f"{setting}: unknown domain{shown}", hint=f"did you mean {near[0]}? Known: {', '.join(DOMAINS)}")


def _convert(name: str, value: Any, kind: Any, sources: _Sources) -> Any:
    """One raw setting as its type; text (as the environment gives it) is understood for every type.

    ``sources`` is where settings come from; a secret among them is in no error.
    """
    if name == "CC_STORES":
        return _choice(value, sources)
    if name == "CC_HISTORY":
        return _with_history(value, sources)
    try:
        if kind is bool and isinstance(value, str):
            if value.strip().lower() in _TRUE:
                return True
            if value.strip().lower() in _FALSE:
                return False
        if kind is bool and type(value) is int and value in (0, 1):  # as in the environment
            return bool(value)
        if kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        return msgspec.convert(value, kind, strict=False) if kind is int and isinstance(value, str) else msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise _wrong(name, value, kind, sources) from None


# --- errors that show what is wrong, and no secret ---

_Sources = tuple[Mapping[str, Any], ...]
_SECRETS: Final = ("CC_MONGO_CONNECTION_STRING", "CC_REDIS_URL", "CC_REDIS_SENTINEL", "CC_REDIS_USER", "CC_REDIS_PASSWORD")
_UNSHOWN: Final = "the value is not shown, as it may be a secret"
_WANTED: Final = {int: "a whole number", bool: "0 or 1", str: "text"}


def _wrong(name: str, value: Any, kind: Any, sources: _Sources) -> ConfigError:
    """The refusal of a value that a setting cannot have: with the value, unless it may be a secret, and with the nearest right one."""
    choices = [choice for choice in get_args(kind) if choice]
    wanted = _WANTED.get(kind) or f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
    if not isinstance(value, (str, int, float)):
        return ConfigError(f"{name} must be {wanted}; it is of type {type(value).__name__}")
    if name in _SECRETS or not _may_be_shown(value, choices, sources):
        return ConfigError(f"{name} must be {wanted}; {_UNSHOWN}")
    return ConfigError(f"{name} is {value!r}; it must be {wanted}", hint=_did_you_mean(value, choices))


def _may_be_shown(value: Any, choices: Iterable[str], sources: _Sources) -> bool:
    """Whether an error may quote a wrong value. A password given under the wrong name is rarely a plain word or a number."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z _-]{0,19}|[-+]?[\d., ]{1,12}[A-Za-z]{0,2}", str(value))
    return bool(plain or _did_you_mean(value, choices)) and not _secret(value, sources)


def _did_you_mean(value: Any, choices: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(str(value).strip().lower(), choices, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def _secret(value: Any, sources: _Sources) -> bool:
    """Whether a value must not be shown: it looks like a connection string, or is a secret, or part of one, of another setting."""
    text = str(value)
    if "@" in text or "://" in text:
        return True
    named = [
        str(other)
        for source in sources
        for name, other in source.items()
        if name in _SECRETS or re.search("PASSW|SECRET|TOKEN|KEY", str(name).upper())
    ]
    parts = {part for secret in named for part in (secret, *re.split("[:@/?]+", secret))}
    return text in parts or text in map(unquote, parts)


def _is_text(name: str) -> bool:
    """Whether a name can be encoded; halves of surrogate pairs cannot."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _checked(config: Config) -> Config:
    """Refuse what would only fail later, or fail with a secret in the message."""
    try:
        uri = config.CC_MONGO_CONNECTION_STRING
        if uri.startswith("mongodb+srv://"):  # resolved by DNS, at the connect; until then only its form can be looked at
            authority = uri.removeprefix("mongodb+srv://").partition("/")[0]
            if authority.count("@") > 1 or "#" in authority or "?" in authority.rpartition("@")[0]:
                raise InvalidURI("user")
        else:
            parse_uri(uri, warn=False)
    except InvalidURI as error:
        # pymongo's text may quote the string, so it is not shown; ``from None`` keeps it out of the traceback.
        kind = "scheme" if "Invalid URI scheme" in str(error) else "host, port, user or options"
        raise ConfigError(
            f"CC_MONGO_CONNECTION_STRING is no valid connection string ({kind})",
            hint="mongodb://[user:password@]host:port/database; percent-encode special characters of user and password",
        ) from None
    except (PyMongoError, ValueError, TypeError):
        raise ConfigError("CC_MONGO_CONNECTION_STRING holds an option with an invalid value, or its host cannot be resolved") from None
    except OSError as error:  # a certificate that an option names; the name of the file is no secret
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
    if re.search(r'[\0/\\. "$]', config.CC_PAPER_DATABASE) or len(config.CC_PAPER_DATABASE.encode()) > 63:
        raise ConfigError('CC_PAPER_DATABASE must be a name of at most 63 bytes without / \\ . " $ and blanks')
    if "\0" in config.CC_DUMP_DIR or not _is_text(config.CC_DUMP_DIR):
        raise ConfigError("CC_DUMP_DIR holds a character that no folder's name can have")
    if "://" in config.CC_REDIS_HOST or "@" in config.CC_REDIS_HOST:
        raise ConfigError(
            "CC_REDIS_HOST must be a host name or the path of a Unix socket, not a URL",
            hint="CC_REDIS_URL takes one; or CC_REDIS_PORT, CC_REDIS_USER and CC_REDIS_PASSWORD hold the other parts",
        )
    if not re.fullmatch(r"[!-~]{0,64}", config.CC_REDIS_PREFIX):
        raise ConfigError("CC_REDIS_PREFIX must be of at most 64 ASCII characters without blanks")
    redis_address(config)
    return config


# Variables of the environment that other parts of the library read.
_ELSEWHERE: Final = ("CC_EXCHANGE_KEY", "CC_EXCHANGE_SECRET", "CC_SCHEDULE_AWAIT_MINUTES", "CC_TICK_SECONDS")
_reported: set[str] = set()


def unknown_settings(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """CC_* variables of ``environ`` (default: the process's) that are probably settings misspelt, each with the nearest known name.

    The TypeScript framework and other tools of the same stack read CC_* variables of their own (CC_TELEGRAM_TOKEN, CC_WWWROOT_PORT),
    and nobody has a list of all of them. So a name counts as misspelt only where it is much like one of ours, or says MONGO or REDIS.
    """
    known = {name.removeprefix("CC_"): name for name in (*(field.name for field in msgspec.structs.fields(Config)), *_ELSEWHERE)}
    found = {}
    for name in os.environ if environ is None else environ:
        word = name.upper().removeprefix("CC_")
        if word == name.upper() or name in known.values():
            continue
        cutoff = 0.0 if word.startswith(("MONGO", "REDIS")) else 0.65
        near = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
        if near:
            found[name] = known[near[0]]
    return found


def load_config(given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The settings: defaults, then what the mode decides, then ``environ`` (default: the process's), then ``given``.

    Empty text and a zero port count as not given, as in the original. Raises ConfigError for an unknown name (with the nearest
    known one) and for a value of the wrong type or range. A name of ``environ`` that is unknown is warned of, once.
    """
    kinds = {field.name: field.type for field in msgspec.structs.fields(Config)}
    environ = os.environ if environ is None else environ
    sources = ({} if given is None else given, environ)
    for name, nearest in unknown_settings(environ).items():
        if name not in _reported:
            _reported.add(name)
            log("warning", f"unknown setting {name} in the environment has no effect; did you mean {nearest}?")
    values: dict[str, Any] = {}
    for name in kinds:
        text = environ.get(name)
        if text:
            values[name] = _convert(name, text, kinds[name], sources)
    stores = values.get("CC_STORES", {})
    for name, value in (given or {}).items():
        if name not in kinds:
            near = difflib.get_close_matches(str(name).upper(), kinds, n=1, cutoff=0.0)
            raise ConfigError(f"unknown setting {name!r}", hint=f"did you mean {near[0]}? Known: {', '.join(kinds)}")
        if value is None or value == "" or (name == "CC_REDIS_PORT" and value == 0):
            continue
        values[name] = _convert(name, value, kinds[name], sources)
    values["CC_STORES"] = stores | values.get("CC_STORES", {})
    _choose_redis(values, given or {}, environ)
    return _checked(_resolved(values))


_PLACES: Final = (("CC_REDIS_URL",), ("CC_REDIS_HOST", "CC_REDIS_PORT"), ("CC_REDIS_SENTINEL",))


def _choose_redis(values: dict[str, Any], given: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Let a place of Redis that was given win over another kind of place in the environment; both at once are a contradiction."""
    for source, name in ((given, "setup()"), (environ, "the environment")):
        named = [[setting for setting in place if source.get(setting)] for place in _PLACES]
        first = [settings[0] for settings in named if settings]
        if len(first) > 1:
            raise ConfigError(f"{name} says where Redis is by {' and by '.join(first)}", hint="set one of them")
        if first:
            for place, settings in zip(_PLACES, named, strict=True):
                for setting in place if not settings else ():
                    values.pop(setting, None)
            return


def _resolved(values: dict[str, Any]) -> Config:
    """The settings, with what the mode decides where nothing was given."""
    mode = values.get("CC_MODE", "")
    profile = PROFILES[mode]
    decided: dict[str, str] = {"CC_DURABILITY": profile.durability, "CC_LOOK_AHEAD": profile.look_ahead}
    if mode == "paper":  # it must not meet the records of a live run
        decided["CC_DUMP_DIR"] = "./dump-paper"
    return Config(**{**decided, **values, "CC_STORES": _stores(mode) | values["CC_STORES"]})
