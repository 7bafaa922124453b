"""Register strategies, and load the files that register them."""

import functools
import sys
from pathlib import Path

import pytest

from backtest_kit_mongo import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import StrategyError, add_strategy, clear_strategies, list_strategies, load_strategy_file
from backtest_kit_mongo.runner.strategy import find_strategy

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    clear_strategies()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    yield
    clear_strategies()


def nothing(symbol, when):
    return None


# ---------------------------------------------------------------- by call and by decorator


def test_call_and_decorator_do_the_same_and_give_the_function_back():
    assert add_strategy("called", interval="15m", get_signal=nothing) is nothing
    assert add_strategy("decorated", "1h")(nothing) is nothing
    called, decorated = list_strategies()
    assert (called.name, called.interval, called.interval_ms, called.risk_name) == ("called", "15m", 900_000, "called")
    assert (decorated.name, decorated.interval, decorated.interval_ms) == ("decorated", "1h", 3_600_000)
    assert called.get_signal is decorated.get_signal is nothing
    assert called.registered_at.startswith(f"{__file__}:")


def test_five_minutes_is_the_interval_if_none_is_given():
    add_strategy("x", get_signal=nothing, risk_name="shared")
    assert (list_strategies()[0].interval, list_strategies()[0].risk_name) == ("5m", "shared")


def test_methods_partials_and_callable_objects_are_functions_too():
    class Sma:
        def get_signal(self, symbol, when):
            return None

        def __call__(self, symbol, when):
            return None

    for number, function in enumerate(
        (Sma().get_signal, Sma(), functools.partial(lambda length, symbol, when: None, 5), lambda *args: None)
    ):
        add_strategy(f"s{number}", get_signal=function)
    assert len(list_strategies()) == 4


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (5, {}, InvalidTypeError, "the name of a strategy must be a str, got int"),
        ("", {}, InvalidValueError, "the name of a strategy is ''"),
        (" x", {}, InvalidValueError, "the name of a strategy is ' x'"),
        ("a\0b", {}, InvalidValueError, "printable"),
        ("x", {"interval": "7m"}, InvalidValueError, "unknown interval '7m'"),
        ("x", {"interval": 5}, InvalidTypeError, "interval must be a str"),
        ("x", {"risk_name": ""}, InvalidValueError, "risk_name is ''"),
        ("x", {"get_signal": 5}, InvalidTypeError, "get_signal of strategy 'x' must be a function, got int"),
        ("x", {"get_signal": lambda symbol: None}, InvalidTypeError, r"must take \(symbol, when\), but takes \(symbol\)"),
        ("x", {"get_signal": lambda symbol, when, more: None}, InvalidTypeError, r"but takes \(symbol, when, more\)"),
        ("x", {"get_signal": lambda *, symbol, when: None}, InvalidTypeError, "but takes"),
    ],
)
def test_what_cannot_be_a_strategy_is_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        add_strategy(name, **{"get_signal": nothing, **options})
    assert list_strategies() == ()


def test_generators_are_refused():
    def generator(symbol, when):
        yield None

    class Generator:
        def __call__(self, symbol, when):
            yield None

    for function in (generator, functools.partial(generator), Generator()):
        with pytest.raises(InvalidTypeError, match="must be a function that returns, not a generator"):
            add_strategy("x", get_signal=function)


def test_a_second_strategy_of_the_same_name_is_refused_and_both_places_are_named():
    add_strategy("x", get_signal=nothing)
    first = list_strategies()[0].registered_at
    with pytest.raises(InvalidValueError, match=r"strategy 'x' at .*test_strategy\.py:\d+ is already registered at .*\.py:\d+") as caught:
        add_strategy("x", get_signal=lambda symbol, when: None)
    assert first in str(caught.value)
    assert "choose another name, or call clear_strategies() first, which forgets all strategies" in caught.value.hint
    assert list_strategies()[0].get_signal is nothing


def test_find_strategy():
    add_strategy("x", get_signal=nothing)
    assert find_strategy(None) is find_strategy("x") is list_strategies()[0]
    with pytest.raises(InvalidValueError, match=r"no strategy 'y' is registered(.|\n)*so far: 'x'"):
        find_strategy("y")


# ---------------------------------------------------------------- strategy files


GOOD = """
from backtest_kit_mongo.runner import add_strategy

@add_strategy("{name}", interval="15m")
def get_signal(symbol, when):
    return None
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="my strategy.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_a_file_registers_its_strategies(file):
    loaded = load_strategy_file(file(GOOD.format(name="one") + GOOD.format(name="two")))
    assert [strategy.name for strategy in loaded] == ["one", "two"]
    assert loaded == list_strategies()
    assert loaded[0].registered_at.endswith("my strategy.py:4")


def test_helpers_beside_the_file_are_found_also_later(file):
    file("def now(): return 1\n", "early_helper.py")
    file("def late(): return 2\n", "late_helper.py")
    text = GOOD.format(name="x").replace("return None", "import late_helper\n    return early_helper.now() + late_helper.late()")
    (strategy,) = load_strategy_file(str(file("import early_helper\n" + text)))
    assert strategy.get_signal("BTCUSDT", None) == 3


def test_dataclasses_in_a_strategy_file_find_their_module(file):
    head = "from __future__ import annotations\nimport dataclasses, typing\n"
    text = head + "@dataclasses.dataclass\nclass A:\n    b: typing.ClassVar[int] = 1\n"
    assert len(load_strategy_file(file(text + GOOD.format(name="x")))) == 1


def test_a_relative_path_and_a_second_load_replace_the_first(file, monkeypatch):
    path = file(GOOD.format(name="one"))
    load_strategy_file(path)
    add_strategy("mine", get_signal=nothing)
    path.write_text(GOOD.format(name="two") + "# a longer file, so that the cached bytecode is not taken for it\n")
    monkeypatch.chdir(path.parent)
    (strategy,) = load_strategy_file(Path(path.name))
    assert strategy.name == "two"
    assert [strategy.name for strategy in list_strategies()] == ["mine", "two"]


def test_two_files_of_one_name_stay_apart(file):
    load_strategy_file(file(GOOD.format(name="one"), "a/s.py"))
    load_strategy_file(file(GOOD.format(name="two"), "b/s.py"))
    assert [strategy.name for strategy in list_strategies()] == ["one", "two"]


def test_a_file_is_not_taken_for_an_installed_module(file):
    load_strategy_file(file(GOOD.format(name="x"), "json.py"))
    assert sys.modules["json"].__file__ != list_strategies()[0].file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", r"failed at .*my strategy\.py:2: ZeroDivisionError: division by zero"),
        ("def f():\n    return {}['a']\n\nf()\n", r"failed at .*my strategy\.py:2: KeyError: 'a'"),
        ("x = 1\ndef broken(:\n", r"failed at .*my strategy\.py:2: SyntaxError: "),
        ("import nowhere_to_be_found\n", r"failed at .*my strategy\.py:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("import sys\nsys.exit(3)\n", r"failed at .*my strategy\.py:2: SystemExit: 3"),
        (
            GOOD.format(name="x") + GOOD.format(name="x"),
            r"failed at .*my strategy\.py:\d+: InvalidValueError: strategy 'x' .* already registered",
        ),
        (GOOD.format(name="x").replace("15m", "7m"), r"failed at .*my strategy\.py:4: InvalidValueError: unknown interval"),
    ],
)
def test_what_goes_wrong_in_a_file_is_named_by_file_and_line(file, text, message):
    add_strategy("before", get_signal=nothing)
    path, modules = list(sys.path), set(sys.modules)
    with pytest.raises(StrategyError, match=message) as caught:
        load_strategy_file(file(GOOD.format(name="half") + text if "half" in text else text))
    assert caught.value.__cause__ is not None
    assert [strategy.name for strategy in list_strategies()] == ["before"]
    assert sys.path == path
    assert set(sys.modules) == modules


def test_an_error_in_a_helper_names_the_line_of_the_file_that_called_it(file):
    file("def f():\n\n\n\n    raise RuntimeError('deep')\n", "deep_helper.py")
    with pytest.raises(StrategyError, match=r"my strategy\.py:3: RuntimeError: deep"):
        load_strategy_file(file("import deep_helper\n\ndeep_helper.f()\n"))


def test_after_a_failed_reload_the_first_version_stands(file):
    path = file(GOOD.format(name="x"))
    before = load_strategy_file(path)
    path.write_text("1 / 0\n")
    with pytest.raises(StrategyError):
        load_strategy_file(path)
    assert list_strategies() == before


def test_a_file_that_registers_nothing_is_an_error(file):
    with pytest.raises(InvalidValueError, match=r"my strategy\.py registers no strategy(.|\n)*add_strategy"):
        load_strategy_file(file("x = 1\n"))


def test_files_that_are_none(tmp_path, file):
    with pytest.raises(InvalidValueError, match=r"the strategy file .*none\.py does not exist"):
        load_strategy_file(tmp_path / "none.py")
    with pytest.raises(InvalidValueError, match="is not a file"):
        load_strategy_file(tmp_path)
    with pytest.raises(InvalidValueError, match="is not a Python file"):
        load_strategy_file(file("x", "strategy.txt"))
    with pytest.raises(InvalidTypeError, match="path must be a str or a path"):
        load_strategy_file(5)


def test_ctrl_c_stays_ctrl_c(file):
    with pytest.raises(KeyboardInterrupt):
        load_strategy_file(file(GOOD.format(name="x") + "raise KeyboardInterrupt\n"))
    assert list_strategies() == ()
