"""Decides what is said of the venue as a whole: who is behind the connection, what is held there, and what may be traded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from minhos_mesh.dtc.client_session import Permissions
from minhos_mesh.runtime.instruments import InstrumentSpec

_SIERRA: Final = "Sierra Chart"
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
    name: str
    """What the server calls itself."""
    address: str
    """Where it is, `host:port`."""

    @property
    def identity(self) -> str:
        """What is kept beside the orders, to tell in every life of them that it is still the same."""
        return json.dumps(
            {"account": self.account, "simulator": self.simulated, "name": self.name, "address": self.address}
        )

    @property
    def is_local(self) -> bool:
        """Whether the account exists in that one program alone, so that another of its name is another account."""
        return not self.simulated and self.account.startswith("Sim")


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
    formerly: str = ""
    """Address at which the same server was before it had this one; empty when it was always here."""


def server_of(permissions: Permissions, account: str, address: str, *, account_is_simulated: bool) -> Server:
    """Who a server is. An account counts as real unless the server is a simulator, or the account is declared and named as one."""
    declared = account_is_simulated and account.startswith("Sim")
    return Server(
        account=account,
        simulated=permissions.simulated,
        live=not permissions.simulated and not declared,
        name=permissions.server_name,
        address=address,
    )


def other_server(kept: str, now: Server, formerly: str, open_there: str) -> str:
    """Why a server is not the one whose identity was kept, with what to do; empty when it is.

    The numbers in a server's name may change, they are its version. `open_there` is what is open at the one that was kept.
    """
    known = json.loads(kept)
    same = (known["account"], known["simulator"]) == (now.account, now.simulated)
    same = same and _program(known.get("name", now.name)) == _program(now.name)
    moved = now.is_local and known.get("address", now.address) not in {now.address, formerly}
    if same and not moved:
        return ""
    way = (
        f'; if it is the same Sierra Chart at another address, set dtc.formerly = "{known["address"]}"' if same else ""
    )
    return (
        f"the orders on disk are at {told(kept)}{f', with {open_there}' if open_there else ''}, and what answers is"
        f" {told(now.identity)}: nothing is compared or sent. Put the former one back in [dtc] to go on with these orders, or"
        f" keep both apart: `minhos down`, then `minhos up --data-dir ANOTHER_FOLDER` for the new one{way}"
    )


def told(identity: str) -> str:
    """An identity in words."""
    values = json.loads(identity)
    name = values.get("name", _SIERRA)
    if values["simulator"] or _program(name) == _program(_SIERRA):
        name = "the simulator" if values["simulator"] else _SIERRA
    where = f", at {values['address']}" if "address" in values else ""
    return f"{name or 'a server without a name'}, account {values['account']!r}{where}"


def _program(name: str) -> str:
    """The name of a server without its version."""
    return "".join(letter for letter in name.lower() if letter.isalpha())
