"""Orders: what a live run asks of a broker, and the broker of a paper run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeVar

import msgspec

from ...errors import BacktestKitError, InvalidTypeError
from ..registrations import Registered, Registrations, call_site, check_name
from .cost_basis import Side

__all__ = [
    "Broker", "Fill", "Order", "OrderFailedError", "OrderRejected", "PaperBroker", "RegisteredBroker", "add_broker",
    "clear_brokers", "find_broker", "list_brokers", "restore_brokers",
]  # fmt: skip


class OrderRejected(BacktestKitError, RuntimeError):
    """A broker rejected an order for good: no such order exists."""


class OrderFailedError(BacktestKitError, RuntimeError):
    """An order got no clear answer in the allowed number of attempts. The run ends, and a person has to check the exchange."""


class Order(msgspec.Struct, frozen=True):
    """An order for a broker. ``quantity`` is in the base asset; a close has the quantity that is left of what was filled.

    ``action`` "open" also adds a further entry, and "close" also closes a part: ``quantity`` is then that of the part. ``price`` is the
    reference price. ``client_id`` (32 hexadecimal digits) is derived from the signal and the action, so a repeated order has the same
    id, even after a crash. ``percent`` is always 100.
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
    """How an order was filled: average price, quantity in the base asset, time in ms.

    ``quantity`` may be less than that of the order: the position has, or closes, just that. For an "open" it is what can be sold again.
    ``cost`` is what was paid for it, in the quote asset; by default ``price * quantity``. Give it if a fee was kept from ``quantity``.
    """

    order_id: str
    price: float
    quantity: float
    when_ms: int
    cost: float | None = None


class Broker(Protocol):
    """Carries out the orders of a live run."""

    def submit(self, order: Order) -> Fill:
        """Fill ``order`` once: if an order with its ``client_id`` already exists, look it up instead of sending another one.

        Fill a close completely before returning; if a part is left, send that part again, as CcxtBroker does. What a fill leaves of
        the last close of a position is reported as unsold.

        Raise OrderRejected if no such order exists and none will. After any other exception the order may exist, and the run submits
        the same order again at a later tick.
        """
        ...


class PaperBroker:
    """Fills every order at its own price, however often it is submitted."""

    def submit(self, order: Order) -> Fill:
        """Return a fill with the price and quantity of ``order``."""
        return Fill(order_id=order.client_id, price=order.price, quantity=order.quantity, when_ms=0)


class RegisteredBroker(Registered, frozen=True, kw_only=True):
    """A registered broker."""

    broker: Broker


B = TypeVar("B", bound=Broker)
_brokers: Registrations[RegisteredBroker] = Registrations("broker", "add_broker")


def add_broker(name: str, broker: B) -> B:
    """Register a broker, an object with ``submit(order) -> Fill`` (see ``Broker``), and return it."""
    name = check_name("the name of a broker", name)
    if not callable(getattr(broker, "submit", None)):
        raise InvalidTypeError(f"broker {name!r} must have a method submit(order), got {type(broker).__name__}")
    _brokers.add(RegisteredBroker(name=name, broker=broker, **call_site()._asdict()))
    return broker


def find_broker(name: str | None = None) -> Broker:
    """Return the broker with that name, or the only one if None. Raises InvalidValueError, listing the names, otherwise."""
    return _brokers.find(name).broker


def list_brokers() -> tuple[RegisteredBroker, ...]:
    """Return all registered brokers, in registration order."""
    return _brokers.list()


def clear_brokers() -> None:
    """Remove all registered brokers."""
    _brokers.restore(())


def restore_brokers(brokers: Iterable[RegisteredBroker]) -> None:
    """Replace the registered brokers with ``brokers``."""
    _brokers.restore(brokers)
