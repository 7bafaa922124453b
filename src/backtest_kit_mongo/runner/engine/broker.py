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
    """A broker rejected an order for good: no such order exists. Raise it in ``Broker.submit``; the run drops the order."""


class OrderFailedError(BacktestKitError, RuntimeError):
    """An order got no clear answer in the allowed number of attempts. The run ends, and a person has to check the exchange."""


class Order(msgspec.Struct, frozen=True):
    """An order for a broker."""

    client_id: str
    """32 hexadecimal digits derived from the signal and the action: a repeated order has the same id, even after a crash."""
    signal_id: str
    """The id of the signal."""
    strategy_name: str
    """The strategy of the run."""
    exchange_name: str
    """The exchange of the run."""
    symbol: str
    """The traded pair."""
    action: Literal["open", "close"]
    """"open" for the first and every further entry, "close" for a close of a part or of what is left."""
    position: Side
    """"long" or "short"."""
    quantity: float
    """How much of the base asset to buy or sell: for a close, that of the part, or what is left of what was filled."""
    price: float
    """The reference price, in the quote currency."""
    percent: float = 100.0
    """Always 100."""


class Fill(msgspec.Struct, frozen=True):
    """How an order was filled."""

    order_id: str
    """The id of the order at the exchange."""
    price: float
    """The average price, in the quote currency."""
    quantity: float
    """How much of the base asset was filled; for an "open", what can be sold again. It may be less than that of the order: the position
    has, or closes, just that.
    """
    when_ms: int
    """When it was filled, in ms."""
    cost: float | None = None
    """What was paid for it, in the quote asset; None is ``price * quantity``. Give it if a fee was kept from ``quantity``."""


class Broker(Protocol):
    """Carries out the orders of a live run. Any object with this method is a broker; see ``add_broker``."""

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
    """Register a broker, and return it.

    Args:
        name: the name that ``Live.run`` selects it by
        broker: an object with ``submit(order) -> Fill``, see ``Broker``

    Raises:
        InvalidTypeError: an argument has the wrong type, or ``broker`` has no ``submit``
        InvalidValueError: the name is empty, or registered already

    Examples:
        >>> from backtest_kit_mongo.runner import Fill, add_broker
        >>> class Desk:
        ...     def submit(self, order):
        ...         return Fill(order_id=order.client_id, price=order.price, quantity=order.quantity, when_ms=1704067200000)
        >>> desk = add_broker("desk", Desk())
    """
    name = check_name("the name of a broker", name)
    if not callable(getattr(broker, "submit", None)):
        raise InvalidTypeError(f"broker {name!r} must have a method submit(order), got {type(broker).__name__}")
    _brokers.add(RegisteredBroker(name=name, broker=broker, **call_site()._asdict()))
    return broker


def find_broker(name: str | None = None) -> Broker:
    """Return a registered broker.

    Args:
        name: its name; None is the only one

    Raises:
        InvalidValueError: there is no such broker, or not exactly one; the message lists the names

    Examples:
        >>> from backtest_kit_mongo.runner import find_broker
        >>> find_broker("desk")
        Traceback (most recent call last):
        backtest_kit_mongo.errors.InvalidValueError: ...
    """
    return _brokers.find(name).broker


def list_brokers() -> tuple[RegisteredBroker, ...]:
    """Return all registered brokers, in order of registration.

    Examples:
        >>> from backtest_kit_mongo.runner import list_brokers
        >>> list_brokers()
        ()
    """
    return _brokers.list()


def clear_brokers() -> None:
    """Remove all registered brokers.

    Examples:
        >>> from backtest_kit_mongo.runner import clear_brokers
        >>> clear_brokers()
    """
    _brokers.restore(())


def restore_brokers(brokers: Iterable[RegisteredBroker]) -> None:
    """Replace the registered brokers with ``brokers``."""
    _brokers.restore(brokers)
