"""Decides what is known about an instrument by its root: defaults, and what a configuration lays over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from minhos_mesh.runtime.money import E9, MoneyError, parse_e9
from minhos_mesh.runtime.symbols import Symbol

_MAX_TICK_E9 = 1_000_000 * E9


class InstrumentError(ValueError):
    """An unknown root, or an instrument whose configuration is wrong; the text names key, value and what is allowed."""


@dataclass(frozen=True, slots=True)
class InstrumentSpec:
    """What one root trades in."""

    root: str
    """Product, for example NQ."""
    tick_e9: int
    """Smallest price step in 1e-9 units."""
    multiplier: int
    """Money per whole point of price and contract, in units of the currency."""
    currency: str
    """ISO 4217 code."""
    exchange: str
    """Exchange suffix of its symbols."""
    description: str
    """Name for people."""
    tradeable: bool = True
    """False for an index that is only quoted."""


DEFAULT_INSTRUMENTS: Mapping[str, InstrumentSpec] = {
    spec.root: spec
    for spec in (
        InstrumentSpec("NQ", 250_000_000, 20, "USD", "CME", "E-mini Nasdaq-100"),
        InstrumentSpec("ES", 250_000_000, 50, "USD", "CME", "E-mini S&P 500"),
        InstrumentSpec("MNQ", 250_000_000, 2, "USD", "CME", "Micro E-mini Nasdaq-100"),
        InstrumentSpec("MES", 250_000_000, 5, "USD", "CME", "Micro E-mini S&P 500"),
        InstrumentSpec("YM", 1_000_000_000, 5, "USD", "CBOT", "E-mini Dow"),
        InstrumentSpec("RTY", 100_000_000, 50, "USD", "CME", "E-mini Russell 2000"),
        InstrumentSpec("VIX", 10_000_000, 1, "USD", "CGI", "Cboe Volatility Index", tradeable=False),
    )
}
"""Instruments that are known without configuration, by root."""

_KEYS = ("tick", "multiplier", "currency", "exchange", "description", "tradeable")


def spec_for(symbol: Symbol, specs: Mapping[str, InstrumentSpec] = DEFAULT_INSTRUMENTS) -> InstrumentSpec:
    """Spec of a symbol's root. Raises InstrumentError naming the roots that are known."""
    spec = specs.get(symbol.root)
    if spec is None:
        raise InstrumentError(
            f"instrument {symbol.root!r} is unknown (symbol {symbol}): known are {', '.join(sorted(specs))}"
        )
    return spec


def with_configured(
    configured: Mapping[str, Mapping[str, object]], known: Mapping[str, InstrumentSpec] = DEFAULT_INSTRUMENTS
) -> dict[str, InstrumentSpec]:
    """Known specs with those of a configuration laid over them, by root.

    Keys of one instrument: tick (decimal text or number), multiplier (whole), currency, exchange, description,
    tradeable. A new root needs tick, multiplier and exchange. Raises InstrumentError.
    """
    specs = dict(known)
    for root, values in configured.items():
        specs[root] = _configured_spec(root, values, specs.get(root))
    return specs


def _configured_spec(root: str, values: Mapping[str, object], known: InstrumentSpec | None) -> InstrumentSpec:
    for key in values:
        if key not in _KEYS:
            raise InstrumentError(f"instruments.{root}.{key} is no key: allowed are {', '.join(_KEYS)}")
    if known is None:
        missing = [key for key in ("tick", "multiplier", "exchange") if key not in values]
        if missing:
            raise InstrumentError(f"instruments.{root} is new and lacks {', '.join(missing)}")
    spec = known or InstrumentSpec(root, 1, 1, "USD", "CME", root)
    if "tick" in values:
        spec = replace(spec, tick_e9=_tick_e9(root, values["tick"]))
    if "multiplier" in values:
        spec = replace(spec, multiplier=_multiplier(root, values["multiplier"]))
    return replace(
        spec,
        currency=_text(root, "currency", values.get("currency", spec.currency)),
        exchange=_text(root, "exchange", values.get("exchange", spec.exchange)),
        description=_text(root, "description", values.get("description", spec.description)),
        tradeable=_flag(root, values.get("tradeable", spec.tradeable)),
    )


def _tick_e9(root: str, value: object) -> int:
    try:
        tick_e9 = parse_e9(str(value), field=f"instruments.{root}.tick")
    except MoneyError as error:
        raise InstrumentError(str(error)) from None
    if not 0 < tick_e9 <= _MAX_TICK_E9:
        raise InstrumentError(f"instruments.{root}.tick is {value!r}: allowed is a decimal above 0 and up to 1000000")
    return tick_e9


def _multiplier(root: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InstrumentError(f"instruments.{root}.multiplier is {value!r}: allowed is a whole number of 1 or more")
    return value


def _text(root: str, key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InstrumentError(f"instruments.{root}.{key} is {value!r}: allowed is a text that is not empty")
    return value


def _flag(root: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InstrumentError(f"instruments.{root}.tradeable is {value!r}: allowed are true and false")
    return value
