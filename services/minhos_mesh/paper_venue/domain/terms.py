"""Decides whether the terms of an order can be taken at all: form, scale and tick."""

from __future__ import annotations

from minhos_mesh.matching import check_order
from minhos_mesh.paper_venue.domain.errors import InvalidField
from minhos_mesh.paper_venue.domain.orders import Terms
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.money import check_scale, check_tick


def check_terms(terms: Terms, spec: InstrumentSpec, reference_e9: int | None) -> None:
    """Raise MoneyError for a price off the scale or the tick, InvalidField for whatever else is wrong with the form."""
    for field, price_e9 in (("limit_price_e9", terms.limit_price_e9), ("stop_price_e9", terms.stop_price_e9)):
        if price_e9 is not None:
            check_scale(price_e9, field=f"terms.{field}", tick_e9=spec.tick_e9, reference_e9=reference_e9)
            check_tick(price_e9, spec.tick_e9, field=f"terms.{field}")
    for violation in check_order(terms.as_order("order", 0), spec.tick_e9):
        raise InvalidField(f"terms.{violation.field}", violation.seen, violation.allowed)
