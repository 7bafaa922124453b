"""Store and read a year of minutes: this library, Parquet, Feather, ArcticDB and pymongoarrow; time, disk and memory."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rivals
from interleaved import Interleaved, Side
from pymongo.errors import BulkWriteError
from sample_data import MINUTE, candles

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import CANDLE_DTYPE, CandleArray, to_dicts, to_pandas

NAMES = ("BTCUSDT", "1m", "binance")
TARGETS = {
    "cold to NumPy": {"arcticdb": (">=", 1.0), "items": (">=", 10.0), "pymongoarrow": (">=", 30.0)},
    "1,000 candles to dicts, cold": {"items": (">=", 1.0)},
    "import of 32,850": {"items": ("<=", 1.10)},
    "re-import, new process": {"insert_many": (">=", 300.0)},
    "import, packed": {"items": (">=", 15.0), "arcticdb": (">=", 0.5)},
    "disk": {"items": ("<=", 1.15)},
    "disk, packed": {"items": ("<=", 0.15)},
    "peak memory of a cold read": {"result": ("<=", 1.5)},
}
"""What ours must reach: ``>=`` times as fast as the other side, ``<=`` times its time or size."""


def year(minutes: int) -> CandleArray:
    """Return ``minutes`` candles: the sample data, repeated."""
    sample, _ = candles()
    rows = np.resize(sample, minutes)
    rows["timestamp"] = int(sample["timestamp"][0]) - minutes * MINUTE + np.arange(minutes) * MINUTE
    return rows


def read(rows: CandleArray, adapter: Any = kit.PersistCandleAdapter) -> CandleArray | None:
    candles: CandleArray | None = adapter.read_candles_array(*NAMES, len(rows), int(rows["timestamp"][0]))
    return candles


def files(rows: CandleArray, folder: Path) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Return (write, read) of each rival that keeps files, by name."""
    import pyarrow.feather
    import pyarrow.parquet

    frame = to_pandas(rows)
    parquet, feather = folder / "year.parquet", folder / "year.feather"
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "parquet": (lambda: frame.to_parquet(parquet), lambda: pyarrow.parquet.read_table(parquet).to_pandas()),
        "feather": (lambda: pyarrow.feather.write_feather(frame, feather), lambda: pyarrow.feather.read_feather(feather)),
    }
    try:
        import arcticdb
    except ImportError:
        print("ArcticDB is not installed here: its rows are missing", file=sys.stderr)
    else:
        library = arcticdb.Arctic(f"lmdb://{folder / 'arctic'}").get_library("candles", create_if_missing=True)
        works["arcticdb"] = (lambda: library.write("year", frame), lambda: library.read("year").data)
    return works


def measured(sides: dict[str, Side], rounds: int) -> Interleaved:
    contest = Interleaved(sides)
    contest.round()
    contest.forget()
    for _ in range(rounds):
        contest.round()
    return contest


def sizes(database: Any) -> dict[str, float]:
    """Return the bytes on disk (data and indexes) of the collections of candles."""
    database.client.admin.command("fsync")
    on_disk = {}
    for name in sorted({"candle-items", "candle-blocks", "candle-archive"} & {*database.list_collection_names()}):
        statistics_of = database.command("collStats", name)
        on_disk[name] = float(statistics_of["storageSize"] + statistics_of["totalIndexSize"])
    return on_disk


def peak(since: int, minutes: int) -> float:
    """Return by how many bytes a new process grows at most while it reads a year, after a read of one day."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *NAMES, str(since), str(minutes)],
        env={**os.environ, **settings()},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


# Writing 5 to clear_refs sets the peak back to what is resident now.
_PEAK = """
import sys
from pathlib import Path
import backtest_kit_mongo as kit

def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

*names, since, minutes = sys.argv[1:]
kit.setup()
assert kit.PersistCandleAdapter.read_candles_array(*names, 1440, int(since)) is not None
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
candles = kit.PersistCandleAdapter.read_candles_array(*names, int(minutes), int(since))
assert len(candles) == int(minutes)
print(resident("VmHWM") - before)
"""


def settings() -> dict[str, str]:
    config = kit.get_config()
    return {
        "CC_MONGO_CONNECTION_STRING": config.CC_MONGO_CONNECTION_STRING,
        "CC_REDIS_HOST": config.CC_REDIS_HOST,
        "CC_DURABILITY": config.CC_DURABILITY,
    }


class Packed:
    """The same library with CC_CANDLE_FORMAT=packed, on a database of its own."""

    def __init__(self, rows: CandleArray) -> None:
        given = settings()
        server, _, options = given["CC_MONGO_CONNECTION_STRING"].partition("?")
        string = f"{server.rpartition('/')[0]}/packed" + (f"?{options}" if options else "")
        self.registry = kit.Registry()
        self.registry.setup({**given, "CC_MONGO_CONNECTION_STRING": string, "CC_CANDLE_FORMAT": "packed"})
        self._rows, self._adapter = rows, self.registry.PersistCandleAdapter

    @property
    def database(self) -> Any:
        return self.registry.mongo.connection.database

    def store(self) -> None:
        self._adapter.write_candles_data(self._rows, *NAMES)

    def read(self) -> CandleArray | None:
        return read(self._rows, self._adapter)

    def forget(self) -> None:
        self._adapter.clear()

    def drop(self) -> None:
        for name in ("candle-items", "candle-archive"):
            self.database[name].delete_many({})
        self.forget()


def forget() -> None:
    kit.PersistCandleAdapter.clear()


def drop() -> None:
    for name in ("candle-items", "candle-blocks", "candle-archive"):
        kit.get_mongo()[name].delete_many({})
    forget()


def run(minutes: int, rounds: int) -> dict[str, Any]:
    """Measure everything; return for each work the median of each side, and ours compared with it."""
    rows = year(minutes)
    frame_names = ("timestamp", "open", "high", "low", "close", "volume")
    folder = Path(tempfile.mkdtemp(prefix="candle-formats-"))
    results: dict[str, Any] = {}

    def add(work: str, contest: Interleaved, own: str = "ours") -> None:
        values = {name: statistics.median(seconds) for name, seconds in contest.seconds.items()}
        ratios = {
            name: contest.over(own, name) if TARGETS.get(work, {}).get(name, ("",))[0] == "<=" else contest.over(name, own)
            for name in values
            if name != own
        }
        values["ours"] = values.pop(own)
        results[work] = {"unit": "s", "values": values, "ratios": ratios}

    try:
        others = files(rows, folder)
        store = lambda: kit.PersistCandleAdapter.write_candles_data(rows, *NAMES)  # noqa: E731
        store()
        packed = Packed(rows)
        packed.store()
        disk, packed_disk = sizes(kit.get_mongo()), sizes(packed.database)  # of new databases: deleted documents leave room in their files
        slow = max(3, rounds // 5)
        sample, symbols = rows[: minutes // 16], itertools.count()

        def store_new() -> None:
            kit.PersistCandleAdapter.write_candles_data(sample, f"NEW{next(symbols)}", *NAMES[1:])

        imports = {"ours": Side(store_new, 1), "items": Side(rivals.WithoutBlocks(store_new), 1)}
        add("import of 32,850", measured(imports, rounds))
        drop()
        rival_writes = {name: Side(write, 1) for name, (write, _) in others.items()}
        add("import", measured({"ours": Side(store, 1, drop), **rival_writes}, 3))
        writes = {"items": Side(store, 1, drop), "packed": Side(packed.store, 1, packed.drop), **rival_writes}
        add("import, packed", measured(writes, 5), "packed")
        drop()
        store()
        where = settings()
        plain = rivals.Plain(where["CC_MONGO_CONNECTION_STRING"], where["CC_REDIS_HOST"])
        arrow = rivals.Arrow(plain)
        since, until = int(rows["timestamp"][0]), int(rows["timestamp"][-1]) + MINUTE
        ours = lambda: read(rows)  # noqa: E731
        cold = ours()
        assert cold is not None
        assert cold.tobytes() == rows.tobytes()
        again = packed.read()
        assert again is not None
        assert again.tobytes() == rows.tobytes()
        reads = {
            "ours": Side(ours, 1, forget),
            "items": Side(rivals.WithoutBlocks(ours), 1, forget),
            "packed": Side(packed.read, 1, packed.forget),
            "pymongoarrow": Side(lambda: arrow.read_columns(*NAMES, since, until), 1),
            **{name: Side(read_file, 1) for name, (_, read_file) in others.items()},
        }
        add("cold to NumPy", measured(reads, rounds))
        add("warm to NumPy", measured({"ours": Side(ours, 1)}, rounds))
        middle = since + minutes // 2 * MINUTE
        window = lambda: kit.PersistCandleAdapter.read_candles_data(*NAMES, 1000, middle, middle + 1000 * MINUTE)  # noqa: E731
        assert window() == to_dicts(rows[minutes // 2 : minutes // 2 + 1000])
        add(
            "1,000 candles to dicts, cold",
            measured({"ours": Side(window, 1, forget), "items": Side(rivals.WithoutBlocks(window), 1, forget)}, rounds * 3),
        )
        part = rows[-30_240:]
        documents = [
            {"exchangeName": NAMES[2], "symbol": NAMES[0], "interval": NAMES[1], **dict(zip(frame_names, row, strict=True))}
            for row in part.tolist()
        ]

        def insert_again() -> None:
            try:
                kit.get_mongo()["candle-items"].insert_many([dict(document) for document in documents], ordered=False)
            except BulkWriteError:
                return
            raise AssertionError("nothing was there")

        contest = measured(
            {"ours": Side(store, 1, forget), "packed": Side(packed.store, 1, packed.forget), "insert_many": Side(insert_again, 1)}, slow
        )
        # insert_many of the whole year takes a minute: three weeks of it are measured, and taken as many times.
        contest.seconds["insert_many"] = [seconds * minutes / len(part) for seconds in contest.seconds["insert_many"]]
        add("re-import, new process", contest)
        both, archive = sum(disk.values()), sum(packed_disk.values())
        on_disk = {"ours": both, "items": disk["candle-items"], "blocks alone": disk["candle-blocks"]}
        on_disk |= {name: float(size_of(folder, name)) for name in others}
        shares = {name: both / value for name, value in on_disk.items() if name != "ours"}
        results["disk"] = {"unit": "bytes", "values": on_disk, "ratios": shares}
        theirs = {name: value for name, value in on_disk.items() if name not in ("ours", "blocks alone")}
        shares = {name: archive / value for name, value in theirs.items()}
        results["disk, packed"] = {"unit": "bytes", "values": {"ours": archive, **theirs}, "ratios": shares}
        grown, result = peak(since, minutes), float(minutes * CANDLE_DTYPE.itemsize)
        results["peak memory of a cold read"] = {
            "unit": "bytes", "values": {"ours": grown, "result": result}, "ratios": {"result": grown / result},
        }  # fmt: skip
        packed.registry.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"minutes": minutes, "rounds": rounds, "source": candles()[1], "work": results}


def size_of(folder: Path, name: str) -> int:
    """Return the bytes that a rival has on disk."""
    if name == "arcticdb":
        return sum(file.stat().st_blocks * 512 for file in (folder / "arctic").rglob("*") if file.is_file())
    return (folder / f"year.{name}").stat().st_size


def growth(years: int, rounds: int) -> dict[str, float]:
    """Return the seconds of a cold read of 1 to ``years`` years."""
    rows = year(years * 525_600)
    drop()
    for start in range(0, len(rows), 525_600):
        kit.PersistCandleAdapter.write_candles_data(rows[start : start + 525_600], *NAMES)
    medians = {}
    for count in range(1, years + 1):
        part = rows[-count * 525_600 :]
        times = []
        for _ in range(rounds):
            forget()
            started = time.perf_counter()
            assert read(part) is not None
            times.append(time.perf_counter() - started)
        medians[str(count)] = statistics.median(times)
    return medians


def many(symbols: int, years: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the seconds in which ``packed`` and ArcticDB import and read ``symbols`` series of ``years`` years."""
    rows = year(years * 525_600)
    packed = Packed(rows)
    names = [f"S{number}" for number in range(symbols)]
    since = int(rows["timestamp"][0])
    adapter = packed.registry.PersistCandleAdapter
    folder = Path(tempfile.mkdtemp(prefix="candle-formats-"))

    def store() -> None:
        for name in names:
            adapter.write_candles_data(rows, name, *NAMES[1:])

    def load() -> None:
        for name in names:
            assert adapter.read_candles_array(name, *NAMES[1:], len(rows), since) is not None
            packed.forget()

    works = {"import": {"packed": Side(store, 1, packed.drop)}, "read, cold": {"packed": Side(load, 1, packed.forget)}}
    try:
        if "arcticdb" in files(rows[:10], folder):
            import arcticdb

            library = arcticdb.Arctic(f"lmdb://{folder / 'many'}?map_size=20GB").get_library("candles", create_if_missing=True)
            frame = to_pandas(rows)
            works["import"]["arcticdb"] = Side(lambda: [library.write(name, frame) for name in names], 1)
            works["read, cold"]["arcticdb"] = Side(lambda: [library.read(name).data for name in names], 1)
        packed.drop()
        return {
            work: {name: statistics.median(seconds) for name, seconds in measured(sides, rounds).seconds.items()}
            for work, sides in works.items()
        }
    finally:
        packed.registry.close()
        shutil.rmtree(folder, ignore_errors=True)


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| work | ours | against | theirs | target | ratio | |", "|---|---|---|---|---|---|---|"]
    for work, row in results["work"].items():
        shown = work
        own = text(row["values"]["ours"], row["unit"])
        for name, ratio in row["ratios"].items():
            direction, target = TARGETS.get(work, {}).get(name, ("", 0.0))
            verdict = "" if not direction else "met" if (ratio >= target if direction == ">=" else ratio <= target) else "missed"
            goal = f"{direction} {target:g}" if direction else ""
            lines.append(f"| {shown} | {own} | {name} | {text(row['values'][name], row['unit'])} | {goal} | {ratio:.3g} | {verdict} |")
            shown = own = ""
    return "\n".join(lines)


def text(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:.1f} MB"
    return f"{value * 1e3:,.2f} ms" if value < 1 else f"{value:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=525_600, help="candles to store and read (default: a year)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of a read; an import gets a fifth (default: 15)")
    parser.add_argument("--years", type=int, default=0, help="also read 1 to this many years, cold")
    parser.add_argument("--symbols", type=int, default=0, help="also store and read 2 years of this many symbols, packed")
    parser.add_argument("--output", help="write the results to this file as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="candle-formats-") as folder:
        kit.setup(embedded=True, CC_EMBEDDED_DIR=folder, CC_DURABILITY="memory")
        kit.wait_for_init()
        try:
            results = run(given.minutes, given.rounds)
            if given.years:
                results["growth"] = growth(given.years, max(3, given.rounds // 3))
            if given.symbols:
                results["many"] = many(given.symbols, 2, 3)
        finally:
            kit.close()
    print(f"{results['minutes']:,} candles, {results['source']}; medians of {results['rounds']} interleaved rounds\n")
    print(table(results))
    for years, seconds in results.get("growth", {}).items():
        print(f"{years:>3} years cold: {seconds * 1e3:8.1f} ms")
    for work, sides in results.get("many", {}).items():
        print(
            f"{given.symbols} symbols by 2 years, {work}: " + ", ".join(f"{name} {text(seconds, 's')}" for name, seconds in sides.items())
        )
    if given.output:
        Path(given.output).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
