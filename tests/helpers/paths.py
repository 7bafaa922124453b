"""Where the files of this checkout are."""

from pathlib import Path

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]
EXAMPLE = ROOT / "examples" / "sma_cross.py"
"""A strategy file: crossing averages."""
