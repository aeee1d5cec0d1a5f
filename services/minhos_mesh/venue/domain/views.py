"""Decides what a venue tells of its orders, positions and account, however it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from minhos_mesh.matching import Position
from minhos_mesh.venue.domain.orders import FillRecord, OrderReason, OrderState, Terms


class OrderView(Protocol):
    """An order as a venue has it; prices in 1e-9 units."""

    @property
    def client_order_id(self) -> str:
        """Id that the client gave."""
        ...

    @property
    def venue_order_id(self) -> str:
        """Id that the venue gave."""
        ...

    @property
    def terms(self) -> Terms:
        """What it asks for now."""
        ...

    @property
    def state(self) -> OrderState:
        """Where it stands."""
        ...

    @property
    def why(self) -> tuple[OrderReason, str]:
        """Why it ended, for programs, and why it ended or is UNKNOWN, for people."""
        ...

    @property
    def reduce_only(self) -> bool:
        """Whether it may only reduce a position."""
        ...

    @property
    def unanswered(self) -> bool:
        """Whether it was sent on and nobody has answered."""
        ...

    @property
    def dispute(self) -> str:
        """What a person has settled and what the venue heard of it later, where these differ; empty otherwise."""
        ...

    @property
    def filled_quantity(self) -> int:
        """Contracts filled."""
        ...

    @property
    def average_price_e9(self) -> int | None:
        """Average fill price, rounded half to even; None when nothing is filled."""
        ...

    @property
    def create_ns(self) -> int:
        """When the venue took it."""
        ...

    @property
    def update_ns(self) -> int:
        """When it last changed."""
        ...

    @property
    def revision(self) -> int:
        """Revision of its last change."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressRecord:
    """How far a venue has gone in the market of a symbol, in a replay."""

    symbol: str
    epoch: int
    through_sequence: int
    revision: int


Update: TypeAlias = tuple[OrderView, ...] | OrderView | FillRecord | ProgressRecord | None
"""What watchers are told: all working orders, one change, or nothing but that the venue lives."""


@dataclass(frozen=True, slots=True)
class HeldPosition:
    """What fills make of a position, with when and how often they changed it."""

    position: Position
    update_ns: int
    fills: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionView:
    """A position; what fills know of it stands beside what the venue tells."""

    symbol: str
    quantity: int
    cost_e9: int
    average_price_e9: int | None
    held: HeldPosition | None
    """None for a position that was there before the first fill."""
    multiplier: int
    unrealized_e9: int | None = None
    """Open profit at the last price; None without one, or where the venue tells none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """The account, 1e-9 units of its currency."""

    account_id: str
    currency: str
    cash_e9: int
    equity_e9: int
    commission_e9: int
    live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueStatus:
    """Whether orders are taken, why not, and on what data."""

    venue: str
    accepting: bool
    reason: str
    live: bool
    provenance: Mapping[str, int]
    open_orders: int
