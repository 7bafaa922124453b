"""Signals to a real process: the first one asks it to finish, the second one stops it at once."""

import signal
import threading
import time

import pytest
from prepared import Prepared

from backtest_kit_mongo.errors import InvalidValueError
from backtest_kit_mongo.runner.live.interrupts import stopping

pytestmark = pytest.mark.once

CHILD = """
import logging, sys, threading, time
from backtest_kit_mongo.runner.live.interrupts import stopping

logging.basicConfig(level=logging.INFO)
stop = threading.Event()
try:
    with stopping(stop):
        print("ready", flush=True)
        while not stop.wait(0.001):
            pass
        print("finishing", flush=True)
        {finish}
        print("finished", flush=True)
    print("ended", flush=True)
    {after}
except KeyboardInterrupt:
    print("at once", flush=True)
"""


@pytest.fixture
def child():
    processes = []

    def start(finish="pass", after="pass"):
        process = Prepared("prepared:run_code", [CHILD.format(finish=finish, after=after)])
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ended(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output.split(), errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_it_finish(child, number):
    process = child()
    process.send_signal(number)
    code, output, errors = ended(process)
    assert (code, output) == (0, ["finishing", "finished", "ended"])
    assert errors.count("finishing the minute; press Ctrl+C again to stop at once") == 1


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_the_second_signal_stops_at_once(child, numbers):
    process = child(finish="while True: time.sleep(0.1)")
    process.send_signal(numbers[0])
    assert process.stdout.readline() == "finishing\n"
    begin = time.monotonic()
    process.send_signal(numbers[1])
    code, output, errors = ended(process)
    assert (code, output) == (0, ["at", "once"])
    assert time.monotonic() - begin < 30
    assert "Traceback" not in errors


def test_handlers_come_back(child):
    process = child(after="print('after', flush=True); time.sleep(60)")
    process.send_signal(signal.SIGINT)
    while process.stdout.readline() != "after\n":
        pass
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == -signal.SIGTERM


def test_it_is_for_the_main_thread():
    collected = []

    def work():
        with pytest.raises(InvalidValueError, match="main thread"), stopping(threading.Event()):
            collected.append("inside")
        collected.append("refused")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert collected == ["refused"]


def test_without_a_signal_nothing_is_left():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), threading.active_count()
    stop = threading.Event()
    with stopping(stop):
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), threading.active_count()) == before
    assert not stop.is_set()
