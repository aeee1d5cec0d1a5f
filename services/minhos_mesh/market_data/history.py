"""Decides which part of a question about history is answered from the ticks held, and which from the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from minhos_mesh.history.domain.series import PROVENANCES
from minhos_mesh.market_data.domain.feed import Provenance, SymbolFeed
from minhos_mesh.market_data.history_workers import HistoryFailed, HistoryWorkers, TicksRead
from minhos_mesh.market_data.reader_session import SymbolUnknown
from minhos_mesh.market_data.recorder import Recorder
from minhos_mesh.market_data.service import MarketDataService
from minhos_mesh.runtime.bar_spans import BarSpan
from minhos_mesh.runtime.symbols import SymbolError, parse_symbol

CHUNK_TICKS = 32_768
END_NS = 2**63 - 1


class HistoryNotHeld(LookupError):
    """Expected: no tick of that symbol or provenance is kept."""

    def __init__(self, symbol: str, provenance: str | None, text: str) -> None:
        self.symbol, self.provenance = symbol, provenance
        self.held = text.rpartition("held are ")[2] if "held are " in text else None
        super().__init__(text)


class HistoryLost(LookupError):
    """Expected: nothing of the generation that was asked for is kept."""

    def __init__(self, symbol: str, asked: str, oldest: str | None, newest: str | None) -> None:
        self.asked, self.oldest, self.newest = asked, oldest, newest
        held = f"held of the newest generation are {oldest} to {newest}" if oldest else "another generation is read"
        super().__init__(f"nothing of {asked} of {symbol} is held: {held}")


class HistoryBroken(Exception):
    """Expected after a fault of the disk: a file of the store cannot be read, or is written by another process for too long."""


class RangeRefused(ValueError):
    """Expected: a span of time whose end is not behind its beginning."""

    def __init__(self, field: str, start_ns: int, end_ns: int) -> None:
        self.field, self.seen = field, f"{end_ns / 1e9:.9f} s since 1970"
        self.allowed = f"more than {start_ns / 1e9:.9f} s, the beginning"
        super().__init__(f"{field} is {self.seen}: allowed is {self.allowed}")


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose history a question is about."""

    symbol: str | None
    provenance: str | None


@dataclass(frozen=True, slots=True)
class Absent:
    """Sequences that are not held."""

    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SeriesTold:
    """Whose ticks follow."""

    provenance: Provenance
    symbol: str


Piece = SeriesTold | TicksRead | Absent


class History:
    """History of one mesh: what is in memory is told from there, all else by the processes that read the store."""

    def __init__(
        self,
        service: MarketDataService,
        recorder: Recorder | None,
        workers: HistoryWorkers,
    ) -> None:
        self._service, self._recorder, self._workers = service, recorder, workers

    async def bars(
        self,
        asked: Asked,
        span: BarSpan,
        start_ns: int,
        end_ns: int,
        rule: str | None,
        limit: int,
        bookmark: tuple[int, int] | None,
    ) -> Mapping[str, Any]:
        """A page of bars as the reading process tells it. Raises HistoryNotHeld, RangeRefused, HistoryBroken."""
        if end_ns <= start_ns:
            raise RangeRefused("end_time", start_ns, end_ns)
        where = await self._where(asked)
        exchange = parse_symbol(where["symbol"]).exchange
        question = {"span": str(span), "exchange": exchange, "start_ns": start_ns, "end_ns": end_ns}
        told = [
            each
            async for each in self._ask(asked, "bars", **where, **question, rule=rule, limit=limit, bookmark=bookmark)
        ]
        page: Mapping[str, Any] = told[0]  # type: ignore[assignment] # this question is answered by one mapping
        return page

    async def held(self, symbol: str | None, provenance: str | None) -> list[Mapping[str, Any]]:
        """What is held, by symbol, provenance and day. Raises HistoryBroken."""
        await self._write_out()
        canonical = None if symbol is None else self._canonical(symbol)
        told = self._ask(Asked(symbol, provenance), "held", symbol=canonical, provenance=provenance)
        return [each async for each in told if not isinstance(each, TicksRead)]

    async def times(
        self, asked: Asked, start_ns: int, end_ns: int, after: tuple[int, int] | None
    ) -> AsyncGenerator[Piece, None]:
        """The ticks of a span of time. Raises as `bars`, and HistoryLost when `after` is of another generation."""
        if end_ns <= start_ns:
            raise RangeRefused("times.end_time", start_ns, end_ns)
        where = await self._where(asked)
        told = self._ask(asked, "times", **where, start_ns=start_ns, end_ns=end_ns, after=after)
        async with aclosing(told):
            try:
                async for each in told:
                    yield each if isinstance(each, TicksRead) else _series_of(each)
            except HistoryNotHeld as error:
                if after is None or "is not read" not in str(error):
                    raise
                raise HistoryLost(where["symbol"], f"epoch {after[0]}", None, None) from None

    async def sequences(self, asked: Asked, epoch: int, first: int, last: int) -> AsyncGenerator[Piece, None]:
        """Exactly a range of sequences: ticks, and what is not held told in its place. Raises as `times`."""
        where = await self._where(asked)
        feed = self._live(where, asked, epoch)
        if feed is not None and feed.source is not None:
            yield SeriesTold(feed.source.provenance, where["symbol"])
        at = first
        while at <= last:
            if feed is not None and feed.epoch == epoch and feed.ring.oldest <= at <= feed.ring.newest:
                end = min(last, feed.ring.newest, at + CHUNK_TICKS - 1)
                yield TicksRead(epoch, at, feed.ring.wire(at, end))
                at = end + 1
                continue
            stop = last if feed is None or feed.epoch != epoch or at > feed.ring.newest else feed.ring.oldest - 1
            stored = self._stored(asked, where, epoch, at, min(stop, last), known=feed is not None)
            async with aclosing(stored):
                async for piece in stored:
                    if not isinstance(piece, SeriesTold) or feed is None:
                        yield piece
            at = min(stop, last) + 1

    async def _stored(
        self, asked: Asked, where: Mapping[str, Any], epoch: int, at: int, last: int, *, known: bool
    ) -> AsyncGenerator[Piece, None]:
        """The part of a range that has to come from the store."""
        if known and self._recorder is None:
            yield Absent(epoch, at, last)
            return
        told = self._ask(asked, "sequences", **where, epoch=epoch, first=at, last=last)
        async with aclosing(told):
            try:
                async for each in told:
                    if not isinstance(each, TicksRead):
                        if not each["known"] and not known:
                            raise HistoryLost(
                                where["symbol"], f"epoch {epoch}", _place(each["oldest"]), _place(each["newest"])
                            )
                        yield _series_of(each)
                        continue
                    if each.first_sequence > at:
                        yield Absent(epoch, at, each.first_sequence - 1)
                    yield each
                    at = each.first_sequence + each.count
            except HistoryNotHeld:
                if not known:
                    raise
        if at <= last:
            yield Absent(epoch, at, last)

    def _live(self, where: Mapping[str, Any], asked: Asked, epoch: int) -> SymbolFeed | None:
        try:
            feed = self._service.find(where["symbol"]).feed
        except SymbolUnknown:
            return None
        same = feed.provenance is not None and asked.provenance in {None, feed.provenance.name}
        return feed if same and feed.epoch == epoch else None

    async def _where(self, asked: Asked) -> dict[str, Any]:
        await self._write_out()
        symbol = self._service.find(None).feed.symbol if asked.symbol is None else self._canonical(asked.symbol)
        try:
            provenance = self._service.find(symbol).feed.provenance
        except SymbolUnknown:
            provenance = None
        fed = None if provenance is None else provenance.name
        return {"symbol": symbol, "provenance": asked.provenance, "fed": fed}

    def _canonical(self, text: str) -> str:
        try:
            return str(parse_symbol(text))
        except SymbolError as error:
            raise HistoryNotHeld(text, None, str(error)) from None

    async def _write_out(self) -> None:
        """What has been sequenced is in the journal when this returns."""
        if self._recorder is not None:
            for standing in self._service.standings.values():
                self._recorder.flush(standing.live.feed)
            await self._recorder.written()

    async def _ask(
        self, asked: Asked, ask: str, **question: Any
    ) -> AsyncGenerator[Mapping[str, Any] | TicksRead, None]:
        try:
            async with self._workers.asking(ask, **question) as pieces:
                async for piece in pieces:
                    yield piece
        except HistoryFailed as failed:
            if failed.kind == "NotHeld":
                raise HistoryNotHeld(asked.symbol or str(question["symbol"]), asked.provenance, str(failed)) from None
            raise HistoryBroken(str(failed)) from None


def _series_of(told: Mapping[str, Any]) -> SeriesTold:
    provenance, symbol = told["series"]
    assert provenance in PROVENANCES, "the store knows no other"
    return SeriesTold(Provenance[provenance], symbol)


def _place(place: list[int]) -> str:
    return f"{place[1]} of epoch {place[0]}"
