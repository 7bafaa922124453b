"""Kill a writer again and again, and check each time what it leaves behind.

A run is a sequence of numbered steps. Step n is the same for every writer: one write (or removal) in one domain. So the number of the
last acknowledged step determines every record; only records of the next step may be in their old or their new state.
Each writer first checks all records through a store of its own. It then does the steps from there on, including the interrupted one,
as a restarted strategy does. It reports the number of a step when the call has returned. It is killed with SIGKILL; each tenth one
after the return and before the report.

Run as a script, this is the process that loads the library and forks the writers, before it has connected anywhere.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS, Domain
from backtest_kit_mongo.stores.base import Key

NOW = 1_700_000_000_000
LATER = 2 * NOW  # later than every step
MINUTE = 60_000
WINDOW = 20  # candles in a step
SILENCE = 90.0  # seconds until a writer counts as hanging


class Step(NamedTuple):
    """One call and its keys; ``again``: earlier steps with rows that are written again in this call."""

    number: int
    domain: Domain
    keys: list[Key]
    removes: bool = False
    again: Sequence[int] = ()


class Model:
    """What is stored after the first ``done`` steps: for each domain and key, the number of the step that wrote it last."""

    def __init__(self, names: Iterable[str], seed: int) -> None:
        self.domains = [DOMAINS[name] for name in names]
        self.seed = seed
        self.done = 0
        self.values: dict[tuple[str, Key], int | None] = {}

    def step(self, number: int) -> Step:
        """Return the step with a number."""
        domain = self.domains[number % len(self.domains)]
        turn = number // len(self.domains)
        draw = zlib.crc32(f"{self.seed}/{number}".encode())
        if domain.name == "candle":
            return Step(number, domain, [("e", "S", "1m", NOW // MINUTE * MINUTE + (turn * WINDOW + i) * MINUTE) for i in range(WINDOW)])
        if domain.name == "log":  # like the framework, write all of the last entries each time
            before = range(number - len(self.domains), max(0, number - 10 * len(self.domains)), -len(self.domains))
            return Step(number, domain, [(f"{number}",)], again=[*reversed(before)])
        if not domain.keyed:
            return Step(number, domain, [(True, f"row {(draw + i) % 12}") for i in range(4)])
        key = tuple(True if kind is bool else f"{name} {draw % 5}" for name, kind in zip(domain.key, domain.kinds, strict=True))
        return Step(number, domain, [key], removes=domain.soft_delete and draw % 7 == 0)

    def advance(self, number: int) -> None:
        """Do the steps up to ``number``."""
        while self.done < number:
            self.done += 1
            step = self.step(self.done)
            for key in step.keys:
                self.values[step.domain.name, key] = None if step.removes else self.done

    def value(self, domain: Domain, key: Key, number: int | None) -> Any:
        """Return what a read must return after step ``number`` wrote it; the empty value for None."""
        if number is None:
            return domain.empty()
        if domain.name == "candle":
            price = 100.0 + number
            return {"timestamp": key[-1], "open": price, "high": price + 1, "low": price - 1, "close": price, "volume": float(number)}
        draw = zlib.crc32(repr((self.seed, number, key)).encode())
        text = "é" * (40_000 if draw % 13 == 0 else draw % 1500)
        body = {"id": key[-1], "n": number, "of": [domain.name, *key], "text": text, "check": zlib.crc32(text.encode(), number)}
        return [["position", body]] if domain.name == "risk" else body


def do(model: Model, number: int) -> None:
    """Make the call of a step through the public methods."""
    step = model.step(number)
    domain, call = step.domain, next(call for call in step.domain.calls if call.operation in _WRITES)
    if step.removes:
        call = next(call for call in domain.calls if call.operation == "remove")
    if call.operation == "put_rows":
        value: Any = [model.value(domain, model.step(old).keys[0], old) for old in step.again]
        value += [model.value(domain, key, number) for key in step.keys]
    elif call.operation == "put_candles":
        value = [model.value(domain, key, number) for key in step.keys]
    else:
        value = model.value(domain, step.keys[0], number)
    when = NOW + number * MINUTE
    given = _arguments(domain, step.keys[0]) | {"when": when}
    with kit.simulated_time(when):
        getattr(adapter_of(domain), call.name)(*(given.get(name, value) for name in call.arguments))


_WRITES = ("write", "put_rows", "put_candles")


def _arguments(domain: Domain, key: Key) -> dict[str, Any]:
    names = {field: "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in field) for field in domain.key}
    return {("key" if field == "entryKey" else names[field]): value for field, value in zip(domain.key, key, strict=True)}


def check(model: Model, *, everything: bool) -> tuple[list[str], int, int]:
    """Return what is wrong, and how many records of the interrupted step are in their old and in their new state.

    Lists that only grow are checked from the end unless ``everything`` is set.
    """
    after = model.step(model.done + 1)
    coming = {(after.domain.name, key): None if after.removes else after.number for key in after.keys}
    wrong: list[str] = []
    old = new = 0
    for domain in model.domains:
        keys = [key for name, key in {**model.values, **coming} if name == domain.name]
        stored = _read(domain, keys, everything=everything)
        for key, value in stored.items():
            slot = (domain.name, key)
            before = model.value(domain, key, model.values.get(slot))
            if value == before:
                old += slot in coming and (slot not in model.values or before != model.value(domain, key, coming[slot]))
            elif slot in coming and value == model.value(domain, key, coming[slot]):
                new += 1
            else:
                wrong.append(f"{domain.name} {key}: {value!r:.300} is there, acknowledged was {before!r:.300}")
    return wrong, old, new


def check_versions(model: Model) -> list[str]:
    """Return what is wrong with the versions of records, each as of the step that wrote it; for stores with versions of all domains."""
    wrong = []
    for number in range(1, model.done + 1):
        domain, key, removes = model.step(number).domain, model.step(number).keys[0], model.step(number).removes
        value = _read(domain, [key], everything=True, when=NOW + number * MINUTE)[key]
        if value != model.value(domain, key, None if removes else number):
            wrong.append(f"{domain.name} {key}: as of step {number}, {value!r:.300} is there")
    return wrong


def _read(domain: Domain, keys: list[Key], *, everything: bool, when: int = LATER) -> dict[Key, Any]:
    """Return what is stored under ``keys``, and the other rows of a list, as seen at a simulation time."""
    adapter = adapter_of(domain)
    call = next(call for call in domain.calls if call.operation in ("read", "rows", "candles"))
    method = getattr(adapter, call.name)
    if call.operation == "rows":
        context = [True] if domain.context else []
        limit = None if everything or domain.name != "log" else 30
        rows = {(*context, row["id"]): row for row in method(*context, limit=limit)}
        return dict.fromkeys(keys if limit is None else keys[-20:]) | rows
    if call.operation == "candles":
        collected = {}
        for key in keys if everything else keys[-4 * WINDOW :]:
            window = method("S", "1m", "e", 1, key[-1], key[-1] + MINUTE)
            collected[key] = None if window is None else window[0]
        return collected
    with kit.simulated_time(when):
        return {key: method(*({**_arguments(domain, key), "when": when}[name] for name in call.arguments)) for key in keys}


class Outcome(NamedTuple):
    """The result of a writer: its acknowledged steps, and how many records of its predecessor's interrupted step were old and new."""

    steps: int
    old: int
    new: int


class Crashes:
    """A run with writers that are killed. ``setup``: settings for ``kit.setup`` that fit in JSON; ``names``: domain names."""

    def __init__(self, setup: dict[str, Any], names: Iterable[str], seed: int) -> None:
        self.model = Model(names, seed)
        self.random = random.Random(seed)
        self.kills = 0
        self.outcomes: list[Outcome] = []
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout.fileno()
        self._rest = b""
        self._tell({"setup": setup, "names": [domain.name for domain in self.model.domains], "seed": seed})

    def __enter__(self) -> Crashes:
        return self

    def __exit__(self, *exception: object) -> None:
        self._input.close()
        self._process.wait(SILENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _tell(self, message: dict[str, Any]) -> None:
        self._input.write(json.dumps(message).encode() + b"\n")
        self._input.flush()

    def _line(self, timeout: float = SILENCE) -> str | None:
        """Return the next line of the writer, or of its parent when the writer is dead; None if none comes in time."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._output], [], [], left)[0]:
                return None
            more = os.read(self._output, 1 << 16)
            assert more, "the process that forks has died"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def crash(self, before: Callable[[], None] | None = None) -> None:
        """Start a writer and kill it after a random time or a random step, reported or not; ``before`` is called just before the kill."""
        steps = self.random.choice((None, self.random.randint(1, 25)))
        wait = self.random.uniform(0, 0.08 if steps is None else 0.003)
        untold = 0
        if self.kills % 10 == 9:
            untold = self.random.randint(1, 25)
            steps, wait = untold, 0.0  # the last one is never reported
        self._tell({"done": self.model.done, "everything": False, "untold": untold})
        pid = os.pidfd_open(int(self._must().removeprefix("pid ")))
        try:
            self._take(steps, wait)
            if before is not None:
                before()
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pid, signal.SIGKILL)
        finally:
            os.close(pid)
        status = self._take()
        assert status == -signal.SIGKILL or before is not None, f"the writer ended by itself: {status}"
        self.kills += 1

    def check(self) -> None:
        """Check everything with a last reader in its own process."""
        self._tell({"done": self.model.done, "everything": True})
        self._must()
        assert self._take() == 0

    def _must(self) -> str:
        line = self._line()
        assert line is not None, f"nothing was heard from the writer for {SILENCE} s"
        return line

    def _take(self, steps: int | None = None, wait: float | None = None) -> int:
        """Listen until the writer is dead, or for ``wait`` seconds after ``steps`` steps or from now; return its exit code."""
        deadline = None if wait is None or steps is not None else time.monotonic() + wait
        while True:
            line = self._must() if deadline is None else self._line(deadline - time.monotonic())
            if line is None:
                return 0
            word, _, rest = line.partition(" ")
            if word == "step":
                self.model.advance(int(rest))
                self.outcomes[-1] = self.outcomes[-1]._replace(steps=self.outcomes[-1].steps + 1)
                if steps is not None and deadline is None:
                    steps -= 1
                    if steps == 0:
                        assert wait is not None
                        deadline = time.monotonic() + wait
            elif word == "written":
                return 0
            elif word == "found":
                self.outcomes.append(Outcome(0, *map(int, rest.split())))
            elif word == "end":
                if wait is not None:
                    self._rest = f"{line}\n".encode() + self._rest
                    return 0
                return int(rest)
            elif word != "gone":  # a server was killed before
                raise AssertionError(f"after {self.kills} kills, {self.model.done} steps: {line}")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def _writer(setup: dict[str, Any], model: Model, *, everything: bool, untold: int = 0) -> None:
    _say(f"pid {os.getpid()}")
    kit.setup(setup)
    try:
        wrong, old, new = check(model, everything=everything)
        if wrong:
            _say(f"wrong {wrong}")
            return
        _say(f"found {old} {new}")
        number = model.done
        while not everything:
            number += 1
            do(model, number)
            if number - model.done == untold:
                _say("written")
                signal.pause()
            _say(f"step {number}")
    except kit.ServerUnavailableError as error:
        _say(f"gone {error}".replace("\n", " "))


def _fork_writers() -> None:
    setup: dict[str, Any] | None = None
    for line in sys.stdin:
        message = json.loads(line)
        if setup is None:
            setup, model = message["setup"], Model(message["names"], message["seed"])
            continue
        model.advance(message["done"])
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _writer(setup, model, everything=message["everything"], untold=message.get("untold", 0))
                status = 0
            except BaseException as error:  # noqa: BLE001 - everything is reported
                _say(f"error {error!r}".replace("\n", " "))
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        _say(f"end {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    _fork_writers()
