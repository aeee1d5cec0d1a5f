from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.text import Text

from minhos_api.health.v1.service_health_pb2 import SERVICE_STATE_DEGRADED, ServiceState
from minhos_api.market.v1 import provenance_pb2, quote_pb2
from minhos_api.order.v1 import order_terms_pb2, position_pb2
from minhos_api.trading.v1 import order_pb2
from minhos_mesh.cli import show


def stamp(seconds: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=seconds, nanos=nanos)


@pytest.mark.parametrize(
    ("value_e9", "text"),
    [(None, "-"), (0, "0.00"), (23_500_250_000_000, "23500.25"), (-1_500_000_000, "-1.50"), (1, "0.000000001")],
)
def test_money_is_a_decimal_and_absent_is_a_dash(value_e9: int | None, text: str) -> None:
    assert show.money(value_e9) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"), (0.4, "0s"), (59.9, "59s"), (60, "1m 0s"), (3_599, "59m 59s"), (3_600, "1h 0m"),
        (7_325, "2h 2m"), (86_400, "1d 0h"), (200_000, "2d 7h"),
    ],
)  # fmt: skip
def test_age_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert show.age(seconds) == text


def test_clock_is_utc_with_milliseconds() -> None:
    noon = int(datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC).timestamp())
    assert show.clock(stamp(noon, 250_999_999)) == "12:00:01.250"


def test_optional_tells_absent_from_zero() -> None:
    assert show.optional(quote_pb2.Quote(), "bid_e9") is None
    assert show.optional(quote_pb2.Quote(bid_e9=0), "bid_e9") == 0


def test_enum_names_come_without_the_prefix_of_their_enum() -> None:
    assert show.enum_name(quote_pb2.Quote(provenance=provenance_pb2.PROVENANCE_REPLAY), "provenance") == "REPLAY"
    assert show.enum_name(order_terms_pb2.OrderTerms(side=order_terms_pb2.SIDE_SELL), "side") == "SELL"
    assert show.enum_name(order_pb2.Order(state=order_pb2.ORDER_STATE_PENDING_CANCEL), "state") == "PENDING_CANCEL"
    with pytest.raises(TypeError, match="symbol"):
        show.enum_name(order_terms_pb2.OrderTerms(), "symbol")


def test_every_health_state_has_a_name_and_a_colour() -> None:
    assert show.state_name(SERVICE_STATE_DEGRADED) == "DEGRADED"
    named = {show.state_name(value) for value in ServiceState.values() if value}
    assert named == set(show.COLOURS)
    assert show.state_text("HEALTHY").style == "green"


def test_json_of_a_message_has_its_zeros_and_leaves_only_what_is_absent_out() -> None:
    flat = show.message_dict(position_pb2.Position(symbol="NQZ26-CME"))
    assert flat["quantity"] == "0"
    assert flat["realized_pnl_e9"] == "0"
    assert "average_price_e9" not in flat
    assert "update_time" not in flat


def rendered(width: int, columns: tuple[str, ...], *rows: tuple[str | Text, ...]) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, soft_wrap=True)
    console.print(show.table(columns, rows, right=("QTY",)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


ORDER_ID = "57b5bd89-ae47-558e-a1cf-0fce9cdeb702"


@pytest.mark.parametrize("width", [40, 80, 1_000])
def test_an_order_id_is_never_cut_off(width: int) -> None:
    columns = ("TIME", "ORDER", "SYMBOL", "QTY", "WHY")
    row = ("12:00:00.000", ORDER_ID, "NQZ26-CME", "1", "a long sentence that says why")
    assert ORDER_ID in rendered(width, columns, row)


def test_a_table_without_rows_is_its_head() -> None:
    assert rendered(80, ("TIME", "ORDER")).split() == ["TIME", "ORDER"]


def test_numbers_stand_to_the_right() -> None:
    lines = rendered(80, ("SYMBOL", "QTY"), ("NQ", "1"), ("ES", "1000")).splitlines()
    assert lines[1].endswith("   1")
    assert lines[2].endswith("1000")


def test_brackets_in_what_a_service_said_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    said = "its log ends with [/grpc.health.v1.Health/Watch] ended [code 1]"
    show.out.print(said)
    show.err.print(said)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"{said}\n", f"{said}\n")
