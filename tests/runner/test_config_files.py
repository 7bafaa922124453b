"""config/setup.py and config/loader.py of a project."""

import sys

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.errors import InvalidValueError
from backtest_kit_mongo.runner import StrategyError
from backtest_kit_mongo.runner.loading.config_files import ConfigFiles, load_config_files

pytestmark = pytest.mark.once


@pytest.fixture
def project(tmp_path):
    (tmp_path / "config").mkdir()
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("notes", None)


def write(project, **files):
    """Write the files, and a module ``notes`` in which they record what they do."""
    for name, text in {"notes": "done = []", **files}.items():
        (project / "config" / f"{name}.py").write_text(text)


def notes():
    return sys.modules["notes"].done


def test_without_them_nothing_happens(tmp_path):
    before = list(sys.path)
    assert load_config_files(tmp_path) == ConfigFiles(setup=None, loader=None)
    assert sys.path == before


def test_setup_is_run_for_what_it_does(project, settings, monkeypatch):
    kit.close()
    write(project, setup=f"import backtest_kit_mongo as kit\nkit.setup({settings!r}, stores={{'log': 'memory'}})")
    monkeypatch.chdir(project)
    assert load_config_files() == ConfigFiles(setup=str(project / "config" / "setup.py"), loader=None)
    assert kit.get_config().CC_STORES["log"] == "memory"
    kit.PersistLogAdapter.write_log_data([{"id": "one"}])
    assert kit.get_mongo()["log-items"].count_documents({}) == 0


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ("def loader(): notes.done.append('loader')", ["loader"]),
        ("def loader(): notes.done.append('loader')\ndef default(): notes.done.append('default')", ["default"]),
        ("default = 5\ndef loader(): notes.done.append('loader')", ["loader"]),
        ("import asyncio\nasync def default():\n    await asyncio.sleep(0)\n    notes.done.append('awaited')", ["awaited"]),
    ],
    ids=["loader", "default wins", "default is no function", "async"],
)
def test_the_function_of_the_loader_is_called_after_setup(project, text, called):
    write(project, setup="import notes; notes.done.append('setup')", loader=f"import notes\n{text}")
    assert load_config_files(project).loader == str(project / "config" / "loader.py")
    assert notes() == ["setup", *called]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"setup": "\n\n1 / 0"}, r"config/setup.py failed at .*/config/setup\.py:3: ZeroDivisionError"),
        ({"setup": "def f(:"}, r"config/setup.py failed at .*/config/setup\.py:1: SyntaxError"),
        ({"setup": "raise SystemExit(3)"}, r"config/setup.py failed at .*setup\.py:1: SystemExit: 3"),
        ({"setup": "import backtest_kit_mongo as kit\nkit.setup(CC_REDIS_PROT=1)"}, r"setup\.py:2: ConfigError.*\n.*CC_REDIS_PORT"),
        ({"loader": "def loader():\n    {}['x']"}, r"the loader of config/loader.py failed at .*/loader\.py:2: KeyError: 'x'"),
        ({"loader": "async def loader():\n    raise OSError('gone')"}, r"the loader of .* failed at .*/loader\.py:2: OSError: gone"),
        ({"loader": "def loader(path): pass"}, r"the loader of .* failed at .*/loader\.py: TypeError: .*path"),
    ],
    ids=["setup raises", "syntax", "exit", "setting", "loader raises", "async raises", "arguments"],
)
def test_failures_name_file_and_line(project, files, message):
    write(project, **files)
    with pytest.raises(StrategyError, match=message) as caught:
        load_config_files(project)
    assert caught.value.__cause__ is not None


def test_what_setup_breaks_the_loader_does_not_see(project):
    write(project, setup="1 / 0", loader="raise SystemExit('this was run')")
    with pytest.raises(StrategyError, match="ZeroDivisionError"):
        load_config_files(project)


def test_a_loader_without_a_function_is_refused(project):
    write(project, loader="x = 1")
    with pytest.raises(InvalidValueError, match=r"defines neither default\(\) nor loader\(\)"):
        load_config_files(project)
