"""Client and simulator over a real TCP connection on loopback."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.ports import free_port

from minhos_mesh.dtc.client_session import ClientSettings, Permissions
from minhos_mesh.dtc.depth_updates import BookUpdate
from minhos_mesh.dtc.enums import BuySell, Encoding, LogonFlag, OrderType, TimeInForce
from minhos_mesh.dtc.ledger import OrderLedger
from minhos_mesh.dtc.market_updates import MarketUpdate, QuoteUpdate, TradeUpdate
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.order_state import OrderState, TrackedOrder, UpdateKind, VenueUpdate
from minhos_mesh.dtc.reports import BalanceReport, FillReport, PositionReport
from minhos_mesh.dtc.requests import subscribe
from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.dtc.stream import MessageStream, encode
from minhos_mesh.dtc.tables import history, market, reference, trading
from minhos_mesh.dtc.tables.session import ENCODING_REQUEST, ENCODING_RESPONSE, LOGOFF, LOGON_REQUEST, LOGON_RESPONSE
from minhos_mesh.matching import Quote, Side, Trade
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.config import ConfigError, load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.sierra_client.dtc_connection import DtcConnection
from minhos_mesh.sierra_client.dtc_ports import NotReady
from minhos_mesh.sierra_client.dtc_settings import ConnectionSettings
from minhos_mesh.sierra_client.dtc_status import DtcState, DtcStatus
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD
from minhos_mesh.sierra_files.ticks import tick_columns
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator import dtc_server
from minhos_mesh.sierra_simulator.bootstrap import build
from minhos_mesh.sierra_simulator.dtc_depth import ShownBook
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_faults import FaultRates, Faults
from minhos_mesh.sierra_simulator.dtc_feed import market_of
from minhos_mesh.sierra_simulator.dtc_server import DtcServer
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings

SYMBOL = "NQZ26-CME"
TICK = 250_000_000
P = 23_500_000_000_000
ORDERS = int(os.environ.get("MINHOS_DTC_ORDERS", "250"))
"""Orders of the session with faults; a long campaign sets more."""
ENCODINGS = [Encoding.JSON, Encoding.BINARY, Encoding.BINARY_VARIABLE]
CLOCK = SystemClock()


@dataclass
class Journal:
    orders: dict[str, TrackedOrder] = field(default_factory=dict)
    saves: int = 0

    async def save(self, orders: Sequence[TrackedOrder]) -> None:
        self.saves += 1
        await asyncio.sleep(0)
        self.orders.update((order.client_order_id, order) for order in orders)


@dataclass
class Watcher:
    journal: Journal
    updates: list[VenueUpdate] = field(default_factory=list)
    states: list[DtcState] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    market: list[MarketUpdate | BookUpdate] = field(default_factory=list)
    booked: list[str] = field(default_factory=list)
    listed: list[dict[str, int]] = field(default_factory=list)

    def accepts(self, permissions: Permissions, account: str) -> str:
        return "" if permissions.simulated else f"{account} is at another server"

    def on_settled(
        self,
        permissions: Permissions,
        account: str,
        positions: Sequence[PositionReport],
        balance: BalanceReport | None,
    ) -> None:
        self.listed.append({position.symbol: position.quantity for position in positions})

    def on_booked(self, fill: FillReport) -> None:
        self.booked.append(fill.execution_id)

    def on_update(self, update: VenueUpdate) -> None:
        assert update.order.client_order_id in self.journal.orders
        self.updates.append(update)

    def on_status(self, status: DtcStatus) -> None:
        self.states.append(status.state)
        self.reasons.append(status.reason)

    def on_market(self, update: MarketUpdate | BookUpdate) -> None:
        self.market.append(update)

    def on_message(self, message: Message) -> None:
        self.messages.append(message)

    def kinds(self, client_order_id: str) -> list[UpdateKind]:
        return [update.kind for update in self.updates if update.order.client_order_id == client_order_id]


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(
    folder: Path, settings: DtcServerSettings | None = None, faults: Faults | None = None, port: int = 0
) -> AsyncIterator[DtcServer]:
    chosen = settings or DtcServerSettings()
    server = DtcServer(
        SimulatedExchange(replace(chosen, port=port), [SYMBOL]), clock=CLOCK, folder=folder, faults=faults
    )
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def connection(
    port: int,
    encoding: Encoding = Encoding.JSON,
    symbol: str = SYMBOL,
    known: Sequence[TrackedOrder] = (),
    heartbeat_s: int = 5,
    *,
    depth: bool = False,
) -> tuple[DtcConnection, Watcher]:
    journal = Journal({order.client_order_id: order for order in known})
    watcher = Watcher(journal)
    settings = ConnectionSettings(
        port=port, session=ClientSettings(encoding=encoding, heartbeat_s=heartbeat_s), ticks_e9={symbol: TICK}, market_data=(symbol,), first_wait_s=0.01,
        longest_wait_s=0.05, depth=depth, account_is_ours=True, on_the_way_ns=300_000_000,
    )  # fmt: skip
    made = DtcConnection(
        settings, OrderLedger(known), clock=CLOCK, journal=journal, watcher=watcher, randomness=random.Random(1),
        reference_of=lambda _: P,
    )  # fmt: skip
    return made, watcher


@asynccontextmanager
async def running(made: DtcConnection) -> AsyncIterator[None]:
    task = asyncio.create_task(made.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def show(server: DtcServer, bid: int, ask: int, size: int = 5) -> None:
    now = CLOCK.wall_ns()
    quote = Quote(time_ns=now, bid_e9=P + bid * TICK, ask_e9=P + ask * TICK, bid_size=size, ask_size=size)
    server.show(SYMBOL, quote, Trade(time_ns=now, price_e9=P + ask * TICK, size=1, aggressor=Side.BUY))


def held(ledger: OrderLedger, symbol: str) -> int:
    """Contracts that the fills of our orders of a symbol add up to."""
    fills = [fill for known in ledger.all() if known.symbol == symbol for fill in known.fills]
    return sum(fill.quantity if fill.side is BuySell.BUY else -fill.quantity for fill in fills)


def order(client_id: str, quantity: int = 1, limit: int | None = None, side: BuySell = BuySell.BUY) -> TrackedOrder:
    return TrackedOrder(
        client_order_id=client_id,
        symbol=SYMBOL,
        side=side,
        order_type=OrderType.MARKET if limit is None else OrderType.LIMIT,
        quantity=quantity,
        time_in_force=TimeInForce.GOOD_TILL_CANCELED,
        limit_price_e9=None if limit is None else P + limit * TICK,
        account="Sim1",
        submitted_ns=CLOCK.wall_ns(),
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_order_is_taken_filled_in_parts_changed_and_cancelled(tmp_path: Path, encoding: Encoding) -> None:
    async with serving(tmp_path) as server:
        made, watcher = connection(server.port, encoding)
        async with running(made):
            await until(made.ready)
            assert (made.status.account, made.status.encoding) == ("Sim1", encoding)
            show(server, 0, 1, size=3)
            await made.submit(order("m", 5))
            await until(lambda: len(made.ledger.all()[0].fills) == 1)
            show(server, 0, 2, size=3)
            await until(lambda: made.ledger.all()[0].state is OrderState.FILLED)
            fills = made.ledger.all()[0].fills
            assert [(fill.quantity, fill.price_e9) for fill in fills] == [(3, P + TICK), (2, P + 2 * TICK)]

            await made.submit(order("l", 2, limit=-8))
            await until(lambda: watcher.kinds("l") == [UpdateKind.ACCEPTED])
            await made.replace("l", quantity=4, limit_price_e9=P - 4 * TICK)
            await until(lambda: UpdateKind.REPLACED in watcher.kinds("l"))
            changed = made.ledger.get("l")
            assert changed is not None
            assert (changed.quantity, changed.limit_price_e9, len(changed.server_order_ids)) == (4, P - 4 * TICK, 2)
            await made.cancel("l")
            await until(lambda: watcher.kinds("l")[-1] is UpdateKind.CANCELED)
            assert server.exchange.position("Sim1", SYMBOL).quantity == held(made.ledger, SYMBOL) == 5
            await until(lambda: any(message.layout is trading.POSITION_UPDATE for message in watcher.messages))


async def test_order_that_the_server_refuses_says_why(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        made, watcher = connection(server.port)
        async with running(made):
            await until(made.ready)
            await made.submit(replace(order("x", 1, limit=0), limit_price_e9=P + TICK // 2))
            await until(lambda: watcher.kinds("x") == [UpdateKind.REJECTED])
            assert "a whole number of ticks" in made.ledger.all()[0].text


async def test_unscaled_fill_prices_become_exact(tmp_path: Path) -> None:
    async with serving(tmp_path, DtcServerSettings(price_multiplier=Fraction(1, 100))) as server:
        made, _ = connection(server.port, Encoding.BINARY)
        async with running(made):
            await until(made.ready)
            show(server, 0, 1)
            await made.submit(order("m", 1))
            await until(lambda: made.ledger.all()[0].state is OrderState.FILLED)
            assert made.ledger.all()[0].fills[0].price_e9 == P + TICK


async def test_cancel_before_the_first_answer_is_sent_after_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        made, watcher = connection(server.port)
        async with running(made):
            await until(made.ready)
            await made.submit(order("l", 1, limit=-8))
            await made.cancel("l")
            await until(lambda: watcher.kinds("l") == [UpdateKind.ACCEPTED, UpdateKind.CANCELED])
            await made.cancel("l")
            with pytest.raises(KeyError):
                await made.cancel("other")


async def test_nothing_is_sent_while_the_server_is_away_and_it_is_reached_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        port = server.port
        made, _ = connection(port)
        async with running(made):
            await until(made.ready)
            await server.close()
            await until(lambda: made.status.state is DtcState.WAITING)
            with pytest.raises(NotReady, match="the DTC server is not ready"):
                await made.submit(order("m"))
            assert made.ledger.all() == ()
            await until(lambda: "cannot be reached" in made.status.reason and "the next attempt" in made.status.reason)
            async with serving(tmp_path, port=port):
                await until(made.ready)
                assert made.status.settled == 2


async def test_orders_are_settled_after_the_connection_broke(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        made, _ = connection(server.port)
        async with running(made):
            await until(made.ready)
            show(server, 0, 1)
            await made.submit(order("works", 2, limit=-2))
            await made.submit(order("fills", 2, limit=-1))
            await until(
                lambda: len(made.ledger.alive()) == 2 and not [o for o in made.ledger.all() if not o.server_order_id]
            )
            server.cut_all()
            show(server, -2, -1)
            await until(lambda: made.status.settled == 2)
            states = {known.client_order_id: known.state for known in made.ledger.all()}
            assert states == {"works": OrderState.WORKING, "fills": OrderState.FILLED}


async def test_server_without_trading_is_a_state_and_not_a_loop(tmp_path: Path) -> None:
    async with serving(tmp_path, DtcServerSettings(session=ServerSettings(trading=False))) as server:
        made, _ = connection(server.port)
        async with running(made):
            await until(lambda: made.status.state is DtcState.NOT_PERMITTED)
            assert "Allow Trading" in made.status.reason
            with pytest.raises(NotReady):
                await made.submit(order("m"))
            assert server.counts.connections == 1


async def test_wrong_password_waits_long_and_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, DtcServerSettings(session=ServerSettings(username="me", password="x"))) as server:
        made, _ = connection(server.port)
        async with running(made):
            await until(lambda: made.status.state is DtcState.WAITING)
            assert "Username or password is not right" in made.status.reason
            assert "60.0 s" in made.status.reason


async def test_server_that_is_not_the_one_that_has_the_orders_is_settled_with_never(tmp_path: Path) -> None:
    async with serving(tmp_path, DtcServerSettings(session=ServerSettings(name="SierraChart"))) as server:
        made, _ = connection(server.port, known=[order("old")])
        async with running(made):
            await until(lambda: made.status.state is DtcState.WAITING)
            assert "Sim1 is at another server" in made.status.reason
            assert [known.state for known in made.ledger.all()] == [OrderState.UNKNOWN]
            with pytest.raises(NotReady):
                await made.submit(order("m"))


async def test_server_with_several_accounts_needs_one_named(tmp_path: Path) -> None:
    async with serving(tmp_path, DtcServerSettings(accounts=("A", "B"))) as server:
        made, _ = connection(server.port)
        async with running(made):
            await until(lambda: made.status.state is DtcState.WAITING)
            assert "['A', 'B']: one of them must be configured" in made.status.reason


async def test_an_order_sent_before_a_crash_is_found_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        show(server, 0, 1)
        first, _ = connection(server.port)
        async with running(first):
            await until(first.ready)
            for sent in (order("fills", 2, limit=1), order("works", 2, limit=-8)):
                await first.submit(sent)
            await until(lambda: len(server.exchange.orders) == 2)
        never = order("never")
        written_down = [order("fills", 2, limit=1), order("works", 2, limit=-8), never]
        second, watcher = connection(server.port, known=written_down)
        async with running(second):
            await until(lambda: watcher.kinds("never")[-1:] == [UpdateKind.REJECTED])
            states = {known.client_order_id: known.state for known in second.ledger.all()}
            assert states == {"fills": OrderState.FILLED, "works": OrderState.WORKING, "never": OrderState.REJECTED}
            assert watcher.kinds("fills") == [UpdateKind.BECAME_UNKNOWN, UpdateKind.FILLED]
            assert held(second.ledger, SYMBOL) == server.exchange.position("Sim1", SYMBOL).quantity == 2


async def test_server_that_falls_silent_is_given_up_and_reached_again(tmp_path: Path) -> None:
    faults = Faults(FaultRates(silence=1.0))
    async with serving(tmp_path, faults=faults) as server:
        made, watcher = connection(server.port, heartbeat_s=1)
        async with running(made):
            await until(made.ready)
            await made.submit(order("l", 1, limit=-8))
            await until(lambda: faults.counts["silence"] == 1)
            faults.rates = FaultRates()
            await until(lambda: made.status.settled == 2)
            assert any("nothing was heard" in reason for reason in watcher.reasons)
            known = made.ledger.get("l")
            assert known is not None
            assert known.state is OrderState.WORKING


class Client:
    """A client of its own that speaks raw messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, encoding: Encoding) -> None:
        self.reader, self.writer, self.encoding = reader, writer, encoding
        self.stream = MessageStream()

    def send(self, message: Message) -> None:
        self.writer.write(encode(message, self.stream.encoding))

    async def read(self) -> Message | None:
        async with asyncio.timeout(5):
            while (message := self.stream.read()) is None:
                data = await self.reader.read(113)
                if not data:
                    return None
                self.stream.feed(data)
        return message

    async def next(self, layout: object) -> Message:
        while (message := await self.read()) is not None:
            if message.layout is layout:
                return message
        raise AssertionError("the server closed the connection")


@asynccontextmanager
async def client(port: int, encoding: Encoding, flags: LogonFlag = LogonFlag.RECOMMENDED) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    made = Client(reader, writer, encoding)
    made.send(make(ENCODING_REQUEST, ProtocolVersion=8, Encoding=int(encoding), ProtocolType="DTC"))
    await made.next(ENCODING_RESPONSE)
    made.stream.encoding = encoding
    made.send(make(LOGON_REQUEST, ProtocolVersion=8, HeartbeatIntervalInSeconds=10, Integer_1=int(flags)))
    await made.next(LOGON_RESPONSE)
    try:
        yield made
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("flags", [LogonFlag.RECOMMENDED, LogonFlag.UNBUNDLED_TRADES, LogonFlag(0)])
async def test_market_data_comes_in_the_form_that_the_client_understands(
    tmp_path: Path, encoding: Encoding, flags: LogonFlag
) -> None:
    quote, trade = (
        (
            market.MARKET_DATA_UPDATE_BID_ASK_FLOAT_WITH_MICROSECONDS,
            market.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2,
        )
        if flags is LogonFlag.RECOMMENDED
        else (market.MARKET_DATA_UPDATE_BID_ASK_COMPACT, market.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR)
        if flags
        else (market.MARKET_DATA_UPDATE_BID_ASK_COMPACT, market.MARKET_DATA_UPDATE_TRADE_COMPACT)
    )
    async with serving(tmp_path) as server, client(server.port, encoding, flags) as made:
        made.send(subscribe(7, SYMBOL))
        snapshot = await made.next(market.MARKET_DATA_SNAPSHOT)
        assert (snapshot.integer("SymbolID"), snapshot.number("BidPrice")) == (7, None)
        show(server, 0, 1)
        quoted = await made.next(quote)
        assert (quoted.integer("SymbolID"), quoted.number("BidPrice"), quoted.number("AskPrice")) == (
            7,
            23_500.0,
            23_500.25,
        )
        traded = await made.next(trade)
        assert (traded.number("Price"), traded.integer("AtBidOrAsk")) == (23_500.25, 2)


async def test_data_of_a_refused_exchange_is_refused_and_orders_are_taken(tmp_path: Path) -> None:
    settings = DtcServerSettings(refused_exchanges=frozenset({"CME"}))
    async with serving(tmp_path, settings) as server, client(server.port, Encoding.JSON) as made:
        made.send(subscribe(7, SYMBOL))
        assert "not permitted" in (await made.next(market.MARKET_DATA_REJECT)).text("RejectText")
        made.send(make(history.HISTORICAL_PRICE_DATA_REQUEST, RequestID=3, Symbol=SYMBOL))
        rejected = await made.next(history.HISTORICAL_PRICE_DATA_REJECT)
        assert rejected.integer("RejectReasonCode") == 2
    async with serving(tmp_path, settings) as server:
        connected, watcher = connection(server.port)
        async with running(connected):
            await until(connected.ready)
            await until(lambda: "not permitted" in connected.status.not_permitted.get(SYMBOL, ""))
            show(server, 0, 1)
            await connected.submit(order("m"))
            await until(lambda: UpdateKind.FILLED in watcher.kinds("m"))
            assert watcher.market == []


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_market_data_that_is_granted_comes_in_exact_prices(tmp_path: Path, encoding: Encoding) -> None:
    async with serving(tmp_path) as server:
        made, watcher = connection(server.port, encoding)
        async with running(made):
            await until(lambda: len(watcher.market) == 1)
            show(server, -1, 3, size=4)
            await until(lambda: len(watcher.market) == 3)
            _, quote, trade = watcher.market
            assert isinstance(quote, QuoteUpdate)
            assert isinstance(trade, TradeUpdate)
            assert (quote.bid_e9, quote.ask_e9, quote.bid_size, quote.ask_size) == (P - TICK, P + 3 * TICK, 4, 4)
            assert (trade.price_e9, trade.size, trade.aggressor) == (P + 3 * TICK, 1, BuySell.BUY)
            assert trade.time_ns == quote.time_ns


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_history_is_that_of_the_file_in_ticks_and_bars_and_the_connection_ends(
    tmp_path: Path, encoding: Encoding
) -> None:
    records = np.zeros(90, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1_621_443_600_000_000 + np.arange(90) * 1_000_000
    records["close"] = 100 + np.arange(90) * 0.25
    records["high"], records["low"] = records["close"] + 0.25, records["close"]
    records["num_trades"], records["total_volume"], records["ask_volume"] = 1, 2, 2
    ScidWriter.create(tmp_path / f"{SYMBOL}.scid", records).close()
    answers = {}
    for interval in (0, 60):
        async with serving(tmp_path) as server, client(server.port, encoding) as made:
            request = make(history.HISTORICAL_PRICE_DATA_REQUEST, RequestID=3, Symbol=SYMBOL, RecordInterval=interval)
            made.send(request)
            header = await made.next(history.HISTORICAL_PRICE_DATA_RESPONSE_HEADER)
            assert not header.flag("NoRecordsToReturn")
            found = []
            while (message := await made.read()) is not None:
                found.append(message)
            answers[interval] = found[:-1]
            assert found[-1].flag("IsFinalRecord")
    ticks, bars = answers[0], answers[60]
    assert [tick.number("LastPrice") for tick in ticks] == records["close"].tolist()
    assert (ticks[0].number("HighPrice"), ticks[0].number("OpenPrice")) == (100.25, 0.0)
    assert [(bar.number("OpenPrice"), bar.number("LastPrice"), bar.number("Volume")) for bar in bars] == [
        (100.0, 114.75, 120.0),
        (115.0, 122.25, 60.0),
    ]


async def test_questions_are_answered_also_when_there_is_nothing_to_tell(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client(server.port, Encoding.JSON) as made:
        asked = {
            trading.OPEN_ORDERS_REQUEST: (trading.ORDER_UPDATE, "NoOrders"),
            trading.CURRENT_POSITIONS_REQUEST: (trading.POSITION_UPDATE, "NoPositions"),
            trading.HISTORICAL_ORDER_FILLS_REQUEST: (trading.HISTORICAL_ORDER_FILL_RESPONSE, "NoOrderFills"),
        }
        for number, (request, (answer, empty)) in enumerate(asked.items(), start=1):
            made.send(make(request, RequestID=number, TradeAccount="Sim1"))
            found = await made.next(answer)
            assert (found.integer("RequestID"), found.flag(empty)) == (number, True)
        made.send(make(trading.HISTORICAL_ORDER_FILLS_REQUEST, RequestID=9))
        assert (await made.next(trading.HISTORICAL_ORDER_FILLS_REJECT)).text("RejectText") == "TradeAccount is not set"
        made.send(make(reference.SECURITY_DEFINITION_FOR_SYMBOL_REQUEST, RequestID=10, Symbol="NOPE"))
        assert (await made.next(reference.SECURITY_DEFINITION_REJECT)).integer("RequestID") == 10
        made.send(make(reference.SYMBOLS_FOR_EXCHANGE_REQUEST, RequestID=11))
        listed = await made.next(reference.SECURITY_DEFINITION_RESPONSE)
        assert (listed.text("Symbol"), listed.flag("IsFinalMessage")) == (SYMBOL, True)
        made.send(make(reference.ACCOUNT_BALANCE_REQUEST, RequestID=12))
        assert (await made.next(reference.ACCOUNT_BALANCE_UPDATE)).number("CashBalance") == 100_000.0


async def test_a_client_that_sends_nonsense_harms_nobody_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client(server.port, Encoding.JSON) as good:
        for nonsense in (b"\0\0\0\0", b"{" * 300_000, b'{"Type":208}\0', os.urandom(4000)):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(nonsense)
            writer.write_eof()
            with suppress(ConnectionError):
                async with asyncio.timeout(5):
                    await reader.read()
            writer.close()
        await until(lambda: server.clients == 1)
        good.send(make(reference.TRADE_ACCOUNTS_REQUEST, RequestID=1))
        assert (await good.next(reference.TRADE_ACCOUNT_RESPONSE)).text("TradeAccount") == "Sim1"


async def test_a_client_that_does_not_read_delays_nobody_and_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtc_server, "DROP_DATA_ABOVE", 10_000)
    monkeypatch.setattr(dtc_server, "CUT_ABOVE", 40_000)
    async with (
        serving(tmp_path) as server,
        client(server.port, Encoding.JSON) as slow,
        client(server.port, Encoding.JSON) as good,
    ):
        for made in (slow, good):
            made.send(subscribe(7, SYMBOL))
            await made.next(market.MARKET_DATA_SNAPSHOT)
        seen = 0

        async def read_on() -> None:
            nonlocal seen
            while True:
                await good.next(market.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2)
                seen += 1

        def caught_up(least: int) -> bool:
            return seen >= least

        reading = asyncio.create_task(read_on())
        shown = 0
        while server.clients == 2 and shown < 40_000:
            show(server, 0, 1)
            shown += 1
            if shown % 50 == 0:
                for number in range(500):
                    slow.send(make(reference.SYMBOLS_FOR_EXCHANGE_REQUEST, RequestID=number))
                await asyncio.sleep(0)
                await until(partial(caught_up, shown - 100))
        await until(lambda: seen == shown)
        reading.cancel()
        assert server.counts.cut == 1
        assert server.clients == 1


async def test_server_says_goodbye(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client(server.port, Encoding.BINARY) as made:
        await server.close()
        assert (await made.next(LOGOFF)).text("Reason") == "the simulator stops"


async def test_the_simulator_as_a_service_trades_its_own_walk_over_dtc(tmp_path: Path) -> None:
    port = free_port()
    feed = {"dtc_port": port, "history_hours": 0.1, "ticks_per_second": 500.0}
    config = load(None, environment={}, overrides={"feed": feed}).resolved(datetime.now(UTC))
    paths = MeshPaths(tmp_path)
    paths.create()
    context = ServiceContext("sierra_simulator", "sierra_simulator-1", config, paths, Clients())
    symbol = config.symbols()[0]
    async with build(context) as parts:
        await parts.start()
        try:
            made, _ = connection(port, symbol=symbol)
            async with running(made):
                await until(made.ready)
                for number, side in enumerate((BuySell.BUY, BuySell.SELL)):
                    await asyncio.sleep(0.02)
                    await made.submit(replace(order(f"m{number}", 3, side=side), symbol=symbol))
                await until(lambda: [known.state for known in made.ledger.all()] == [OrderState.FILLED] * 2)
                assert held(made.ledger, symbol) == 0
                assert all(fill.on_grid for known in made.ledger.all() for fill in known.fills)
        finally:
            await context.tasks.close()


async def test_the_simulator_as_a_service_shows_the_book_that_it_writes(tmp_path: Path) -> None:
    port = free_port()
    feed = {"dtc_port": port, "history_hours": 0.1, "ticks_per_second": 200.0, "depth_levels": 6}
    config = load(None, environment={}, overrides={"feed": feed}).resolved(datetime.now(UTC))
    paths = MeshPaths(tmp_path)
    paths.create()
    context = ServiceContext("sierra_simulator", "sierra_simulator-1", config, paths, Clients())
    async with build(context) as parts:
        await parts.start()
        try:
            made, watcher = connection(port, symbol=config.symbols()[0], encoding=Encoding.BINARY, depth=True)
            async with running(made):
                await until(lambda: sum(isinstance(each, BookUpdate) for each in watcher.market) > 20)
        finally:
            await context.tasks.close()
    books = [each for each in watcher.market if isinstance(each, BookUpdate)]
    for book in books:
        assert len(book.bids) == len(book.asks) == 6
        assert book.bids[0].price_e9 < book.asks[0].price_e9
        steps = [one.price_e9 - two.price_e9 for one, two in zip(book.bids, book.bids[1:], strict=False)]
        assert steps == [TICK] * 5
    assert len({book.bids for book in books}) > 1, "it moves"


async def test_client_that_does_not_read_gets_the_whole_book_once_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def book(quantity: int) -> ShownBook:
        return ShownBook(CLOCK.wall_ns(), {P - TICK: quantity}, {P: quantity})

    async with serving(tmp_path) as server:
        made, watcher = connection(server.port, depth=True)
        async with running(made):
            await until(made.ready)
            server.show_book(SYMBOL, book(1))

            def told() -> list[int]:
                return [each.bids[0].quantity for each in watcher.market if isinstance(each, BookUpdate) and each.bids]

            await until(lambda: told()[-1:] == [1])
            monkeypatch.setattr(dtc_server, "DROP_DATA_ABOVE", -1)
            server.show_book(SYMBOL, book(2))
            server.show_book(SYMBOL, book(3))
            monkeypatch.undo()
            server.show_book(SYMBOL, book(4))
            await until(lambda: told()[-1:] == [4])
            assert not {2, 3} & set(told())


async def test_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        overrides = {"feed": {"dtc_port": port, "history_hours": 0.0}}
        config = load(None, environment={}, overrides=overrides).resolved(datetime.now(UTC))
        paths = MeshPaths(tmp_path)
        paths.create()
        context = ServiceContext("sierra_simulator", "sierra_simulator-1", config, paths, Clients())
        async with build(context) as parts:
            with pytest.raises(ConfigError, match=f"feed.dtc_port is {port}, which cannot be listened on"):
                await parts.start()
            await context.tasks.close()


def test_records_are_shown_as_quotes_and_trades() -> None:
    records = np.zeros(2, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1
    records["close"], records["high"], records["low"] = [100.25, 100.0], [100.25, 0], [100.0, 0]
    records["num_trades"], records["total_volume"], records["ask_volume"] = 1, [3, 0], [3, 0]
    columns = tick_columns(records, TICK)
    quote, trade = market_of(columns, 0, 5)
    assert quote == Quote(time_ns=5, bid_e9=100_000_000_000, ask_e9=100_250_000_000)
    assert trade == Trade(time_ns=5, price_e9=100_250_000_000, size=3, aggressor=Side.BUY)
    assert market_of(columns, 1, 6) == (None, None)
    index = market_of(columns, 1, 6, traded=False)
    assert index == (None, Trade(time_ns=6, price_e9=100_000_000_000, size=0)), "nobody trades it, its price is told"


@pytest.mark.parametrize("encoding", [Encoding.JSON, Encoding.BINARY])
async def test_session_with_faults_ends_with_the_orders_fills_and_position_of_the_server(
    tmp_path: Path, encoding: Encoding
) -> None:
    """Cut connections, doubled, late and unknown messages; orders are cancelled and changed meanwhile."""
    rates = FaultRates(drop_connection=min(0.004, 10 / ORDERS), duplicate=0.05, late=0.05, unknown=0.05)
    source, faults = random.Random(20261122), Faults(rates, seed=7)
    async with serving(tmp_path, faults=faults) as server:
        made, watcher = connection(server.port, encoding)
        async with running(made):
            sent = 0
            while sent < ORDERS:
                await until(made.ready)
                show(server, source.randrange(-6, 0), source.randrange(1, 7), size=source.randrange(1, 9))
                limit = source.choice([None, source.randrange(-8, 9)])
                side = source.choice([BuySell.BUY, BuySell.SELL])
                with suppress(NotReady):
                    await made.submit(order(f"o{sent}", source.randrange(1, 12), limit, side))
                    sent += 1
                    older = f"o{source.randrange(sent)}"
                    if source.random() < 0.3:
                        await made.cancel(older)
                    elif source.random() < 0.2:
                        await made.replace(older, quantity=source.randrange(1, 12))
                await asyncio.sleep(0)
            faults.rates = FaultRates()
            await settled(server, made)
            written = watcher.journal.orders
            await until(lambda: written == {known.client_order_id: known for known in made.ledger.all()})
            await until(lambda: len(filled_in(watcher)) >= len(server.exchange.fills))
        truth = {known.client_order_id: known for known in server.exchange.orders.values()}
        for known in made.ledger.all():
            theirs = truth.get(known.client_order_id)
            if theirs is None:
                assert known.state is OrderState.REJECTED, known
                continue
            assert (known.filled_quantity, known.quantity) == (theirs.filled, theirs.quantity), known
            assert sorted(fill.execution_id for fill in known.fills) == sorted(
                fill.execution_id for fill in theirs.fills
            )
            assert [fill.price_e9 for fill in known.fills] == [
                next(each.price_e9 for each in theirs.fills if each.execution_id == fill.execution_id)
                for fill in known.fills
            ]
        assert held(made.ledger, SYMBOL) == server.exchange.position("Sim1", SYMBOL).quantity
        assert sorted(filled_in(watcher)) == sorted(fill.execution_id for fill in server.exchange.fills)
        assert faults.counts["duplicate"] > 0
        assert faults.counts["late"] > 0


def filled_in(watcher: Watcher) -> list[str]:
    return [update.fill.execution_id for update in watcher.updates if update.kind is UpdateKind.FILLED and update.fill]


async def settled(server: DtcServer, made: DtcConnection) -> None:
    """Cancels what works and waits until client and server agree that nothing does."""
    deadline = CLOCK.monotonic() + 20 + ORDERS / 200
    while True:
        assert CLOCK.monotonic() < deadline, (made.status, made.ledger.alive(), server.exchange.open_orders())
        with suppress(TimeoutError):
            await until(made.ready, 5)
        with suppress(NotReady):
            for known in made.ledger.alive():
                await made.cancel(known.client_order_id)
        await asyncio.sleep(0.05)
        if not made.ledger.alive() and not server.exchange.open_orders():
            return
