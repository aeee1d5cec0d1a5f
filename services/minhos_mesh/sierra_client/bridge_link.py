"""Decides how prices are got from a bridge that answers: by its streams while they speak, and by asking when they are silent."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote as escaped

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.sierra_client.bridge_http import Answer, BridgeHttp, BridgeLost, WayClosed
from minhos_mesh.sierra_client.bridge_orders import TradeStatus, judge_trade_status
from minhos_mesh.sierra_client.bridge_quotes import (
    Refusal,
    Refused,
    Told,
    quote_of_message,
    quotes_of_map,
    read_json,
    read_symbols,
)
from minhos_mesh.sierra_client.bridge_status import Way

POLL_S: Final = 1.0
SILENT_S: Final = 3.0
REST_PER_QUESTION_S: Final = 0.5
"""Known versions break down under four questions a second and more; where each symbol has its own, they are fewer."""
TRIED_AGAIN_S: Final = 60.0
"""While no way gives a price, all are tried again so often."""

_OK, _NOT_FOUND, _BREAKER_OPEN = 200, 404, 503


class WaySilent(Exception):
    """Expected: a way is open and no price comes by it."""


class Listener(Protocol):
    """Who hears what a bridge says."""

    def on_quote(self, value: object) -> bool:
        """Takes what should be a quote; true when it was one of a wanted symbol. Counts what it refuses."""

    def on_refused(self, refusal: Refusal) -> None:
        """Something was left out."""

    def on_way(self, way: Way) -> None:
        """Prices come by this way."""

    def on_silence(self, reason: str) -> None:
        """The bridge answers, and no price comes."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a bridge tells of itself when it is met."""

    version: str
    symbols: tuple[str, ...]
    trade_status: TradeStatus
    trade_status_reason: str


class BridgeLink:
    """The way to prices over one connection; run() ends only by an exception."""

    def __init__(
        self,
        http: BridgeHttp,
        symbols: Sequence[str],
        listener: Listener,
        clock: Clock,
        *,
        poll_s: float = POLL_S,
        silent_s: float = SILENT_S,
        tried_again_s: float = TRIED_AGAIN_S,
    ) -> None:
        """`symbols` are canonical; quotes of others are passed on and refused by the listener."""
        self._http = http
        self._symbols = symbols
        self._listener = listener
        self._clock = clock
        self._poll_s = poll_s
        self._silent_s = silent_s
        self._tried_again_s = tried_again_s
        self._by_map = True

    async def introduce(self) -> Introduction:
        """Asks what answers there, what it has, and whether it invents fills. Raises BridgeLost when it is no bridge."""
        answer = await self._http.get("/health")
        told = self._told(answer) if answer.status == _OK else None
        if not isinstance(told, dict) or not str(told.get("service", "")).startswith("minhos"):
            raise BridgeLost(f"what answers is no bridge: /health gave HTTP {answer.status} and not its name")
        symbols: tuple[str, ...] = ()
        try:
            symbols = read_symbols(read_json((await self._http.get("/api/symbols")).body))
        except Refused:
            self._listener.on_refused(Refusal.NO_QUOTE)
        nobody = f"never-sent-{uuid.uuid4()}"
        answer = await self._http.get(f"/api/trade/status/{nobody}")
        return Introduction(str(told.get("version", ""))[:40], symbols, *judge_trade_status(answer.status, answer.body))

    async def run(self, first: Way) -> None:
        """Brings prices, by `first` to begin with, until the bridge is lost. Raises BridgeLost."""
        ways = list(Way)
        way = first
        while True:
            try:
                await (self._poll() if way is Way.POLLING else self._listen(way))
            except WaySilent as silent:
                self._listener.on_silence(str(silent))
            except WayClosed:
                await asyncio.sleep(0)
            way = ways[(ways.index(way) + 1) % len(ways)]

    async def _listen(self, way: Way) -> None:
        """Takes what streams say for as long as prices come. Raises WaySilent, WayClosed, BridgeLost."""
        paths = [way.value]
        if way is Way.LIVE_DATA:
            paths = [f"{way.value}/{escaped(symbol)}" for symbol in self._symbols]
        async with self._http.streams(paths) as messages:
            heard = self._clock.monotonic()
            while True:
                left = heard + self._silent_s - self._clock.monotonic()
                if left <= 0:
                    raise WaySilent(f"{way.value} is open and has told no price for {self._silent_s:g} s")
                try:
                    async with asyncio.timeout(left):
                        message = await messages.get()
                except TimeoutError:
                    continue
                if isinstance(message, BridgeLost):
                    raise message
                if self._take_message(message):
                    heard = self._clock.monotonic()
                    self._listener.on_way(way)
                await asyncio.sleep(0)  # A flood of messages holds up nothing else.

    async def _poll(self) -> None:
        """Asks again and again. Raises WaySilent when no price was given for long, BridgeLost."""
        began = heard = self._clock.monotonic()
        while True:
            usable = [value for value in await self._ask() if self._listener.on_quote(value)]
            now = self._clock.monotonic()
            if usable:
                began = heard = now
                self._listener.on_way(Way.POLLING)
            elif now - heard >= self._silent_s:
                self._listener.on_silence(f"asked for prices of {', '.join(self._symbols)}, the bridge has none")
            if now - began >= self._tried_again_s:
                raise WaySilent(f"the bridge has told no price for {self._tried_again_s:g} s")
            questions = 1 if self._by_map else len(self._symbols)
            await asyncio.sleep(max(self._poll_s, REST_PER_QUESTION_S * questions if questions > 1 else 0))

    async def _ask(self) -> list[object]:
        """All quotes that the bridge has. It answers 404 for symbols that it has not, and counts that as its own failure,
        so it is asked for all at once, and one by one only where it cannot do that.
        """
        if self._by_map:
            answer = await self._answer("/api/market_data")
            if answer.status == _OK:
                return self._values(answer)
            self._by_map = False
        found: list[object] = []
        for symbol in self._symbols:
            answer = await self._answer(f"/api/data/{escaped(symbol)}")
            if answer.status == _OK:
                told = self._told(answer)
                found.append({"symbol": symbol, **told} if isinstance(told, dict) else told)
            elif answer.status != _NOT_FOUND:
                raise BridgeLost(f"/api/data/{symbol} answers HTTP {answer.status}")
        return found

    async def _answer(self, path: str) -> Answer:
        answer = await self._http.get(path)
        if answer.status == _BREAKER_OPEN:
            raise BridgeLost(f"{path} answers HTTP 503: the bridge rests after failures of its own")
        return answer

    def _values(self, answer: Answer) -> list[object]:
        try:
            return quotes_of_map(read_json(answer.body))
        except Refused as refused:
            self._listener.on_refused(refused.refusal)
            return []

    def _told(self, answer: Answer) -> object:
        try:
            return read_json(answer.body)
        except Refused as refused:
            self._listener.on_refused(refused.refusal)
            return None

    def _take_message(self, text: str) -> bool:
        try:
            told, value = quote_of_message(read_json(text))
        except Refused as refused:
            self._listener.on_refused(refused.refusal)
            return False
        if told is Told.NOTHING:
            return False
        return self._listener.on_quote(value) and told is Told.CHANGE
