"""Decides the assumptions a book fills by, and what it refuses outright."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.matching.order import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingRules:
    """Assumptions about a market that is only seen from outside; the same rules and input give the same fills."""

    max_quote_age_ns: int
    """A quote older than this fills nothing."""
    slippage_ticks: int = 0
    """Ticks by which whoever takes pays more than the quote, never beyond the order's limit."""
    walk_ticks: int = 0
    """Price levels behind the best one that are assumed to hold the size it shows; 0 lets the rest wait for a new quote."""
    size_when_not_shown: int = 10
    """Contracts assumed at a price whose size the source does not show."""
    commission_per_contract_e9: int = 0
    """Commission of one contract on one side, in 1e-9 of the account's currency."""

    def __post_init__(self) -> None:
        for name, least in (
            ("max_quote_age_ns", 1),
            ("slippage_ticks", 0),
            ("walk_ticks", 0),
            ("size_when_not_shown", 1),
            ("commission_per_contract_e9", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} is {value}; it must be {least} or more")


class OrderInvalid(Exception):
    """Expected: an order, or a replacement, is not well formed; carries every violation."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{v.field} is {v.seen}; allowed is {v.allowed}" for v in violations))


class OrderUnknown(Exception):
    """Expected: no order of that id is, or was, in the book."""

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id
        super().__init__(f"order {order_id!r} is not known")
