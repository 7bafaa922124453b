"""``profile()``: real reads and writes on real servers are counted, timed, printed and plotted."""

import json
import struct
import sys
import threading
import time

import pytest
import redis
import reference

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistCandleAdapter, PersistLogAdapter, PersistSignalAdapter, PersistStateAdapter, Report, profile
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import BacktestKitError, InvalidValueError, MissingDependencyError
from backtest_kit_mongo.metrics import BYTES_READ, BYTES_WRITTEN, HITS_BLOCK, READ, READS, WRITE, WRITES, Metrics
from backtest_kit_mongo.observability.profile import figures
from backtest_kit_mongo.stores.mongo.database import RAW

START, MINUTE = 1_677_628_800_000, 60_000


def write(count=1):
    for number in range(count):
        PersistStateAdapter.write_state_data({"n": number}, f"signal-{number}", "bucket", START)


def read(count=1):
    for number in range(count):
        PersistStateAdapter.read_state_data(f"signal-{number}", "bucket")


def counted(report, domain="state"):
    row = report.domains.get(domain, {})
    return tuple(row.get(name, 0) for name in ("reads", "hits_process", "hits_redis", "misses", "writes"))


def test_where_every_read_was_answered(mongo):
    """The report counts a miss, ids from Redis and the process, a stale id, writes and lists, within the block only."""
    write(4)
    default_registry.mongo.process_ids.clear()
    with profile() as report:
        read(2)  # from Redis
        read(3)  # two from the process, one from Redis
        PersistStateAdapter.read_state_data("nobody", "bucket")
        PersistSignalAdapter.write_signal_data({"id": "a"}, "BTCUSDT", "sma", "binance")
        with redis.Redis(unix_socket_path=mongo["CC_REDIS_HOST"]) as cache:
            (key,) = cache.keys("state_cache:*signal-3*")
            cache.set(key, "0" * 24)
        PersistStateAdapter.read_state_data("signal-3", "bucket")
        PersistLogAdapter.write_log_data([{"id": "a"}, {"id": "b"}])
        PersistLogAdapter.read_log_data()
    read(4)
    row = report.domains["state"]
    assert counted(report) == (7, 2, 3, 2, 0)
    assert (row["stale"], row["backfills"]) == (1, 1)
    assert row["hit_ratio"] == pytest.approx(5 / 7)
    assert row["hit_ratios"] == {"process": pytest.approx(2 / 7), "redis": pytest.approx(3 / 7), "block": None}
    assert row["operations"]["read"]["count"] == 7
    assert set(report.domains) == {"state", "signal", "log"}
    log = report.domains["log"]
    assert (log["reads"], log["writes"], log["hit_ratio"]) == (2, 2, None)
    assert log["hit_ratios"] == {"process": None, "redis": None, "block": None}


def test_rates_and_percentiles_are_those_of_the_block(mongo):
    """Wall time, calls per second and percentiles belong to the block; percentiles are in order and none exceeds the block."""
    write(50)
    with profile() as report:
        began = time.perf_counter()
        read(50)
        took = time.perf_counter() - began
    taken = report.domains["state"]["operations"]["read"]
    assert took <= report.seconds < took + 15
    assert taken["count"] == 50
    assert taken["per_second"] == pytest.approx(50 / report.seconds, rel=1e-3)
    assert 0 < taken["p50"] <= taken["p90"] <= taken["p99"] <= taken["max"] <= took * 1e6 * 17 / 16
    assert taken["p50"] * 25 <= took * 1e6 * 17 / 16


def test_percentiles_against_a_plain_reference():
    """Of known durations before and after the mark, only the later ones count; percentiles are accurate to 1/16."""
    metrics = Metrics()
    counters = metrics.domains["state"]
    for nanoseconds in range(1, 100_000, 7):
        counters.observe(READ, nanoseconds * 1000)
    mark = metrics.mark()
    durations = [int(1000 * 1.01**number) for number in range(1500)]
    for nanoseconds in durations:
        counters.observe(READ, nanoseconds)
    taken = figures(2.0, metrics.snapshot(mark))["domains"]["state"]["operations"]["read"]
    for label, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
        exact = reference.percentile(durations, percent) / 1000
        assert exact * 0.999 <= taken[label] <= exact * 17 / 16 + 0.001
    assert (taken["count"], taken["per_second"]) == (1500, 750.0)


def test_candle_windows_and_bytes():
    """The hit ratio of candles is windows from memory divided by windows requested."""
    metrics = Metrics()
    candle = metrics.domains["candle"]
    candle.add(READS, 8)
    candle.add(HITS_BLOCK, 6)
    candle.add(BYTES_READ, 3000)
    candle.add(BYTES_WRITTEN, 5_000_000)
    shown = figures(1.0, metrics.snapshot())
    row = shown["domains"]["candle"]
    assert row["hit_ratio"] == row["hit_ratios"]["block"] == 0.75
    text = Report.from_dict(shown).table()
    assert "3.0 kB" in text
    assert "5.0 MB" in text
    assert "75.0 %" in text


def test_candles_that_were_read(mongo):
    """Windows are counted as requested, from memory, or incomplete."""
    candles = [{"timestamp": START + i * MINUTE, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 1.0} for i in range(10)]
    with profile() as report:
        PersistCandleAdapter.write_candles_data(candles, "BTCUSDT", "1m", "binance")
        for limit in (5, 10, 11):
            PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", limit, START, START + limit * MINUTE)
    row = report.domains["candle"]
    assert (row["reads"], row["misses"], row["writes"]) == (3, 1, 10)
    assert 0 <= row["hit_ratio"] <= 2 / 3


def test_blocks_nest_and_overlap(mongo):
    """Each block has its own span, in whatever order the blocks end."""
    with profile() as outer:
        write(1)
        with profile() as inner:
            write(2)
        write(3)
        first = profile()
        second = profile()
        one = first.__enter__()
        write(1)
        two = second.__enter__()
        write(1)
        first.__exit__(None, None, None)
        write(1)
        second.__exit__(None, None, None)
    assert [counted(report)[-1] for report in (outer, inner, one, two)] == [9, 2, 2, 2]


def test_a_reset_in_the_middle_takes_nothing_away(mongo):
    """``reset_stats`` restarts ``stats``; blocks keep counting, and nothing is ever negative."""
    write(3)
    with profile() as report:
        write(2)
        kit.reset_stats()
        assert kit.stats()["state"]["writes"] == 0
        assert kit.stats()["state"]["operations"] == {}
        write(4)
    assert counted(report) == (0, 0, 0, 0, 6)
    assert report.domains["state"]["operations"]["write"]["count"] == 6
    assert kit.stats()["state"]["writes"] == 4


def test_stats_and_profile_agree(mongo):
    """A block around everything since the reset reports the same as ``stats``."""
    kit.reset_stats()
    with profile() as report:
        write(5)
        read(7)
    whole = kit.stats()
    assert list(whole) == list(DOMAINS)
    row = report.domains["state"]
    for taken in row["operations"].values():
        del taken["per_second"]
    assert row == whole["state"]


def test_inside_of_the_block_the_figures_are_those_so_far(mongo):
    """The report shows the figures so far inside the block, and stays fixed after it."""
    with profile() as report:
        assert report.domains == {}
        assert report.table().count("\n") == 0
        write(1)
        assert counted(report)[-1] == 1
        write(1)
        earlier = report.seconds
        assert counted(report)[-1] == 2
    after = report.to_dict()
    assert after["seconds"] >= earlier
    write(1)
    time.sleep(0.01)
    assert report.to_dict() == after


def test_an_exception_leaves_a_report(mongo):
    """The exception passes through, and the report has what was done before it."""
    with pytest.raises(ZeroDivisionError), profile() as report:  # noqa: PT012
        write(2)
        raise ZeroDivisionError
    write(5)
    assert counted(report)[-1] == 2


def test_errors_are_counted(mongo):
    """A call that fails at the server counts as an error and in no latency."""
    default_registry.mongo.connection.client.close()
    kit.close()
    kit.setup({**mongo, "CC_MONGO_CONNECTION_STRING": "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=100"})
    with profile() as report, pytest.raises(ConnectionError):
        read(1)
    row = report.domains["state"]
    assert (row["errors"], row["operations"]) == (1, {})
    assert "errors" in report.table()


def test_all_threads_are_in_it():
    """Eight threads count while blocks begin and end and the counters are reset: the parts add up to the whole."""
    metrics = default_registry.metrics
    counters = metrics.domains["state"]
    done, each = threading.Barrier(9), 40_000
    parts = []

    def work():
        for _ in range(each):
            counters.add(WRITES)
            counters.observe(WRITE, 1000)
        done.wait()

    def part(earlier):
        later = counters.copy()
        difference = later.since(earlier)
        parts.append((difference.count(WRITES), difference.observed(WRITE)))
        return later

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with profile() as whole:
            threads = [threading.Thread(target=work) for _ in range(8)]
            mark = counters.copy()
            for thread in threads:
                thread.start()
            while done.n_waiting < 8:
                mark = part(mark)
                kit.reset_stats()
                assert kit.stats()["state"]["writes"] >= 0
            done.wait()
            for thread in threads:
                thread.join()
            part(mark)
    finally:
        sys.setswitchinterval(interval)
        kit.reset_stats()
    assert counted(whole)[-1] == 8 * each
    assert whole.domains["state"]["operations"]["write"]["count"] == 8 * each
    assert tuple(map(sum, zip(*parts, strict=True))) == (8 * each, 8 * each)
    assert min(map(min, parts)) >= 0


# --- table, JSON, plot ---


@pytest.fixture
def report(mongo):
    """A report on two domains, with every kind of answer but blocks."""
    write(3)
    default_registry.mongo.process_ids.clear()
    with profile() as report:
        read(3)
        read(4)
        PersistLogAdapter.write_log_data([{"id": "a"}])
        PersistLogAdapter.read_log_data()
    return report


def test_the_table(report, capsys):
    """``print``, ``str`` and ``table`` show the same plain text, without columns in which nothing happened."""
    print(report)
    text = capsys.readouterr().out
    assert text == str(report) + "\n" == report.table() + "\n"
    lines = text.splitlines()
    head, log, state = (line.split() for line in lines[2:5])
    assert head == ["domain", "reads", "L1", "Redis", "misses", "writes", "hit", "ratio"] or "received" in head
    assert (log[0], log[1]) == ("log", "1")
    assert state[:5] == ["state", "7", "3", "3", "1"]
    assert "85.7 %" in text
    assert any(line.split()[:3] == ["state", "read", "7"] for line in lines)
    assert max(map(len, lines[:-1])) <= 80
    assert "stale" not in text


def test_json_and_back(report):
    """A report read back from JSON is the same report."""
    saved = json.loads(report.to_json())
    assert saved == report.to_dict()
    again = Report.from_dict(saved)
    assert again.to_dict() == saved
    assert str(again) == str(report)
    assert again.seconds == report.seconds


@pytest.mark.parametrize("saved", [None, [], {}, {"seconds": 1}, {"seconds": 1, "domains": {"state": {}}}, {"seconds": "1", "domains": {}}])
def test_what_is_no_saved_report(saved):
    """Other types and missing counts raise an error that says what is wrong."""
    with pytest.raises(InvalidValueError, match="not a saved report"):
        Report.from_dict(saved)


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


@pytest.mark.once
def test_the_picture(report, tmp_path):
    """The PNG has the size of its figure, with one row per domain read and per operation; pyplot stays untouched."""
    before = "matplotlib.pyplot" in sys.modules  # another test may have imported it
    figure = report.plot()
    answers, latencies = figure.axes
    assert [label.get_text() for label in answers.get_yticklabels()] == ["log", "state"]
    assert [label.get_text() for label in latencies.get_yticklabels()] == ["log list", "log write_many", "state read"]
    assert latencies.get_xscale() == "log"
    shares = [[bar.get_width() for bar in bars] for bars in answers.containers]
    assert [sum(parts) for parts in zip(*shares, strict=True)] == [pytest.approx(100)] * 2
    assert [text.get_text() for text in answers.get_legend().get_texts()] == ["process (L1)", "Redis", "miss", "lists, windows"]
    report.save_png(tmp_path / "report.png")
    width, height = figure.get_size_inches()
    assert png_size(tmp_path / "report.png") == (round(width * 120), round(height * 120))
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.once
@pytest.mark.slow
def test_the_picture_of_nothing(tmp_path):
    """A report without activity can be printed and plotted as well."""
    empty = Report.from_dict({"seconds": 0.0, "domains": {}})
    empty.save_png(str(tmp_path / "empty.png"))
    assert min(png_size(tmp_path / "empty.png")) > 300
    assert str(empty) == "0.000 s: 0 read (0 B), 0 written (0 B)"


@pytest.mark.once
def test_a_place_that_takes_no_picture(report, tmp_path):
    """A path that cannot be written raises a clear error that is both ours and a builtin."""
    with pytest.raises(ValueError, match="cannot be written to") as caught:
        report.save_png(tmp_path / "nowhere" / "report.png")
    assert isinstance(caught.value, BacktestKitError)


def test_without_matplotlib(report, monkeypatch, tmp_path):
    """Everything but the plot works without matplotlib, and the plot's error says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "state" in report.table()
    with pytest.raises(ImportError, match=r'pip install "backtest-kit-mongo\[plot\]"') as caught:
        report.save_png(tmp_path / "report.png")
    assert isinstance(caught.value, MissingDependencyError)
    assert not (tmp_path / "report.png").exists()


@pytest.mark.parametrize("wire", [True, False])
def test_bytes_are_those_of_the_documents(settings, wire):
    """Bytes read are the BSON sizes of the documents; bytes written are at least the size of what is stored."""
    kit.setup(settings, CC_WIRE_LANE=wire)
    row = {"text": "x" * 1000}
    contexts = [("S", str(number), "E") for number in range(5)]
    with kit.profile() as report:
        kit.PersistSignalAdapter.write_signal_data(row, *contexts[0])
        kit.PersistSignalAdapter.write_many([(row, *context) for context in contexts[1:]])
    sizes = [len(document.raw) for document in kit.get_mongo().get_collection("signal-items", codec_options=RAW).find()]
    assert 5 * 1000 < report.domains["signal"]["bytes_written"] < 2 * sum(sizes)
    with kit.profile() as report:
        for _ in range(3):  # first by key or an id from Redis, then by the id cached in the process
            kit.PersistSignalAdapter.read_signal_data(*contexts[0])
        kit.PersistSignalAdapter.read_many(contexts)
    assert report.domains["signal"]["bytes_read"] == 3 * sizes[0] + sum(sizes)
