"""Random and damaged JSON of the bridge: no crash, no price that is not in it, memory that does not grow.

`python -m tests.fuzz.bridge --cases 100000` reports counts for quotes, answers with maps, messages of streams, and answers about
orders; `--seed` repeats a run. A price that comes out is compared with the number of the text that it is said to be, by code of
its own; nothing that is said of an order is ever believed.
"""

from __future__ import annotations

import contextlib
import json
import random
import struct
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

from tests.fuzz.reporting import Case, Report, Wrong, WrongPrice, command, damaged

from minhos_mesh.sierra_client.bridge_changes import LastPrices
from minhos_mesh.sierra_client.bridge_orders import TradeStatus, judge_trade_status
from minhos_mesh.sierra_client.bridge_quotes import (
    PRICE_FIELDS,
    BridgeQuote,
    Refused,
    quote_of_message,
    quotes_of_map,
    read_json,
    read_quote,
    read_symbols,
)

TICKS_E9: Final = {"NQZ26-CME": 250_000_000, "VIX-CGI": 10_000_000, "YMZ26-CBOT": 1_000_000_000}
SYMBOLS: Final = (*TICKS_E9, "ESZ26-CME", "nqz26_cme", "?", "")
STATUSES: Final = ("FILLED", "filled", "SUBMITTED", "UNKNOWN", "REJECTED", "")


def _check(holds: object, what: str) -> None:
    if not holds:
        raise Wrong(what)


# --- what goes in ----------------------------------------------------------------------------------------------------


def _number(source: random.Random, tick_e9: int) -> str:
    """The text of a number: mostly a price, as a double or as what single precision makes of one."""
    price = source.randrange(1, 100_000) * tick_e9 / 1e9
    way = source.randrange(12)
    if way < 6:
        return repr(price)
    if way < 9:
        return repr(struct.unpack("<f", struct.pack("<f", price))[0])
    odd = ("0", "-1", "null", "true", '"23500"', "1e400", "NaN", "1e-30", "18000.0", f"{price + 0.07!r}", "9" * 400)
    return source.choice(odd)


def _quote_text(source: random.Random, symbol: str) -> str:
    tick_e9 = TICKS_E9.get(symbol, 250_000_000)
    fields = {} if source.random() < 0.05 else {"symbol": json.dumps(symbol)}
    for name in PRICE_FIELDS if source.random() < 0.1 else (source.choice(PRICE_FIELDS),):
        fields[name] = _number(source, tick_e9)
    for name in ("bid", "ask", "high", "volume", "open"):
        if source.random() < 0.6:
            fields[name] = _number(source, tick_e9)
    if source.random() < 0.3:
        fields["timestamp"] = '"2026-11-22T14:16:44.244706"'
    names = list(fields)
    source.shuffle(names)
    return "{" + ",".join(f"{json.dumps(name)}:{fields[name]}" for name in names) + "}"


def _symbol(source: random.Random) -> str:
    return source.choice(tuple(TICKS_E9)) if source.random() < 0.8 else source.choice(SYMBOLS)


def _quote(source: random.Random) -> str:
    return _quote_text(source, _symbol(source))


def _map(source: random.Random) -> str:
    if source.random() < 0.1:
        return source.choice(('{"error":"x","timestamp":"y"}', "{}", '{"symbols":["NQZ26-CME",7,"?"]}'))
    keys = [_symbol(source) for _ in range(source.randrange(1, 4))]
    said = [key if source.random() < 0.9 else _symbol(source) for key in keys]
    pairs = zip(keys, said, strict=True)
    return "{" + ",".join(f"{json.dumps(key)}:{_quote_text(source, symbol)}" for key, symbol in pairs) + "}"


def _stream(source: random.Random) -> str:
    symbol = _symbol(source)
    kind = source.choice(("market_data", "initial_state", "market_data_delta", "ping", "heartbeat_ack"))
    name = {"market_data": "data", "initial_state": "data"}.get(kind, "full_data")
    return f'{{"type":"{kind}","symbol":{json.dumps(symbol)},"{name}":{_quote_text(source, symbol)}}}'


def _status(source: random.Random) -> str:
    return f'{{"status":{json.dumps(source.choice(STATUSES))},"fill_price":{_number(source, 250_000_000)}}}'


def _tree(source: random.Random, depth: int = 0) -> Any:
    """Any JSON, with names that mean something here."""
    way = source.randrange(6 if depth < 5 else 4)
    if way == 0:
        return source.choice((None, True, False, 0, -1, 10**400, 23_500, "NQZ26-CME", "", "\ud800"))
    if way < 3:
        return source.choice((23_500.25, 1.5e300, 17.06, -0.0, 1e-9)) * source.choice((1, 1, 3))
    if way == 3:
        return source.choice(("market_data", "FILLED", "x" * source.randrange(100)))
    if way == 4:
        return [_tree(source, depth + 1) for _ in range(source.randrange(4))]
    names = (
        "symbol",
        "price",
        "last_price",
        "bid",
        "ask",
        "type",
        "data",
        "full_data",
        "error",
        "NQZ26-CME",
        "symbols",
    )
    return {source.choice(names): _tree(source, depth + 1) for _ in range(source.randrange(6))}


def _text(source: random.Random, make: Callable[[random.Random], str]) -> bytes:
    way = source.random()
    if way < 0.1:
        return json.dumps(_tree(source)).encode()
    if way < 0.12:
        return b"[" * source.randrange(1, 200_000)
    valid = make(source).encode()
    return valid if way < 0.45 else damaged(valid, source)


# --- what comes out --------------------------------------------------------------------------------------------------


def _means(value: object, price_e9: int, what: str) -> None:
    """Raises WrongPrice unless the number is this price, to what single precision can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongPrice(f"{what} {price_e9} is of {value!r}, which is no number")
    if abs(Fraction(value) - Fraction(price_e9, 10**9)) > Fraction(price_e9, 10**9) / 2**22:
        raise WrongPrice(f"{what} {price_e9} is of {value!r}")


def _hold(found: BridgeQuote, said: Mapping[str, Any], report: Report) -> None:
    """`said` is the same object as another reader of JSON gives it."""
    tick_e9 = TICKS_E9[found.symbol]
    report.accepted += 1
    for what, price_e9 in ((found.dialect, found.price_e9), ("bid", found.bid_e9), ("ask", found.ask_e9)):
        if price_e9 is None:
            continue
        report.prices += 1
        _means(said.get(what), price_e9, what)
        if price_e9 <= 0 or price_e9 % tick_e9:
            raise WrongPrice(f"{what} {price_e9} is not on the grid of {found.symbol}")
    _check((found.bid_e9 is None) == (found.ask_e9 is None), "one side without the other")
    _check(found.bid_e9 is None or found.ask_e9 is None or found.bid_e9 < found.ask_e9, "sides that cross")


class Campaign:
    """Cases of one kind of answer."""

    def __init__(self, make: Callable[[random.Random], str], quotes_of: Callable[[Any], list[Any]]) -> None:
        """`quotes_of` gives what should be quotes of an answer; raises Refused."""
        self._make, self._quotes_of = make, quotes_of
        self._prices = LastPrices(5.0)

    def __call__(self, source: random.Random, report: Report) -> None:
        """Makes and tries one case. Raises WrongPrice or Wrong."""
        text = _text(source, self._make)
        try:
            value = read_json(text)
            candidates = self._quotes_of(value)
        except Refused as refused:
            report.refused[refused.refusal.value] += 1
            return
        plain = self._plain(text)
        for place, candidate in enumerate(candidates):
            try:
                found = read_quote(candidate, TICKS_E9)
            except Refused as refused:
                report.refused[refused.refusal.value] += 1
                continue
            self._prices.is_tick(found, float(report.cases))
            _check(plain is not None and isinstance(plain[place], dict), "a quote of what another reader cannot read")
            _hold(found, {} if plain is None else plain[place], report)

    def _plain(self, text: bytes) -> list[Any] | None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        with contextlib.suppress(Refused):
            return self._quotes_of(value)
        return None


def _of_map(value: Any) -> list[Any]:
    with contextlib.suppress(Refused):
        found = read_symbols(value)
        _check(len(found) <= 1_000, "symbols without bound")
    return quotes_of_map(value)


def _orders(source: random.Random, report: Report) -> None:
    """An answer about an order that nobody sent. Raises Wrong when it is believed."""
    text, http = _text(source, _status), source.choice((200, 200, 200, 404, 500))
    judged, why = judge_trade_status(http, text)
    _check(judged in TradeStatus and judged is not TradeStatus.NOT_ASKED, "no judgement")
    _check(len(why) < 400, "a sentence without bound")
    report.accepted += 1
    report.refused[f"ORDER_{judged.value}"] += 1
    if http == 200:
        with contextlib.suppress(Refused, AttributeError):
            said = read_json(text).get("status")
            filled = isinstance(said, str) and said.upper() == "FILLED"
            _check(not filled or judged is TradeStatus.INVENTED, "an invented fill is not called one")


KINDS: Final[dict[str, Case]] = {
    "quote": Campaign(_quote, lambda value: [value]),
    "map": Campaign(_map, _of_map),
    "stream": Campaign(_stream, lambda value: [quote_of_message(value)[1]]),
    "orders": _orders,
}


def main(arguments: list[str]) -> int:
    """Runs all kinds; 1 when a case failed."""
    return command("tests.fuzz.bridge", KINDS, arguments, cases=10_000)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
