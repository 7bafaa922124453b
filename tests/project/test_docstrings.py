"""Docstrings are the API reference: every public name has one, it names what the signature has, and every example runs."""

from __future__ import annotations

import ast
import asyncio
import builtins
import doctest
import importlib
import inspect
import re
import sys
from functools import cache
from types import FunctionType, ModuleType

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.config import Config
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.testing import plugin
from backtest_kit_mongo.testing.library import left_as_it_was

pytestmark = pytest.mark.once

PACKAGE = kit.__name__
ROOMS = (
    "aio", "candles", "data.export", "data.query", "data.trades", "data.transfer", "errors", "payloads", "prometheus", "runner",
    "simulation", "testing.market", "testing.plugin",
)  # fmt: skip
"""The modules that users import, besides the package itself."""

SECTIONS = ("Args", "Returns", "Yields", "Raises", "Examples")
NOT_MADE_BY_USERS = {"MetricsServer", "RunHandle", "Scope"}
"""Classes with a constructor that only the library calls; they need no example."""


def is_ours(value):
    return (getattr(value, "__module__", None) or "").partition(".")[0] == PACKAGE


def function_of(value):
    """Return the function behind a method, a property or a cached property."""
    for name in ("__func__", "fget", "func"):
        value = getattr(value, name, None) or value
    return inspect.unwrap(value) if callable(value) else value


def members(cls):
    """Yield the dotted name and the value of each public method and property of a class, also of inherited ones."""
    for owner in cls.__mro__:
        for name, value in vars(owner).items():
            if is_ours(owner) and not name.startswith("_") and inspect.isfunction(function_of(value)):
                yield f"{owner.__module__}.{owner.__qualname__}.{name}", value


def public():
    """Return the public functions and classes and the members of those classes: dotted name -> object."""
    modules = [kit, *(importlib.import_module(f"{PACKAGE}.{room}") for room in ROOMS)]
    exported = [getattr(module, name) for module in modules for name in module.__all__]
    by_name = {module.__name__: module for module in modules}
    for value in (*exported, Config):
        fixture = getattr(value, "_fixture_function", None)
        value = fixture or (value if callable(value) else type(value))  # an adapter is an object: its class has the docstrings
        if is_ours(value):
            by_name.setdefault(f"{value.__module__}.{value.__qualname__}", value)
            for name, member in members(value) if inspect.isclass(value) else ():
                by_name.setdefault(name, member)
    return by_name


PUBLIC = public()
ERRORS = {value.__name__ for value in PUBLIC.values() if inspect.isclass(value) and issubclass(value, Exception)}
FUNCTIONS = {
    f"{value.__module__}.{value.__qualname__}"
    for module in (kit, *(PUBLIC[f"{PACKAGE}.{room}"] for room in ROOMS))
    for name in module.__all__
    if inspect.isroutine(value := getattr(module, name))
}


def text_of(value):
    """Return the docstring of an object itself, "" if it has none."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return inspect.cleandoc(text or "")


def described(text, section):
    """Return the names of the items of a section, or None if the docstring has no such section."""
    match = re.search(rf"^{section}:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE)
    return None if match is None else re.findall(r"^    (\*{0,2}\w+): \S", match[1], re.MULTILINE)


def parameters(value):
    """Return the names of the parameters that a caller passes, those of ``*args`` and ``**options`` with their stars."""
    if inspect.isclass(value):
        inherited = issubclass(value, Exception) and "__init__" not in vars(value)
        if inherited or not inspect.isfunction(value.__init__) or getattr(value, "_is_protocol", False):
            return []
        value = value.__init__
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    signature = inspect.signature(function_of(value)).parameters.items()
    return [stars.get(one.kind, "") + name for name, one in signature if name not in ("self", "cls") or one.annotation is not one.empty]


@cache
def definitions(module):
    """Return the last definition of each function and class of a module by its qualified name: overloads come first."""
    collected = {}

    def look(body, prefix):
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                collected[prefix + node.name] = node
            if isinstance(node, ast.ClassDef):
                look(node.body, f"{prefix}{node.name}.")

    look(ast.parse(inspect.getsource(sys.modules[module])).body, "")
    return collected


def definition(value):
    """Return the source of a function or a class as a tree, None for one that a function has made."""
    return definitions(value.__module__).get(value.__qualname__)


def raised(value):
    """Return the public errors that the source of a function raises itself."""
    tree = definition(function_of(value))
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)) if tree else ()
    return {ast.unparse(call.func).rpartition(".")[2] for call in calls} & ERRORS


def undocumented_fields(cls):
    """Return the fields in the body of a class that neither a docstring below them nor the Args of the class describe."""
    tree = definition(cls)
    collected = []
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True) if tree else ():
        if isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_"):
            described_below = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
            if not described_below and node.target.id not in (described(text_of(cls), "Args") or ()):
                collected.append(node.target.id)
    return collected


def problems(name, value):
    """Return what is wrong with a docstring."""
    text = text_of(value)
    if not text:
        return ["has no docstring"]
    headers = re.findall(r"^(\w+):$", text, re.MULTILINE)
    mistakes = [f"has a section {header}" for header in headers if header not in SECTIONS]
    mistakes += [f"has the sections in the order {headers}" for _ in [0] if headers != [one for one in SECTIONS if one in headers]]
    for error in described(text, "Raises") or ():
        if error not in ERRORS and not hasattr(builtins, error):
            mistakes.append(f"names {error}, which is not an error")
    if isinstance(value, ModuleType):
        return mistakes
    if inspect.isclass(value):
        mistakes += [f"has no docstring below its field {field}" for field in undocumented_fields(value)]
    else:
        mistakes += [f"does not name {error}, which it raises" for error in sorted(raised(value)) if error not in text]
    if isinstance(value, property) or name.startswith(plugin.__name__):  # fixtures are arguments of fixtures
        return mistakes
    names, listed = parameters(value), described(text, "Args")
    if listed is None:
        mistakes += [f"does not name {one}" for one in names if f"`{one.strip('*')}`" not in text]
    elif listed != names:
        mistakes.append(f"describes {listed} instead of {names}")
    is_made = inspect.isclass(value) and names and not value.__name__.startswith("Persist") and value.__name__ not in NOT_MADE_BY_USERS
    if (name in FUNCTIONS or is_made) and ">>>" not in text:
        mistakes.append("has no example")
    return mistakes


def test_public_names_are_found():
    assert {f"{PACKAGE}.contracts.bindings.Bindings.setup", f"{PACKAGE}.runner.backtest.backtest.run_backtest"} <= PUBLIC.keys()
    assert {"setup", "profile", "run_backtest", "simulated_time", "to_pandas"} <= {name.rpartition(".")[2] for name in FUNCTIONS}
    assert {"NotConfiguredError", "CandleGapError"} <= ERRORS
    assert len(PUBLIC) > 600


def test_every_public_name_is_described():
    assert {name: collected for name, value in PUBLIC.items() if (collected := problems(name, value))} == {}


def sample(first, second, **others):
    """Do something with `first`."""
    raise kit.ConfigError("no")


class Sample:
    """A class.

    Args:
        other: what it is made of
    """

    size: int

    def __init__(self, size):
        self.size = size


def test_what_is_missing_is_found():
    assert problems("sample", sample) == ["does not name ConfigError, which it raises", "does not name second", "does not name **others"]
    assert problems("Sample", Sample) == [
        "has no docstring below its field size",
        "describes ['other'] instead of ['size']",
        "has no example",
    ]
    assert problems("public", FunctionType((lambda: None).__code__, {})) == ["has no docstring"]


# --- examples ---

PARSER = doctest.DocTestParser()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def examples(texts):
    """Return the examples of docstrings, given by name: one DocTest for each docstring that has any."""
    tests = (PARSER.get_doctest(text, {"__name__": "__main__"}, name, None, 0) for name, text in texts.items())
    return [test for test in tests if test.examples]


def awaited(test, loop):
    """Make a test run lines with ``await`` as the asyncio REPL does."""

    def run(source):
        loop.run(FunctionType(compile(source, test.name, "single", AWAIT, dont_inherit=True), test.globs)())

    test.globs["__run__"] = run
    for example in test.examples:
        if compile(example.source, test.name, "single", AWAIT, dont_inherit=True).co_flags & inspect.CO_COROUTINE:
            example.source = f"__run__({example.source!r})\n"
    return test


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as loop_runner:
        yield loop_runner


@pytest.fixture
def failures(tmp_path, monkeypatch, loop):
    """A function that runs an example as a program that has called ``setup`` for stores without servers, and returns what failed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def run(test):
        output: list[str] = []
        kind = "file" if test.name.endswith(".sweep") else "memory"  # the processes of a sweep cannot see the memory of this one
        with left_as_it_was():
            kit.setup(stores=dict.fromkeys(DOMAINS, kind), CC_DUMP_DIR=str(tmp_path / "dump"))
            doctest.DocTestRunner(optionflags=FLAGS).run(awaited(test, loop), out=output.append)
        return "".join(output)

    return run


@pytest.mark.parametrize("test", examples(dict(zip(PUBLIC, map(text_of, PUBLIC.values()), strict=True))), ids=lambda test: test.name)
def test_example(test, failures):
    failed = failures(test)
    assert not failed, failed


@pytest.mark.parametrize("line", [">>> 1 + 1\n3", ">>> await face(1)\n2", ">>> import asyncio\n>>> await asyncio.sleep(0, 5)\n4"])
def test_an_example_that_is_not_true_fails(line, failures):
    (test,) = examples({"wrong": line})
    assert "Failed example" in failures(test)


def test_an_awaited_example_can_pass(failures):
    (test,) = examples({"right": ">>> import asyncio\n>>> await asyncio.sleep(0, 5)\n5"})
    assert not failures(test)
