"""A bridge of the former system for tests: both spellings of its quotes, and everything that may be wrong with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSCloseCode, web

PRICE, LAST_PRICE = "price", "last_price"


class FakeBridge:
    """Serves what known versions serve; `dialect` tells which of them."""

    def __init__(self, dialect: str = PRICE) -> None:
        self.dialect = dialect
        self.quotes: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.transports: list[asyncio.Transport] = []
        self.interval_s = 0.02
        self.live_data = "silent"
        """silent, deltas or absent."""
        self.market_data = "repeats"
        """repeats, silent, absent."""
        self.raw: str | bytes | None = None
        """What streams and answers say instead of a quote."""
        self.first: Callable[[web.WebSocketResponse], Any] | None = None
        """Called with each socket that opens."""
        self.http_status = 200
        self.delay_s = 0.0
        self.service = "minhos_sierra_bridge"
        self.changed = asyncio.Event()
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeBridge]:
        app = web.Application(middlewares=[self._seen])
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/api/symbols", self._symbols),
                web.get("/api/trade/status/{id}", self._trade_status),
                web.get("/api/market_data", self._map),
                web.get("/api/data/{symbol}", self._one),
                web.get("/ws/live_data/{symbol}", self._live),
                web.get("/ws/market_data", self._market),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            self.cut()
            await runner.cleanup()

    def cut(self) -> None:
        """Cuts every stream without a word."""
        transports, self.transports = self.transports, []
        for transport in transports:
            transport.abort()

    def set(self, symbol: str, price: float | None, bid: float | None = None, ask: float | None = None) -> None:
        """Another price of a symbol; bid and ask are the price itself, as bridges put it, where they are not given."""
        quote: dict[str, Any] = {
            "symbol": symbol, self.dialect: price, "bid": price if bid is None else bid, "ask": price if ask is None else ask,
            "timestamp": "2026-11-22T14:16:44.244706", "volume": 0, "high": 23501.0, "low": 0, "open": -1.9990019654e37,
        }  # fmt: skip
        if self.dialect == PRICE:
            quote |= {
                "source": "sierra_chart_scid",
                "bid_size": None,
                "last_size": None,
                "vwap": None,
                "sequence": None,
            }
        self.quotes[symbol] = quote
        self.changed.set()
        self.changed = asyncio.Event()

    @web.middleware
    async def _seen(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        await asyncio.sleep(self.delay_s)
        answer: web.StreamResponse = await handler(request)
        return answer

    def _answer(self, value: object) -> web.Response:
        if self.raw is not None:
            body = self.raw.encode() if isinstance(self.raw, str) else self.raw
            return web.Response(body=body, status=self.http_status, content_type="application/json")
        return web.json_response(value, status=self.http_status)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy", "service": self.service, "version": "3.1.0"})

    async def _symbols(self, _request: web.Request) -> web.Response:
        return web.json_response({"symbols": list(self.quotes), "timestamp": "x"})

    async def _trade_status(self, request: web.Request) -> web.Response:
        if self.dialect == LAST_PRICE:
            return web.json_response({"error": "internal"}, status=500)
        return web.json_response({"command_id": request.match_info["id"], "status": "FILLED", "fill_price": 18000.0})

    async def _map(self, _request: web.Request) -> web.Response:
        if self.dialect == LAST_PRICE:
            return web.json_response({"error": "internal"}, status=500)
        return self._answer(self.quotes)

    async def _one(self, request: web.Request) -> web.Response:
        quote = self.quotes.get(request.match_info["symbol"])
        return web.json_response({"error": "no"}, status=404) if quote is None else self._answer(quote)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        self.transports.append(request.transport)
        if self.first is not None:
            found = self.first(socket)
            if asyncio.iscoroutine(found):
                await found
        return socket

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if self.live_data == "absent":
            raise web.HTTPNotFound
        socket, symbol = await self._socket(request), request.match_info["symbol"]
        if symbol in self.quotes:
            await self._send(socket, {"type": "initial_state", "symbol": symbol, "data": self.quotes[symbol]})
        while not socket.closed:
            changed = self.changed
            if self.live_data == "deltas" and symbol in self.quotes:
                delta = {"type": "market_data_delta", "symbol": symbol, "delta": {}, "full_data": self.quotes[symbol]}
                await self._send(socket, delta)
            else:
                await self._send(socket, {"type": "ping", "timestamp": "x"})
            await self._wait(changed)
        return socket

    async def _market(self, request: web.Request) -> web.StreamResponse:
        if self.market_data == "absent":
            raise web.HTTPNotFound
        socket = await self._socket(request)
        while not socket.closed:
            changed = self.changed
            for quote in list(self.quotes.values()) if self.market_data == "repeats" else []:
                await self._send(socket, {"type": "market_data", "data": quote})
            await self._send(socket, {"type": "ping"})
            await self._wait(changed)
        return socket

    async def _send(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        raw = self.raw if self.raw is not None and message["type"] != "ping" else json.dumps(message)
        try:
            await (socket.send_bytes(raw) if isinstance(raw, bytes) else socket.send_str(raw))
        except (ConnectionError, RuntimeError):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _wait(self, changed: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self.interval_s):
                await changed.wait()
        except TimeoutError:
            return
