"""Decides how a service reads market data: one subscription that outlives its connections, without a double or a silent gap."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

import grpc

from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.market_updates import (
    FROM_START,
    BarClosed,
    BarsOf,
    DepthLevel,
    EpochChanged,
    Gap,
    Heartbeat,
    MarketDepth,
    MarketQuote,
    MarketUpdate,
    Position,
    Snapshot,
    position_of,
    quote_of,
    update_of,
)
from minhos_mesh.runtime.streams import cancelled_from_outside
from minhos_mesh.runtime.ticks import TickBatchView, message_or_batch

__all__ = [
    "FROM_START",
    "BarClosed",
    "BarsOf",
    "DepthLevel",
    "EpochChanged",
    "Gap",
    "Heartbeat",
    "MarketClient",
    "MarketDepth",
    "MarketKind",
    "MarketQuote",
    "MarketSubscription",
    "MarketUpdate",
    "Position",
    "SlowReader",
    "Snapshot",
    "SubscriptionRefused",
    "TickBatchView",
]

CONTRACT: Final = "minhos_api.market.v1.MarketDataProviderService"
SILENCE_S: Final = 6.0
"""Three heartbeats; a stream that is silent for so long is opened again."""

PROGRESS_TICKS: Final = 512
"""A lossless reader says how far it is at least every so many ticks; well below the smallest number that is ever held."""

_PATH: Final = f"/{CONTRACT}/SubscribeMarketData"
_LOG: Final = get_logger("runtime.market")
_BACKOFF: Final = Backoff(first=0.02, factor=2.0, limit=1.0)
_LOST: Final = error_reason_pb2.ErrorReason.Name(error_reason_pb2.ERROR_REASON_POSITION_LOST)
_HOPELESS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_read_response = message_or_batch(
    pb2.SubscribeMarketDataResponse.TICKS_FIELD_NUMBER, pb2.SubscribeMarketDataResponse.FromString
)


class MarketKind(Enum):
    """What of a symbol is read."""

    TICKS = pb2.MARKET_DATA_KIND_TICKS
    BARS = pb2.MARKET_DATA_KIND_BARS
    QUOTES = pb2.MARKET_DATA_KIND_QUOTES
    DEPTH = pb2.MARKET_DATA_KIND_DEPTH


class SlowReader(Enum):
    """What happens to a reader that falls behind."""

    CONFLATE = pb2.SLOW_READER_CONFLATE
    """It gets the newest; only for quotes and order books, which are given so whatever is asked for."""
    GAP = pb2.SLOW_READER_GAP
    LOSSLESS = pb2.SLOW_READER_LOSSLESS


class SubscriptionRefused(Exception):
    """Expected: market data does not give this symbol in this way; `reason` is the name of an ErrorReason."""

    def __init__(self, symbol: str, reason: str, message: str) -> None:
        self.symbol, self.reason = symbol, reason
        super().__init__(message)


class MarketClient:
    """The way of a service to market data."""

    def __init__(self, context: ServiceContext | Clients) -> None:
        """Uses the clients of a service's context, or clients themselves."""
        self._clients = context if isinstance(context, Clients) else context.clients

    async def quote(self, symbol: str | None = None) -> MarketQuote | None:
        """Last values of a symbol, the primary one when None; None when no tick has come yet. Raises grpc.RpcError."""
        stub = self._clients.stub(MarketDataProviderServiceStub)
        answer = await stub.GetMarketData(pb2.GetMarketDataRequest(symbol=symbol))
        return quote_of(answer.quote) if answer.HasField("quote") else None

    def subscribe(
        self,
        symbols: Sequence[str] = (),
        kinds: Collection[MarketKind] = (MarketKind.TICKS,),
        policy: SlowReader = SlowReader.GAP,
        bars_back: int = 0,
        resume: Mapping[str, Position] | None = None,
        *,
        reports_progress: bool = False,
        bars: BarsOf | None = None,
    ) -> MarketSubscription:
        """Reads symbols (all of the mesh when none is named): `async for update in market.subscribe([...])`.

        A symbol of `resume` goes on behind that position, `FROM_START` from the first tick; the others begin with a
        Snapshot that holds up to `bars_back` closed bars. The source of a replay waits for a lossless reader: what it
        was given counts as done with when it asks for more, or with `reports_progress` when it says so itself. `bars`
        says what a bar spans; one minute when it is None.
        """
        channel = self._clients.channel(CONTRACT)
        return MarketSubscription(channel, symbols, kinds, policy, bars_back, resume or {}, reports_progress, bars)


class MarketSubscription:
    """Updates of some symbols, in order of sequence within each, through any number of broken connections.

    Iterate over it in one task, and close it (`async with` does). Every tick behind the start comes exactly once or is named by a Gap.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        symbols: Sequence[str],
        kinds: Collection[MarketKind],
        policy: SlowReader,
        bars_back: int,
        resume: Mapping[str, Position],
        reports_progress: bool = False,
        bars: BarsOf | None = None,
    ) -> None:
        self.reconnects = 0
        """How often the stream was opened again."""
        self._open = channel.stream_stream(
            _PATH,
            request_serializer=pb2.SubscribeMarketDataRequest.SerializeToString,
            response_deserializer=_read_response,
        )
        self._symbols = tuple(symbols)
        self._kinds, self._policy, self._bars_back = frozenset(kinds), policy, bars_back
        self._bars = bars
        self._positions = dict(resume)
        self._bars_through = dict(resume)
        self._done_through: dict[str, Position] = {}
        self._reports_progress = reports_progress
        self._call: grpc.aio.StreamStreamCall[Any, Any] | None = None
        self._writing = asyncio.Lock()
        self._waiting_since: float | None = None
        self._watch: asyncio.Task[None] | None = None
        self._due: deque[MarketUpdate] = deque()
        self._failures = 0
        self._closed = False

    @property
    def positions(self) -> Mapping[str, Position]:
        """The last tick given, or told as missed, of each symbol; resume another subscription with it."""
        return dict(self._positions)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the subscription; the iteration ends."""
        self._closed = True
        self._hang_up()

    def silent_for(self, now: float) -> float:
        """Seconds that the next message has been waited for at a monotonic time; 0 when none is waited for."""
        return 0.0 if self._waiting_since is None else now - self._waiting_since

    async def progress(self, symbol: str, sequence: int) -> None:
        """Says that all up to this tick is done with; from then on nothing is done with by being given.

        What was said is said again after a broken connection.
        """
        self._reports_progress = True
        await self._say_done(symbol, sequence)

    async def _say_done(self, symbol: str, sequence: int) -> None:
        position = self._positions.get(symbol)
        if position is None:
            return
        self._done_through[symbol] = Position(position.epoch, sequence)
        told = pb2.MarketPosition(symbol=symbol, epoch=position.epoch, sequence=sequence)
        await self._write(pb2.SubscribeMarketDataRequest(progress=pb2.MarketProgress(position=told)))

    async def add(self, symbols: Sequence[str]) -> None:
        """Reads these symbols too. Has no effect on a subscription to all of the mesh."""
        if not self._symbols:
            return
        self._symbols = (*self._symbols, *(symbol for symbol in symbols if symbol not in self._symbols))
        await self._write(self._request(symbols))

    async def remove(self, symbols: Sequence[str]) -> None:
        """Reads these symbols no longer. Has no effect on a subscription to all of the mesh."""
        if not self._symbols:
            return
        self._symbols = tuple(symbol for symbol in self._symbols if symbol not in symbols)
        for symbol in symbols:
            self._positions.pop(symbol, None)
        gone = pb2.MarketUnsubscription(symbols=symbols)
        await self._write(pb2.SubscribeMarketDataRequest(unsubscribe=gone))

    async def _write(self, request: pb2.SubscribeMarketDataRequest) -> None:
        async with self._writing:
            if self._call is None:
                return
            try:
                await self._call.write(request)
            except (grpc.RpcError, asyncio.InvalidStateError):
                self._call.cancel()  # the reading side opens it again and says it all anew
            except asyncio.CancelledError:
                if cancelled_from_outside():
                    raise

    def _request(
        self, symbols: Sequence[str], places: Mapping[str, Position] | None = None
    ) -> pb2.SubscribeMarketDataRequest:
        places = places or {symbol: self._behind(symbol) for symbol in self._positions}
        resume = [
            pb2.MarketPosition(symbol=symbol, epoch=position.epoch, sequence=position.sequence)
            for symbol, position in places.items()
            if not symbols or symbol in symbols
        ]
        wanted = pb2.MarketSubscription(
            symbols=symbols,
            kinds=[kind.value for kind in sorted(self._kinds, key=lambda kind: int(kind.value))],
            slow_reader=self._policy.value,
            bars_back=self._bars_back,
            resume_after=resume,
        )
        if self._bars is not None:
            self._bars.say(wanted)
        return pb2.SubscribeMarketDataRequest(subscribe=wanted)

    def _behind(self, symbol: str) -> Position:
        """Where to resume: behind the last bar where bars are read, for its ticks are known to be double and no bar is lost."""
        ticks = self._positions[symbol]
        if MarketKind.BARS not in self._kinds:
            return ticks
        bars = self._bars_through.get(symbol, ticks)
        return bars if bars.epoch in {0, ticks.epoch} and bars.sequence < ticks.sequence else ticks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MarketUpdate:
        """The next update. StopAsyncIteration once the subscription is closed."""
        while True:
            if self._due:
                return self._due.popleft()
            if self._closed:
                raise StopAsyncIteration
            try:
                message = await self._next_message()
            except grpc.aio.AioRpcError as error:
                if error.code() in _HOPELESS:
                    raise
                await self._disconnect(f"{error.code().name}: {error.details()}")
                continue
            if isinstance(message, TickBatchView):
                known = self._positions.get(message.symbol)
                if known is not None and (message.epoch, message.first_sequence) == (known.epoch, known.sequence + 1):
                    self._positions[message.symbol] = Position(message.epoch, message.last_sequence)
                    return message
                self._take_ticks(message)
            elif message is not None:
                await self._take(message)

    async def _next_message(self) -> TickBatchView | pb2.SubscribeMarketDataResponse | None:
        """The next message of the stream; None when there is none and the stream has to be opened anew."""
        try:
            call = self._call or await self._connect()
            if self._policy is SlowReader.LOSSLESS and not self._reports_progress:
                await self._say_done_with_what_was_given()
            self._waiting_since = time.monotonic()
            message: Any = await call.read()
            self._waiting_since = None
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            if cancelled_from_outside():
                self._hang_up()
                raise
            message = grpc.aio.EOF
        if message is grpc.aio.EOF:
            await self._disconnect("the stream ended")
            return None
        self._failures = 0
        heard: TickBatchView | pb2.SubscribeMarketDataResponse = message
        return heard

    async def _connect(self) -> grpc.aio.StreamStreamCall[Any, Any]:
        call = self._call = self._open(wait_for_ready=True)
        self._watch = asyncio.create_task(_watch_over(weakref.ref(self), call), name="market data silence")
        await self._write(self._request(self._symbols))
        if self._policy is SlowReader.LOSSLESS:
            for symbol, position in list(self._positions.items()):
                done = self._done_through.get(symbol, position)
                await self._say_done(symbol, done.sequence if done.epoch == position.epoch else 0)
        return call

    def _hang_up(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._call is not None:
            self._call.cancel()
        self._call = self._watch = self._waiting_since = None

    async def _disconnect(self, why: str) -> None:
        self._hang_up()
        if self._closed:
            return
        self._failures += 1
        self.reconnects += 1
        _LOG.info("market.stream_lost", why=why, failures=self._failures)
        await asyncio.sleep(_BACKOFF.delay(self._failures))

    async def _take(self, message: pb2.SubscribeMarketDataResponse) -> None:
        if not message.HasField("subscribed"):
            self._due.extend(self._updates(message))
            return
        answer = message.subscribed
        self._due.extend(self._answered(answer))
        if answer.refused_reason == _LOST:
            place, newest = self._behind(answer.symbol), position_of(answer.newest)
            if place.epoch in {0, newest.epoch} and place.sequence > newest.sequence:
                place = newest  # the source is catching up; what was given already is not given again
            await self._write(self._request([answer.symbol], {answer.symbol: place}))

    async def _say_done_with_what_was_given(self) -> None:
        for symbol, position in list(self._positions.items()):
            done = self._done_through.get(symbol, FROM_START)
            if done.epoch != position.epoch or position.sequence - done.sequence >= PROGRESS_TICKS:
                await self._say_done(symbol, position.sequence)

    def _updates(self, message: pb2.SubscribeMarketDataResponse) -> Iterator[MarketUpdate]:
        update = update_of(message)
        if update is None:
            return
        if isinstance(update, Gap):
            yield from self._missed(update)
            return
        if isinstance(update, Snapshot):
            self._positions[update.symbol] = self._bars_through[update.symbol] = update.position or FROM_START
        elif isinstance(update, EpochChanged):
            self._positions[update.symbol] = self._bars_through[update.symbol] = Position(update.epoch, 0)
        elif isinstance(update, BarClosed):
            known = self._bars_through.get(update.symbol, FROM_START)
            if known.epoch == update.epoch and update.closing_sequence <= known.sequence:
                return
            through = self._bars_through[update.symbol] = Position(update.epoch, update.closing_sequence)
            if MarketKind.TICKS not in self._kinds:
                self._positions[update.symbol] = through
        yield update

    def _missed(self, gap: Gap) -> Iterator[Gap]:
        known = self._positions.get(gap.symbol, FROM_START)
        first = max(gap.first_sequence, known.sequence + 1) if known.epoch == gap.epoch else gap.first_sequence
        if first <= gap.last_sequence:
            self._positions[gap.symbol] = Position(gap.epoch, gap.last_sequence)
            yield Gap(gap.symbol, gap.epoch, first, gap.last_sequence)

    def _take_ticks(self, batch: TickBatchView) -> None:
        known = self._positions.get(batch.symbol, FROM_START)
        if known.epoch not in {0, batch.epoch}:
            known = self._bars_through[batch.symbol] = Position(batch.epoch, 0)
            self._due.append(EpochChanged(batch.symbol, batch.epoch, batch.provenance))
        if batch.first_sequence > known.sequence + 1:
            self._due.append(Gap(batch.symbol, batch.epoch, known.sequence + 1, batch.first_sequence - 1))
        elif batch.first_sequence <= known.sequence:
            batch = batch.after(known.sequence)
            if len(batch) == 0:
                return
        self._positions[batch.symbol] = Position(batch.epoch, batch.last_sequence)
        self._due.append(batch)

    def _answered(self, answer: pb2.MarketSubscribed) -> Iterator[MarketUpdate]:
        if not answer.refused_reason:
            return
        if answer.refused_reason != _LOST or not answer.HasField("oldest"):
            raise SubscriptionRefused(answer.symbol, answer.refused_reason, answer.refused_message)
        symbol, oldest = answer.symbol, position_of(answer.oldest)
        known = self._positions.get(symbol, FROM_START)
        if known.epoch not in {0, oldest.epoch}:
            known = self._positions[symbol] = self._bars_through[symbol] = Position(oldest.epoch, 0)
            yield EpochChanged(symbol, oldest.epoch, answer.provenance)
        bars = self._bars_through.get(symbol, known)
        if bars.sequence < oldest.sequence - 1:
            self._bars_through[symbol] = Position(oldest.epoch, oldest.sequence - 1)
        if known.sequence < oldest.sequence - 1:
            yield from self._missed(Gap(symbol, oldest.epoch, known.sequence + 1, oldest.sequence - 1))


async def _watch_over(owner: weakref.ref[MarketSubscription], call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
    """Cancels a call that is silent while it is waited for, or whose subscription nobody holds any more."""
    while not call.done():
        await asyncio.sleep(SILENCE_S / 3)
        subscription = owner()
        if subscription is None or subscription.silent_for(time.monotonic()) > SILENCE_S:
            call.cancel()
        del subscription
