"""Which types a pattern lets pass."""

from __future__ import annotations

import pytest

from minhos_mesh.event_bus.domain.errors import InvalidField
from minhos_mesh.event_bus.domain.patterns import selection


@pytest.mark.parametrize(
    ("pattern", "event_type", "passes"),
    [
        ("trade.executed", "trade.executed", True),
        ("trade.executed", "trade.executed.late", False),
        ("trade.*", "trade.executed", True),
        ("trade.*", "trade.executed.late", False),
        ("trade.*", "trade", False),
        ("*.executed", "trade.executed", True),
        ("*.executed", "order.updated", False),
        ("market.>", "market.a", True),
        ("market.>", "market.a.b", True),
        ("market.>", "market", False),
        ("market.>", "market_data.updated", False),
        (">", "trade.executed", True),
    ],
)
def test_a_pattern_lets_pass_what_it_says(pattern: str, event_type: str, passes: bool) -> None:
    assert selection([pattern]).matches(event_type, "any") is passes


def test_no_pattern_lets_all_pass_and_a_subject_is_exact() -> None:
    assert selection([]).matches("trade.executed", "NQ")
    assert selection([], "NQ").matches("trade.executed", "NQ")
    assert not selection([], "NQ").matches("trade.executed", "NQ2")


@pytest.mark.parametrize("pattern", ["", ".", "a..b", "a.", ".a", "a.>.b", "A.b", "a*", "a.b>", "a b", "a.**"])
def test_nonsense_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(InvalidField, match=r"types\[1\] is"):
        selection(["trade.*", pattern])


def test_the_order_of_patterns_means_nothing() -> None:
    assert selection(["b.c", "a.*", "b.c"]) == selection(["a.*", "b.c"])
