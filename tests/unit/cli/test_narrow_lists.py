"""Lists at 80 columns: what a person copies, and what became of it, is never cut off."""

from __future__ import annotations

import io

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from minhos_api.market.v1 import provenance_pb2, quote_pb2
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as sim
from minhos_api.trading.v1 import order_pb2
from minhos_mesh.cli import show, simulator_work, tail, trading

ID = "57b5bd89-ae47-558e-a1cf-0fce9cdeb702"
AT = Timestamp(seconds=1_795_000_000, nanos=250_000_000)


def printed(monkeypatch: pytest.MonkeyPatch, width: int) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(show, "out", Console(file=text, width=width, highlight=False, soft_wrap=True))
    return text


@pytest.mark.parametrize("width", [80, 300])
@pytest.mark.parametrize("kind", [name for name in sim.SimulatorFaultKind.keys() if "UNSPEC" not in name])  # noqa: SIM118 - no dictionary
def test_a_fault_shows_its_id_its_kind_and_its_state(monkeypatch: pytest.MonkeyPatch, width: int, kind: str) -> None:
    text = printed(monkeypatch, width)
    value = sim.SimulatorFaultKind.Value(kind)
    effect = "nothing more is written to the file, as long as it lasts, and every reader waits"
    fault = sim.SimulatorFault(request_id=ID, kind=value, active=True, begin_time=AT, effect=effect)
    simulator_work._show_faults([fault], sim.ListFaultsResponse(), as_json=False)
    head, row, *below = text.getvalue().splitlines()
    name = kind.removeprefix("SIMULATOR_FAULT_KIND_").lower()
    assert {ID, name, "active"} <= set(row.split())
    assert max(len(head.rstrip()), len(row.rstrip())) <= width
    assert below == ([f"{name}: {effect}"] if width == 80 else [])


@pytest.mark.parametrize("state", [each for each in order_pb2.OrderState.values() if each])
def test_an_order_keeps_its_time_and_its_state(
    monkeypatch: pytest.MonkeyPatch, state: order_pb2.OrderState.ValueType
) -> None:
    text = printed(monkeypatch, 80)
    terms = terms_pb.OrderTerms(
        symbol="NQZ26-CME", side=terms_pb.SIDE_SELL, type=terms_pb.ORDER_TYPE_MARKET, quantity=100
    )
    order = order_pb2.Order(
        order_id=ID, terms=terms, filled_quantity=50, state=state, create_time=AT, reason_message="a long story " * 9
    )
    trading.print_orders([trading.order_row(order)])
    head, row = (line.rstrip() for line in text.getvalue().splitlines())
    assert [name for name in ("TIME", "ORDER", "SIDE", "QTY", "FILLED", "STATE") if name not in head.split()] == []
    told = row.split()
    assert [told[0], told[1], *told[-4:]] == [
        show.clock(AT)[:8], ID, "SELL", "100", "50", show.enum_name(order, "state"),
    ]  # fmt: skip
    assert max(len(head), len(row)) <= 80


def test_last_values_take_one_line_of_a_narrow_terminal() -> None:
    quote = quote_pb2.Quote(
        symbol="MNQU21-CME", event_time=AT, last_price_e9=23_500_250_000_000, last_size=120, bid_e9=23_500_250_000_000,
        ask_e9=23_500_500_000_000, sequence=12_345_678, provenance=provenance_pb2.PROVENANCE_SIMULATED,
    )  # fmt: skip
    assert "#12345678" in tail.quote_line(quote, 1_000)
    line = tail.quote_line(quote, 80)
    assert len(line) <= 80
    for part in ("MNQU21-CME", "last 23500.25 x 120", "bid 23500.25", "ask 23500.50", "SIMULATED"):
        assert part in line
