"""Decides how many contracts may be taken so that reaching the stop costs no more than is to be risked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

from minhos_mesh.matching import Side
from minhos_mesh.risk_manager.domain.daily import bounded_e9
from minhos_mesh.risk_manager.domain.errors import InvalidField
from minhos_mesh.risk_manager.domain.limits import RiskLimits
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.money import check_scale, check_tick, format_e9


class SizeBound(IntEnum):
    """What keeps a position from being larger; numbers are those of the contract."""

    RISK_AMOUNT = 1
    ORDER_QUANTITY = 2
    POSITION = 3
    EXPOSURE = 4


@dataclass(frozen=True, slots=True)
class Size:
    """Contracts, the loss of one of them at the stop in 1e-9 units, and what kept it from being more."""

    quantity: int
    loss_per_contract_e9: int
    bounded_by: SizeBound
    message: str


def position_size(
    spec: InstrumentSpec,
    limits: RiskLimits,
    *,
    entry_e9: int,
    stop_e9: int,
    risk_e9: int,
    confidence: float | None = None,
    held: int = 0,
) -> Size:
    """Return the size; `held` are contracts held, negative when short: those of the other side leave more room.

    A stop below the entry is that of a buy, one above it that of a sell. Raises InvalidField when the stop is at the
    entry, and MoneyError when a price is off the tick or the scale.
    """
    for field, price_e9 in (("entry_price_e9", entry_e9), ("stop_price_e9", stop_e9)):
        check_scale(price_e9, field=field, tick_e9=spec.tick_e9)
        check_tick(price_e9, spec.tick_e9, field=field)
    if entry_e9 == stop_e9:
        raise InvalidField("stop_price_e9", format_e9(stop_e9), "another price than the entry's")
    side = Side.BUY if stop_e9 < entry_e9 else Side.SELL
    loss_e9 = abs(entry_e9 - stop_e9) * spec.multiplier
    amount_e9 = int(risk_e9 * Fraction(confidence)) if confidence is not None else risk_e9
    room = max(limits.max_position - int(side) * held, 0)
    exposed = limits.max_exposure_e9 // (entry_e9 * spec.multiplier)
    amount = f"{format_e9(amount_e9)} {spec.currency} to risk, {format_e9(loss_e9)} per contract"
    bounds = (
        (amount_e9 // loss_e9, SizeBound.RISK_AMOUNT, amount),
        (limits.max_order_quantity, SizeBound.ORDER_QUANTITY, f"max_order_quantity {limits.max_order_quantity}"),
        (room, SizeBound.POSITION, f"max_position {limits.max_position}: a {side.name} with {held} held"),
        (exposed, SizeBound.EXPOSURE, f"max_exposure {format_e9(limits.max_exposure_e9)} {spec.currency}"),
    )
    quantity, bound, why = min(bounds, key=lambda entry: entry[0])
    return Size(quantity, bounded_e9(loss_e9), bound, f"bounded by {why}")
