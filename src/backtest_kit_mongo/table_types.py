"""The types of the tables that methods return, for type checkers; nothing imports this module at run time.

pandas, polars and pyarrow are optional. Where one of them, or its stubs, is not installed, its type is Any. A plain import would make
it unknown, and then pyright (strict) would report every import of ``records``, which returns a list unless told otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

__all__ = ["ArrowTable", "PandasFrame", "PolarsFrame"]

MYPY = False  # mypy takes this name as true; to it, a package without types is Any
if MYPY:
    from pandas import DataFrame as PandasFrame
    from polars import DataFrame as PolarsFrame
    from pyarrow import Table as ArrowTable
elif TYPE_CHECKING:  # pyright: an import of * that finds nothing leaves the name as it was
    from typing import Any as DataFrame
    from typing import Any as Table

    from pandas import *  # noqa: F403

    PandasFrame: TypeAlias = DataFrame

    from typing import Any as DataFrame

    from polars import *  # noqa: F403

    PolarsFrame: TypeAlias = DataFrame

    from pyarrow.lib import *  # noqa: F403

    ArrowTable: TypeAlias = Table
