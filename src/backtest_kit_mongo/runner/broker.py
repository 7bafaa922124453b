"""Brokers: what sends the orders of a live run to where they are filled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from ..errors import BacktestKitError, InvalidTypeError
from .named import Named, calling_place
from .strategy import check_name

__all__ = [
    "Broker",
    "Fill",
    "Order",
    "OrderRejected",
    "RegisteredBroker",
    "add_broker",
    "clear_brokers",
    "find_broker",
    "list_brokers",
    "restore_brokers",
]


class OrderRejected(BacktestKitError, RuntimeError):
    """The order was refused for good: none of its client id exists, and none will."""


class Order(msgspec.Struct, frozen=True):
    """A market order. ``client_id`` names the step of the run it belongs to: the same step, also after a crash, has the same one."""

    client_id: str
    signal_id: str
    strategy_name: str
    exchange_name: str
    symbol: str
    action: Literal["open", "close"]
    position: Literal["long", "short"]
    quantity: float
    """In the base asset; of a close what the open has filled."""
    price: float
    """For reference: what the market stood at when the run decided."""
    percent: float = 100.0


class Fill(msgspec.Struct, frozen=True):
    """What became of an order: the average ``price``, the ``quantity`` in the base asset, and the time (ms)."""

    order_id: str
    price: float
    quantity: float
    when_ms: int


class Broker(Protocol):
    """Whoever fills orders."""

    def submit(self, order: Order) -> Fill:
        """Fill the order, once for each ``client_id``: where an order of that id exists already, its fill is the answer.

        OrderRejected is final. After any other exception the outcome is unknown, and the run asks again with the same ``client_id``.
        """


class RegisteredBroker(msgspec.Struct, frozen=True):
    """A broker under its name; ``place`` is ``file:line`` of its registration."""

    name: str
    broker: Broker
    file: str
    place: str


_brokers: Named[RegisteredBroker] = Named("broker", "add_broker")


def add_broker(name: str, broker: Broker) -> Broker:
    """Register ``broker``, an object with ``submit(order) -> Fill``, and give it back."""
    file, place = calling_place()
    check_name("the name of a broker", name)
    if not callable(getattr(broker, "submit", None)):
        raise InvalidTypeError(f"broker {name!r} must have a method submit(order), but {type(broker).__name__} has none")
    _brokers.add(RegisteredBroker(name=name, broker=broker, file=file, place=place))
    return broker


def list_brokers() -> tuple[RegisteredBroker, ...]:
    """All registered brokers, in the order of their registration."""
    return _brokers.list()


def find_broker(name: str | None = None) -> Broker:
    """The broker of that name, or the only one for None; InvalidValueError, with the names that there are, otherwise."""
    return _brokers.find(name).broker


def clear_brokers() -> None:
    """Forget all registered brokers."""
    _brokers.restore(())


def restore_brokers(brokers: Iterable[RegisteredBroker]) -> None:
    """Make ``brokers`` the registered ones."""
    _brokers.restore(brokers)
