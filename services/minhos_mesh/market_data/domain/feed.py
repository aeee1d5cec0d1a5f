"""Decides how the records of a source become a numbered sequence of ticks: the same source gives the same numbers."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minhos_mesh.history.domain.validation import Reason, Rules, judge, reason_of
from minhos_mesh.market_data.domain.bar_lines import MINUTES, BarKey, BarLine
from minhos_mesh.market_data.domain.depth import DepthFeed
from minhos_mesh.market_data.domain.last_values import LastValues
from minhos_mesh.market_data.domain.ring import TickRing
from minhos_mesh.market_data.domain.source import Provenance, ProvenanceRefused, Source, SourceConflict, goes_on
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.tick_layout import TICK, TICK_BYTES, VALUES, Row, TickArray, Trades, received_at
from minhos_mesh.runtime.trading_sessions import Sessions

__all__ = [
    "FEW",
    "RING_TICKS",
    "Ingested",
    "LastQuote",
    "PositionMismatch",
    "Provenance",
    "ProvenanceRefused",
    "Source",
    "SourceConflict",
    "SymbolFeed",
    "epoch_of",
]

RING_TICKS = 262_144
FEW = 16
"""Up to so many ticks are taken one by one, which is faster and gives the same."""
LARGE = 4_096
"""Of batches of so many ticks or more it is known where they began."""
LARGE_KNOWN = 64
WAITING = 16
"""So many lone ticks wait for bars and last values to look at them, unless somebody asks for these: together they cost less, and
none of their readers waits for it."""


class PositionMismatch(Exception):
    """Expected: a batch does not follow the records that were taken before, or is of another source."""

    def __init__(self, symbol: str, field: str, seen: object, allowed: object, why: str) -> None:
        self.symbol, self.field, self.seen, self.allowed = symbol, field, seen, allowed
        super().__init__(f"{field} of {symbol} is {seen}: allowed is {allowed}, {why}")


class Ingested(NamedTuple):
    """What became of a batch."""

    first_sequence: int
    """Sequence of the first accepted tick; above `last_sequence` when none was."""
    last_sequence: int
    as_given: bool = False
    """Whether its records are the ticks first..last, byte for byte: all of them, none refused, none stamped."""
    stamped: bytes = b""
    """One tick as it is kept, where it came alone and got its time of receipt here."""


@dataclass(frozen=True, slots=True)
class LastQuote:
    """The last values of a symbol; they change with the feed, so read them before anything else happens."""

    symbol: str
    epoch: int
    provenance: Provenance
    values: LastValues


def epoch_of(source_epoch: int, base_position: int) -> int:
    """The epoch readers see: the source's own, or another one when its records do not begin with the first."""
    if base_position <= 1:
        return source_epoch
    text = f"{source_epoch}:{base_position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") | 1


class SymbolFeed:
    """All that is known of one symbol: its source, sequence, last values, bars, the newest ticks and the counters.

    records read = ticks sequenced + ticks rejected, at any time and within each epoch.
    """

    def __init__(self, symbol: str, rules: Rules, capacity: int = RING_TICKS) -> None:
        self.symbol = symbol
        self.source: Source | None = None
        self.provenance: Provenance | None = None
        """Provenance of the ticks held; None before a source came."""
        self.epoch: int | None = None
        """None until the first record of a generation has come."""
        self.exchange: Sessions | None = None
        """Sessions of its exchange, where somebody asked for bars by them."""
        self.ring = TickRing(capacity)
        self.large: deque[tuple[int, int]] = deque(maxlen=LARGE_KNOWN)
        """First and last sequence of the newest batches that came as large ones, whose bytes may still be there."""
        self.depth = DepthFeed(symbol, rules.tick_e9)
        """Its order book, which has a source and generations of its own."""
        self._rules = rules
        self._lines = {MINUTES: BarLine(MINUTES.span, self.sessions(MINUTES))}
        self._waiting: list[tuple[Row, int]] = []
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.ring.clear()
        self.large.clear()
        self._waiting.clear()
        self.epoch = None
        self.position = 0
        """Records of this generation taken so far, counted from the source's first."""
        self.read = 0
        self.rejected: dict[Reason, int] = {}
        self._last = LastValues()
        self._newest_ns = 0
        for key, former in list(self._lines.items()):
            self._lines[key] = fresh = BarLine(key.span, self.sessions(key))
            fresh.users = former.users

    @property
    def sequence(self) -> int:
        """Sequence of the newest tick; 0 when none has come."""
        return self.ring.newest

    @property
    def last(self) -> LastValues:
        """The last values."""
        self.settle()
        return self._last

    @property
    def quote(self) -> LastQuote | None:
        """The last values; None before the first tick."""
        if self.epoch is None or self.source is None or self.sequence == 0:
            return None
        return LastQuote(self.symbol, self.epoch, self.source.provenance, self.last)

    @property
    def open_bar(self) -> Bar | None:
        """The bar of a minute that is being built."""
        return self.lines[MINUTES].open_bar

    @property
    def bars_closed(self) -> int:
        """Bars of a minute closed within this epoch."""
        return self.lines[MINUTES].closed

    @property
    def lines(self) -> Mapping[BarKey, BarLine]:
        """Bars of every span that somebody reads, and those of a minute."""
        self.settle()
        return self._lines

    def settle(self) -> None:
        """Lets bars and last values look at lone ticks that came since; whoever reads these sees them settled."""
        if not self._waiting:
            return
        epoch, oldest, last, lines = self.epoch or 0, self.ring.oldest, self._last, self._lines.values()
        for row, sequence in self._waiting:
            last.add_one(row, sequence)
            for line in lines:
                if closed := line.builder.add_one(row, sequence, epoch):
                    line.keep(closed, oldest)
        self._waiting.clear()

    def sessions(self, key: BarKey) -> Sessions:
        """The sessions that a reader of bars means."""
        return key.sessions(simulated=self.provenance is Provenance.SIMULATED, exchange=self.exchange)

    def begin_line(self, key: BarKey, line: BarLine) -> None:
        """Builds these bars too from now on; the line has been told all ticks up to the newest."""
        self.settle()
        self._lines[key] = line

    def give_up_lines(self) -> None:
        """Builds no more what nobody reads."""
        for key, line in list(self._lines.items()):
            if key != MINUTES and not line.users:
                del self._lines[key]

    def open(self, source: Source) -> int:
        """Takes a source; returns the position after which it is to send. Another generation begins anew.

        Raises ProvenanceRefused and SourceConflict as `goes_on` does.
        """
        if goes_on(self.symbol, self.source, source):
            return self.position
        self.source, self.provenance = source, source.provenance
        self._begin_anew()
        return 0

    def ingest(self, ticks: TickArray, position: int, wall_ns: int) -> Ingested:
        """Takes records, the first of which stands at `position` in the source; those taken before are passed over.

        A record without a time of receipt gets `wall_ns`, in a replay its event time. A record more than a day
        (`Rules.future_after_ns`) ahead of `wall_ns` is refused, in a replay too, for what has not been was not recorded. So
        two replays of a file give the same, unless that bound has passed a record of it between them.

        Raises PositionMismatch when records in between are missing.
        """
        given, ticks = len(ticks), self._new_records(ticks, position)
        count, first = len(ticks), self.ring.newest + 1
        if count <= FEW:
            wire = ticks.tobytes()
            each = [
                self.ingest_one(row, wire[index * TICK_BYTES : (index + 1) * TICK_BYTES], wall_ns)
                for index, row in enumerate(VALUES.iter_unpack(wire))
            ]
            return Ingested(first, self.ring.newest, count == given and all(one.as_given for one in each))
        self.settle()
        self.position += count
        self.read += count
        verdict = judge(ticks, self._newest_ns, self._rules, wall_ns)
        unstamped, ticks = ticks, self._stamped(ticks, verdict.trades, wall_ns)
        if verdict.accepted is not None:
            for reason, number in verdict.rejected.items():
                self.rejected[reason] = self.rejected.get(reason, 0) + number
            rows = np.frombuffer(ticks.tobytes(), np.uint8).reshape(count, TICK_BYTES)[verdict.accepted]
            ticks = rows.reshape(-1).view(TICK)
            if len(ticks) == 0:
                return Ingested(first, first - 1)
        self.ring.append(ticks)
        self._last.add(ticks, self.ring.newest, verdict.trades)
        self._newest_ns = self._last.event_time_ns
        epoch, oldest = self.epoch or 0, self.ring.oldest
        for line in self._lines.values():
            line.add(ticks, first, oldest, epoch, verdict.trades)
        as_given = ticks is unstamped and count == given
        if as_given and count >= LARGE:
            self.large.append((first, self.ring.newest))
        return Ingested(first, self.ring.newest, as_given)

    def _stamped(self, ticks: TickArray, trades: Trades | None, wall_ns: int) -> TickArray:
        received = ticks["receive_time_ns"] if trades is None else trades.receive_time_ns
        if received.all():
            return ticks
        stamped = np.frombuffer(bytearray(ticks.tobytes()), TICK)
        now = ticks["event_time_ns"] if self.provenance is Provenance.REPLAY else wall_ns
        stamped["receive_time_ns"] = np.where(received == 0, now, received)
        return stamped

    def follows(self, position: int) -> bool:
        """Whether a record at this position is the next one of a generation that has begun."""
        return position == self.position + 1 and self.epoch is not None

    def ingest_one(self, row: Row, wire: bytes, wall_ns: int) -> Ingested:
        """The same for one record that follows the one taken last: its values, and as it stands in a batch."""
        self.position += 1
        self.read += 1
        time_ns, rules = row[0], self._rules
        reason = reason_of(row, self._newest_ns, rules, wall_ns + rules.future_after_ns)
        sequence = self.ring.newest + 1
        if reason is not None:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
            return Ingested(sequence, sequence - 1)
        stamped = b""
        if row[1] == 0:
            wire = stamped = received_at(wire, time_ns if self.provenance is Provenance.REPLAY else wall_ns)
        self.ring.append_one(wire)
        self._newest_ns = time_ns
        waiting = self._waiting
        waiting.append((row, sequence))
        if len(waiting) >= WAITING:
            self.settle()
        return Ingested(sequence, sequence, not stamped, stamped)

    def _new_records(self, ticks: TickArray, position: int) -> TickArray:
        if self.position == 0 and self.epoch is None and self.source is not None:
            if position < 1:
                raise PositionMismatch(
                    self.symbol, "batch.first_sequence", position, "1 or more", "positions count from 1"
                )
            self.epoch = epoch_of(self.source.epoch, position)
            self.position = position - 1
        if position > self.position + 1:
            allowed = f"at most {self.position + 1}"
            raise PositionMismatch(
                self.symbol, "batch.first_sequence", position, allowed, "or records in between would be missing"
            )
        return ticks[self.position + 1 - position :]
