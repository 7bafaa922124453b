"""docker-compose.yml, the Dockerfile and the image's entry point, as far as they can be checked without a container engine."""

import os
import re
import subprocess

import pytest
import yaml
from paths import ROOT

from backtest_kit_mongo.config import load_config

pytestmark = pytest.mark.once

TEXT = (ROOT / "docker-compose.yml").read_text()
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"

# The parts of the Compose Specification that we use, with the types in its schema.
TOP_LEVEL = {"name": str, "services": dict, "volumes": dict}
SERVICE = {
    "build": str,
    "command": list,
    "depends_on": dict,
    "env_file": list,
    "environment": dict,
    "healthcheck": dict,
    "image": str,
    "init": bool,
    "ports": list,
    "restart": str,
    "stop_grace_period": str,
    "volumes": list,
}
HEALTHCHECK = {"test": list, "interval": str, "timeout": str, "retries": int, "start_period": str}
VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]+)(?::-([^}]*))?\}|([A-Za-z_]+)|(\$))")


def interpolated(value, environment):
    """Return ``value`` with its variables replaced, by the rules of the specification for the forms that we use."""
    if isinstance(value, dict):
        return {key: interpolated(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, environment) for item in value]
    if not isinstance(value, str):
        return value
    return VARIABLE.sub(lambda found: "$" if found[4] else environment.get(found[1] or found[3]) or found[2] or "", value)


@pytest.fixture
def compose():
    return interpolated(yaml.safe_load(TEXT), {})


def test_the_structure_is_that_of_the_specification(compose):
    assert {name: type(value) for name, value in compose.items()} == TOP_LEVEL
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", compose["name"])
    assert set(compose["services"]) == {"mongodb", "redis", "runner"}
    for name, service in compose["services"].items():
        for key, value in service.items():
            assert type(value) is SERVICE[key], f"{name}.{key}"
        assert ("image" in service) != ("build" in service)
        assert all(isinstance(value, str) for value in service.get("environment", {}).values()), name
        assert all(isinstance(part, str) for part in service.get("command", [])), name
        assert service["restart"] in ("no", "always", "on-failure", "unless-stopped")


def test_every_variable_has_a_default_or_may_be_empty():
    assert "version" not in yaml.safe_load(TEXT)  # obsolete, and Compose warns about it
    for name, default, bare, _ in VARIABLE.findall(TEXT):
        assert not bare, f"${bare} has no default"
        assert f"${{{name}:-{default}}}" in TEXT


@pytest.mark.parametrize("name", ["mongodb", "redis"])
def test_servers_are_healthy_before_the_runner_starts(compose, name):
    check = compose["services"][name]["healthcheck"]
    for key, value in check.items():
        assert type(value) is HEALTHCHECK[key]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert all(re.fullmatch(r"\d+s", check[key]) for key in ("interval", "timeout"))
    assert compose["services"]["runner"]["depends_on"][name] == {"condition": "service_healthy"}


def test_ports_are_open_to_this_machine_only(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:27017:27017", "127.0.0.1:6379:6379"]


def test_volumes_are_named_and_declared(compose):
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service["volumes"]]
    named = {source for source, *_ in mounts if not source.startswith(".")}
    assert named == set(compose["volumes"])
    assert {"mongodb-data", "redis-data"} <= named
    assert all(target.startswith("/") for _, target, *_ in mounts)


@pytest.mark.parametrize("environment", [{}, {"CC_REDIS_PASSWORD": "hush"}], ids=["default", "given"])
def test_redis_has_one_password_for_all(environment):
    services = interpolated(yaml.safe_load(TEXT), environment)["services"]
    command = services["redis"]["command"]
    password = command[command.index("--requirepass") + 1]
    assert password == environment.get("CC_REDIS_PASSWORD", "mysecurepassword")
    assert services["redis"]["environment"]["REDISCLI_AUTH"] == password
    assert services["runner"]["environment"]["CC_REDIS_PASSWORD"] == password


def test_the_runner_gets_settings_that_the_library_takes(compose):
    environment = compose["services"]["runner"]["environment"]
    config = load_config({name: value for name, value in environment.items() if name.startswith("CC_")}, {})
    assert config.CC_REDIS_HOST in compose["services"]
    assert f"//{config.CC_REDIS_HOST}" not in config.CC_MONGO_CONNECTION_STRING
    assert "//mongodb:27017/" in config.CC_MONGO_CONNECTION_STRING
    assert (ROOT / environment["STRATEGY_FILE"]).is_file()


def test_the_runner_gets_what_the_entry_point_reads(compose):
    read = set(re.findall(r"\$\{([A-Z_]+):-", ENTRYPOINT.read_text()))
    assert read == {name for name in compose["services"]["runner"]["environment"] if not name.startswith("CC_")}
    assert compose["services"]["runner"]["env_file"] == [{"path": ".env", "required": False}]


def test_a_run_that_trades_is_restarted_and_may_finish_its_minute(compose):
    runner = compose["services"]["runner"]
    assert runner["restart"] == "no"
    assert int(runner["stop_grace_period"].removesuffix("s")) > 60
    assert runner["init"], "signals must reach the command, which is not made to be process 1"
    again = interpolated(yaml.safe_load(TEXT), {"RESTART": "unless-stopped"})["services"]["runner"]
    assert again["restart"] == again["environment"]["RESTART"] == "unless-stopped"


# --- the image ---


def test_the_image_copies_what_is_there():
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *sources, _ = [part for part in line.split() if not part.startswith("--")]
        assert all((ROOT / source).exists() for source in sources), line
    assert "USER runner" in text
    assert os.access(ENTRYPOINT, os.X_OK)


def entry(tmp_path, *arguments, **environment):
    """Run the entry point with a command that prints its arguments, one per line."""
    fake = tmp_path / "backtest-kit-mongo"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    return subprocess.run(
        ["sh", ENTRYPOINT, *arguments],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({}, ["--symbol", "BTCUSDT"]),
        ({"MODE": "backtest", "ENTRY": "1"}, ["--symbol", "BTCUSDT", "--entry"]),
        ({"SYMBOL": "ETHUSDT", "CSV": "my candles.csv"}, ["--symbol", "ETHUSDT", "--csv", "my candles.csv"]),
        (
            {"STRATEGY": "my strategy", "FRAME": "2023-03-01:2023-03-21"},
            ["--symbol", "BTCUSDT", "--strategy", "my strategy", "--frame", "2023-03-01:2023-03-21"],
        ),
        (
            {"MODE": "paper", "EXCHANGE": "e", "EXCHANGE_URL": "http://e:1"},
            ["--symbol", "BTCUSDT", "--exchange", "e", "--exchange-url", "http://e:1"],
        ),
        (
            {"MODE": "live", "BROKER": "ccxt", "ENTRY": "1", "RESTART": "unless-stopped"},
            ["--symbol", "BTCUSDT", "--broker", "ccxt", "--entry"],
        ),
        (dict.fromkeys(("MODE", "ENTRY", "SYMBOL", "CSV", "STRATEGY", "EXCHANGE", "FRAME", "BROKER"), ""), ["--symbol", "BTCUSDT"]),
    ],
    ids=["default", "entry", "symbol and csv", "strategy and frame", "paper", "live", "empty is unset"],
)
def test_the_environment_becomes_arguments(tmp_path, environment, arguments):
    entered = entry(tmp_path, STRATEGY_FILE="my strategy.py", **environment)
    assert (entered.returncode, entered.stderr) == (0, "")
    assert entered.stdout.splitlines() == ["run", "my strategy.py", f"--{environment.get('MODE') or 'backtest'}", *arguments]


def test_a_run_that_trades_and_stays_down_after_a_crash_is_warned_about(tmp_path):
    entered = entry(tmp_path, STRATEGY_FILE="x.py", MODE="live", RESTART="no")
    assert entered.returncode == 0
    assert entered.stderr.startswith("warning: MODE=live")


def test_arguments_of_the_container_replace_the_environment(tmp_path):
    assert entry(tmp_path, "doctor", "--json", MODE="backtest").stdout.splitlines() == ["doctor", "--json"]


@pytest.mark.parametrize("environment", [{"MODE": "walker", "STRATEGY_FILE": "x.py"}, {}], ids=["mode", "no strategy"])
def test_what_cannot_be_run_is_refused(tmp_path, environment):
    entered = entry(tmp_path, **environment)
    assert (entered.returncode, entered.stdout) == (2, "")
    assert entered.stderr.startswith("error: ")


# --- the manual ---


def test_the_manual_names_every_variable_with_its_default():
    manual = (ROOT / "docs" / "how-to" / "docker.md").read_text()
    table = {name: default.strip("` ") for name, default in re.findall(r"^\| `([A-Z_]+)` \|([^|]*)\|", manual, re.MULTILINE)}
    assert table == {name: default for name, default, *_ in VARIABLE.findall(TEXT)}
