"""Decides when faults begin and end, what they do while they last, and what is remembered of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.sierra_simulator.domain.faults import (
    MOST_ACTIVE,
    MOST_PAST,
    Fault,
    FaultConflict,
    FaultKind,
    FaultNotPossible,
    FaultOrder,
    FaultUnknown,
    TooManyFaults,
    at_once,
    check_order,
)
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind
from minhos_mesh.sierra_simulator.symbol_writer import SymbolWriter

LONGEST_WAIT_S: Final = 1.0

_LOG = get_logger("sierra_simulator.faults")


class DtcFaults(Protocol):
    """What can go wrong with a DTC server."""

    def apply(self, orders: Sequence[FaultOrder]) -> None:
        """Has exactly these go wrong from now on."""

    def cut(self) -> int:
        """Cuts every connection and gives their number."""

    def count(self, kind: FaultKind) -> int:
        """How often this has gone wrong so far."""


@dataclass(slots=True)
class _Lasting:
    """A fault, while it is remembered."""

    order: FaultOrder
    begin_ns: int
    end_ns: int | None
    active: bool = True
    effect: str = ""
    counted: int = 0
    """What was counted of its kind when it began."""


class FaultBoard:
    """The faults of one simulator."""

    def __init__(
        self, writers: Sequence[SymbolWriter], clock: Clock, dtc: DtcFaults | None, on_change: Callable[[], None]
    ) -> None:
        """`writers` may be filled later; `on_change` is called when a fault begins or ends."""
        self._writers = writers
        self._clock = clock
        self._dtc = dtc
        self._on_change = on_change
        self._active: list[_Lasting] = []
        self._past: deque[_Lasting] = deque(maxlen=MOST_PAST)
        self._wake = asyncio.Event()

    def inject(self, order: FaultOrder) -> Fault:
        """Begins a fault; the same order again gives it as it stands."""
        for known in (*self._active, *self._past):
            if known.order.request_id == order.request_id:
                if known.order != order:
                    raise FaultConflict(order.request_id)
                return self._told(known)
        check_order(order, tuple(writer.symbol for writer in self._writers))
        self._check_possible(order)
        if len(self._active) >= MOST_ACTIVE:
            raise TooManyFaults
        now_ns = self._clock.wall_ns()
        end_ns = now_ns if at_once(order) else None if order.duration_ns is None else now_ns + order.duration_ns
        fault = _Lasting(order, now_ns, end_ns)
        self._begin(fault)
        _LOG.warning("fault.begun", kind=order.kind.value, request_id=order.request_id, effect=fault.effect)
        self._on_change()
        return self._told(fault)

    def clear(self, request_id: str) -> list[Fault]:
        """Ends one fault, or all with the empty id; gives those that it ended. Raises FaultUnknown."""
        known = {fault.order.request_id for fault in (*self._active, *self._past)}
        if request_id and request_id not in known:
            raise FaultUnknown(request_id, ", ".join(fault.order.request_id for fault in self._active))
        ended = [fault for fault in self._active if request_id in {"", fault.order.request_id}]
        for fault in ended:
            self._end(fault, self._clock.wall_ns())
        return [self._told(fault) for fault in ended]

    def active(self) -> list[Fault]:
        """Faults that last, the oldest first."""
        return [self._told(fault) for fault in self._active]

    def listing(self) -> list[Fault]:
        """Faults that last and the last of those that are over, the newest first."""
        known = [*self._past, *self._active]
        known.sort(key=lambda fault: -fault.begin_ns)
        return [self._told(fault) for fault in known]

    async def run(self) -> None:
        """Ends faults whose time is over; ends itself only by cancellation."""
        while True:
            now_ns = self._clock.wall_ns()
            for fault in [each for each in self._active if each.end_ns is not None and each.end_ns <= now_ns]:
                self._end(fault, fault.end_ns or now_ns)
            left = [fault.end_ns - now_ns for fault in self._active if fault.end_ns is not None]
            self._wake.clear()
            try:
                async with asyncio.timeout(min([LONGEST_WAIT_S, *(ns / 1e9 for ns in left)])):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _check_possible(self, order: FaultOrder) -> None:
        if order.kind.of_dtc and self._dtc is None:
            raise FaultNotPossible(order.kind, "feed.dtc_port", "no DTC is served, since feed.dtc_port is not set")
        replays = any(writer.output.feed.kind is FeedKind.REPLAY for writer in self._writers)
        if order.kind is FaultKind.FEED_GAP and replays:
            why = "a recording is played whole; gaps in it are scheduled with [[feed.gaps]] in minhos.toml"
            raise FaultNotPossible(order.kind, "feed.gaps", why)

    def _begin(self, fault: _Lasting) -> None:
        order = fault.order
        fault.counted = self._count(order)
        if at_once(order):
            fault.active, fault.effect = False, self._strike(order)
            self._past.append(fault)
            return
        self._active.append(fault)
        self._hinder(order, 1)
        self._apply_dtc(order)
        self._wake.set()

    def _end(self, fault: _Lasting, end_ns: int) -> None:
        fault.active, fault.end_ns = False, end_ns
        fault.effect = self._effect(fault)
        self._active.remove(fault)
        self._past.append(fault)
        self._hinder(fault.order, -1)
        self._apply_dtc(fault.order)
        if fault.order.kind is FaultKind.DTC_SILENCE and self._dtc is not None:
            self._dtc.cut()
        _LOG.info("fault.over", kind=fault.order.kind.value, request_id=fault.order.request_id, effect=fault.effect)
        self._on_change()

    def _strike(self, order: FaultOrder) -> str:
        """Does what happens at once. Raises ScidError."""
        if order.kind is FaultKind.DTC_DISCONNECT:
            return f"{0 if self._dtc is None else self._dtc.cut()} connections were cut"
        done = []
        for writer in self._of(order):
            if order.kind is FaultKind.FILE_TRUNCATED:
                done.append(f"{writer.truncate()} records were taken from {writer.path.name}")
            else:
                done.append(f"{writer.path.name} is another file with {writer.replace()} records")
        return "; ".join(done)

    def _hinder(self, order: FaultOrder, by: int) -> None:
        if order.kind not in {FaultKind.FEED_SILENCE, FaultKind.FEED_GAP}:
            return
        for writer in self._of(order):
            if order.kind is FaultKind.FEED_SILENCE:
                writer.hindrance.silent += by
            else:
                writer.hindrance.gap += by
            writer.wake()

    def _apply_dtc(self, order: FaultOrder) -> None:
        if order.kind.of_dtc and self._dtc is not None:
            self._dtc.apply([fault.order for fault in self._active if fault.order.kind.of_dtc])

    def _of(self, order: FaultOrder) -> list[SymbolWriter]:
        return [writer for writer in self._writers if order.symbol in {"", writer.symbol}]

    def _count(self, order: FaultOrder) -> int:
        if order.kind.of_dtc:
            return 0 if self._dtc is None else self._dtc.count(order.kind)
        return sum(writer.left_out for writer in self._of(order))

    def _effect(self, fault: _Lasting) -> str:
        if fault.effect:
            return fault.effect
        kind = fault.order.kind
        if kind is FaultKind.FEED_SILENCE:
            return "nothing is written" if fault.active else "nothing was written until its end"
        count = self._count(fault.order) - fault.counted
        words = _EFFECTS.get(kind, "{} times")
        return words.format(count)

    def _told(self, fault: _Lasting) -> Fault:
        return Fault(fault.order, fault.begin_ns, fault.end_ns, fault.active, self._effect(fault))


_EFFECTS: Final = {
    FaultKind.FEED_GAP: "{} records were left out",
    FaultKind.DTC_SILENCE: "{} connections fell silent",
    FaultKind.DTC_DISCONNECT: "{} messages cut their connection",
    FaultKind.DTC_DUPLICATES: "{} messages were sent twice",
    FaultKind.DTC_LATE_FILLS: "{} messages were late",
    FaultKind.DTC_REJECTS: "{} orders were rejected",
    FaultKind.DTC_PARTIAL_FILLS: "{} quotes were shown with one contract",
    FaultKind.DTC_UNKNOWN_MESSAGES: "{} messages of an unknown type were sent",
}
