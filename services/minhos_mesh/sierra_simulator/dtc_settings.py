"""Decides what the simulator's DTC server may be told: where it listens, what it grants, and how it misbehaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.matching import MatchingRules
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS, InstrumentSpec
from minhos_mesh.runtime.money import E9

MAX_QUOTE_AGE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DtcServerSettings:
    """What is served; nothing but loopback is listened on."""

    port: int = 0
    """Port on 127.0.0.1; 0 takes a free one."""
    session: ServerSettings = field(default_factory=ServerSettings)
    accounts: tuple[str, ...] = ("Sim1",)
    cash_e9: int = 100_000 * E9
    """Cash with which every account begins."""
    refused_exchanges: frozenset[str] = frozenset()
    """Exchanges whose data is refused, as the real server refuses that of CME; orders are taken all the same."""
    price_multiplier: Fraction = Fraction(1)
    """DisplayPriceMultiplier; another than 1 makes the prices of fills come unscaled, as some services send them."""
    new_id_on_replace: bool = True
    """Whether a changed order gets another ServerOrderID."""
    rules: MatchingRules = field(default_factory=lambda: MatchingRules(max_quote_age_ns=MAX_QUOTE_AGE_NS))
    instruments: Mapping[str, InstrumentSpec] = field(default_factory=lambda: DEFAULT_INSTRUMENTS)
