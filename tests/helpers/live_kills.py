"""Kill a live run again and again, and compare each time the fills on the exchange with the database.

The run and the exchange are those of ``killed_live_run``. The run is killed with SIGKILL after a random time, or kills itself at a
write or a request, or a moment later. Meanwhile the exchange loses, delays and rejects requests. The database is read without the
library.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pymongo
from exchange_server import FEE, STEP
from killed_live_run import CLOSINGS, DEFERRED, EXCHANGE, HOOKS, LIMIT, RECEIVE, RISK, SPEEDS, STRATEGY, SYMBOLS, Plan, control

PROCESSES = Path(__file__).with_name("killed_live_run.py")
SILENCE = 90.0  # seconds until a run counts as hanging


class Trade(NamedTuple):
    """The orders of a signal on the exchange."""

    symbol: str
    position: str
    open: dict[str, Any] | None
    close: dict[str, Any] | None

    @property
    def quantity(self) -> float:
        """The filled quantity of the open order, less the fee deducted from it."""
        assert self.open is not None
        return float(self.open["executedQty"]) * (1 - FEE if self.open["side"] == "BUY" else 1)


class Evidence:
    """The orders of the exchange, the reports of the runs, and the database, read without the library."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self.asked: dict[str, tuple[str, str, str, str]] = {}
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.scheduled: Counter[str] = Counter()

    def hear(self, word: str, *of: Any) -> None:
        """Note what a run has reported."""
        if word == "asked":
            self.asked[of[0]] = of[1:]
        elif word in ("scheduled", "opened", "closed"):
            getattr(self, word)[of[0]] += 1

    def slots(self, domain: str) -> dict[str, Any]:
        """Return the records of Signal, Schedule or Strategy by symbol."""
        stored = self._database[f"{domain}-items"].find({"strategyName": STRATEGY, "exchangeName": EXCHANGE})
        return {document["symbol"]: document["payload"] for document in stored}

    def risk_slots(self) -> list[str]:
        """Return the keys of the Risk record."""
        return [key for document in self._database["risk-items"].find({"riskName": RISK}) for key, _ in document["positions"]]

    def rows(self, domain: str) -> list[dict[str, Any]]:
        """Return the live rows of a list."""
        return [document["payload"] for document in self._database[f"{domain}-items"].find({"backtest": False})]

    def trades(self, orders: list[dict[str, Any]]) -> tuple[dict[str, Trade], list[str]]:
        """Return the trades by signal, and what is wrong with them: duplicate orders, and orders without a signal."""
        wrong = [f"order {client_id} was placed {n} times" for client_id, n in _counts(orders, "clientOrderId") if n > 1]
        collected: dict[str, Trade] = {}
        for order in orders:
            if order["clientOrderId"] not in self.asked:
                wrong.append(f"order {order['clientOrderId']} belongs to no signal")
                continue
            signal_id, action, symbol, position = self.asked[order["clientOrderId"]]
            trade = collected.setdefault(signal_id, Trade(symbol, position, None, None))
            if getattr(trade, action) is not None:
                wrong.append(f"signal {signal_id}: a second order to {action} it")
            if order["symbol"] != symbol or (order["side"] == "BUY") != ((action == "open") == (position == "long")):
                wrong.append(f"signal {signal_id}: {action} {position} {symbol} became {order['side']} {order['symbol']}")
            collected[signal_id] = trade._replace(**{action: order})
        for signal_id, trade in collected.items():
            if trade.open is None:
                wrong.append(f"signal {signal_id} was closed and never opened")
            elif trade.close is not None and not -1e-9 <= trade.quantity - float(trade.close["origQty"]) < STEP:
                wrong.append(f"signal {signal_id}: {trade.quantity} were opened, {trade.close['origQty']} closed")
        return collected, wrong

    def check(self, read_orders: Any) -> tuple[list[str], Counter[str]]:
        """Return what is wrong while no run is active, and the phase of each symbol when its run ended."""
        signals, schedules, strategies = (self.slots(domain) for domain in ("signal", "schedule", "strategy"))
        slots = self.risk_slots()
        trades, wrong = self.trades(read_orders())  # after the database: an order that arrives only now was stored before
        phases: Counter[str] = Counter()
        for symbol in SYMBOLS:
            held, waits, work = signals.get(symbol), schedules.get(symbol), strategies.get(symbol) or {}
            opening, closing = work.get("retryOpenSignal"), next((work[slot] for slot in CLOSINGS if work.get(slot)), None)
            slot_ids = {row["id"] for row in (held, opening, closing) if row is not None}
            for signal_id, trade in trades.items():
                if trade.symbol == symbol and trade.close is None and signal_id not in slot_ids:
                    wrong.append(f"{symbol}: signal {signal_id} is open on the exchange, and the database does not know it")
            if held is not None:
                mine = trades.get(held["id"])
                if mine is None or mine.open is None:
                    wrong.append(f"{symbol}: signal {held['id']} is stored as open, and no order was filled")
                else:
                    wrong += _differences(held, mine)
                if mine is not None and mine.close is not None and (closing is None or closing["id"] != held["id"]):
                    wrong.append(f"{symbol}: signal {held['id']} is stored as open, and was closed")
            if (opening or (held and not closing)) and f"{STRATEGY}_{EXCHANGE}_{symbol}" not in slots:
                wrong.append(f"{symbol}: a position without its risk slot")
            phases[_phase(held, waits, work, trades)] += 1
        wrong += [f"signal {signal_id}: on_open was called {n} times" for signal_id, n in self.opened.items() if n > 1]
        wrong += _overlaps(trades)
        return wrong, phases

    def check_end(self, read_orders: Any) -> list[str]:
        """Return what is wrong after a run that has closed all it had: nothing is half done, and each trade was reported once."""
        wrong, _ = self.check(read_orders)
        orders = read_orders()
        trades, _ = self.trades(orders)
        wrong += [f"order {order['clientOrderId']} is {order['status']}" for order in orders if order["status"] != "FILLED"]
        wrong += [f"signal {signal_id} is open" for signal_id, trade in trades.items() if trade.close is None]
        wrong += [f"{symbol}: a scheduled signal is stored" for symbol, row in self.slots("schedule").items() if row is not None]
        for symbol, work in self.slots("strategy").items():
            left = [name for name in (*DEFERRED, "pendingSignalId", "retryOpenCount", "retryCloseCount") if work[name]]
            wrong += [f"{symbol}: left in Strategy: {left}"] if left else []
        wrong += [f"risk slots {slots} are left" for slots in [self.risk_slots()] if slots]
        stored = {row["id"]: row for row in self.rows("storage")}
        notes = Counter((row["type"], row["signalId"]) for row in self.rows("notification") if row["type"].startswith("signal."))
        for signal_id in sorted({*trades, *stored, *(signal_id for _, signal_id in notes)}):
            traded, row = signal_id in trades, stored.get(signal_id)
            status = "closed" if traded else "cancelled"
            if row is None or row["status"] != status:
                wrong.append(f"signal {signal_id} is {status}, Storage has {row and row['status']}")
            elif traded:
                wrong += _differences(row, trades[signal_id])
            due = {"opened": traded, "closed": traded, "cancelled": not traded, "scheduled": self.scheduled[signal_id] > 0}
            told = {kind: notes[f"signal.{kind}", signal_id] for kind in due}
            if told != due:
                wrong.append(f"signal {signal_id} is {status}, notifications are {told}")
            if traded and not self.closed[signal_id]:
                wrong.append(f"signal {signal_id}: on_close was not called")
        return wrong


def _counts(rows: list[dict[str, Any]], name: str) -> list[tuple[Any, int]]:
    return [*Counter(row[name] for row in rows).items()]


def _differences(row: dict[str, Any], trade: Trade) -> list[str]:
    """Return where a stored position differs from the filled one."""
    assert trade.open is not None
    at_exchange = row["symbol"], row["position"], row["priceOpen"], row["_quantity"]
    filled = trade.symbol, trade.position, trade.open["fillPrice"], trade.quantity
    same = at_exchange[:2] == filled[:2] and all(abs(a - b) < 1e-5 for a, b in zip(at_exchange[2:], filled[2:], strict=True))
    return [] if same else [f"signal {row['id']} is stored as {at_exchange}, filled was {filled}"]


def _overlaps(trades: dict[str, Trade]) -> list[str]:
    """Check, by the numbers of the orders, whether more positions were open at a time than the risk limit allows."""
    events = [(trade.open["orderId"], 1) for trade in trades.values() if trade.open]
    events += [(trade.close["orderId"], -1) for trade in trades.values() if trade.close]
    most = now = 0
    for _, change in sorted(events):
        now += change
        most = max(most, now)
    return [f"{most} positions were open at a time, {LIMIT} are allowed"] if most > LIMIT else []


def _phase(held: Any, waits: Any, work: dict[str, Any], trades: dict[str, Trade]) -> str:
    """Return what was going on in a symbol when its run was killed."""
    for slot, name in DEFERRED.items():
        row = work.get(slot)
        if row is not None and name in ("opening", "closing"):
            trade = trades.get(row["id"])
            filled = trade is not None and (trade.open if name == "opening" else trade.close) is not None
            return f"{name}, order {'there' if filled else 'not there'}{', position written' if held and name == 'opening' else ''}"
        if row is not None:
            return name
    return "open" if held else "waiting" if waits else "flat"


class Kills:
    """A live run on the servers of ``setup`` that is killed again and again."""

    def __init__(self, setup: dict[str, Any], seed: int) -> None:
        self._setup, self._random = setup, random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self._stack = ExitStack()
        client = self._stack.enter_context(pymongo.MongoClient(setup["CC_MONGO_CONNECTION_STRING"]))
        self.evidence = Evidence(client.get_default_database())
        self._rest = b""
        self._run: int | None = None  # a pidfd

    def _start(self, role: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, str(PROCESSES), role], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def end() -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(SILENCE)
            process.stdout.close()

        self._stack.callback(end)
        return process

    def __enter__(self) -> Kills:
        exchange, runs = self._start("exchange"), self._start("runs")
        assert exchange.stdout is not None
        assert runs.stdin is not None
        assert runs.stdout is not None
        self._input, self._output = runs.stdin, runs.stdout.fileno()
        self._url = exchange.stdout.readline().decode().strip()
        return self

    def __exit__(self, *exception: object) -> None:
        self._kill()
        self._stack.close()

    def orders(self) -> list[dict[str, Any]]:
        """Return all orders of the exchange."""
        return control(self._url)["orders"]  # type: ignore[no-any-return]

    def _begin(self, plan: Plan, **change: Any) -> None:
        """Apply ``change`` to the exchange and start a run."""
        now = control(self._url, {"orders": False})["now_ms"]
        control(self._url, {"orders": False, "speed": plan.speed, "now_ms": now, **change})
        self._input.write(json.dumps({"setup": self._setup, "url": self._url, "plan": plan}).encode() + b"\n")
        self._input.flush()
        word, pid = self._line(SILENCE) or ("nothing", 0)
        assert word == "pid", word
        self._run = os.pidfd_open(pid)

    def _kill(self) -> None:
        """Kill the run, if there is one."""
        if self._run is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._run, signal.SIGKILL)
            os.close(self._run)
            self._run = None

    def _line(self, seconds: float) -> Any:
        """Return the next message of the run, or of its parent when the run is dead; None if none comes in time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if not select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            more = os.read(self._output, 1 << 16)
            assert more, "the process that forks has died"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _listen(self, seconds: float) -> tuple[int | None, str | None]:
        """Listen until the run has ended, or for that long; return its exit code (None: not yet) and the hook it was killed at."""
        deadline, reached = time.monotonic() + seconds, None
        while True:
            said = self._line(max(0.0, deadline - time.monotonic()))
            if said is None:
                return None, reached
            word, *of = said
            if word == "end":
                return of[0], reached
            if word == "reached":
                reached = of[0]
            elif word == "noted":
                kind = _kind(of[0])
                assert kind in ("ExchangeUnavailableError", "signal ignored"), f"after {self.kills.total()} kills: {of[0]}"
                self.noted[kind] += 1
            elif word == "error":
                raise AssertionError(f"after {self.kills.total()} kills: {of[0]}")
            self.evidence.hear(word, *of)

    def _plan(self) -> tuple[Plan, float, dict[str, Any]]:
        """Return how the next run is killed, after how many seconds at the latest, and what the exchange does meanwhile."""
        draw = self._random
        faults: list[dict[str, Any]] = []
        kind = draw.choice((None, None, "lost", "drop", "late", "late", 500, 429, "reset", "empty"))
        if kind is not None:
            places = [("POST", "/order")] * 2 + [("GET", "/order"), ("GET", "/klines")] * (kind != "late")
            place = draw.choice(places)
            faults.append({"kind": kind, "method": place[0], "path": place[1], "seconds": draw.uniform(0.4, 1.1) * RECEIVE})
            self.faults[f"{kind} {place[0]} {place[1]}"] += 1
        change = {"faults": faults, "fill_after": draw.choice((0, 0, 0, 1))}
        speed = draw.choice(SPEEDS)
        if kind == "late":  # an order that is still in transit when nobody waits for it any more
            return Plan("POST order, to send", 0, draw.uniform(0.005, 0.05), speed=speed), 1.5, change
        if draw.random() < 0.3:
            return Plan(speed=speed), draw.uniform(0.02, 0.9), change
        hook = draw.choices([*HOOKS], [*HOOKS.values()])[0]
        wait = draw.choice((0.0, 0.0, draw.uniform(0.0005, 0.02)))
        return Plan(hook, draw.choice((0, 0, 0, 1, 2)), wait, speed=speed), 1.2, change

    def kill(self) -> None:
        """Kill one run and check what it leaves behind."""
        plan, latest, change = self._plan()
        self._begin(plan, **change)
        status, reached = self._listen(latest)
        self._kill()
        if status is None:
            status, late = self._listen(SILENCE)
            reached = reached or late
        assert status == -signal.SIGKILL, f"the run ended by itself: {status}"
        wrong, phases = self.evidence.check(self.orders)
        assert not wrong, f"after {self.kills.total()} kills, {plan}: " + "\n".join(wrong)
        self.phases += phases
        self.kills[reached or "at a random time"] += 1

    def finish(self, how: str) -> None:
        """Let a run finish: it stops with positions open ("stop"), or when nothing is open any more ("flat")."""
        self._begin(Plan(finish=how), fill_after=0)
        status, _ = self._listen(SILENCE)
        self._kill()
        assert status == 0, f"the last run ended with {status}"
        wrong = self.evidence.check_end(self.orders) if how == "flat" else self.evidence.check(self.orders)[0]
        assert not wrong, f"at the end ({how}): " + "\n".join(wrong)

    def figures(self) -> dict[str, Any]:
        """Return counts of what was done."""
        trades, _ = self.evidence.trades(self.orders())
        return {
            "kills": self.kills.total(),
            "trades": len(trades),
            "orders asked for": len(self.evidence.asked),
            "killed": dict(self.kills.most_common()),
            "found": dict(self.phases.most_common()),
            "faults": dict(self.faults.most_common()),
            "noted": dict(self.noted.most_common()),
        }


def _kind(text: str) -> str:
    """Return what went wrong: the name of the error, or that a signal came too late for its prices."""
    match = re.search(r"signal ignored|\w+Error", text)
    return text if match is None else match[0]
