from __future__ import annotations

import json

import pytest
from google.protobuf.duration_pb2 import Duration

from minhos_api.brain.v1 import signal_pb2
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.registry.v1 import supervisor_service_pb2 as supervisor
from minhos_api.trading.v1 import order_pb2
from minhos_mesh.cli import logs, start, tail, trading

E9 = 1_000_000_000


def test_a_line_of_a_log_reads_as_time_level_event_and_fields() -> None:
    line = json.dumps(
        {
            "service": "market_data", "instance": "market_data-1", "address": "127.0.0.1:1", "event": "service.bound",
            "level": "info", "timestamp": "2026-11-22T16:42:38.421857Z",
        }
    )  # fmt: skip
    assert logs.log_line(line) == "16:42:38.421  info     service.bound            address=127.0.0.1:1"


def test_a_logged_exception_stands_below_its_line() -> None:
    entry = {"event": "x", "level": "error", "timestamp": "2026-11-22T16:42:38Z", "exception": "Traceback\n  boom"}
    assert logs.log_line(json.dumps(entry)).splitlines()[1:] == ["Traceback", "  boom"]


@pytest.mark.parametrize("line", ["Segmentation fault", "[1, 2]", '{"event": "x"}', '{"timestamp": 5, "level": 1}', ""])
def test_what_is_no_line_of_ours_is_shown_as_it_is(line: str) -> None:
    assert logs.log_line(line) == line


def test_a_step_of_supervision_is_one_line() -> None:
    step = supervisor.SupervisionProgress(
        service="market_data",
        phase=supervisor.SupervisionProgress.PHASE_WAITING,
        message="waits for event_bus",
        elapsed=Duration(seconds=1, nanos=250_000_000),
    )
    assert start.progress_line(step) == "   1.25 s  market_data       waiting    waits for event_bus"


def test_uptime_of_what_never_started_is_a_dash() -> None:
    assert start.uptime(0) == "-"


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (terms_pb.OrderTerms(type=terms_pb.ORDER_TYPE_MARKET), "MARKET"),
        (terms_pb.OrderTerms(type=terms_pb.ORDER_TYPE_LIMIT, limit_price_e9=23_500 * E9), "LIMIT @ 23500.00"),
        (terms_pb.OrderTerms(type=terms_pb.ORDER_TYPE_STOP, stop_price_e9=23_500 * E9), "STOP stop 23500.00"),
        (
            terms_pb.OrderTerms(type=terms_pb.ORDER_TYPE_STOP_LIMIT, limit_price_e9=2 * E9, stop_price_e9=3 * E9),
            "STOP_LIMIT @ 2.00 stop 3.00",
        ),
    ],
)
def test_terms_of_an_order_are_told_with_their_prices(terms: terms_pb.OrderTerms, text: str) -> None:
    assert trading.price_text(terms) == text


def test_an_order_says_where_it_comes_from_unless_there_is_a_reason_to_tell() -> None:
    by_signal = order_pb2.Order(signal_id="NQ:1:2", actor="engine")
    by_hand = order_pb2.Order(actor="root")
    denied = order_pb2.Order(actor="root", reason_message="daily loss: 5001.00 of 5000.00")
    assert [trading.order_row(order)[-1] for order in (by_signal, by_hand, denied)] == [
        "signal NQ:1:2",
        "by root",
        "daily loss: 5001.00 of 5000.00",
    ]


def test_a_signal_is_told_with_its_first_reason() -> None:
    signal = signal_pb2.Signal(
        symbol="NQZ26-CME", action=signal_pb2.SIGNAL_ACTION_SELL, confidence=0.934, target_price_e9=23_743_250_000_000
    )
    signal.reasons.add(message="fast average below the slow one")
    line = tail.signal_line(signal)
    assert "NQZ26-CME    SELL 0.93  target 23743.25 stop -  fast average below the slow one" in line
