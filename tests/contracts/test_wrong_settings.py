"""Misspelt or wrong settings: what the messages say, and that they show no secret."""

from __future__ import annotations

import json
from typing import get_args, get_type_hints

import pytest
from command import Cli

import backtest_kit_mongo as kit
from backtest_kit_mongo import config
from backtest_kit_mongo.config import Config, load_config, unknown_settings
from backtest_kit_mongo.domains import DOMAINS, DomainName
from backtest_kit_mongo.mode_defaults import PROFILES, Mode

pytestmark = pytest.mark.once

# Variables of the TypeScript framework and its image, which may share our environment.
FRAMEWORK = (
    "CC_TELEGRAM_TOKEN", "CC_WWWROOT_HOST", "CC_WWWROOT_PORT", "CC_QUICKCHART_HOST", "CC_MAX_SIGNALS", "CC_MAX_NOTIFICATIONS",
    "CC_MAX_LOG_LINES", "CC_MAX_CANDLES_PER_REQUEST", "CC_ENABLE_CANDLE_FETCH_MUTEX", "CC_MAX_SIGNAL_LIFETIME_MINUTES",
    "CC_SCHEDULE_AWAIT_MINUTES", "CC_AVG_PRICE_CANDLES_COUNT", "CC_PERCENT_SLIPPAGE", "CC_PERCENT_FEE", "CC_GET_CANDLES_RETRY_COUNT",
)  # fmt: skip
OURS = (*Config.__struct_fields__, "CC_EXCHANGE_KEY", "CC_EXCHANGE_SECRET", "CC_EXCHANGE_MAX_WAIT_SECONDS")


class Lines:
    """A logger that keeps its warnings."""

    def __init__(self):
        self.warnings = []

    def warning(self, message):
        self.warnings.append(message)

    debug = info = error = lambda self, message: None


@pytest.fixture
def warned(monkeypatch):
    """The warnings of a process that has not warned yet."""
    monkeypatch.setattr(config, "_reported", set())
    lines = Lines()
    kit.set_logger(lines)
    yield lines.warnings
    kit.set_logger(None)


# --- names ---


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CC_DURABILTY", "CC_DURABILITY"),
        ("CC_REDIS_HSOT", "CC_REDIS_HOST"),
        ("CC_MODES", "CC_MODE"),
        ("CC_STORE", "CC_STORES"),
        ("CC_MONGO_URI", "CC_MONGO_CONNECTION_STRING"),
        ("cc_redis_port", "CC_REDIS_PORT"),
        ("CC_EXCHANGE_KEYS", "CC_EXCHANGE_KEY"),
    ],
)
def test_a_misspelt_variable_is_warned_of_once(warned, name, near):
    environ = {name: "hunter2"}
    for _ in range(2):
        load_config({}, environ)
    (line,) = warned
    assert name in line
    assert line.endswith(f"did you mean {near}?")
    assert "hunter2" not in line


@pytest.mark.parametrize("name", [*OURS, *FRAMEWORK, "CCACHE_DIR", "HOME"])
def test_other_variables_are_not(warned, name):
    assert unknown_settings({name: ""}) == {}


def test_the_environment_of_the_process_is_looked_at(warned, monkeypatch):
    monkeypatch.setenv("CC_LOOKAHEAD", "hide")
    kit.get_config()
    assert len(warned) == 1


def test_doctor_counts_a_misspelt_variable_as_a_problem(tmp_path, settings):
    cli = Cli(tmp_path, **{name: str(value) for name, value in settings.items()})
    wrong = {"CC_DURABILTY": "memory", "CC_REDIS_HSOT": "x", "CC_TELEGRAM_TOKEN": "x"}
    report = json.loads(cli.out("doctor", "--json", code=1, **wrong))
    assert not report["ok"]
    assert sorted(report["unknownSettings"], key=lambda one: one["name"]) == [
        {"name": "CC_DURABILTY", "didYouMean": "CC_DURABILITY"},
        {"name": "CC_REDIS_HSOT", "didYouMean": "CC_REDIS_HOST"},
    ]
    shown = cli.out("doctor", code=1, **wrong)
    assert "FAILED: CC_DURABILTY is unknown; did you mean CC_DURABILITY?" in shown
    assert "Everything is in order" not in shown
    assert json.loads(cli.out("doctor", "--json"))["unknownSettings"] == []


# --- values ---


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CC_MODE", "bactest", "CC_MODE is 'bactest'; it must be 'backtest', 'live' or 'paper'\n  hint: did you mean 'backtest'?"),
        ("CC_DURABILITY", "Jurnal", "is 'Jurnal'; it must be 'journal' or 'memory'\n  hint: did you mean 'journal'?"),
        ("CC_LOOK_AHEAD", "warn", "is 'warn'; it must be 'off', 'hide' or 'raise'"),
        ("CC_REDIS_PORT", "6379x", "is '6379x'; it must be a whole number"),
        ("CC_EMBEDDED", "ja", "is 'ja'; it must be 0 or 1"),
        ("CC_STORES", "log=jsnl", "not 'jsnl'\n  hint: did you mean 'jsonl'?"),
        ("CC_HISTORY", "sate", "unknown domain 'sate'\n  hint: did you mean state?"),
    ],
)
def test_a_wrong_value_is_shown_with_the_nearest(name, value, words):
    for given, environ in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(kit.ConfigError) as caught:
            load_config(given, environ)
        assert words in str(caught.value)


URI = "mongodb://trader:sword%2Ffish@host/db"


@pytest.mark.parametrize(
    ("given", "environ"),
    [
        ({"CC_REDIS_USER": 8080}, {}),
        ({"CC_REDIS_PASSWORD": 8080}, {}),
        ({"CC_MODE": "swordfish", "CC_REDIS_PASSWORD": "swordfish"}, {}),
        ({"CC_MODE": "swordfish"}, {"CC_REDIS_PASSWORD": "swordfish"}),
        ({"CC_MODE": "swordfish"}, {"CC_EXCHANGE_SECRET": "swordfish"}),
        ({"CC_MODE": "swordfish"}, {"CC_MONGO_CONNECTION_STRING": "mongodb://trader:swordfish@host/db"}),
        ({"CC_MODE": "sword/fish"}, {"CC_MONGO_CONNECTION_STRING": URI}),
        ({"CC_STORES": "log=sword/fish"}, {"CC_MONGO_CONNECTION_STRING": URI}),
        ({"CC_HISTORY": "sword/fish"}, {"CC_MONGO_CONNECTION_STRING": URI}),
        ({"CC_MODE": "redis://:swordfish"}, {}),
        ({"CC_STORES": "trader:swordfish@host"}, {}),
        ({"CC_HISTORY": "trader:swordfish@host"}, {}),
        ({"CC_MODE": "Swordfish1"}, {}),
    ],
)
def test_what_may_be_a_secret_is_not_shown(given, environ):
    with pytest.raises(kit.ConfigError) as caught:
        load_config(given, environ)
    text = str(caught.value)
    assert "not shown" in text
    assert not any(secret in text.lower() for secret in ("swordfish", "sword/fish", "8080"))


# --- types ---


def test_the_literals_are_those_of_the_tables():
    """typing_examples.py shows what a type checker makes of them."""
    assert get_args(DomainName) == tuple(DOMAINS)
    assert {"", *get_args(Mode)} == set(PROFILES) == set(get_args(get_type_hints(Config)["CC_MODE"]))
