"""Decides what a DTC connection asks of its surroundings, so that it can be tested without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from minhos_mesh.dtc.client_session import Permissions
from minhos_mesh.dtc.depth_updates import BookUpdate
from minhos_mesh.dtc.market_updates import MarketUpdate
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.order_state import TrackedOrder, VenueUpdate
from minhos_mesh.dtc.reports import BalanceReport, FillReport, PositionReport
from minhos_mesh.sierra_client.dtc_status import DtcStatus


class NotReady(Exception):
    """Expected: nothing can be sent now; the text says why and the order was not sent."""


class Journal(Protocol):
    """Where orders are written down before they are sent, and before anything is told of them."""

    async def save(self, orders: Sequence[TrackedOrder]) -> None:
        """Writes orders as they stand, all or none; they are on disk when this returns."""


class Watcher(Protocol):
    """Who hears what happens."""

    def accepts(self, permissions: Permissions, account: str) -> str:
        """Why orders must not be compared with what this server lists for this account, for people; empty when they may."""

    def on_settled(
        self,
        permissions: Permissions,
        account: str,
        positions: Sequence[PositionReport],
        balance: BalanceReport | None,
    ) -> None:
        """Orders were compared with what the server lists, and these are the positions of the same list."""

    def on_booked(self, fill: FillReport) -> None:
        """An execution of an order of ours was booked, and is not written down yet; in the order of the server's words."""

    def on_update(self, update: VenueUpdate) -> None:
        """An order of ours changed; it is written down."""

    def on_status(self, status: DtcStatus) -> None:
        """The connection is doing something else."""

    def on_market(self, update: MarketUpdate | BookUpdate) -> None:
        """A trade, a quote or the order book of a symbol that was asked for."""

    def on_message(self, message: Message) -> None:
        """A message that is about no order of ours and no market: positions, balances, texts."""
