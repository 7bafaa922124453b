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

__all__ = ["make_order", "submit"]

_NAMESPACE: Final = uuid.UUID("0a4cf6a4-5d5b-5b0c-9d0b-0c8f1b4a7e52")


def make_order(context: RunContext, action: Literal["open", "close"], position: Position, price: float) -> Order:
    """Return the order that opens or closes ``position`` near ``price``. A repeated order has the same ``client_id``."""
    return Order(
        client_id=uuid.uuid5(_NAMESPACE, f"{position.id} {action}").hex,
        signal_id=position.id,
        strategy_name=context.strategy_name,
        exchange_name=context.exchange_name,
        symbol=context.symbol,
        action=action,
        position=position.signal.side,
        quantity=position.quantity or context.costs.stake_usd / position.price_open,
        price=price,
    )


def submit(broker: Broker, order: Order) -> Fill | BaseException:
    """Return the fill of ``order``, or the error. OrderRejected is final; after any other error the order may exist."""
    try:
        fill = broker.submit(order)
        # Convert other number types (Decimal, NumPy): they cannot be stored, and it is too late to reject them once the order is filled.
        fill = Fill(order_id=str(fill.order_id), price=float(fill.price), quantity=float(fill.quantity), when_ms=int(fill.when_ms))
        if not all(math.isfinite(number) and number > 0 for number in (fill.price, fill.quantity)):
            return InvalidValueError(f"the broker reported a fill of {fill.quantity} at {fill.price}; both must be finite numbers above 0")
    except USER_ERRORS as error:  # whatever a broker raises, the run decides whether to submit the order again
        return error
    return fill
