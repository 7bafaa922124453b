"""Builds the compiled core; everything else stands in pyproject.toml.

BTKM_DEBUG=1     no optimisation, Cython line tracing, also where the GIL is released (but in wire_socket)
BTKM_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer (run Python with libasan preloaded)
CFLAGS=-O0       any -O instead of -O3: a third of the time, for a build of which the speed does not matter
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("BTKM_DEBUG") == "1"
SANITIZE = os.environ.get("BTKM_SANITIZE") == "1"

compiling = ["-O0", "-g"] if DEBUG else [] if "-O" in os.environ.get("CFLAGS", "") else ["-O3"]
linking = []
if SANITIZE:
    sanitizers = "-fsanitize=address,undefined"
    compiling += ["-g", sanitizers, "-fno-omit-frame-pointer"]
    linking.append(sanitizers)
elif not DEBUG:  # without debug information and symbols, which are three quarters of the size; the flags of CPython ask for -g
    compiling.append("-g0")
    linking += ["-Wl,-s"] if sys.platform == "linux" else []

# The code of memoryviews, once for all modules instead of once in each.
SHARED = "backtest_kit_mongo._core._memoryviews"


def extension(name: str, source: str) -> Extension:
    """Return how to build a module of the core."""
    return Extension(
        name,
        [source],
        extra_compile_args=compiling,
        extra_link_args=linking,
        # A traced line between a system call and the look at errno would change errno.
        define_macros=[("CYTHON_TRACE" if name.endswith(".wire_socket") else "CYTHON_TRACE_NOGIL", "1")] if DEBUG else [],
    )


sources = sorted(Path("src/backtest_kit_mongo/_core").glob("*.pyx"))
extensions = [extension(f"backtest_kit_mongo._core.{source.stem}", str(source)) for source in sources]
if not extensions:
    raise SystemExit("the sources of the compiled core (src/backtest_kit_mongo/_core/*.pyx) are missing; there is no build without them")
# A build folder per variant: a shared one would keep the C of the other variant.
directives = {"language_level": 3, "boundscheck": False, "wraparound": False, "linetrace": DEBUG, "embedsignature": True}
setup(
    ext_modules=cythonize(
        [*extensions, extension(SHARED, f"{SHARED.replace('.', '/')}.c")],
        build_dir=f"build/cython{'-debug' if DEBUG else ''}",
        compiler_directives=directives,
        shared_utility_qualified_name=SHARED,
    ),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
