"""Decides whether the terms of an order can be taken at all: form, scale and tick."""

from __future__ import annotations

from minhos_mesh.matching import check_order
from minhos_mesh.paper_venue.domain.errors import InvalidField
from minhos_mesh.paper_venue.domain.orders import Terms
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.money import E9, check_scale, check_tick, format_e9

LARGEST_QUANTITY = 10_000
LARGEST_PRICE_E9 = 1_000_000 * E9


def check_terms(terms: Terms, spec: InstrumentSpec, reference_e9: int | None, path: str = "terms.") -> None:
    """Raise MoneyError for a price off the scale or the tick, InvalidField for whatever else is wrong with the form.

    `path` is where the fields stand in the request.
    """
    if not 1 <= terms.quantity <= LARGEST_QUANTITY:
        raise InvalidField(f"{path}quantity", str(terms.quantity), f"1 to {LARGEST_QUANTITY} contracts")
    for field, price_e9 in (("limit_price_e9", terms.limit_price_e9), ("stop_price_e9", terms.stop_price_e9)):
        if price_e9 is not None:
            if price_e9 <= 0:
                raise InvalidField(f"{path}{field}", format_e9(price_e9), "a price above 0")
            check_scale(price_e9, field=f"{path}{field}", tick_e9=spec.tick_e9, reference_e9=reference_e9)
            check_tick(price_e9, spec.tick_e9, field=f"{path}{field}")
            if price_e9 > LARGEST_PRICE_E9:
                raise InvalidField(f"{path}{field}", format_e9(price_e9), f"at most {format_e9(LARGEST_PRICE_E9)}")
    for violation in check_order(terms.as_order("order", 0), spec.tick_e9):
        raise InvalidField(f"{path}{violation.field}", violation.seen, violation.allowed)
