"""Decides whether the engine may trade at a venue: what is open at another one is not there, and must not be looked for there."""

from __future__ import annotations

from collections.abc import Iterable

from minhos_mesh.trading_engine.domain.orders import Order
from minhos_mesh.trading_engine.domain.positions import Position
from minhos_mesh.trading_engine.domain.told import named


def stranded(home: str, venue: str, orders: Iterable[Order], positions: Iterable[Position]) -> str:
    """What is open at the venue `home` while the engine is to trade at `venue`, and what to do; empty when nothing is.

    An empty `home` means that no venue was noted yet.
    """
    working = [order for order in orders if order.state.is_working]
    held = [position for position in positions if position.quantity]
    if home in {"", venue} or not (working or held):
        return ""
    positions_told = [f"{each.quantity:+d} {each.symbol}" for each in sorted(held, key=lambda each: each.symbol)]
    parts = [f"the orders {named(working)}"] if working else []
    parts += [f"the positions {', '.join(positions_told)}"] if held else []
    return (
        f"open at {home}: {' and '.join(parts)}. The configuration names {venue}, so nothing is sent or compared:"
        f' set [engine] venue = "{home}" and end them there, or take another data folder for {venue}'
    )
