"""Decides what a connection to a DTC server must know: where it is, what is traded there, and how patient it is."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.dtc.client_session import ClientSettings
from minhos_mesh.dtc.ledger import ON_THE_WAY_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """Where the server is and what is traded there."""

    host: str = "127.0.0.1"
    port: int = 11099
    session: ClientSettings
    ticks_e9: dict[str, int]
    """Tick by symbol of the server, for what is traded here."""
    market_data: tuple[str, ...] = ()
    """Symbols whose market data is asked for, where the server permits it."""
    depth: bool = False
    """Whether their order books are asked for too."""
    account_is_ours: bool = False
    """True when nobody else trades on the account, by which the fills of an order that was never answered are found."""
    on_the_way_ns: int = ON_THE_WAY_NS
    """How long an order may take to the server, also over a connection that is broken on our side."""
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
