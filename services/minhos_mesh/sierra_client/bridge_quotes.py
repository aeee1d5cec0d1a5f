"""Decides what JSON of the legacy bridge says: a price only where it is beyond doubt, in either spelling of its versions."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn

import numpy as np

from minhos_mesh.runtime.money import E9, format_e9
from minhos_mesh.runtime.symbols import SymbolError, parse_symbol

LONGEST_SYMBOL: Final = 64
LARGEST_PRICE: Final = 10_000_000
"""Points; whatever is larger is no price of an instrument."""

PRICE_FIELDS: Final = ("price", "last_price")
"""Names under which versions of the bridge give the price; each gives one of them."""


class Refusal(enum.StrEnum):
    """Why something that the bridge said was left out."""

    BAD_JSON = "BAD_JSON"
    NO_QUOTE = "NO_QUOTE"
    NO_SYMBOL = "NO_SYMBOL"
    OTHER_SYMBOL = "OTHER_SYMBOL"
    NO_PRICE = "NO_PRICE"
    BAD_PRICE = "BAD_PRICE"
    CONTRADICTION = "CONTRADICTION"
    OFF_TICK = "OFF_TICK"
    TOO_LARGE = "TOO_LARGE"


class Refused(Exception):
    """Expected: what the bridge said cannot be used; nothing of it is."""

    def __init__(self, refusal: Refusal, why: str) -> None:
        self.refusal = refusal
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class BridgeQuote:
    """What one quote says, in 1e-9 units.

    Sizes, volume, open, high, low and the time are not taken: the bridge invents or mistakes them.
    """

    symbol: str
    """Canonical symbol."""
    price_e9: int
    bid_e9: int | None
    """None unless bid and ask are there and apart: where they are one, the bridge has put the price into both."""
    ask_e9: int | None
    dialect: str
    """Name of the field that held the price."""


def read_json(text: str | bytes) -> Any:
    """JSON with exact numbers. Raises Refused for all that is none: NaN, a key twice, too deep, bytes that are no text."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise Refused(Refusal.BAD_JSON, f"what the bridge sent is no JSON: {str(error)[:120]}") from None


def read_quote(value: object, ticks_e9: Mapping[str, int]) -> BridgeQuote:
    """A quote of one of the wanted symbols; `ticks_e9` gives the price step of each. Raises Refused."""
    quote = _object(value)
    symbol = read_symbol(quote.get("symbol"))
    tick_e9 = ticks_e9.get(symbol)
    if tick_e9 is None:
        raise Refused(Refusal.OTHER_SYMBOL, f"{symbol} is not wanted")
    found = {name: quote[name] for name in PRICE_FIELDS if quote.get(name) is not None}
    if not found:
        raise Refused(Refusal.NO_PRICE, f"the quote of {symbol} has no price: neither {' nor '.join(PRICE_FIELDS)}")
    prices = {name: _price(number, tick_e9, f"{name} of {symbol}") for name, number in found.items()}
    if len(set(prices.values())) > 1:
        raise Refused(Refusal.CONTRADICTION, f"the quote of {symbol} has two prices that differ")
    dialect, price_e9 = next(iter(prices.items()))
    bid_e9, ask_e9 = _side(quote.get("bid"), tick_e9), _side(quote.get("ask"), tick_e9)
    if bid_e9 is None or ask_e9 is None or bid_e9 >= ask_e9:
        bid_e9 = ask_e9 = None
    return BridgeQuote(symbol, price_e9, bid_e9, ask_e9, dialect)


def read_symbol(value: object) -> str:
    """The canonical symbol. Raises Refused."""
    if not isinstance(value, str) or len(value) > LONGEST_SYMBOL:
        raise Refused(Refusal.NO_SYMBOL, "the quote names no symbol")
    try:
        return str(parse_symbol(value))
    except SymbolError:
        raise Refused(Refusal.NO_SYMBOL, f"{value!r} is no symbol") from None


def read_symbols(body: object) -> tuple[str, ...]:
    """Canonical symbols of the answer of `/api/symbols`; what is none is left out. Raises Refused."""
    listed = _object(body).get("symbols")
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise Refused(Refusal.NO_QUOTE, "the answer lists no symbols")
    found: list[str] = []
    for value in listed[:1000]:
        try:
            found.append(read_symbol(value))
        except Refused:
            continue
    return tuple(found)


def quotes_of_map(body: object) -> list[object]:
    """The quotes of the answer of `/api/market_data`: a map by symbol, or one quote. Raises Refused.

    A quote that says another symbol than its key is given back as none.
    """
    answer = _object(body)
    if "error" in answer and len(answer) <= 2:
        raise Refused(Refusal.NO_QUOTE, f"the bridge answers with an error: {str(answer['error'])[:120]}")
    if isinstance(answer.get("symbol"), str):
        return [answer]
    return [_keyed(symbol, quote) for symbol, quote in answer.items()]


class Told(enum.Enum):
    """What a message of a stream tells."""

    NOTHING = "NOTHING"
    FIRST = "FIRST"
    CHANGE = "CHANGE"


def quote_of_message(message: object) -> tuple[Told, object]:
    """What a message of a stream tells, and the quote in it. Raises Refused.

    FIRST is what the bridge held when the stream began, of unknown age; a sign of life (ping, heartbeat_ack) is NOTHING.
    """
    found = _object(message)
    kind = found.get("type")
    if kind == "market_data":
        return Told.CHANGE, found.get("data")
    if kind == "initial_state":
        return Told.FIRST, _keyed(found.get("symbol"), found.get("data"))
    if kind == "market_data_delta":
        return Told.CHANGE, _keyed(found.get("symbol"), found.get("full_data"))
    return Told.NOTHING, None


def _keyed(symbol: object, quote: object) -> object:
    if not isinstance(quote, dict) or not isinstance(symbol, str):
        return quote
    if quote.get("symbol") is None:
        return {**quote, "symbol": symbol}
    try:
        return quote if read_symbol(quote["symbol"]) == read_symbol(symbol) else None
    except Refused:
        return None


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Refused(Refusal.NO_QUOTE, "what the bridge sent is no object where a quote was due")
    return value


def _price(value: object, tick_e9: int, what: str) -> int:
    """The price in 1e-9 units: a whole number of ticks that the number means beyond doubt. Raises Refused."""
    number = _number(value, what)
    if number <= 0:
        raise Refused(Refusal.NO_PRICE, f"{what} is {str(number)[:40]}: that is no price")
    steps = int((number * E9 / tick_e9).to_integral_value())
    price_e9 = steps * tick_e9
    if price_e9 <= 0 or not _same(number, price_e9, tick_e9):
        raise Refused(
            Refusal.OFF_TICK, f"{what} is {str(number)[:40]}: allowed is a multiple of {format_e9(tick_e9)} above 0"
        )
    return price_e9


def _same(number: Decimal, price_e9: int, tick_e9: int) -> bool:
    """True when the number is this price, or what single precision makes of it, which is how the bridge reads its files."""
    spacing = float(np.spacing(np.float32(price_e9 / E9)))
    if 4 * spacing * E9 > tick_e9:
        return False  # Single precision, in which ticks are written down here too, cannot tell neighbours apart.
    return abs(float(number) - price_e9 / E9) <= spacing


def _number(value: object, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Refused(Refusal.BAD_PRICE, f"{what} is no number")
    number = Decimal(value)
    if not number.is_finite() or (number and not -15 <= number.adjusted() <= 15) or number > LARGEST_PRICE:
        raise Refused(Refusal.BAD_PRICE, f"{what} is beyond what a price can be")
    return number


def _side(value: object, tick_e9: int) -> int | None:
    try:
        return None if value is None else _price(value, tick_e9, "side")
    except Refused:
        return None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found
