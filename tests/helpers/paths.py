"""Paths of files in this checkout."""

from pathlib import Path

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]
EXAMPLE = ROOT / "examples" / "sma_cross.py"
"""A strategy file: crossing averages."""
