from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.e2e.books import Book, assert_books_agree, events, fill_of, settled
from tests.e2e.recording import BAD, MINUTES, TRADES, make_recording
from tests.e2e.running_mesh import Mesh, started
from tests.waiting import until

from minhos_api.brain.v1 import ai_brain_service_pb2 as brain_pb
from minhos_api.brain.v1 import brain_events_pb2
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_api.market.v1 import provenance_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub

pytestmark = pytest.mark.timeout(240)

TICKS = TRADES - len(BAD)


def report_of(data_dir: Path, file: Path) -> dict[str, Any]:
    """Replays a file to its end in a mesh of its own, which is gone afterwards."""
    made, report = Mesh(data_dir), data_dir.parent / f"{data_dir.name}.json"
    try:
        made.ok(
            "up", "--feed", "replay", "--file", str(file), "--speed", "max", "--until-end", "--report", str(report),
            timeout_s=200,
        )  # fmt: skip
    finally:
        made.end()
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    assert found["consistent"] is True, found["differences"]
    assert found["records_read"] == found["ticks_sequenced"] + sum(found["rejected"].values())
    assert found["ticks_delivered"] == found["ticks_sequenced"]
    assert found["gaps"] == 0
    return found


@dataclass(frozen=True)
class Outcome:
    """Everything that came of a replay, ids and wall times apart."""

    signals: list[tuple[Any, ...]]
    fills: list[tuple[Any, ...]]
    orders: list[tuple[Any, ...]]
    books: dict[str, Book]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def report(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return report_of(tmp_path_factory.mktemp("report") / "data", recording)


def outcome_of(data_dir: Path, file: Path, speed: str) -> Outcome:
    """Replays a file and asks the running mesh what came of it."""
    with started(data_dir, "--feed", "replay", "--file", str(file), "--speed", speed) as made:
        until(lambda: through(made) == TICKS and settled(made), "the replay is over for everyone", 60)
        books = assert_books_agree(made)
        return Outcome(
            signals=[_signal(event) for event in events(made, "ai.signal_generated")],
            fills=[_fill(fill_of(event)) for event in events(made, "trade.executed")],
            orders=[_order(order) for order in reversed(books.orders)],
            books=books.engine,
        )


def through(mesh: Mesh) -> int:
    """The tick up to which brain and engine have both come."""
    try:
        listed = mesh.stub(AIBrainServiceStub).ListSignals(brain_pb.ListSignalsRequest(page_size=1))
        positions = mesh.stub(TradingEngineServiceStub).GetPositions(engine_pb.GetPositionsRequest())
    except grpc.RpcError:
        return 0
    brain = min((item.told_sequence for item in listed.progress), default=0)
    return int(min(brain, min(positions.replay_through_sequence.values(), default=0)))


def _signal(event: Any) -> tuple[Any, ...]:
    told = brain_events_pb2.SignalGenerated()
    assert event.payload.Unpack(told)
    signal = told.signal
    reasons = tuple((reason.analysis, reason.code, reason.message, reason.score) for reason in signal.reasons)
    return (
        signal.through_sequence, signal.action, signal.confidence, signal.target_price_e9, signal.stop_price_e9,
        signal.decision_time.ToNanoseconds(), signal.quote.last_price_e9, reasons,
    )  # fmt: skip


def _fill(fill: Any) -> tuple[Any, ...]:
    assert fill.provenance == provenance_pb2.PROVENANCE_REPLAY
    return (
        fill.symbol, fill.side, fill.quantity, fill.price_e9, fill.commission_e9, fill.fill_time.ToNanoseconds(),
        fill.market_sequence,
    )  # fmt: skip


def _order(order: Any) -> tuple[Any, ...]:
    return (
        order.terms.SerializeToString(deterministic=True), order.state, order.filled_quantity, order.average_price_e9,
        tuple((check.code, check.passed) for check in order.checks),
    )  # fmt: skip


def test_the_report_of_a_recording_accounts_for_every_record(report: dict[str, Any]) -> None:
    assert report["symbol"] == "MNQZ26-CME"
    assert report["records_read"] == TRADES
    assert report["ticks_sequenced"] == TICKS
    assert sum(report["rejected"].values()) == len(BAD)
    assert report["bars"] == MINUTES - 1
    assert report["signals"] > 0
    assert report["orders"] > 0
    assert report["fills"] > 0


def test_a_replay_repeats_exactly_at_any_speed(report: dict[str, Any], recording: Path, tmp_path: Path) -> None:
    first = outcome_of(tmp_path / "first", recording, "max")
    second = outcome_of(tmp_path / "second", recording, "4000")
    assert second == first
    assert (len(first.signals), len(first.orders), len(first.fills)) == (
        report["signals"],
        report["orders"],
        report["fills"],
    )
    (book,) = first.books.values()
    assert book[2] == report["realized_pnl_e9"]
    assert book[3] == report["commission_e9"]


def test_the_real_sample_is_read_whole_and_all_books_agree(sample: Path, tmp_path: Path) -> None:
    made = report_of(tmp_path / "data", sample)
    assert made["records_read"] == 48_737
    assert made["ticks_sequenced"] == 48_737 - sum(made["rejected"].values())
    assert min(made["bars"], made["signals"], made["orders"], made["fills"]) > 0
    assert {"positions", "realized_pnl_e9", "consistent"} <= set(made)
