"""The risk manager as its callers see it, over a real server, with its own store on disk."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.mesh_in_process import MeshInProcess, source_of
from tests.contract.state_peer import STATE, FakeState

from minhos_api.events.v1 import event_bus_service_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.order.v1 import position_pb2
from minhos_api.risk.v1 import risk_check_pb2, risk_limits_pb2
from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_api.state.v1.state_manager_service_pb2 import SYSTEM_STATE_DEGRADED, SYSTEM_STATE_OFFLINE
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1.trading_events_pb2 import OrderUpdated
from minhos_mesh.event_bus import bootstrap as event_bus
from minhos_mesh.market_data import bootstrap as market_data
from minhos_mesh.matching import Side
from minhos_mesh.risk_manager import bootstrap, store
from minhos_mesh.risk_manager.bootstrap import desk_of
from minhos_mesh.risk_manager.domain.desk import Decision
from minhos_mesh.risk_manager.domain.limits import Switches
from minhos_mesh.risk_manager.domain.projection import OrderFact, TradeFact
from minhos_mesh.risk_manager.domain.question import Evidence, Held, Provenance, Verdict
from minhos_mesh.risk_manager.service import BREAKER_TRIPPED, LOSS_LIMIT_PASSED, Alert, RiskManager, Writing
from minhos_mesh.risk_manager.servicer import ERRORS, RiskManagerServicer
from minhos_mesh.risk_manager.store import MIGRATIONS
from minhos_mesh.risk_manager.translate import metrics_to_proto, question_from_proto
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.errors import mapped, read
from minhos_mesh.runtime.events import make_event
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.state import CONDITION
from minhos_mesh.runtime.storage import Connection, Database
from minhos_mesh.runtime.validation import check
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.state_manager import bootstrap as state_manager

CONTRACT = "minhos_api.risk.v1.RiskManagerService"
E9 = 1_000_000_000
NQ = "NQZ26-CME"
P = 25_000 * E9
TICK = 250_000_000
BUY, MARKET = terms_pb.SIDE_BUY, terms_pb.ORDER_TYPE_MARKET


@dataclass
class Heard:
    """An announcer that keeps what was written, once it was."""

    decisions: list[Decision] = field(default_factory=list)
    fails: bool = False
    """Whether every writing breaks by a defect."""
    alerts: list[Alert] = field(default_factory=list)

    def decided(self, decision: Decision) -> Writing:
        return lambda connection: self._write(connection, decision)

    def _write(self, connection: Connection, decision: Decision) -> None:
        if self.fails:
            connection.execute("INSERT INTO peaks VALUES ('x', 'y', ?)", (2**63,))
        self.decisions.append(decision)

    def exceeded(self, alerts: Sequence[Alert], now_ns: int) -> Writing:
        return lambda _: self.alerts.extend(alerts)


def honest_question(request_id: str, clock: ManualClock, *, quantity: int = 1) -> pb.CheckTradeRequest:
    now = timestamp(clock.wall_ns())
    return pb.CheckTradeRequest(
        request_id=request_id,
        terms=terms_pb.OrderTerms(symbol=NQ, side=BUY, type=MARKET, quantity=quantity),
        account=pb.AccountView(),
        evidence=pb.MarketEvidence(
            last_price_e9=P,
            event_time=now,
            decision_time=now,
            sequence=1,
            provenance=provenance_pb2.PROVENANCE_SIMULATED,
        ),
    )


class Risk:
    """A risk manager on a folder that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.heard = Heard()
        self.overrides: dict[str, Any] = {}
        self._folder = folder
        self._stack = contextlib.AsyncExitStack()
        self.manager: RiskManager
        self.stub: Any = None

    async def start(self) -> None:
        database = await self._stack.enter_async_context(Database(self._folder / "risk.db", migrations=MIGRATIONS))
        desk = desk_of(load(None, environment={}, overrides={"risk": self.overrides}))
        self.conditions = Conditions()
        self.desk = desk
        self.manager = RiskManager(desk, database, self.heard, self.clock, self.conditions, replay=False)
        self.manager.on_switches(Switches(trading_enabled=True, risk_enabled=True, system_state="ONLINE"))
        await self.manager.recover()
        server = await self._stack.enter_async_context(MeshServer([RiskManagerServicer(self.manager)], errors=ERRORS))
        clients = Clients({CONTRACT: server.address})
        self._stack.push_async_callback(clients.close)
        self._stack.push_async_callback(self.manager.close)
        self.stub = clients.stub(RiskManagerServiceStub)

    async def kill(self) -> None:
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()

    def question(self, request_id: str, *, quantity: int = 1, **changes: Any) -> pb.CheckTradeRequest:
        request = honest_question(request_id, self.clock, quantity=quantity)
        for name, value in changes.items():
            if value is None:
                request.ClearField(name)  # type: ignore[arg-type]  # the tests name fields that exist
            elif isinstance(value, bool | str):
                setattr(request, name, value)
            else:
                getattr(request, name).CopyFrom(value)
        return request

    async def ask(self, request_id: str, **changes: Any) -> pb.CheckTradeResponse:
        answer: pb.CheckTradeResponse = await self.stub.CheckTrade(self.question(request_id, **changes))
        return answer


@pytest.fixture
async def risk(tmp_path: Path) -> AsyncIterator[Risk]:
    risk = Risk(tmp_path)
    await risk.start()
    yield risk
    await risk.stop()


def failed(answer: pb.CheckTradeResponse) -> set[str]:
    return {
        risk_check_pb2.RiskCheckCode.Name(c.code).removeprefix("RISK_CHECK_CODE_")
        for c in answer.checks
        if not c.passed
    }


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    told = read(caught.value)
    return told.code, told.reason.removeprefix("ERROR_REASON_")


def first_time(_: Connection) -> bool:
    return True


async def trade(risk: Risk, version: int, quantity: int, *, realized_e9: int = 0) -> None:
    held = Held(quantity=quantity, cost_e9=quantity * P)
    fact = TradeFact(
        fill_id=f"f-{version}",
        symbol=NQ,
        held=held,
        realized_e9=realized_e9,
        commission_e9=0,
        version=version,
        time_ns=risk.clock.wall_ns(),
    )
    await risk.manager.on_trade(f"o-{version}", fact, first_time)


def limits(**changes: Any) -> risk_limits_pb2.RiskLimits:
    values = {
        "max_order_quantity": 9,
        "max_position": 9,
        "max_open_positions": 2,
        "max_exposure_e9": 10**16,
        "max_daily_loss_e9": 500 * E9,
        "max_drawdown_e9": 900 * E9,
        "price_collar_ticks": 100,
        "max_orders_per_minute": 7,
        "trading_enabled": True,
    }
    message = risk_limits_pb2.RiskLimits(**{**values, **changes})
    message.max_price_age.FromSeconds(5)
    return message


def set_limits(request_id: str, **changes: Any) -> pb.SetRiskLimitsRequest:
    request = pb.SetRiskLimitsRequest(request_id=request_id, limits=limits(), actor="ann", reason="a test")
    for name, value in changes.items():
        getattr(request, name).CopyFrom(value) if name == "limits" else setattr(request, name, value)
    return request


async def test_approval_names_every_check_in_order_and_is_told_with_its_order(risk: Risk) -> None:
    answer = await risk.ask("q-1", order_id="o-1")
    assert answer.approved
    assert [c.code for c in answer.checks] == [v for v in risk_check_pb2.RiskCheckCode.values() if v]
    assert answer.approval_id
    assert answer.expire_time.ToNanoseconds() == risk.clock.wall_ns() + 10 * E9
    (decision,) = risk.heard.decisions
    assert (decision.question.order_id, decision.verdict.approval_id) == ("o-1", answer.approval_id)


async def test_refusal_is_an_answer_with_code_observed_limit_and_message(risk: Risk) -> None:
    answer = await risk.ask("q-1", quantity=6)
    assert not answer.approved
    assert not answer.approval_id
    assert failed(answer) == {"QUANTITY", "POSITION_LIMIT"}
    (check,) = [c for c in answer.checks if c.code == risk_check_pb2.RISK_CHECK_CODE_QUANTITY]
    assert (check.observed, check.limit) == ("6 contracts", "1 to 5 contracts")
    assert check.message


async def test_same_request_id_gives_the_first_answer_also_after_a_crash(risk: Risk) -> None:
    first = await risk.ask("q-1", quantity=3)
    await risk.kill()
    risk.clock.advance(1)
    assert await risk.ask("q-1", quantity=3) == first
    assert len(risk.heard.decisions) == 1
    assert await refused(risk.ask("q-1", quantity=2)) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")


async def test_same_request_id_at_once_is_decided_once(risk: Risk) -> None:
    answers = await asyncio.gather(*[risk.ask("q-1", quantity=3) for _ in range(8)])
    assert all(answer == answers[0] for answer in answers)
    assert len(risk.heard.decisions) == 1


async def test_questions_at_once_cannot_pass_one_limit(risk: Risk) -> None:
    answers = await asyncio.gather(*[risk.ask(f"q-{n}", quantity=1 + n % 3) for n in range(20)])
    let = sum(1 + n % 3 for n, answer in enumerate(answers) if answer.approved)
    assert 0 < let <= 5
    metrics = (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics
    assert metrics.reserved[NQ] == let
    assert metrics.checks == 20


async def test_dry_run_holds_nothing_and_is_told_to_nobody(risk: Risk) -> None:
    answer = await risk.ask("q-1", dry_run=True, account=None, evidence=risk.question("x").evidence)
    assert answer.approved
    assert not answer.approval_id
    assert risk.heard.decisions == []
    assert (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics.open_reservations == 0


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"account": None}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ({"terms": None}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        (
            {"terms": terms_pb.OrderTerms(symbol=NQ, side=BUY, type=MARKET, quantity=0)},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
        ),
        ({"terms": terms_pb.OrderTerms(symbol=NQ, type=MARKET, quantity=1)}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ({"request_id": ""}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        (
            {"evidence": pb.MarketEvidence(provenance=provenance_pb2.PROVENANCE_REPLAY)},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
        ),
    ],
)
async def test_question_that_is_not_well_formed_is_an_error(
    risk: Risk, changes: dict[str, Any], code: str, reason: str
) -> None:
    request = risk.question("q-1", **{k: v for k, v in changes.items() if k != "request_id"})
    request.request_id = changes.get("request_id", "q-1")
    assert await refused(risk.stub.CheckTrade(request)) == (grpc.StatusCode[code], reason)


async def test_without_any_price_nothing_is_approved(risk: Risk) -> None:
    answer = await risk.ask("q-1", evidence=None)
    assert {"FRESH_PRICE", "PROVENANCE"} <= failed(answer)
    price = Evidence(event_time_ns=risk.clock.wall_ns(), last_e9=P, provenance=Provenance.SIMULATED)
    await risk.manager.on_price(NQ, price)
    assert (await risk.ask("q-2", evidence=None)).approved


async def test_reservation_survives_a_crash_and_is_released_by_the_order(risk: Risk) -> None:
    await risk.ask("o-1", quantity=4)
    await risk.kill()
    assert failed(await risk.ask("q-2", quantity=2)) == {"POSITION_LIMIT"}
    done = OrderFact(order_id="o-1", symbol=NQ, side=Side.BUY, leaves_quantity=4, live=False, done=True, version=3)
    await risk.manager.on_order(done, first_time)
    await risk.kill()
    assert (await risk.ask("q-3", quantity=3)).approved


async def test_projection_survives_a_crash_and_finds_contradictions(risk: Risk) -> None:
    await trade(risk, 3, 2)
    await risk.kill()
    same = pb.AccountView(positions=[position_pb2.Position(symbol=NQ, quantity=2, cost_e9=2 * P)], version=3)
    assert (await risk.ask("q-1", account=same)).approved
    assert failed(await risk.ask("q-2", quantity=2, account=pb.AccountView(version=3))) == {"ACCOUNT_VIEW"}
    metrics = (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics
    assert metrics.positions[NQ] == 2


async def test_breaker_is_latched_over_a_crash_until_a_person_resets_it(risk: Risk) -> None:
    trip = pb.TripBreakerRequest(request_id="t-1", actor="ann", reason="strange fills")
    first = (await risk.stub.TripBreaker(trip)).breaker
    again = pb.TripBreakerRequest(request_id="t-2", actor="bob", reason="me too")
    assert (await risk.stub.TripBreaker(again)).breaker == first
    await risk.kill()
    assert failed(await risk.ask("q-1")) == {"BREAKER"}
    nameless = risk.stub.ResetBreaker(pb.ResetBreakerRequest(request_id="r-0", actor="", reason="x"))
    assert await refused(nameless) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    request = pb.ResetBreakerRequest(request_id="r-1", actor="ann", reason="understood")
    assert not (await risk.stub.ResetBreaker(request)).breaker.tripped
    request.request_id = "r-2"
    assert await refused(risk.stub.ResetBreaker(request)) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
    await risk.kill()
    assert (await risk.ask("q-2")).approved
    assert [alert.breaker_tripped for alert in risk.heard.alerts] == [True]


async def test_late_retry_of_a_breaker_change_gives_the_first_answer_and_changes_nothing(risk: Risk) -> None:
    trip = pb.TripBreakerRequest(request_id="t-1", actor="ann", reason="strange fills")
    reset = pb.ResetBreakerRequest(request_id="r-1", actor="ann", reason="understood")
    tripped, free = await risk.stub.TripBreaker(trip), await risk.stub.ResetBreaker(reset)
    await risk.kill()
    assert await risk.stub.TripBreaker(trip) == tripped
    metrics = (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics
    assert not metrics.breaker.tripped
    await risk.stub.TripBreaker(pb.TripBreakerRequest(request_id="t-2", actor="ann", reason="again"))
    reset.reason = "the same, told with other words"
    assert await risk.stub.ResetBreaker(reset) == free
    await risk.kill()
    assert (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics.breaker.reason == "again"
    mixed = risk.stub.ResetBreaker(pb.ResetBreakerRequest(request_id="t-1", actor="ann", reason="x"))
    assert await refused(mixed) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")


async def test_absurd_position_is_refused_and_harms_nobody(risk: Risk) -> None:
    for quantity, cost_e9 in ((9 * 10**18, 1), (1, 2**63 - 1), (-(2**63), -(2**63))):
        absurd = pb.AccountView(positions=[position_pb2.Position(symbol=NQ, quantity=quantity, cost_e9=cost_e9)])
        call = risk.ask(f"bad-{quantity}-{cost_e9}", account=absurd)
        assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    largest = position_pb2.Position(symbol=NQ, quantity=100_000, cost_e9=-9 * 10**18, multiplier_e9=10**15)
    answer = await risk.ask("bad", account=pb.AccountView(positions=[largest], realized_today_e9=10**18))
    assert "ACCOUNT_VIEW" in failed(answer)
    await trade(risk, 1, 1)
    await risk.kill()
    honest = pb.AccountView(positions=[position_pb2.Position(symbol=NQ, quantity=1, cost_e9=P)], version=1)
    assert (await risk.ask("honest", account=honest)).approved


def any_int64() -> st.SearchStrategy[int]:
    near = [0, 1, -1, 2**63 - 1, -(2**63), 9 * 10**18, 10**15, 10**18, 100_000, P]
    return st.one_of(st.sampled_from(near), st.integers(-(2**63), 2**63 - 1), st.integers(-5, 100_000))


def allowed(low: int, high: int) -> st.SearchStrategy[int]:
    return st.sampled_from([low, high, 0, 1]) | st.integers(low, high)


def allowed_view() -> st.SearchStrategy[pb.AccountView]:
    """The widest views that the rules let through, so that the checks see them."""
    symbols = st.sampled_from([NQ, "ESZ26-CME", "VIX", "NQZ99-CME"])
    position = st.builds(
        position_pb2.Position,
        symbol=symbols,
        quantity=allowed(-100_000, 100_000),
        cost_e9=allowed(-9 * 10**18, 9 * 10**18),
        unrealized_pnl_e9=st.none() | allowed(-9 * 10**18, 9 * 10**18),
        multiplier_e9=allowed(0, 10**15),
    )
    return st.builds(
        pb.AccountView,
        positions=st.lists(position, max_size=3),
        working_buy=st.dictionaries(symbols, allowed(0, 10**7), max_size=2),
        working_sell=st.dictionaries(symbols, allowed(0, 10**7), max_size=2),
        realized_today_e9=allowed(-(10**18), 10**18),
        version=allowed(0, 10**18),
        working_order_ids=st.lists(st.sampled_from(["a", "b"]), max_size=2),
    )


def any_time() -> st.SearchStrategy[Timestamp]:
    seconds = st.sampled_from([0, -1, 1_795_000_000, 253_402_300_799, -(2**63), 2**63 - 1])
    return st.builds(Timestamp, seconds=seconds, nanos=st.sampled_from([0, -1, 999_999_999, 2**31 - 1]))


def any_symbol() -> st.SearchStrategy[str]:
    return st.sampled_from([NQ, "ESZ26-CME", "VIX", "", "x" * 40, "NQZ99-CME"])


def any_position() -> st.SearchStrategy[position_pb2.Position]:
    numbers = ("quantity", "cost_e9", "realized_pnl_e9", "unrealized_pnl_e9", "multiplier_e9", "version")
    fields: dict[str, Any] = dict.fromkeys(numbers, any_int64())
    return st.builds(position_pb2.Position, symbol=any_symbol(), **fields)


def any_view() -> st.SearchStrategy[pb.AccountView]:
    return st.builds(
        pb.AccountView,
        positions=st.lists(any_position(), max_size=2),
        working_buy=st.dictionaries(any_symbol(), any_int64(), max_size=2),
        working_sell=st.dictionaries(any_symbol(), any_int64(), max_size=2),
        realized_today_e9=any_int64(),
        version=any_int64(),
        working_order_ids=st.lists(st.sampled_from(["a", "b", ""]), max_size=2),
    )


def any_question() -> st.SearchStrategy[pb.CheckTradeRequest]:
    terms = st.builds(
        terms_pb.OrderTerms,
        symbol=any_symbol(),
        side=st.sampled_from([0, 1, 2]),
        type=st.sampled_from([0, 1, 2, 3, 4]),
        quantity=any_int64(),
        limit_price_e9=st.none() | any_int64(),
        stop_price_e9=st.none() | any_int64(),
    )
    evidence = st.builds(
        pb.MarketEvidence,
        last_price_e9=st.none() | any_int64(),
        bid_e9=st.none() | any_int64(),
        ask_e9=st.none() | any_int64(),
        event_time=st.none() | any_time(),
        decision_time=st.none() | any_time(),
        sequence=st.sampled_from([0, 2**64 - 1]),
        epoch=st.sampled_from([0, 2**64 - 1]),
        provenance=st.sampled_from([0, 1, 2, 3, 4]),
    )
    return st.builds(
        pb.CheckTradeRequest,
        request_id=st.uuids().map(str),
        order_id=st.sampled_from(["", "a", "b"]),
        terms=st.none() | terms,
        account=st.none() | any_view() | allowed_view(),
        evidence=st.none() | evidence,
        dry_run=st.booleans(),
        replaces=st.booleans(),
    )


async def served_without_wire(manager: RiskManager, request: pb.CheckTradeRequest) -> Verdict | None:
    """Ask as the server does, by rules, translation and table of errors; None when it was refused as not well formed."""
    try:
        check(request)
        return await manager.check(question_from_proto(request))
    except Exception as error:
        told = mapped(error, ERRORS)
        if told is None or told.code is not grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return None


async def ask_anything_then_honestly(folder: Path, hostile: list[pb.CheckTradeRequest]) -> None:
    conditions, clock = Conditions(), ManualClock()
    async with Database(folder / "risk.db", migrations=MIGRATIONS) as database:
        desk = desk_of(load(None, environment={}))
        manager = RiskManager(desk, database, Heard(), clock, conditions, replay=False)
        manager.on_switches(Switches(trading_enabled=True, risk_enabled=True, system_state="ONLINE"))
        await manager.recover()
        for number, question in enumerate(hostile):
            # Half of them with the evidence and the terms of an honest question, so that their accounts are looked at too.
            if number % 2 == 0:
                fair = honest_question("x", clock)
                question.evidence.CopyFrom(fair.evidence)
                question.terms.CopyFrom(fair.terms)
            await served_without_wire(manager, question)
            metrics_to_proto(manager.view()[0]).SerializeToString()
        clock.advance(120)
        verdict = await served_without_wire(manager, honest_question("honest", clock))
        assert verdict is not None
        assert verdict.approved, [c.message for c in verdict.checks if not c.passed]
        assert not conditions.held()
        await manager.close()
        store.restore(desk_of(load(None, environment={})), await database.read(store.load))


@settings(max_examples=60)
@given(st.lists(any_question(), min_size=1, max_size=6))
def test_no_question_whatever_makes_a_later_honest_one_fail(hostile: list[pb.CheckTradeRequest]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(ask_anything_then_honestly(Path(folder), hostile))


async def test_failed_write_raises_leaves_memory_as_it_was_and_is_a_condition_when_repeated(risk: Risk) -> None:
    before = (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics
    risk.heard.fails = True
    for number in range(3):
        assert "RISK_STEPS_FAIL" not in risk.conditions.held()
        with pytest.raises(OverflowError):
            await risk.manager.check(question_from_proto(risk.question(f"q-{number}", quantity=3)))
        assert (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics == before
    assert "3 steps in a row" in risk.conditions.held()["RISK_STEPS_FAIL"]
    risk.heard.fails = False
    assert (await risk.ask("q-1", quantity=5)).approved
    assert not risk.conditions.held()


async def test_event_that_cannot_be_written_is_not_taken_in(risk: Risk) -> None:
    def broken(_: Connection) -> bool:
        raise OverflowError

    await risk.ask("o-1", quantity=2)
    done = OrderFact(order_id="o-1", symbol=NQ, side=Side.BUY, leaves_quantity=2, live=False, done=True, version=3)
    held = Held(quantity=2, cost_e9=2 * P)
    fact = TradeFact(
        fill_id="f", symbol=NQ, held=held, realized_e9=0, commission_e9=0, version=1, time_ns=risk.clock.wall_ns()
    )
    before = (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics
    with pytest.raises(OverflowError):
        await risk.manager.on_order(done, broken)
    with pytest.raises(OverflowError):
        await risk.manager.on_trade("o-1", fact, broken)
    assert (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics == before
    await risk.manager.on_trade("o-1", fact, first_time)
    assert (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics.positions[NQ] == 2


async def test_replacement_is_asked_under_its_own_id_and_conflicts_with_other_content(risk: Risk) -> None:
    assert (await risk.ask("o-1", quantity=3, order_id="o-1")).approved
    nameless = risk.ask("r-0", quantity=3, replaces=True)
    assert await refused(nameless) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    first = await risk.ask("r-1", quantity=5, order_id="o-1", replaces=True)
    assert first.approved
    await risk.kill()
    assert await risk.ask("r-1", quantity=5, order_id="o-1", replaces=True) == first
    same_id = risk.ask("r-1", quantity=5, order_id="o-1")
    assert await refused(same_id) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")
    assert (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics.reserved[NQ] == 5


async def test_dry_run_is_not_remembered_and_conflicts_with_nothing(risk: Risk) -> None:
    assert (await risk.ask("q-1", quantity=2, dry_run=True)).approved
    assert not (await risk.ask("q-1", quantity=9, dry_run=True)).approved
    assert (await risk.ask("q-1", quantity=3)).approved
    assert not (await risk.ask("q-1", quantity=9, dry_run=True)).approved


async def test_what_a_price_changes_is_told_at_most_once_a_second(risk: Risk) -> None:
    await trade(risk, 1, 1)
    before = (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).revision
    watch = risk.stub.WatchRisk(pb.WatchRiskRequest(after_revision=before))
    for points in range(1, 200):
        now_ns = risk.clock.wall_ns()
        price = Evidence(event_time_ns=now_ns, last_e9=P + points * E9, provenance=Provenance.SIMULATED)
        await risk.manager.on_price(NQ, price)
    async with asyncio.timeout(5):
        told = await watch.read()
    watch.cancel()
    assert told.revision == before + 1
    assert told.change.unrealized_e9 == 199 * 20 * E9
    assert (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).revision == before + 1


async def test_published_loss_trips_the_breaker_and_is_told_once(risk: Risk) -> None:
    await trade(risk, 1, 0, realized_e9=-6_001 * E9)
    await trade(risk, 2, 0, realized_e9=-100 * E9)
    breaker = (await risk.stub.GetRiskMetrics(pb.GetRiskMetricsRequest())).metrics.breaker
    assert breaker.tripped
    assert breaker.tripped_by == "risk_manager"
    (alert,) = risk.heard.alerts
    assert (alert.observed, alert.limit, alert.breaker_tripped) == ("6001.00 lost", "6000.00", True)


async def test_limit_that_is_passed_is_told_once_until_it_holds_again(risk: Risk) -> None:
    lost, fine = pb.AccountView(realized_today_e9=-5_500 * E9), pb.AccountView()
    for number, account in enumerate([lost, lost, fine, lost]):
        await risk.ask(f"q-{number}", quantity=1 + number % 2, account=account)
    assert [alert.code.name for alert in risk.heard.alerts] == ["DAILY_LOSS", "DAILY_LOSS"]


async def test_limits_change_by_version_and_survive_a_crash(risk: Risk) -> None:
    first = await risk.stub.GetRiskLimits(pb.GetRiskLimitsRequest())
    assert first.limits.max_daily_loss_e9 == 5_000 * E9
    changed = await risk.stub.SetRiskLimits(set_limits("c-1", expected_version=first.version))
    assert (changed.limits, changed.version) == (limits(), first.version + 1)
    assert await risk.stub.SetRiskLimits(set_limits("c-1", expected_version=first.version)) == changed
    assert await refused(risk.stub.SetRiskLimits(set_limits("c-1"))) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_CONFLICT",
    )
    stale = set_limits("c-2", expected_version=first.version)
    assert await refused(risk.stub.SetRiskLimits(stale)) == (grpc.StatusCode.ABORTED, "VERSION_MISMATCH")
    await risk.kill()
    again = await risk.stub.GetRiskLimits(pb.GetRiskLimitsRequest())
    assert (again.limits, again.version) == (changed.limits, changed.version)


async def test_configured_limits_hold_until_a_person_changes_them(risk: Risk) -> None:
    risk.overrides = {"max_position": 7}
    await risk.kill()
    assert (await risk.stub.GetRiskLimits(pb.GetRiskLimitsRequest())).limits.max_position == 7
    await risk.stub.SetRiskLimits(set_limits("c-1"))
    risk.overrides = {"max_position": 8}
    await risk.kill()
    assert (await risk.stub.GetRiskLimits(pb.GetRiskLimitsRequest())).limits.max_position == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": ""},
        {"reason": ""},
        {"limits": limits(max_position=0)},
        {"limits": limits(max_daily_loss_e9=0)},
        {"limits": limits(max_daily_loss_e9=2**63 - 1)},
        {"limits": limits(max_exposure_e9=2**63 - 1)},
        {"limits": limits(max_order_quantity=10_001)},
        {"limits": limits(price_collar_ticks=2**63 - 1)},
    ],
)
async def test_bad_limits_are_refused(risk: Risk, changes: dict[str, Any]) -> None:
    call = risk.stub.SetRiskLimits(set_limits("c-1", **changes))
    assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_missing_age_of_a_price_is_named_as_the_contract_names_it(risk: Risk) -> None:
    request = set_limits("c-1")
    request.limits.ClearField("max_price_age")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await risk.stub.SetRiskLimits(request)
    assert read(caught.value).metadata["field"] == "limits.max_price_age"
    assert "max_price_age_ns" not in read(caught.value).message


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"symbol": "XYZZ26-CME"}, "NOT_FOUND", "SYMBOL_UNKNOWN"),
        ({"stop_price_e9": P}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ({"stop_price_e9": P - 1}, "INVALID_ARGUMENT", "PRICE_OFF_TICK"),
        ({"entry_price_e9": 25_000}, "INVALID_ARGUMENT", "PRICE_SCALE"),
        ({"risk_amount_e9": 0}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ({"entry_price_e9": 2**63 - 1}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ({"stop_price_e9": -1}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ],
)
async def test_bad_sizing_is_refused(risk: Risk, changes: dict[str, Any], code: str, reason: str) -> None:
    values = {"symbol": NQ, "entry_price_e9": P, "stop_price_e9": P - 10 * E9, "risk_amount_e9": 400 * E9, **changes}
    call = risk.stub.CalculatePositionSize(pb.CalculatePositionSizeRequest(**values))
    assert await refused(call) == (grpc.StatusCode[code], reason)


async def test_size_counts_the_multiplier_and_says_what_bounds_it(risk: Risk) -> None:
    request = pb.CalculatePositionSizeRequest(
        symbol=NQ, entry_price_e9=P, stop_price_e9=P - 10 * E9, risk_amount_e9=450 * E9
    )
    size = await risk.stub.CalculatePositionSize(request)
    assert (size.quantity, size.loss_per_contract_e9) == (2, 200 * E9)
    assert size.bounded_by == pb.POSITION_SIZE_BOUND_RISK_AMOUNT
    assert size.message == "bounded by 450.00 USD to risk, 200.00 per contract"


async def test_watch_gives_the_metrics_then_each_change_and_resumes(risk: Risk) -> None:
    call = risk.stub.WatchRisk(pb.WatchRiskRequest())
    async with asyncio.timeout(5):
        first = await call.read()
        await risk.ask("q-1")
        second = await call.read()
    call.cancel()
    assert (first.snapshot.metrics.checks, second.change.checks) == (0, 1)
    assert second.revision == first.revision + 1
    resumed = risk.stub.WatchRisk(pb.WatchRiskRequest(after_revision=first.revision))
    async with asyncio.timeout(5):
        assert await resumed.read() == second
    resumed.cancel()
    lost = risk.stub.WatchRisk(pb.WatchRiskRequest(after_revision=1))
    assert await refused(lost.read()) == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_LOST")


async def test_served_risk_manager_reads_prices_and_orders_and_publishes_its_decisions(tmp_path: Path) -> None:
    config = load(None, environment={}, overrides={"market_data": {"symbols": [NQ]}}).resolved(datetime.now(UTC))
    async with MeshInProcess(tmp_path, config) as mesh:
        await mesh.serve("event_bus", event_bus.build)
        await mesh.serve("state_manager", state_manager.build)
        await mesh.serve("market_data", market_data.build)
        await mesh.serve("risk_manager", bootstrap.build)
        clients = mesh.clients()
        stub, bus = clients.stub(RiskManagerServiceStub), clients.stub(EventBusServiceStub)
        watch: Any = stub.WatchRisk(pb.WatchRiskRequest())
        await watch.read()
        terms = terms_pb.OrderTerms(symbol=NQ, side=BUY, type=MARKET, quantity=4)
        request = pb.CheckTradeRequest(request_id="o-1", terms=terms, account=pb.AccountView())
        async with source_of(clients, NQ, Provenance.SIMULATED) as send:
            await send(1, [(time.time_ns(), P, P + TICK)])
            async with asyncio.timeout(5):
                dry = pb.CheckTradeRequest(request_id="dry", terms=terms, dry_run=True)
                while not (await stub.CheckTrade(dry)).approved:
                    await asyncio.sleep(0.01)
                assert (await stub.CheckTrade(request)).approved
                assert (await watch.read()).change.reserved[NQ] == 4
        done = OrderUpdated(
            order=order_pb2.Order(order_id="o-1", terms=terms, state=order_pb2.ORDER_STATE_REJECTED, version=2)
        )
        event = make_event(done, subject=NQ, source="trading_engine", time_ns=time.time_ns())
        await bus.Publish(event_bus_service_pb2.PublishRequest(events=[event]))
        async with asyncio.timeout(5):
            assert not (await watch.read()).change.reserved
            listed = event_bus_service_pb2.ListEventsRequest(types=["risk.check_result"])
            while not (told := (await bus.ListEvents(listed)).events):
                await asyncio.sleep(0.01)
        watch.cancel()
        assert [(e.subject, e.correlation_id, e.source) for e in told] == [(NQ, "o-1", "risk_manager")]


class Beside:
    """A served risk manager beside a real bus and market data, and a state manager that can be killed."""

    def __init__(self, mesh: MeshInProcess) -> None:
        self.state = FakeState()
        self._mesh = mesh
        self._server: MeshServer | None = None
        self._port = 0

    async def serve_state(self) -> None:
        self._server = MeshServer([self.state], port=self._port)
        await self._server.start()
        self._port = self._server.port
        self._mesh.targets[STATE] = self._server.address

    async def kill_state(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
        self._server = None

    async def serve_risk(self) -> None:
        await self._mesh.serve("event_bus", event_bus.build)
        await self._mesh.serve("market_data", market_data.build)
        self.context = await self._mesh.serve("risk_manager", bootstrap.build)
        self._stub = self._mesh.clients().stub(RiskManagerServiceStub)

    async def switched(self, *, named: str) -> None:
        """Wait until the check says what is off; the empty text when nothing is."""
        request = pb.CheckTradeRequest(
            request_id="dry",
            terms=terms_pb.OrderTerms(symbol=NQ, side=BUY, type=MARKET, quantity=1),
            dry_run=True,
        )
        async with asyncio.timeout(10):
            while True:
                answer = await self._stub.CheckTrade(request)
                (check,) = [c for c in answer.checks if c.code == risk_check_pb2.RISK_CHECK_CODE_TRADING_ENABLED]
                if check.passed is not bool(named) and named in check.message:
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Beside]:
    config = load(None, environment={}, overrides={"market_data": {"symbols": [NQ]}}).resolved(datetime.now(UTC))
    async with MeshInProcess(tmp_path, config) as mesh:
        beside = Beside(mesh)
        await beside.serve_state()
        yield beside
        await beside.kill_state()


async def test_served_risk_manager_refuses_by_the_state_from_the_first_question_on(beside: Beside) -> None:
    beside.state.change(trading_enabled=False, auto_trade_enabled=False)
    await beside.serve_risk()
    await beside.switched(named="trading_enabled of the state is false")
    beside.state.change(trading_enabled=True)
    await beside.switched(named="")
    beside.state.change(risk_enabled=False)
    await beside.switched(named="risk_enabled of the state is false")
    beside.state.change(risk_enabled=True, system_state=SYSTEM_STATE_OFFLINE)
    await beside.switched(named="system_state is OFFLINE")
    beside.state.change(system_state=SYSTEM_STATE_DEGRADED)
    await beside.switched(named="")


async def test_state_manager_killed_and_back_leaves_the_last_state_in_force(beside: Beside) -> None:
    beside.state.change(trading_enabled=False, auto_trade_enabled=False)
    await beside.serve_risk()
    await beside.kill_state()
    async with asyncio.timeout(10):
        while CONDITION not in beside.context.conditions.held():
            await asyncio.sleep(0.01)
    await beside.switched(named="trading_enabled of the state is false")
    beside.state.change(trading_enabled=True)
    await beside.serve_state()
    await beside.switched(named="")
    assert CONDITION not in beside.context.conditions.held()


async def test_state_that_was_never_heard_approves_nothing_until_it_is(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "STATE_WAIT_S", 0.1)
    await beside.kill_state()
    await beside.serve_risk()
    assert "has not been heard" in beside.context.conditions.held()[CONDITION]
    await beside.switched(named="the state manager has never been heard")
    await beside.serve_state()
    await beside.switched(named="")


async def test_tripped_breaker_is_a_condition_over_a_crash_until_it_is_reset(risk: Risk) -> None:
    assert risk.conditions.held() == {}
    await risk.stub.TripBreaker(pb.TripBreakerRequest(request_id="t-1", actor="ann", reason="strange fills"))
    (told,) = risk.conditions.held().items()
    assert told[0] == BREAKER_TRIPPED
    assert re.fullmatch(r"the breaker is tripped since \d{4}-\d\d-\d\d [\d:]{8} UTC by ann: strange fills", told[1])
    await risk.kill()
    assert dict([told]) == risk.conditions.held()
    await risk.stub.ResetBreaker(pb.ResetBreakerRequest(request_id="r-1", actor="ann", reason="understood"))
    assert risk.conditions.held() == {}
    await risk.kill()
    assert risk.conditions.held() == {}


async def test_loss_that_trips_the_breaker_is_a_condition(risk: Risk) -> None:
    await trade(risk, 1, 0, realized_e9=-6_001 * E9)
    assert "the loss of the day is 6001.00" in risk.conditions.held()[BREAKER_TRIPPED]


@pytest.mark.parametrize("passed", ["max_daily_loss, 5000.00", "max_drawdown, 900.00"])
async def test_loss_that_stops_orders_without_the_breaker_is_a_condition_until_it_stops_none(
    risk: Risk, passed: str
) -> None:
    if "drawdown" in passed:
        await risk.stub.SetRiskLimits(set_limits("c-1", limits=limits(max_daily_loss_e9=9_000 * E9)))
    await trade(risk, 1, 0, realized_e9=900 * E9 if "drawdown" in passed else -5_000 * E9)
    assert risk.conditions.held() == {}
    await trade(risk, 2, 0, realized_e9=-1_000 * E9 if "drawdown" in passed else -1 * E9)
    (told,) = risk.conditions.held().items()
    assert told[0] == LOSS_LIMIT_PASSED
    assert told[1].endswith(f" is above {passed}: only what reduces a position passes")
    await risk.kill()
    assert dict([told]) == risk.conditions.held()
    risk.clock.advance(86_400)
    risk.manager.look_at_losses()
    assert risk.conditions.held() == {}


async def test_loss_of_the_day_that_trips_the_breaker_is_one_condition_and_comes_back_when_it_is_reset(
    risk: Risk,
) -> None:
    await trade(risk, 1, 0, realized_e9=-6_001 * E9)
    assert list(risk.conditions.held()) == [BREAKER_TRIPPED]
    await risk.stub.ResetBreaker(pb.ResetBreakerRequest(request_id="r-1", actor="ann", reason="understood"))
    assert list(risk.conditions.held()) == [LOSS_LIMIT_PASSED]
    await risk.stub.SetRiskLimits(
        set_limits("c-1", limits=limits(max_daily_loss_e9=9_000 * E9, max_drawdown_e9=9_000 * E9))
    )
    assert risk.conditions.held() == {}
