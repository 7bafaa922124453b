"""Run the command ``backtest-kit-mongo`` as ``python -m backtest_kit_mongo``."""

from .cli import main

if __name__ == "__main__":
    main()
