"""Random and damaged DTC bytes and JSON: no crash, no price that is not in the bytes, memory that does not grow.

`python -m tests.fuzz.dtc --cases 100000` reports counts for each encoding; `--seed` repeats a run. Each case is a few
messages, written, mostly damaged, cut anywhere and read: by the stream, both sides of a session, the reader of market data, the
readers of reports, and the ledger of orders. Every price that comes out is looked for in the bytes of its message by code of its own.
"""

from __future__ import annotations

import json
import math
import random
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.fuzz.reporting import Report, Wrong, WrongPrice, command, damaged, pieces

from minhos_mesh.dtc import client_session, server_session
from minhos_mesh.dtc.client_session import ClientSettings, permissions, refusal
from minhos_mesh.dtc.enums import BuySell, Encoding, OrderType
from minhos_mesh.dtc.errors import FramingLost, MessageUnencodable, ValueUnreadable
from minhos_mesh.dtc.layout import Layout, Member, Value
from minhos_mesh.dtc.ledger import HELD_BACK, OrderLedger
from minhos_mesh.dtc.market_updates import MarketReader, TradeUpdate
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.order_state import TrackedOrder
from minhos_mesh.dtc.prices import PriceScale
from minhos_mesh.dtc.reports import (
    Market,
    balance_report,
    definition,
    historical_fill,
    order_report,
    position_report,
)
from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.dtc.session import LoggedOn, Phase
from minhos_mesh.dtc.stream import JSON_LIMIT, TYPES_COUNTED, MessageStream, encode
from minhos_mesh.dtc.tables import BY_TYPE, market, reference, trading
from minhos_mesh.dtc.tables.session import LOGON_RESPONSE

TICK_E9: Final = 250_000_000
SYMBOL, SYMBOL_ID, PRICE_E9 = "NQZ26-CME", 7, 23_500_250_000_000
SCALE: Final = PriceScale(TICK_E9)
MARKET: Final = Market(SCALE, PRICE_E9)
LONGEST: Final = max(JSON_LIMIT, 1 << 16) + (1 << 13)
LAYOUTS: Final = tuple(BY_TYPE.values())
PRICED: Final = (
    market.MARKET_DATA_UPDATE_TRADE, market.MARKET_DATA_UPDATE_TRADE_COMPACT,
    market.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2, market.MARKET_DATA_UPDATE_BID_ASK,
    market.MARKET_DATA_UPDATE_BID_ASK_FLOAT_WITH_MICROSECONDS, market.MARKET_DATA_SNAPSHOT,
    trading.ORDER_UPDATE, trading.HISTORICAL_ORDER_FILL_RESPONSE, trading.POSITION_UPDATE,
)  # fmt: skip


def _check(holds: object, what: str) -> None:
    if not holds:
        raise Wrong(what)


# --- what goes in ----------------------------------------------------------------------------------------------------


def _value(member: Member, source: random.Random) -> Value:
    name = member.name
    if member.text:
        known = {"Symbol": SYMBOL, "ClientOrderID": source.choice("abc"), "ServerOrderID": source.choice("123")}
        return known.get(name, source.choice(("", "x", "é" * source.randrange(20), "Simulator 1")))
    if name == "SymbolID":
        return SYMBOL_ID if source.random() < 0.9 else source.randrange(1 << 16)
    if member.floating:
        steps = source.randrange(80_000, 100_000)
        odd = source.choice((0.0, -1.0, 1e-9, 1e18, 1.7e308, 3.4e38, float(source.randrange(1 << 40)), 23_500.1))
        price = steps * 0.25 if source.random() < 0.9 else odd
        return float(source.randrange(1, 20)) if "Quantity" in name or name == "Volume" else price
    if "Time" in name:
        return source.choice((0, 1_790_000_000, 1_790_000_000_000_000 if member.code in "qQ" else 1_790_000_001))
    return source.choice((0, 1, 2, 3, 4, 7, 9, source.randrange(120)))


def _message(source: random.Random) -> Message:
    layout = source.choice(PRICED if source.random() < 0.7 else LAYOUTS)
    while True:
        members = [member for member in layout.members if source.random() < 0.85]
        try:
            return make(layout, **{member.name: _value(member, source) for member in members})
        except MessageUnencodable:
            continue  # a value that this member cannot carry, such as a large time


def _written(source: random.Random, encoding: Encoding) -> tuple[list[Message], bytes]:
    messages, data = [], b""
    for _ in range(source.randrange(1, 6)):
        message = _message(source)
        try:
            data += encode(message, encoding)
        except MessageUnencodable:
            continue
        messages.append(message)
    return messages, data


# --- what comes out, found again without our code --------------------------------------------------------------------


def _frames(data: bytes, encoding: Encoding) -> Iterator[bytes]:
    """Whole messages as they stand in the bytes."""
    if encoding is Encoding.JSON:
        yield from data.split(b"\0")[:-1]
        return
    while len(data) >= 4 and len(data) >= (size := struct.unpack_from("<H", data)[0]) >= 4:
        yield data[:size]
        data = data[size:]


def _numbers(frame: bytes, encoding: Encoding) -> list[float]:
    """Every number that stands in a message, wherever it does."""
    if encoding is not Encoding.JSON:
        wide = [struct.unpack_from("<d", frame, at)[0] for at in range(len(frame) - 7)]
        narrow = [struct.unpack_from("<f", frame, at)[0] for at in range(len(frame) - 3)]
        return [number for number in wide + narrow if math.isfinite(number)]
    try:
        found = json.loads(frame.decode("utf-8"))
    except UnicodeDecodeError:
        found = json.loads(frame.decode("latin-1"))
    return [float(number) for number in found.values() if isinstance(number, int | float) and abs(number) < 1e300]


class _Bytes:
    """The numbers of one message, looked at when a price of it is."""

    def __init__(self, frame: bytes, encoding: Encoding, report: Report) -> None:
        self._frame, self._encoding, self._report = frame, encoding, report
        self._found: list[float] | None = None

    def hold(self, price_e9: int | None, on_grid: bool, what: str) -> None:
        """Raises WrongPrice unless a number of the message is this price, to what a wire price may be off."""
        if price_e9 is None:
            return
        if self._found is None:
            self._found = _numbers(self._frame, self._encoding)
        self._report.prices += 1
        if on_grid and price_e9 % TICK_E9:
            raise WrongPrice(f"{what} {price_e9} is said to be on the grid")
        allowed = TICK_E9 / 20 / 1e9 if on_grid else 1e-6 + abs(price_e9) / 1e9 / 2**22
        if not any(abs(number - price_e9 / 1e9) <= allowed * 1.000001 for number in self._found):
            raise WrongPrice(f"{what} {price_e9} stands nowhere in {self._frame.hex()}")


# --- who reads -------------------------------------------------------------------------------------------------------


def _read_whole(data: bytes, encoding: Encoding, cut: list[bytes]) -> tuple[list[Message], MessageStream, str]:
    stream, found = MessageStream(encoding), []
    for piece in cut:
        stream.feed(piece)
        try:
            while (message := stream.read()) is not None:
                found.append(message)
        except FramingLost as lost:
            return found, stream, str(lost)
        _check(stream.buffered <= LONGEST, f"{stream.buffered} bytes are held")
        _check(len(stream.counts.unknown) <= TYPES_COUNTED + 1, "types are counted without bound")
    return found, stream, ""


def _market_of(symbol: str) -> Market:
    if symbol != SYMBOL:
        raise ValueUnreadable("Symbol", symbol, SYMBOL)
    return MARKET


class _Readers:
    """Whoever takes messages; they live as long as a campaign does, as on a connection that never ends."""

    def __init__(self) -> None:
        self.market = MarketReader({SYMBOL_ID: SYMBOL})
        self.ledger = OrderLedger(
            TrackedOrder(
                client_order_id=name,
                symbol=SYMBOL,
                side=BuySell.BUY,
                order_type=OrderType.LIMIT,
                quantity=5,
                submitted_ns=100,
            )
            for name in "abc"
        )
        self._client = client_session.begin(ClientSettings(), 0.0).session
        self._server = server_session.begin(ServerSettings(), 0.0)

    def take(self, message: Message, told: _Bytes, report: Report) -> None:
        self._sessions(message)
        self._market(message, told, report)
        self._reports(message, told, report)

    def _sessions(self, message: Message) -> None:
        client, server = ClientSettings(), ServerSettings()
        step = client_session.received(self._client, client, message, 1.0)
        self._client = step.session if step.session.phase is not Phase.CLOSED else self._again(client)
        for action in step.actions:
            if isinstance(action, LoggedOn):
                permissions(action.answer)
        answer = server_session.received(self._server, server, message, 1.0)
        closed = answer.session.phase is Phase.CLOSED
        self._server = server_session.begin(server, 0.0) if closed else answer.session
        refusal(message)
        if message.layout is LOGON_RESPONSE:
            permissions(message).refused()

    @staticmethod
    def _again(settings: ClientSettings) -> Any:
        return client_session.begin(settings, 0.0).session

    def _market(self, message: Message, told: _Bytes, report: Report) -> None:
        before = self.market.strangers, self.market.unreadable
        update = self.market.read(message, lambda _: SCALE)
        report.refused["SYMBOL_NOT_ASKED_FOR"] += self.market.strangers - before[0]
        report.refused["VALUE_UNREADABLE"] += self.market.unreadable - before[1]
        if isinstance(update, TradeUpdate):
            _check(update.symbol == SYMBOL and update.price_e9 != 0, "a trade without a price")
            told.hold(update.price_e9, update.on_grid, "the price of a trade")
        elif update is not None:
            for side in (update.bid_e9, update.ask_e9):
                told.hold(side, side is not None and side % TICK_E9 == 0, "the price of a quote")

    def _reports(self, message: Message, told: _Bytes, report: Report) -> None:
        for layout, reader in _REPORTS.items():
            if message.layout is not layout:
                continue
            try:
                reader(self, message, told)
            except ValueUnreadable:
                report.refused["VALUE_UNREADABLE"] += 1

    def order(self, message: Message, told: _Bytes) -> None:
        found = order_report(message, _market_of)
        for price_e9 in (found.limit_price_e9, found.stop_price_e9):
            told.hold(price_e9, price_e9 is not None and price_e9 % TICK_E9 == 0, "the price of an order")
        if found.fill is not None:
            told.hold(found.fill.price_e9, found.fill.on_grid, "the price of a fill")
        self.ledger.report(found)
        self.ledger.take_changed()
        _check(len(self.ledger) == 3, "an order came out of nothing")
        for known in self.ledger.all():
            _check(known.filled_quantity <= known.quantity + 1_000_000_000, "a quantity without bound")

    def fill(self, message: Message, told: _Bytes) -> None:
        found = historical_fill(message, _market_of)
        told.hold(found.price_e9, found.on_grid, "the price of a listed fill")

    def position(self, message: Message, told: _Bytes) -> None:
        found = position_report(message, _market_of)
        price_e9 = None if found is None else found.average_price_e9
        told.hold(price_e9, price_e9 is not None and price_e9 % TICK_E9 == 0, "the average price of a position")

    def balance(self, message: Message, _told: _Bytes) -> None:
        balance_report(message)

    def definition(self, message: Message, _told: _Bytes) -> None:
        definition(message)


_REPORTS: Final[dict[Layout, Callable[[_Readers, Message, _Bytes], None]]] = {
    trading.ORDER_UPDATE: _Readers.order,
    trading.HISTORICAL_ORDER_FILL_RESPONSE: _Readers.fill,
    trading.POSITION_UPDATE: _Readers.position,
    reference.ACCOUNT_BALANCE_UPDATE: _Readers.balance,
    reference.SECURITY_DEFINITION_RESPONSE: _Readers.definition,
}


class Campaign:
    """Cases of one encoding."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._readers = _Readers()
        self._tried = 0

    def __call__(self, source: random.Random, report: Report) -> None:
        """Makes and tries one case. Raises WrongPrice or Wrong."""
        encoding = self._encoding
        written, valid = _written(source, encoding)
        whole = source.random() < 0.2
        data = valid if whole else damaged(valid, source)
        found, stream, lost = _read_whole(data, encoding, pieces(data, source))
        again, _, _ = _read_whole(data, encoding, [data])
        _check(again == found, "what is read depends on where the bytes are cut")
        if whole:
            same = [encode(message, encoding) for message in found] == [
                encode(message, encoding) for message in written
            ]
            _check(same and not lost, "what was written is not what is read")
        self._count(report, stream, lost)
        report.accepted += len(found)
        self._tried += 1
        if self._tried % 500 == 0:
            self._readers = _Readers()
        for message, frame in _with_frames(data, encoding):
            self._readers.take(message, _Bytes(frame, encoding, report), report)
        _check(len(self._readers.ledger._early) <= HELD_BACK, "reports are held back without bound")

    @staticmethod
    def _count(report: Report, stream: MessageStream, lost: str) -> None:
        report.refused["MESSAGE_MALFORMED"] += stream.counts.malformed
        report.refused["TYPE_UNKNOWN"] += sum(stream.counts.unknown.values())
        if lost:
            report.refused["FRAMING_LOST"] += 1
        elif stream.buffered:
            report.refused["UNFINISHED"] += 1
        for reason in [reason for reason, count in report.refused.items() if not count]:
            del report.refused[reason]


def _with_frames(data: bytes, encoding: Encoding) -> Iterator[tuple[Message, bytes]]:
    """Each message that is read of a frame alone, with the frame."""
    for frame in _frames(data, encoding):
        stream = MessageStream(encoding)
        stream.feed(frame + b"\0" if encoding is Encoding.JSON else frame)
        try:
            message = stream.read()
        except FramingLost:
            return
        if message is not None:
            yield message, frame


KINDS: Final = {
    "json": Encoding.JSON,
    "binary": Encoding.BINARY,
    "binary_variable": Encoding.BINARY_VARIABLE,
}


def main(arguments: list[str]) -> int:
    """Runs all encodings; 1 when a case failed."""
    campaigns = {kind: Campaign(encoding) for kind, encoding in KINDS.items()}
    return command("tests.fuzz.dtc", campaigns, arguments, cases=10_000)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
