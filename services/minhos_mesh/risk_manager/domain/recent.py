"""Decides how often and how recently orders were let through, for the checks of rate and repetition."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from minhos_mesh.risk_manager.domain.checks import DUPLICATE_WINDOW_NS, RATE_WINDOW_NS
from minhos_mesh.risk_manager.domain.question import Provenance, Question
from minhos_mesh.venue.domain.orders import Terms

KEPT = 200_000
"""Approvals held per stage; more than any limit of orders in a minute."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Which times compare with each other: one replay of one recording, or everything that runs by the wall clock."""

    provenance: Provenance
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An order that was let through."""

    request_id: str
    order_id: str
    terms: Terms
    time_ns: int
    stage: Stage
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Repetition:
    """What came before a question."""

    identical_age_ns: int | None
    """How long ago the same order was let through; None when it was not within the window."""
    order_known: bool
    """True when the order's id was let through under another request id."""
    last_minute: int
    """Orders and replacements let through in the last 60 seconds."""
    smallest: int = 0
    """Smallest quantity that the order of this id was let through with; 0 when it was not."""


@dataclass(slots=True)
class _Line:
    times: list[int] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    requests: dict[str, str] = field(default_factory=dict)
    """Request id of each new order, by order id."""
    smallest: dict[str, int] = field(default_factory=dict)
    """Smallest quantity of each order, by order id."""


class RecentApprovals:
    """The approvals of each stage, by time."""

    def __init__(self) -> None:
        self._lines: dict[Stage, _Line] = {}

    def add(self, approval: Approval) -> None:
        """Remember an approval; the oldest ones are forgotten."""
        line = self._lines.setdefault(approval.stage, _Line())
        at = bisect_right(line.times, approval.time_ns)
        line.times.insert(at, approval.time_ns)
        line.approvals.insert(at, approval)
        if not approval.replaces:
            line.requests[approval.order_id] = approval.request_id
        quantity = approval.terms.quantity
        line.smallest[approval.order_id] = min(line.smallest.get(approval.order_id, quantity), quantity)
        if len(line.times) > KEPT:
            for old in line.approvals[: KEPT // 2]:
                line.requests.pop(old.order_id, None)
                line.smallest.pop(old.order_id, None)
            del line.times[: KEPT // 2], line.approvals[: KEPT // 2]

    def before(self, question: Question, stage: Stage, now_ns: int) -> Repetition:
        """Return what came before a question that is asked at `now_ns`."""
        line = self._lines.get(stage, _Line())
        newest = bisect_right(line.times, now_ns)
        count = newest - bisect_right(line.times, now_ns - RATE_WINDOW_NS)
        identical: int | None = None
        for index in range(newest - 1, -1, -1):
            age_ns = now_ns - line.times[index]
            if age_ns >= DUPLICATE_WINDOW_NS:
                break
            if line.approvals[index].terms == question.terms and not line.approvals[index].replaces:
                identical = age_ns
                break
        known = line.requests.get(question.order_id, question.request_id) != question.request_id
        smallest = line.smallest.get(question.order_id, 0)
        if question.replaces:
            return Repetition(None, False, count, smallest)
        return Repetition(identical, known, count, smallest)
