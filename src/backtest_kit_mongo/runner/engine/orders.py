"""Orders of a run: build them, submit them to a broker and check its answer."""

from __future__ import annotations

import math
import uuid
from typing import Final, Literal

from ...errors import InvalidValueError
from ..error_text import USER_ERRORS
from .broker import Broker, Fill, Order
from .position import Position
from .rows import RunContext

__all__ = ["cost_of", "make_order", "submit"]

_NAMESPACE: Final = uuid.UUID("0a4cf6a4-5d5b-5b0c-9d0b-0c8f1b4a7e52")


def make_order(
    context: RunContext,
    action: Literal["open", "close"],
    position: Position,
    price: float,
    quantity: float,
    change_id: str | None = None,
) -> Order:
    """Return the order that opens or closes ``quantity`` (base asset) of ``position`` near ``price``.

    ``change_id`` is the id of the change that it carries out, None if it opens or closes the position. A repeated order has the same
    ``client_id``.
    """
    return Order(
        client_id=uuid.uuid5(_NAMESPACE, f"{position.id} {action}" if change_id is None else change_id).hex,
        signal_id=position.id,
        strategy_name=context.strategy_name,
        exchange_name=context.exchange_name,
        symbol=context.symbol,
        action=action,
        position=position.signal.side,
        quantity=quantity,
        price=price,
    )


def cost_of(fill: Fill, asked: float) -> float:
    """Return what ``fill`` cost in USD: exactly what was ``asked`` for, if only rounding makes it differ."""
    cost = fill.price * fill.quantity if fill.cost is None else fill.cost
    return asked if math.isclose(cost, asked, rel_tol=1e-12) else cost


def submit(broker: Broker, order: Order) -> Fill | BaseException:
    """Return the fill of ``order``, or the error. OrderRejected is final; after any other error the order may exist."""
    try:
        fill = broker.submit(order)
        # Convert other number types (Decimal, NumPy): they cannot be stored, and it is too late to reject them once the order is filled.
        cost = None if fill.cost is None else float(fill.cost)
        fill = Fill(str(fill.order_id), price=float(fill.price), quantity=float(fill.quantity), when_ms=int(fill.when_ms), cost=cost)
        if not all(math.isfinite(number) and number > 0 for number in (fill.price, fill.quantity)):
            return InvalidValueError(f"the broker reported a fill of {fill.quantity} at {fill.price}; both must be finite numbers above 0")
        if cost is not None and not (math.isfinite(cost) and cost > 0):
            return InvalidValueError(f"the broker reported a fill that cost {cost}; it must be a finite number above 0")
    except USER_ERRORS as error:  # whatever a broker raises, the run decides whether to submit the order again
        return error
    return fill
