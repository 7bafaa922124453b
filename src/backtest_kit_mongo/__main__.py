"""``python -m backtest_kit_mongo`` is the command ``backtest-kit-mongo``."""

from .cli import main

if __name__ == "__main__":
    main()
