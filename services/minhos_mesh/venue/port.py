"""Decides what the contract of a venue asks of the venue behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from minhos_mesh.venue.domain.orders import Confirmation, FillRecord, Settlement, Submission
from minhos_mesh.venue.domain.views import AccountView, OrderView, PositionView, Update, VenueStatus


class Venue(Protocol):
    """A venue. Every method may raise what `error_table.ERRORS` knows; what it returns is on disk."""

    async def submit(self, submission: Submission) -> OrderView:
        """Takes an order; one that is known is returned as it stands. Raises RequestConflict for other content."""
        ...

    async def cancel(self, client_order_id: str) -> OrderView:
        """Cancels an order; one that is done is returned as it is."""
        ...

    async def cancel_all(self, symbol: str | None) -> Sequence[OrderView]:
        """Cancels everything that works, of one symbol when given; returns what is cancelled."""
        ...

    async def replace(
        self,
        client_order_id: str,
        request_id: str,
        *,
        quantity: int | None,
        limit_price_e9: int | None,
        stop_price_e9: int | None,
    ) -> OrderView:
        """Changes an order once per request id."""
        ...

    async def settle_unknown(self, settlement: Settlement) -> OrderView:
        """Settles an order that is UNKNOWN by the word of a person, once per request id. Raises OrderDone for others."""
        ...

    async def confirm_settlement(self, confirmation: Confirmation) -> OrderView:
        """Ends the dispute about an order by the word of a person, once per request id. Raises OrderDone without one."""
        ...

    async def order(self, client_order_id: str) -> OrderView:
        """An order by the client's id. Raises OrderUnknown."""
        ...

    async def order_by_venue_id(self, venue_order_id: str) -> OrderView:
        """An order by the venue's own id. Raises OrderUnknown."""
        ...

    async def open_orders(self, symbol: str | None = None) -> tuple[Sequence[OrderView], int]:
        """Orders that work, or of which that is not known, and the revision of this view."""
        ...

    async def fills(
        self, client_order_id: str | None, after_fill_id: str | None, *, limit: int, after: int | None
    ) -> tuple[Sequence[FillRecord], int | None]:
        """A page of fills, behind fill number `after` when given, and the number behind which the next begins."""
        ...

    async def positions(self) -> Sequence[PositionView]:
        """What is held, in alphabetical order of symbol."""
        ...

    async def account(self) -> AccountView:
        """The account."""
        ...

    def watch(self, after: int | None, heartbeat_s: float) -> AsyncIterator[tuple[int, Update]]:
        """(revision, snapshot) first unless a revision is resumed, then (revision, change), or None as a heartbeat."""
        ...

    def status(self) -> VenueStatus:
        """Whether orders are taken."""
        ...
