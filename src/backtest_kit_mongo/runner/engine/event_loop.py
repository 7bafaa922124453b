"""The event loop of a run: it awaits the async functions of strategies, while the run itself is synchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import wraps
from typing import Any, Final

from ...logs import log
from ..registrations import is_async

__all__ = ["event_loop", "synchronous"]

Call = Callable[..., Any]


class _EventLoop:
    """An event loop that runs while a coroutine is awaited, one at a time.

    It runs in the thread of the caller. If another loop is running there (that of a notebook, or of a program that calls a backtest from
    a coroutine), it runs in a thread of its own, and the caller waits. A task that a coroutine leaves behind continues during later calls,
    and is cancelled by ``close``.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)  # with a factory, it does not become the loop of the thread
        self._thread: ThreadPoolExecutor | None = None
        self._used = False

    def call(self, function: Callable[..., Coroutine[Any, Any, Any]], arguments: tuple[Any, ...]) -> Any:
        """Return what ``function(*arguments)`` returns when awaited, in a copy of the caller's context."""
        if not self._used:
            if _loop_is_running():
                self._thread = ThreadPoolExecutor(1, "backtest-kit-mongo-strategy")
                # If Ctrl-C interrupts the start of the thread, the executor starts another one later: the first must not be in the loop.
                self._thread.submit(bool).result()
            self._used = True
        context = copy_context()
        awaited: list[asyncio.Task[Any]] = []
        if self._thread is None:
            return self._await(context, function, arguments, awaited)
        try:
            return self._thread.submit(self._await, context, function, arguments, awaited).result()
        except KeyboardInterrupt:  # it reached the waiting thread only, and perhaps before ``submit`` returned
            self._runner.get_loop().call_soon_threadsafe(lambda: [task.cancel() for task in awaited])
            raise

    def close(self) -> None:
        """Cancel what is left, with a warning, and close the loop."""
        if self._thread is None:
            self._close()
            return
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _close(self) -> None:
        left = [] if not self._used else [task for task in asyncio.all_tasks(self._runner.get_loop()) if not task.done()]
        if left:
            log(
                "warning",
                f"{len(left)} tasks of async functions were not awaited and are cancelled with the run; await them in the function",
            )
        self._runner.close()

    def _await(
        self,
        context: Context,
        function: Callable[..., Coroutine[Any, Any, Any]],
        arguments: tuple[Any, ...],
        awaited: list[asyncio.Task[Any]],
    ) -> Any:
        """Await the coroutine; its task is put into ``awaited`` first."""
        loop = self._runner.get_loop()
        task = loop.create_task(context.run(function, *arguments), context=context)
        awaited.append(task)
        try:
            return loop.run_until_complete(task)
        finally:
            # SystemExit and KeyboardInterrupt leave through the loop as well: as far as asyncio knows, nobody has seen them in the task.
            if task.done() and not task.cancelled():
                task.exception()


_current: Final[ContextVar[_EventLoop]] = ContextVar("backtest_kit_mongo_event_loop")


@contextmanager
def event_loop() -> Iterator[None]:
    """Let ``synchronous`` functions run inside the block, all in one loop, which is closed at its end."""
    loop = _EventLoop()
    token = _current.set(loop)
    try:
        yield
    finally:
        _current.reset(token)
        loop.close()


def synchronous(function: Call) -> Call:
    """Return an async function as one that awaits itself in the loop of the run, and any other function unchanged."""
    if not is_async(function):
        return function

    @wraps(function)
    def call(*arguments: Any) -> Any:
        return _current.get().call(function, arguments)

    return call


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
