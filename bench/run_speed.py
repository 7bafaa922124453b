"""The cost of persistence for a backtest: the same run with every domain on MongoDB, with the backtest profile, and without persistence.

    python bench/run_speed.py BTCUSDT.csv.gz [MINUTES]

The file holds 1m klines in Binance's format. The runs take turns, and medians are printed. Time in persistence is the time spent in the
calls of the contracts and in the conversion of candle arrays to dicts; the ratio to the run without persistence is printed next to it.
"cold" is a run with candles that this process has not read before and an empty folder; the others are repeated runs.

At the end, the same candles each minute as a list of dicts, as an array, and as a DataFrame made of either; all take turns.
"""

from __future__ import annotations

import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas

from backtest_kit_mongo import to_pandas
from backtest_kit_mongo.contracts.registry import Registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import add_strategy, get_candles, import_candles, load_strategy_file, read_klines, run_backtest
from backtest_kit_mongo.runner.market import contiguous_series
from backtest_kit_mongo.servers import MongoServer, RedisServer

EXAMPLE = Path(__file__).parent.parent / "examples" / "sma_cross.py"
ROUNDS = 5


class Timed:
    """Time spent in contract calls of some registries, outermost calls only."""

    def __init__(self, registries: Iterable[Registry]) -> None:
        self.seconds = 0.0
        self.calls = 0
        self._depth = 0
        contiguous_series.to_dicts = self._around(contiguous_series.to_dicts)
        for registry in registries:
            for name, domain in DOMAINS.items():
                adapter = registry.adapter(name)
                for method in (*(call.name for call in domain.calls), *(("read_many", "write_many") if domain.keyed else ())):
                    setattr(adapter, method, self._around(getattr(adapter, method)))

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            self._depth += 1
            begin = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - begin
                    self.calls += 1

        return timed


@contextmanager
def registries(folder: Path) -> Iterator[dict[str, Registry]]:
    with MongoServer(folder / "mongo") as mongo, RedisServer(folder / "redis") as cache:
        servers = {"CC_MONGO_CONNECTION_STRING": mongo.uri("speed"), "CC_REDIS_HOST": cache.socket, "CC_DUMP_DIR": folder / "dump"}
        made = {name: Registry() for name in ("mongo", "profile", "off")}
        made["mongo"].setup(servers, CC_DURABILITY="memory")
        made["profile"].setup({**servers, "CC_MONGO_CONNECTION_STRING": mongo.uri("speed-profile")}, mode="backtest")
        # Candles must be stored somewhere; in memory they are read in the same blocks.
        made["off"].setup(servers, stores={name: "memory" if name in ("candle", "measure") else "dummy" for name in DOMAINS})
        yield made
        for registry in made.values():
            registry.close()


def measure(registry: Registry, timed: Timed, strategy: str) -> tuple[float, float, int, Any]:
    timed.seconds, timed.calls = 0.0, 0
    begin = time.perf_counter()
    result = run_backtest("BTCUSDT", strategy, registry=registry)
    return time.perf_counter() - begin, timed.seconds, timed.calls, result


FORMS: dict[str, Callable[[str, int], Any]] = {
    "list": lambda symbol, limit: get_candles(symbol, "1m", limit),
    "array": lambda symbol, limit: get_candles(symbol, "1m", limit, as_array=True),
    "pandas.DataFrame(list)": lambda symbol, limit: pandas.DataFrame(get_candles(symbol, "1m", limit)),
    "to_pandas(array)": lambda symbol, limit: to_pandas(get_candles(symbol, "1m", limit, as_array=True)),
}


def compare_forms(registry: Registry, timed: Timed, minutes: int, limit: int) -> None:
    def asking(form: Callable[[str, int], Any]) -> Callable[[str, Any], None]:
        def get_signal(symbol: str, when: Any) -> None:
            form(symbol, limit)

        return get_signal

    walls: dict[str, list[float]] = {name: [] for name in FORMS}
    for name, form in FORMS.items():
        add_strategy(f"{name} of {limit}", interval="1m", get_signal=asking(form))
    for _ in range(ROUNDS):
        for name, taken in walls.items():
            taken.append(measure(registry, timed, f"{name} of {limit}")[0])
    print(f"\n{limit} candles each minute, {minutes:,} minutes")
    for name, taken in walls.items():
        beside = statistics.median(one / other for one, other in zip(walls["list"], taken, strict=True))
        print(f"  {name:24} {minutes / statistics.median(taken):>9,.0f} minutes/s   {beside:5.2f} x a list")


def main(path: str, minutes: int) -> None:
    candles = read_klines(path)[-minutes:]
    load_strategy_file(EXAMPLE)
    add_strategy("idle", interval="1m", get_signal=lambda symbol, when: None)

    @add_strategy("looking", interval="1m")
    def looking(symbol: str, when: Any) -> None:
        get_candles(symbol, "1m", 20)

    with tempfile.TemporaryDirectory() as folder, registries(Path(folder)) as made:
        timed = Timed(made.values())
        for registry in made.values():
            import_candles(candles, "BTCUSDT", registry=registry)
        gc.freeze()  # the run without persistence keeps its candles as many objects, which no other run should pay for
        for strategy in ("idle", "looking", "sma_cross"):
            rivals = {**made, "cold": made["profile"]}
            figures: dict[str, list[tuple[float, float, int, Any]]] = {name: [] for name in rivals}
            for _ in range(ROUNDS):
                for name, registry in rivals.items():
                    if name == "cold":
                        registry.PersistCandleAdapter.clear()
                        shutil.rmtree(registry.get_config().CC_DUMP_DIR, ignore_errors=True)
                    figures[name].append(measure(registry, timed, strategy))
            base = statistics.median(wall for wall, *_ in figures["off"])
            trades = {len(result.trades) for runs in figures.values() for *_, result in runs}
            print(f"\n{strategy}: {len(candles):,} minutes, {trades} trades")
            for name, runs in figures.items():
                wall = statistics.median(wall for wall, *_ in runs)
                inside = statistics.median(seconds for _, seconds, *_ in runs)
                share = statistics.median(seconds / wall for wall, seconds, *_ in runs)
                print(
                    f"  {name:8} {len(candles) / wall:>9,.0f} minutes/s   in persistence {share:6.1%} = "
                    f"{inside * 1e6 / len(candles):6.2f} us a minute, {runs[0][2]:,} calls   beside no persistence {wall / base:5.2f} x"
                )

        for limit in (20, 200):
            compare_forms(made["profile"], timed, len(candles), limit)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 30_240)
