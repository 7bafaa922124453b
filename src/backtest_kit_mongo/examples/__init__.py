"""Strategies to start from. ``backtest-kit-mongo new-strategy`` copies one; the library imports none."""
