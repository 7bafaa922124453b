"""tools/prerequisites.sh on machines that are folders of programs: it can find only what is in them."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from paths import ROOT

pytestmark = pytest.mark.once

SCRIPT = ROOT / "tools" / "prerequisites.sh"
PYTHON = sys._base_executable
LIBRARIES = ("libcurl.so.4", "libssl.so.3", "libcrypto.so.3", "liblzma.so.5")
LISTED = "\n".join(f"\t{library} (libc6,x86-64) => /lib/{library}" for library in LIBRARIES)


class Machine:
    """A checkout and the programs on its PATH."""

    def __init__(self, folder):
        self.checkout, self.path = folder / "checkout", folder / "bin"
        (self.checkout / "tools").mkdir(parents=True)
        self.path.mkdir()
        shutil.copy(SCRIPT, self.checkout / "tools")
        for tool in ("grep", "ln", "rm", "sh", "true"):
            (self.path / tool).symlink_to(shutil.which(tool))
        self.program("uname", "echo Linux")
        self.program("id", "echo 1000")
        self.program("ldconfig", "exit 0")

    @property
    def venv(self):
        return self.checkout / ".venv"

    def program(self, name, script):
        file = self.path / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def apt_get(self):
        """Install an apt-get that logs its arguments to a file and makes the requested programs available."""
        for name, script in (("python3", f'exec "{PYTHON}" "$@"'), ("gcc", "exit 0"), ("make", "exit 0"), ("ldconfig", f'echo "{LISTED}"')):
            self.program(f"{name}.deb", script)
        python, gcc, make, ldconfig = (f'ln -sf {name}.deb "{self.path}/{name}"' for name in ("python3", "gcc", "make", "ldconfig"))
        self.program(
            "apt-get", f'echo "$@" >>"{self.checkout}/asked"\ncase "$*" in *python3-dev*) {python}; {gcc}; {make}; {ldconfig};; esac'
        )
        self.program("env", 'shift; exec "$@"')

    def has_everything(self):
        self.apt_get()
        subprocess.run([self.path / "apt-get", "python3-dev"], check=True)
        (self.checkout / "asked").unlink()

    def run(self, *arguments, code=0, **environment):
        """Run the script and return its standard error."""
        done = subprocess.run(
            [self.path / "sh", "tools/prerequisites.sh", *arguments],
            cwd=self.checkout,
            env={**os.environ, "PATH": str(self.path), "CC": "gcc", "PYTHON": "", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        return done.stderr

    def asked(self):
        file = self.checkout / "asked"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


INSTALL = "apt-get install -y --no-install-recommends "


@pytest.mark.parametrize(
    ("root", "sudo", "arguments", "line"),
    [
        (False, None, (), f"su -c 'apt-get update && {INSTALL}"),
        (False, "exit 1", (), f"run: sudo apt-get update && sudo {INSTALL}"),
        (False, 'shift; exec "$@"', ("--check",), f"run: sudo apt-get update && sudo {INSTALL}"),
        (True, None, ("--check",), f"run: apt-get update && {INSTALL}"),
    ],
    ids=["no sudo", "sudo asks for a password", "sudo, only looking", "root, only looking"],
)
def test_where_it_may_not_install_it_prints_one_line_and_ends_at_once(machine, root, sudo, arguments, line):
    machine.apt_get()
    if root:
        machine.program("id", "echo 0")
    if sudo:
        machine.program("sudo", sudo)
    began = time.monotonic()
    said = machine.run(*arguments, code=1)
    assert time.monotonic() - began < 30
    assert said.count("\n") == 1
    assert said.startswith("prerequisites: missing: Python 3.11 or newer, C compiler, make, libcurl.so.4, libssl.so.3, ")
    assert line in said
    for package in ("python3", "-venv", "-dev", "gcc", "libc6-dev", "make", "libcurl4", "libssl3"):
        assert package in said.partition(line)[2]
    assert machine.asked() == ""
    assert not machine.venv.exists()


def test_elsewhere_what_is_missing_is_named(machine):
    said = machine.run(code=1)
    assert said.startswith("prerequisites: missing: Python 3.11 or newer, C compiler, make, libcurl.so.4")
    assert "apt-get" not in said


def test_another_python_is_asked_for_with_its_own_packages(machine):
    machine.has_everything()
    assert f"{INSTALL}python3.99 python3.99-venv python3.99-dev'\n" in machine.run(PYTHON="python3.99", code=1)
    assert "missing: /opt/python/bin/python3\n" in machine.run(PYTHON="/opt/python/bin/python3", code=1)
    machine.program("python3.99", "echo 3.99 1 0 0 gcc /usr")  # without headers and venv
    assert f"{INSTALL}python3.99-venv python3.99-dev'\n" in machine.run(PYTHON="python3.99", code=1)
    machine.program("python3.99", "echo 3.99 1 0 1 gcc /opt")  # no package provides what a Python from elsewhere lacks
    assert machine.run(PYTHON="python3.99", code=1) == "prerequisites: missing: headers of Python 3.99\n"


def test_a_browser_is_looked_for_only_where_one_is_needed(machine):
    machine.has_everything()
    assert f"missing: chromium, chromedriver; run: su -c 'apt-get update && {INSTALL}chromium chromium-driver'" in machine.run(
        "--browser", code=1
    )
    assert machine.run("--check") == ""


@pytest.mark.slow
def test_what_is_missing_is_installed_and_a_half_made_environment_made_again(machine):
    machine.apt_get()
    machine.program("sudo", 'shift; exec "$@"')
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", machine.venv], check=True)  # as left by a failure on Debian
    assert "installing" in machine.run()
    update, install = machine.asked().splitlines()
    assert update.endswith("update -qq")
    assert "python3-dev gcc libc6-dev make libcurl4 libssl3" in install
    subprocess.run([machine.venv / "bin" / "python", "-m", "pip", "--version"], check=True, capture_output=True)

    python, mark, asked = f'exec "{PYTHON}" "$@"', machine.venv / "mark", machine.checkout / "asked"
    machine.program("python3", f'[ "$*" = "-m venv .venv" ] || {python}; echo made >"{asked}"')
    mark.touch()
    assert machine.run() == ""  # nothing is missing
    assert mark.exists()
    (machine.venv / ".unfinished").touch()  # pip was interrupted
    assert machine.run("--check") == ""
    assert mark.exists()
    assert len(machine.asked().splitlines()) == 2
    assert machine.run() == ""
    assert not machine.venv.exists()
    assert machine.asked() == "made\n"


def test_this_machine_has_what_it_needs():
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    done = subprocess.run(["sh", SCRIPT, "--check"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_shell_scripts_are_clean():
    for script in (SCRIPT, SCRIPT.with_name("bare_machine.sh")):
        assert os.access(script, os.X_OK)
        subprocess.run(["bash" if "bare" in script.name else "sh", "-n", script], check=True)
