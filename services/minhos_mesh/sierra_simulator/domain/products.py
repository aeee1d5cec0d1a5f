"""Decides how each product trades in a simulated market: what it moves with, how wide, how much at once, and whether it is quoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product; the numbers are invented, in the order of size of the real ones."""

    market: str
    """Products of one market move as one."""
    movement: float = 1.0
    """Factor on all moves; negative where it falls while the others rise."""
    wide: float = 1.0
    """Factor on the probability of a spread beyond one tick."""
    small: float = 0.6
    """Small trades have 1 / this contracts on average."""
    large: float = 0.08
    """Large trades have 1 / this contracts on average."""
    most: int = 250
    """Contracts of the largest trade."""
    rate: float = 1.0
    """Factor on the rate of trades."""
    shown: int = 6
    """Contracts at the best price of the order book on average; they become more behind it."""
    quoted: bool = True
    """False for an index, which has values and neither bid, ask nor volume."""


USUAL: Final = Product(market="NASDAQ")
"""A product that is not named."""

PRODUCTS: Final[Mapping[str, Product]] = {
    "NQ": USUAL,
    "MNQ": Product(market="NASDAQ", wide=0.8, small=0.5, large=0.1, most=120, shown=12),
    "ES": Product(market="SP500", movement=0.8, wide=0.25, small=0.3, large=0.025, most=900, shown=60),
    "MES": Product(market="SP500", movement=0.8, wide=0.4, small=0.45, large=0.06, most=300, shown=40),
    "YM": Product(market="DOW", movement=0.8, wide=1.3, small=0.6, large=0.12, most=120, shown=5),
    "RTY": Product(market="RUSSELL", movement=1.1, wide=1.2, small=0.6, large=0.1, most=150, shown=8),
    "VIX": Product(market="VIX", movement=-8.0, rate=0.1, quoted=False),
}
"""Products by root."""


def product_of(root: str, *, quoted: bool = True) -> Product:
    """How a product trades; `quoted` False for one that the configuration calls an index."""
    found = PRODUCTS.get(root)
    if found is not None:
        return found
    return USUAL if quoted else Product(market=root, rate=0.1, quoted=False)
