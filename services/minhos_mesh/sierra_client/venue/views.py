"""Decides what is said of the venue as a whole: who is behind the connection, what is held there, and what may be traded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from minhos_mesh.dtc.client_session import Permissions
from minhos_mesh.runtime.instruments import InstrumentSpec

VENUE: Final = "sierra"
"""Name of this venue for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Who is behind the connection."""

    account: str
    simulated: bool
    """Whether it has said that it is a simulator."""
    live: bool
    """Whether there may be money behind the account."""

    @property
    def identity(self) -> str:
        """What must be the same in every life of the orders."""
        return json.dumps({"account": self.account, "simulator": self.simulated})


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueSettings:
    """What is traded, and what the configuration declares."""

    specs: Mapping[str, InstrumentSpec]
    """Instruments that may be traded, by canonical symbol."""
    names: Mapping[str, str]
    """The server's own name of each symbol, by canonical symbol."""
    commission_e9: int
    provenance: int
    """What the market data of the mesh is declared to be, as the contract numbers it."""
    account_is_simulated: bool
    account_is_ours: bool


def server_of(permissions: Permissions, account: str, *, account_is_simulated: bool) -> Server:
    """Who a server is. An account counts as real unless the server is a simulator, or the account is declared and named as one."""
    declared = account_is_simulated and account.startswith("Sim")
    return Server(account=account, simulated=permissions.simulated, live=not permissions.simulated and not declared)


def told(identity: str) -> str:
    """An identity in words."""
    values = json.loads(identity)
    return f"{'the simulator' if values['simulator'] else 'Sierra Chart'}, account {values['account']!r}"
