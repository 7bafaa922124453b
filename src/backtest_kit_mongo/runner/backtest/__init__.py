"""Backtests: replaying stored candles, one run or a sweep of many."""
