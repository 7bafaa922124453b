"""Orders: what a live run asks a broker for, and the broker of a paper run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeVar

import msgspec

from ...errors import BacktestKitError, InvalidTypeError
from ..registrations import Registrations, calling_place, check_name
from .position import Side

__all__ = [
    "Broker", "Fill", "Order", "OrderFailedError", "OrderRejected", "PaperBroker", "RegisteredBroker", "add_broker",
    "clear_brokers", "find_broker", "list_brokers", "restore_brokers",
]  # fmt: skip


class OrderRejected(BacktestKitError, RuntimeError):
    """A broker refused an order for good: no such order exists."""


class OrderFailedError(BacktestKitError, RuntimeError):
    """An order was tried as often as allowed without a clear answer; the run ends, and a person has to look at the exchange."""


class Order(msgspec.Struct, frozen=True):
    """What is asked of a broker. ``quantity`` is in the base asset, for a close what the open has filled; ``price`` is the reference.

    ``client_id`` (32 hexadecimal digits) follows from the signal and the action: a repetition, also after a crash, has the same.
    """

    client_id: str
    signal_id: str
    strategy_name: str
    exchange_name: str
    symbol: str
    action: Literal["open", "close"]
    position: Side
    quantity: float
    price: float
    percent: float = 100.0


class Fill(msgspec.Struct, frozen=True):
    """How an order was filled: average price, quantity in the base asset, time in ms."""

    order_id: str
    price: float
    quantity: float
    when_ms: int


class Broker(Protocol):
    """What carries out the orders of a live run."""

    def submit(self, order: Order) -> Fill:
        """Fill ``order``, once: an order that has its ``client_id`` already is looked up, not placed again.

        Of a close everything has to be filled before this returns; what is left is for the broker to send again, as CcxtBroker does.

        OrderRejected says that no such order exists and none will. Any other exception leaves that open, and the same order is
        submitted again at a later tick.
        """
        ...


class PaperBroker:
    """Fills every order at its price, and never at another when it is asked again."""

    def submit(self, order: Order) -> Fill:
        """The order as it is."""
        return Fill(order_id=order.client_id, price=order.price, quantity=order.quantity, when_ms=0)


class RegisteredBroker(msgspec.Struct, frozen=True):
    """A broker under its name; ``place`` is ``file:line`` of its registration."""

    name: str
    broker: Broker
    file: str
    place: str


B = TypeVar("B", bound=Broker)
_brokers: Registrations[RegisteredBroker] = Registrations("broker", "add_broker")


def add_broker(name: str, broker: B) -> B:
    """Register a broker, an object with ``submit(order) -> Fill`` (see ``Broker``), and give it back."""
    check_name("the name of a broker", name)
    if not callable(getattr(broker, "submit", None)):
        raise InvalidTypeError(f"broker {name!r} must have a method submit(order), got {type(broker).__name__}")
    file, place = calling_place()
    _brokers.add(RegisteredBroker(name=name, broker=broker, file=file, place=place))
    return broker


def find_broker(name: str | None = None) -> Broker:
    """The broker of that name, or the only one for None; InvalidValueError, with the names that there are, otherwise."""
    return _brokers.find(name).broker


def list_brokers() -> tuple[RegisteredBroker, ...]:
    """All registered brokers, in the order of their registration."""
    return _brokers.list()


def clear_brokers() -> None:
    """Forget all registered brokers."""
    _brokers.restore(())


def restore_brokers(brokers: Iterable[RegisteredBroker]) -> None:
    """Make ``brokers`` the registered ones."""
    _brokers.restore(brokers)
