"""Decides what a question to the risk manager consists of and what an answer looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from minhos_mesh.venue.domain.orders import Terms


class CheckCode(IntEnum):
    """Names of the checks, in the order in which they are evaluated; numbers are those of the contract."""

    INSTRUMENT = 1
    QUANTITY = 2
    PRICE_TICK = 3
    PRICE_COLLAR = 4
    FRESH_PRICE = 5
    SESSION = 6
    TRADING_ENABLED = 7
    BREAKER = 8
    ORDER_RATE = 9
    DUPLICATE = 10
    POSITION_LIMIT = 11
    OPEN_POSITIONS = 12
    EXPOSURE = 13
    DAILY_LOSS = 14
    DRAWDOWN = 15
    ACCOUNT_VIEW = 16
    PROVENANCE = 17


class Provenance(IntEnum):
    """Where market data comes from; numbers are those of the contract."""

    UNSPECIFIED = 0
    LIVE = 1
    DELAYED = 2
    REPLAY = 3
    SIMULATED = 4

    @property
    def always_open(self) -> bool:
        """Return whether this data knows no closed session."""
        return self in (Provenance.REPLAY, Provenance.SIMULATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is held of one symbol; cost is price times contracts, signed as the quantity."""

    quantity: int = 0
    cost_e9: int = 0
    multiplier: int | None = None
    unrealized_e9: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """An account as its owner sees it; version grows with each fill."""

    positions: Mapping[str, Held] = field(default_factory=dict)
    working_buy: Mapping[str, int] = field(default_factory=dict)
    working_sell: Mapping[str, int] = field(default_factory=dict)
    realized_today_e9: int = 0
    version: int = 0
    working_order_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Prices that a decision was based on, or that are known here; None is not known."""

    event_time_ns: int | None
    last_e9: int | None = None
    bid_e9: int | None = None
    ask_e9: int | None = None
    sequence: int = 0
    epoch: int = 0
    provenance: Provenance = Provenance.UNSPECIFIED

    @property
    def reference_e9(self) -> int | None:
        """Return the price that others are measured by: the last one, else the middle of the quote."""
        if self.last_e9 is not None:
            return self.last_e9
        if self.bid_e9 is not None and self.ask_e9 is not None:
            return (self.bid_e9 + self.ask_e9) // 2
        return self.bid_e9 if self.bid_e9 is not None else self.ask_e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """May this order be sent?"""

    request_id: str
    order_id: str
    terms: Terms
    dry_run: bool
    account: AccountView | None
    evidence: Evidence | None
    decision_time_ns: int | None
    replaces: bool = False
    """Whether the order works already and this is how it would become, with what is filled."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check; observed and limit are decimals with their unit."""

    code: CheckCode
    passed: bool
    observed: str
    limit: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Answer to a question."""

    approved: bool
    checks: tuple[CheckResult, ...]
    approval_id: str
    expire_ns: int | None
    limits_version: int
