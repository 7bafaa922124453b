"""Deprecated: ``ReplicaSet`` is in ``backtest_kit_mongo.servers``."""

import warnings

from .servers import ReplicaSet

__all__ = ["ReplicaSet"]

warnings.warn("import ReplicaSet from backtest_kit_mongo.servers", DeprecationWarning, stacklevel=2)
