"""Decides what can go wrong on purpose, and what may be said about each kind of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MOST_ACTIVE: Final = 20
MOST_PAST: Final = 100


class FaultKind(enum.Enum):
    """What goes wrong."""

    FEED_SILENCE = "FEED_SILENCE"
    FEED_GAP = "FEED_GAP"
    FILE_TRUNCATED = "FILE_TRUNCATED"
    FILE_REPLACED = "FILE_REPLACED"
    DTC_SILENCE = "DTC_SILENCE"
    DTC_DISCONNECT = "DTC_DISCONNECT"
    DTC_DUPLICATES = "DTC_DUPLICATES"
    DTC_LATE_FILLS = "DTC_LATE_FILLS"
    DTC_REJECTS = "DTC_REJECTS"
    DTC_PARTIAL_FILLS = "DTC_PARTIAL_FILLS"
    DTC_UNKNOWN_MESSAGES = "DTC_UNKNOWN_MESSAGES"

    @property
    def of_dtc(self) -> bool:
        """True for what goes wrong with the DTC server and not with the files."""
        return self.value.startswith("DTC_")


@dataclass(frozen=True, slots=True)
class FaultOrder:
    """A fault that is asked for; times in ns."""

    request_id: str
    kind: FaultKind
    symbol: str = ""
    """Symbol it is confined to; empty for all."""
    probability: float | None = None
    duration_ns: int | None = None
    """None lasts until it is cleared."""
    delay_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that was made."""

    order: FaultOrder
    begin_ns: int
    end_ns: int | None
    """When it was over, or will be; None while it lasts until it is cleared."""
    active: bool
    effect: str
    """What it has done so far, in one sentence."""


class FaultRefused(ValueError):
    """Expected: a value of a fault does not go with its kind; the text names it, what was seen and what is allowed."""

    def __init__(self, field: str, seen: str, allowed: str) -> None:
        self.field, self.seen, self.allowed = field, seen, allowed
        super().__init__(f"{field} is {seen}: allowed is {allowed}")


class FaultNotPossible(Exception):
    """Expected: what is to go wrong is not there."""

    def __init__(self, kind: FaultKind, needs: str, why: str) -> None:
        self.kind, self.needs = kind.value, needs
        super().__init__(f"{kind.value} is not possible: {why}")


class FaultConflict(Exception):
    """Expected: a request id was used before for another fault."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(f"request_id {request_id!r} was used for another fault: make a new id for each")


class FaultUnknown(Exception):
    """Expected: no fault of that id is known."""

    def __init__(self, request_id: str, active: str) -> None:
        self.request_id, self.active = request_id, active
        super().__init__(f"fault {request_id!r} is not known: active are {active or 'none'}")


class TooManyFaults(Exception):
    """Expected: as many faults are active as may be."""

    def __init__(self) -> None:
        self.seen, self.limit = MOST_ACTIVE, MOST_ACTIVE
        super().__init__(f"{MOST_ACTIVE} faults are active: clear some first")


@dataclass(frozen=True, slots=True)
class _Takes:
    probability: bool = False
    duration: bool = True
    symbol: bool = False
    delay: bool = False


_TAKES: Final[Mapping[FaultKind, _Takes]] = {
    FaultKind.FEED_SILENCE: _Takes(symbol=True),
    FaultKind.FEED_GAP: _Takes(symbol=True),
    FaultKind.FILE_TRUNCATED: _Takes(duration=False, symbol=True),
    FaultKind.FILE_REPLACED: _Takes(duration=False, symbol=True),
    FaultKind.DTC_SILENCE: _Takes(),
    FaultKind.DTC_DISCONNECT: _Takes(probability=True),
    FaultKind.DTC_DUPLICATES: _Takes(probability=True),
    FaultKind.DTC_LATE_FILLS: _Takes(probability=True, delay=True),
    FaultKind.DTC_REJECTS: _Takes(probability=True),
    FaultKind.DTC_PARTIAL_FILLS: _Takes(),
    FaultKind.DTC_UNKNOWN_MESSAGES: _Takes(probability=True),
}


def check_order(order: FaultOrder, symbols: tuple[str, ...]) -> None:
    """Raises FaultRefused for a value that says nothing for this kind of fault."""
    takes, unset = _TAKES[order.kind], f"unset for {order.kind.value}"
    if order.probability is not None and not takes.probability:
        raise FaultRefused("probability", f"{order.probability:g}", unset)
    if order.delay_ns is not None and not takes.delay:
        raise FaultRefused("delay", f"{order.delay_ns / 1e9:g} s", unset)
    if order.symbol and not takes.symbol:
        raise FaultRefused("symbol", order.symbol, unset)
    if order.symbol and order.symbol not in symbols:
        raise FaultRefused("symbol", order.symbol, f"one that is written ({', '.join(symbols)}), or unset for all")
    if order.duration_ns is not None and at_once(order):
        what = unset
        if order.kind is FaultKind.DTC_DISCONNECT:
            what = "unset unless a probability is given, since connections are cut at once"
        raise FaultRefused("duration", f"{order.duration_ns / 1e9:g} s", what)


def at_once(order: FaultOrder) -> bool:
    """True for what happens once, when it is asked for."""
    cuts = order.kind is FaultKind.DTC_DISCONNECT and order.probability is None
    return cuts or not _TAKES[order.kind].duration
