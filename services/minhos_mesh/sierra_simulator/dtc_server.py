"""Decides how the simulator serves DTC on loopback: one task per client, and a slow or dead one delays no other."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minhos_mesh.dtc import server_session
from minhos_mesh.dtc.enums import Encoding, LogonFlag
from minhos_mesh.dtc.errors import FramingLost, MessageUnencodable
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.session import (
    Action,
    Close,
    CloseReason,
    LoggedOn,
    Phase,
    Send,
    Step,
    Switch,
    closed,
    heard,
    log_off,
    next_deadline,
    tick,
)
from minhos_mesh.dtc.stream import MessageStream, encode
from minhos_mesh.dtc.tables.history import HISTORICAL_PRICE_DATA_REQUEST
from minhos_mesh.dtc.tables.trading import (
    CANCEL_ORDER,
    CANCEL_REPLACE_ORDER,
    SUBMIT_NEW_SINGLE_ORDER,
)
from minhos_mesh.matching import Quote, Trade
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.sierra_simulator import dtc_answers, dtc_depth, dtc_market
from minhos_mesh.sierra_simulator.dtc_depth import ShownBook
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_faults import FaultRates, Faults
from minhos_mesh.sierra_simulator.dtc_file import OrderFile
from minhos_mesh.sierra_simulator.dtc_history import history
from minhos_mesh.sierra_simulator.dtc_market import Subscriptions
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings

READ_SIZE = 1 << 16
DROP_DATA_ABOVE = 1 << 20
"""Bytes that wait for a client above which it gets no more market data; what was left out is counted in heartbeats."""
CUT_ABOVE = 1 << 24
"""Bytes that wait for a client above which its connection is cut."""
PIECE = 200
"""Messages of a long answer that are written at once."""
CLOSE_DEADLINE_S = 2.0
_STRANGE_TYPE = 64_001

_LOG = get_logger("sierra_simulator.dtc")


@dataclass(slots=True)
class ServerCounts:
    """What the server has seen."""

    connections: int = 0
    orders: int = 0
    cut: int = 0
    """Connections that were cut because their client did not read."""
    malformed: int = 0
    unknown: int = 0


class DtcServer:
    """Serves DTC from start() until close()."""

    def __init__(
        self,
        exchange: SimulatedExchange,
        *,
        clock: Clock,
        folder: Path,
        faults: Faults | None = None,
        file: OrderFile | None = None,
    ) -> None:
        """`folder` holds the .scid files from which history is served; `file` keeps orders, none loses them at the end."""
        self._file = file
        self._failed = False
        self.exchange = exchange
        self.settings: DtcServerSettings = exchange.settings
        self.clock = clock
        self.folder = folder
        self.faults = faults or Faults(FaultRates())
        self.counts = ServerCounts()
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], _Client] = {}

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before start()."""
        return 0 if self._server is None else int(self._server.sockets[0].getsockname()[1])

    @property
    def clients(self) -> int:
        """Clients that are connected."""
        return len(self._clients)

    async def start(self) -> None:
        """Listens on loopback. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.settings.port, limit=READ_SIZE)

    async def close(self) -> None:
        """Says goodbye to every client and stops listening; a second call does nothing."""
        server, self._server = self._server, None
        if server is None:
            self._give_back()
            return
        server.close()
        for client in list(self._clients.values()):
            client.say_goodbye()
        if self._clients:
            await asyncio.wait(list(self._clients), timeout=CLOSE_DEADLINE_S)
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await server.wait_closed()
        self._give_back()

    def _give_back(self) -> None:
        if self._file is not None:
            self._file.close()

    def cut_all(self) -> None:
        """Cuts every connection without a word, as a network that fails."""
        for client in self._clients.values():
            client.cut()

    def show(self, symbol: str, quote: Quote | None, trade: Trade | None) -> None:
        """Shows the market to the book and to whoever has asked for it, the quote first."""
        if quote is not None:
            quote = self.faults.thinned(quote)
            self.tell(self.exchange.on_quote(symbol, quote))
        if trade is not None:
            self.tell(self.exchange.on_trade(symbol, trade))
        for client in self._clients.values():
            client.show(symbol, quote, trade)

    def show_book(self, symbol: str, book: ShownBook) -> None:
        """Shows the order book to whoever has asked for it."""
        before = self.exchange.books.get(symbol, ShownBook())
        self.exchange.books[symbol] = book
        for client in self._clients.values():
            client.show_book(symbol, before, book)

    def tell(self, messages: list[Message]) -> None:
        """Tells every client that is logged on what happened to orders, and what it made of positions and balances."""
        if messages and not self._written():
            return
        everything = [*messages, *dtc_answers.changes(self.exchange)]
        if everything:
            for client in list(self._clients.values()):
                client.tell(everything)

    def _written(self) -> bool:
        """Whether the step is in the file; where it cannot be, nobody is told anything any more until the next start."""
        if self._file is None or self._failed:
            return not self._failed
        try:
            self._file.save(self.exchange.take_changes())
        except OSError as error:
            _LOG.error("dtc.orders_not_written", problem=str(error))
            self._failed = True
            self.cut_all()
        return not self._failed

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        if self._failed:
            writer.close()
            return
        client = _Client(self, reader, writer)
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a connection is served without a task")
        self._clients[task] = client
        try:
            await client.run()
        except (ConnectionError, TimeoutError):
            _LOG.info("dtc.client_lost")
        finally:
            del self._clients[task]
            writer.close()
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(CLOSE_DEADLINE_S):
                    await writer.wait_closed()


class _Client:
    """One connection."""

    def __init__(self, server: DtcServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._session = server_session.begin(server.settings.session, server.clock.monotonic())
        self._stream = MessageStream(self._session.encoding)
        self._mine = Subscriptions()
        self._dropped = 0
        self._fell_silent = False
        self._over = False

    @property
    def _silent(self) -> bool:
        return self._fell_silent or self._server.faults.rates.hushed

    async def run(self) -> None:
        """Serves until one side ends it."""
        while not self._over:
            data = await self._next_bytes()
            if data is None:
                self._do(tick(self._session, self._now(), self._server.clock.wall_ns() // 10**9, self._dropped))
                continue
            if not data:
                return
            self._session = heard(self._session, self._now())
            self._stream.feed(data)
            if self._stream.looks_like_json() and self._session.phase is Phase.AWAITING_ENCODING:
                self._session = server_session.spoken_first(self._session, json=True)
                self._stream.encoding = self._session.encoding
            await self._take_messages()
        with suppress(ConnectionError):
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._writer.drain()

    def say_goodbye(self) -> None:
        """Logs the client off."""
        self._do(log_off(self._session, "the simulator stops"))
        self._writer.close()

    def cut(self) -> None:
        """Ends the connection without a word."""
        self._over = True
        self._writer.transport.abort()

    def tell(self, messages: list[Message]) -> None:
        """Sends what happened to orders, with the faults that the server has been told to make."""
        if self._session.phase is not Phase.READY or self._silent:
            return
        if not self._server.faults.rates.any:
            self._send_all(messages)
            return
        faulty = self._server.faults.change(messages)
        binary = self._session.encoding is not Encoding.JSON
        strange = struct.pack("<HH", 4, _STRANGE_TYPE) if binary else b'{"Type":%d}\0' % _STRANGE_TYPE
        self._write(strange * faulty.strange)
        self._send_all(faulty.messages)
        if faulty.late:
            late_s = self._server.faults.rates.late_s
            asyncio.get_running_loop().call_later(late_s, self._send_late, faulty.late)
        if faulty.cut:
            self.cut()
        self._fell_silent = faulty.silent

    def _send_late(self, messages: tuple[Message, ...]) -> None:
        if not self._over and not self._silent:
            self._send_all(messages)

    def show(self, symbol: str, quote: Quote | None, trade: Trade | None) -> None:
        """Sends market data when the client has asked for it and reads what it is sent."""
        number = self._mine.id_of(symbol)
        if number is None or self._session.phase is not Phase.READY or self._silent:
            return
        messages = []
        if quote is not None:
            messages.append(dtc_market.quote_message(self._mine.flags, number, quote))
        if trade is not None:
            messages.append(dtc_market.trade_message(self._mine.flags, number, trade))
        if self._waiting() > DROP_DATA_ABOVE:
            self._dropped += len(messages)
        else:
            self._send_all(messages)

    def show_book(self, symbol: str, before: ShownBook, after: ShownBook) -> None:
        """Sends what changed in a book when the client has asked for it; one that does not read gets it whole later."""
        if self._session.phase is not Phase.READY or self._silent:
            return
        for number in [number for number, known in self._mine.books.items() if known == symbol]:
            if self._waiting() > DROP_DATA_ABOVE:
                self._dropped += 1
                self._mine.behind.add(number)
            elif number in self._mine.behind:
                self._mine.behind.discard(number)
                self._send_all(dtc_depth.snapshot(self._mine.flags, number, after))
            else:
                self._send_all(dtc_depth.changes(self._mine.flags, number, before, after))

    async def _next_bytes(self) -> bytes | None:
        """Bytes of the client, empty at their end; None when the session has something to do."""
        deadline = next_deadline(self._session)
        left = None if deadline is None or self._silent else max(0.0, deadline - self._now())
        try:
            async with asyncio.timeout(left):
                return await self._reader.read(READ_SIZE)
        except TimeoutError:
            return None

    async def _take_messages(self) -> None:
        try:
            while not self._over and (message := self._stream.read()) is not None:
                if self._silent:
                    continue
                await self._take(message)
        except FramingLost as lost:
            self._do(closed(self._session, CloseReason.PROTOCOL_BROKEN, str(lost)))
        counts, seen = self._server.counts, self._stream.counts
        counts.malformed, counts.unknown = counts.malformed + seen.malformed, counts.unknown + seen.unknown.total()
        seen.malformed = 0
        seen.unknown.clear()

    async def _take(self, message: Message) -> None:
        before = self._session.phase
        self._do(server_session.received(self._session, self._server.settings.session, message, self._now()))
        if before is Phase.READY and self._session.phase is Phase.READY:
            if message.layout is HISTORICAL_PRICE_DATA_REQUEST:
                await self._serve_history(message)
            else:
                await self._serve(message)

    async def _serve(self, message: Message) -> None:
        server, now_ns = self._server, self._server.clock.wall_ns()
        act = {
            SUBMIT_NEW_SINGLE_ORDER: server.exchange.submit,
            CANCEL_ORDER: server.exchange.cancel,
            CANCEL_REPLACE_ORDER: server.exchange.replace,
        }.get(message.layout)
        if message.layout is SUBMIT_NEW_SINGLE_ORDER and server.faults.rejects():
            act = server.exchange.refuse
        if act is not None:
            server.counts.orders += 1
            server.tell(act(message, now_ns))
            return
        answer = dtc_market.asked(server.exchange, self._mine, message)
        if answer is None:
            answer = dtc_answers.answer(server.exchange, message, now_ns)
        for first in range(0, len(answer or ()), PIECE):  # so that a long list delays neither others nor heartbeats
            self._send_all((answer or [])[first : first + PIECE])
            await self._writer.drain()

    async def _serve_history(self, message: Message) -> None:
        for number, record in enumerate(history(self._server.exchange, self._server.folder, message)):
            self._send_all([record])
            if number % 500 == 0:
                await self._writer.drain()
        await self._writer.drain()
        self._over = True  # One request per connection, as the logon has said.

    def _do(self, step: Step) -> None:
        self._session = step.session
        for action in step.actions:
            self._act(action)

    def _act(self, action: Action) -> None:
        if isinstance(action, Send):
            if not self._silent:
                self._write(encode(action.message, action.encoding))
        elif isinstance(action, Switch):
            self._stream.encoding = action.encoding
        elif isinstance(action, LoggedOn):
            known = action.answer.integer("Integer_1") & int(LogonFlag.RECOMMENDED)
            self._mine.flags = LogonFlag(known)
        elif isinstance(action, Close):
            self._over = True

    def _send_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            try:
                self._write(encode(message, self._session.encoding))
            except MessageUnencodable as problem:
                _LOG.warning("dtc.message_not_sent", problem=str(problem))

    def _write(self, data: bytes) -> None:
        if self._waiting() > CUT_ABOVE:
            self._server.counts.cut += 1
            self.cut()
        elif not self._writer.transport.is_closing():
            self._writer.write(data)

    def _waiting(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def _now(self) -> float:
        return self._server.clock.monotonic()
