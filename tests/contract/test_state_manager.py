"""StateManagerService as its clients see it, over a real bus: what it refuses and how, what it keeps, what it hears and tells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import fill_pb2, order_terms_pb2, position_pb2
from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_api.state.v1.state_events_pb2 import StateChanged
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceStub
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb
from minhos_api.trading.v1 import trading_events_pb2 as trading_pb
from minhos_mesh.event_bus.bootstrap import build as build_bus
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.config import MeshConfig, load, save
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.errors import CallError, read
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.money import E9
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.state_manager import bootstrap
from minhos_mesh.state_manager.servicer import StateManagerServicer

BUS = "minhos_api.events.v1.EventBusService"
STATE = "minhos_api.state.v1.StateManagerService"
SYMBOL = "NQZ26-CME"
DAY = "2026-09-21"
DAY_S = int(datetime(2026, 9, 21, 12, tzinfo=UTC).timestamp())


def config_of(**overrides: Any) -> MeshConfig:
    values = {"market_data": {"symbols": [SYMBOL]}, **overrides}
    return load(None, environment={}, overrides=values).resolved(datetime(2026, 11, 20, tzinfo=UTC))


class Mesh:
    """A bus and a state manager, each of which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bus, self._state = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        self._bus_port = 0
        self.config = config_of()
        self.conditions: Any = None
        self.stub: Any = None
        self.manager: Any = None

    async def start_bus(self) -> None:
        context = ServiceContext("event_bus", "event_bus-1", self.config, MeshPaths(self._folder), Clients())
        parts = await self._bus.enter_async_context(build_bus(context))
        server = await self._bus.enter_async_context(
            MeshServer(parts.servicers, errors=parts.errors, port=self._bus_port)
        )
        self._bus.callback(context.stopping.set)
        self._bus_port = server.port

    async def start(self) -> None:
        clients = Clients({BUS: f"127.0.0.1:{self._bus_port}"})
        context = ServiceContext(
            "state_manager", "state_manager-1", self.config, MeshPaths(self._folder), clients, clock=ManualClock()
        )
        stack = self._state
        stack.push_async_callback(clients.close)
        parts = await stack.enter_async_context(bootstrap.build(context))
        stack.push_async_callback(context.tasks.close)
        server = await stack.enter_async_context(MeshServer(parts.servicers, errors=parts.errors))
        self.conditions, self.manager = context.conditions, vars(parts.servicers[0])["_manager"]
        outside = Clients({STATE: server.address})
        stack.push_async_callback(outside.close)
        self.stub = outside.stub(StateManagerServiceStub)
        await parts.start()

    async def stop(self) -> None:
        await self._state.aclose()
        self._state = contextlib.AsyncExitStack()

    async def stop_bus(self) -> None:
        await self._bus.aclose()
        self._bus = contextlib.AsyncExitStack()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @contextlib.asynccontextmanager
    async def outsider(self) -> AsyncIterator[tuple[EventClient, Any]]:
        """Another service of the mesh: its way to publish, and the bus."""
        clients = Clients({BUS: f"127.0.0.1:{self._bus_port}"})
        context = ServiceContext("trading_engine", "e-1", self.config, MeshPaths(self._folder), clients)
        try:
            yield EventClient(context), clients.stub(EventBusServiceStub)
        finally:
            await context.tasks.close()
            await clients.close()

    async def publish(self, *payloads: Any) -> int:
        async with self.outsider() as (events, _):
            made = [events.event(payload, subject=SYMBOL) for payload in payloads]
            return (await events.publish(made))[-1]

    async def heard(self, sequence: int) -> pb.GetPortfolioResponse:
        """The portfolio once the event of that sequence was taken in."""
        async with asyncio.timeout(10):
            while True:
                answer: pb.GetPortfolioResponse = await self.stub.GetPortfolio(pb.GetPortfolioRequest())
                if answer.through_sequence >= sequence:
                    return answer
                await asyncio.sleep(0.005)

    async def state(self) -> pb.State:
        return (await self.stub.GetState(pb.GetStateRequest())).state  # type: ignore[no-any-return] # a stub by contract


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(tmp_path)
    await mesh.start_bus()
    await mesh.start()
    yield mesh
    await mesh.stop()
    await mesh.stop_bus()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)


async def refusal(call: Awaitable[Any]) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read(caught.value)


def change(paths: Iterable[str], request_id: str = "r-1", expected: int | None = None, **values: Any) -> Any:
    return pb.UpdateStateRequest(
        request_id=request_id,
        state=pb.State(**values),
        update_mask=FieldMask(paths=paths),
        expected_version=expected,
        actor="anna",
        reason="test",
    )


class Engine:
    """Makes the events of an engine that keeps its own book by sums, apart from the code under test."""

    def __init__(self) -> None:
        self.version = 0
        self.quantity = self.cash = self.commission = 0

    def trade(self, size: int, price: int) -> trading_pb.TradeExecuted:
        """A fill; the book behind it is told when it is flat, where averages play no part."""
        self.version += 1
        self.quantity += size
        self.cash -= size * price * E9
        self.commission += 2 * E9
        fill = fill_pb2.Fill(
            fill_id=f"f-{self.version}",
            order_id=f"o-{self.version}",
            symbol=SYMBOL,
            side=order_terms_pb2.SIDE_BUY if size > 0 else order_terms_pb2.SIDE_SELL,
            quantity=abs(size),
            cumulative_quantity=abs(size),
            price_e9=price * E9,
            commission_e9=2 * E9,
            provenance=provenance_pb2.PROVENANCE_SIMULATED,
            market_sequence=self.version,
        )
        fill.fill_time.seconds = DAY_S
        return trading_pb.TradeExecuted(fill=fill, position=self.position())

    def position(self) -> position_pb2.Position:
        return position_pb2.Position(
            symbol=SYMBOL,
            quantity=self.quantity,
            realized_pnl_e9=20 * self.cash,
            commission_e9=self.commission,
            multiplier_e9=20 * E9,
            version=self.version,
        )


def stopped(actor: str = "bert") -> trading_pb.EmergencyStopTriggered:
    latch = control_pb.EmergencyLatch(latched=True, reason="fire", actor=actor)
    latch.latch_time.seconds = DAY_S
    return trading_pb.EmergencyStopTriggered(latch=latch)


def status(*, latched: bool, mode: control_pb.TradingMode.ValueType) -> trading_pb.TradingStateChanged:
    made = control_pb.TradingStatus(mode=mode, mode_actor="bert", mode_reason="as planned")
    made.emergency_stop.latched = latched
    made.mode_time.seconds = DAY_S
    return trading_pb.TradingStateChanged(status=made)


async def test_first_start_is_online_and_auto_as_configured(mesh: Mesh) -> None:
    state = await mesh.state()
    assert state.system_state == pb.SYSTEM_STATE_ONLINE
    assert (state.trading_enabled, state.auto_trade_enabled, state.risk_enabled) == (True, True, True)
    assert (state.auto_threshold, state.order_quantity, state.version) == (0.75, 1, 2)


@pytest.mark.parametrize(
    ("mode", "provenance", "auto"),
    [
        ("auto", "SIMULATED", True),
        ("auto", "REPLAY", True),
        ("FULL_AUTO", "DELAYED", True),
        ("auto", "LIVE", False),
        ("FULL_AUTO", "LIVE", False),
        ("SEMI_AUTO", "SIMULATED", False),
        ("MANUAL", "SIMULATED", False),
    ],
)
def test_machine_trades_from_the_first_start_only_in_full_auto_on_data_that_is_not_live(
    mode: str, provenance: str, auto: bool
) -> None:
    config = config_of(engine={"mode": mode}, sierra_client={"provenance": provenance})
    assert bootstrap.auto_trade_configured(config) is auto


def test_threshold_and_quantity_come_from_the_configuration() -> None:
    state = bootstrap.initial_state(config_of(engine={"auto_threshold": 0.9, "order_quantity": 3}))
    assert (state.auto_threshold, state.order_quantity) == (0.9, 3)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (
            change(["order_quantity"], request_id="", order_quantity=2),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "request_id",
        ),
        (change([]), "INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"),
        (change(["version"]), "INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"),
        (change(["order_quantity", "sytem_state"]), "INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"),
        (change(["flags.a"], flags={"a": "b"}), "INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"),
        (change(["system_state"]), "INVALID_ARGUMENT", "INVALID_FIELD", "state.system_state"),
        (change(["order_quantity"], order_quantity=0), "INVALID_ARGUMENT", "INVALID_FIELD", "state.order_quantity"),
        (change(["order_quantity"], order_quantity=-1), "INVALID_ARGUMENT", "INVALID_FIELD", "state.order_quantity"),
        (change(["auto_threshold"], auto_threshold=0.4), "INVALID_ARGUMENT", "INVALID_FIELD", "state.auto_threshold"),
        (change(["auto_threshold"], auto_threshold=1.5), "INVALID_ARGUMENT", "INVALID_FIELD", "state.auto_threshold"),
        (change(["flags"], flags={"Bad Key": "x"}), "INVALID_ARGUMENT", "INVALID_FIELD", "state.flags"),
        (change(["order_quantity"], order_quantity=2, expected=1), "ABORTED", "VERSION_MISMATCH", ""),
        (change(["risk_enabled"], risk_enabled=False), "FAILED_PRECONDITION", "STATE_CONFLICT", ""),
        (change(["trading_enabled"], trading_enabled=False), "FAILED_PRECONDITION", "STATE_CONFLICT", ""),
        (
            change(["system_state"], system_state=pb.SYSTEM_STATE_EMERGENCY_STOP),
            "FAILED_PRECONDITION",
            "STATE_CONFLICT",
            "",
        ),
        (
            change(
                ["system_state", "auto_trade_enabled"],
                system_state=pb.SYSTEM_STATE_DEGRADED,
                auto_trade_enabled=True,
            ),
            "FAILED_PRECONDITION",
            "STATE_CONFLICT",
            "",
        ),
    ],
)
async def test_bad_update_is_refused_and_changes_nothing(
    mesh: Mesh, request_: Any, code: str, reason: str, field: str
) -> None:
    before = await mesh.state()
    told = await refusal(mesh.stub.UpdateState(request_))
    assert (told.code.name, told.reason) == (code, f"ERROR_REASON_{reason}")
    if field:
        assert [violation.field.split("[")[0] for violation in told.violations] == [field]
    assert await mesh.state() == before


async def test_missing_state_or_mask_is_refused_by_name(mesh: Mesh) -> None:
    request = pb.UpdateStateRequest(request_id="r", actor="anna")
    told = await refusal(mesh.stub.UpdateState(request))
    assert [violation.field for violation in told.violations] == ["state", "update_mask"]


async def test_unknown_path_is_told_with_what_is_allowed(mesh: Mesh) -> None:
    told = await refusal(mesh.stub.UpdateState(change(["sytem_state"])))
    assert told.metadata["seen"] == "'sytem_state'"
    for name in ("system_state", "flags", "auto_threshold"):
        assert name in told.message


@pytest.mark.parametrize("method", ["ListTrades", "ListAuditEntries"])
async def test_page_that_was_not_made_here_is_refused(mesh: Mesh, method: str) -> None:
    kind = {"ListTrades": pb.ListTradesRequest, "ListAuditEntries": pb.ListAuditEntriesRequest}[method]
    call = getattr(mesh.stub, method)
    for token in ("nonsense", "MTIz", "!"):
        told = await refusal(call(kind(page_token=token)))
        assert (told.code.name, told.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_PAGE_TOKEN_INVALID")
    told = await refusal(call(kind(page_size=-1)))
    assert [violation.field for violation in told.violations] == ["page_size"]


async def test_page_token_is_good_for_its_own_filter_only(mesh: Mesh) -> None:
    engine = Engine()
    await mesh.heard(await mesh.publish(*[engine.trade(1, 100) for _ in range(3)]))
    page = await mesh.stub.ListTrades(pb.ListTradesRequest(page_size=2))
    other = pb.ListTradesRequest(page_size=2, page_token=page.next_page_token, symbol=SYMBOL)
    assert (await refusal(mesh.stub.ListTrades(other))).reason == "ERROR_REASON_PAGE_TOKEN_INVALID"
    rest = await mesh.stub.ListTrades(pb.ListTradesRequest(page_token=page.next_page_token))
    assert [fill.fill_id for fill in (*page.trades, *rest.trades)] == ["f-3", "f-2", "f-1"]
    assert rest.next_page_token == ""


async def test_update_changes_only_what_the_mask_names(mesh: Mesh) -> None:
    before = await mesh.state()
    request = change(["flags"], flags={"theme": "dark"}, order_quantity=77, trading_enabled=False)
    after = (await mesh.stub.UpdateState(request)).state
    assert dict(after.flags) == {"theme": "dark"}
    assert (after.order_quantity, after.trading_enabled) == (before.order_quantity, True)
    assert after.version == before.version + 1
    assert await mesh.state() == after


async def test_same_request_id_gives_the_first_answer_and_another_change_is_a_conflict(mesh: Mesh) -> None:
    first = await mesh.stub.UpdateState(change(["order_quantity"], order_quantity=2))
    await mesh.stub.UpdateState(change(["order_quantity"], "r-2", order_quantity=3))
    await mesh.restart()
    assert await mesh.stub.UpdateState(change(["order_quantity"], order_quantity=2)) == first
    told = await refusal(mesh.stub.UpdateState(change(["order_quantity"], order_quantity=9)))
    assert (told.code.name, told.reason) == ("ALREADY_EXISTS", "ERROR_REASON_REQUEST_CONFLICT")
    assert told.metadata == {"field": "request_id", "request_id": "r-1"}
    assert [violation.field for violation in told.violations] == ["request_id"]
    assert (await mesh.state()).order_quantity == 3


async def test_actor_and_reason_do_not_make_another_request(mesh: Mesh) -> None:
    request = change(["order_quantity"], order_quantity=2)
    first = await mesh.stub.UpdateState(request)
    request.actor, request.reason = "bert", "again"
    assert await mesh.stub.UpdateState(request) == first


@pytest.mark.parametrize("wanted", [pb.SYSTEM_STATE_DEGRADED, pb.SYSTEM_STATE_STARTING])
async def test_what_is_found_is_not_set_by_hand(mesh: Mesh, wanted: pb.SystemState.ValueType) -> None:
    told = await refusal(mesh.stub.UpdateState(change(["system_state"], system_state=wanted)))
    assert (told.code.name, told.reason) == ("FAILED_PRECONDITION", "ERROR_REASON_STATE_CONFLICT")
    assert "never set by hand: OFFLINE or ONLINE" in told.message
    assert (await mesh.state()).system_state == pb.SYSTEM_STATE_ONLINE


@pytest.mark.parametrize(
    ("path", "value"),
    [("order_quantity", 10_001), ("order_quantity", 0), ("auto_threshold", 0.49), ("auto_threshold", 0.0)],
)
async def test_value_beyond_its_rule_is_refused_by_name(mesh: Mesh, path: str, value: Any) -> None:
    told = await refusal(mesh.stub.UpdateState(change([path], **{path: value})))
    assert (told.code.name, told.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_INVALID_FIELD")
    assert (told.metadata["field"], told.metadata["seen"]) == (f"state.{path}", str(value))


async def test_leaving_online_turns_auto_trade_off(mesh: Mesh) -> None:
    after = await mesh.stub.UpdateState(change(["system_state"], system_state=pb.SYSTEM_STATE_OFFLINE))
    assert not after.state.auto_trade_enabled


async def test_restart_keeps_the_state(mesh: Mesh) -> None:
    await mesh.stub.UpdateState(change(["order_quantity", "flags"], order_quantity=4, flags={"a": "b"}))
    before = await mesh.state()
    await mesh.restart()
    assert await mesh.state() == before


async def test_change_is_told_as_an_event_once(mesh: Mesh) -> None:
    after = (await mesh.stub.UpdateState(change(["order_quantity"], order_quantity=2))).state
    async with mesh.outsider() as (_, bus):
        request = bus_pb.ListEventsRequest(types=["state.changed"], ascending=True)

        async def both_told() -> bool:
            return len((await bus.ListEvents(request)).events) == 2

        await until(both_told)
        events = (await bus.ListEvents(request)).events
    told = [StateChanged.FromString(event.payload.value) for event in events]
    assert [(item.state.version, item.actor, item.reason) for item in told] == [
        (2, "state_manager", "the event bus is subscribed"),
        (3, "anna", "test"),
    ]
    assert told[1].state == after
    assert {event.source for event in events} == {"state_manager"}


async def test_watch_gives_a_snapshot_then_changes_and_resumes(mesh: Mesh) -> None:
    call = mesh.stub.WatchState(pb.WatchStateRequest())
    first = await call.read()
    await mesh.stub.UpdateState(change(["order_quantity"], order_quantity=2))
    await mesh.stub.UpdateState(change(["order_quantity"], "r-2", order_quantity=3))
    second, third = await call.read(), await call.read()
    call.cancel()
    assert [item.revision for item in (first, second, third)] == [2, 3, 4]
    assert [item.WhichOneof("update") for item in (first, second, third)] == ["snapshot", "state", "state"]
    assert [state.order_quantity for state in (first.snapshot.state, second.state, third.state)] == [1, 2, 3]
    assert (await mesh.stub.GetState(pb.GetStateRequest())).revision == 4
    again = mesh.stub.WatchState(pb.WatchStateRequest(after_revision=second.revision))
    assert await again.read() == third
    again.cancel()


async def test_watch_that_resumes_and_missed_nothing_is_told_so_at_once(mesh: Mesh) -> None:
    newest = (await mesh.state()).version
    call = mesh.stub.WatchState(pb.WatchStateRequest(after_revision=newest))
    async with asyncio.timeout(4):  # an ordinary one comes after 5 s
        beat = await call.read()
    call.cancel()
    assert (beat.WhichOneof("update"), beat.revision) == ("heartbeat", newest)


@pytest.mark.parametrize("revision", [-1, 1, 99])
async def test_watch_behind_a_revision_that_is_not_held_is_out_of_range_with_what_is(mesh: Mesh, revision: int) -> None:
    await mesh.restart()
    call = mesh.stub.WatchState(pb.WatchStateRequest(after_revision=revision))
    told = await refusal(call.read())
    assert (told.code.name, told.reason) == ("OUT_OF_RANGE", "ERROR_REASON_POSITION_LOST")
    assert told.metadata == {"asked": str(revision), "oldest": "2", "newest": "2"}


async def test_silent_watch_beats(mesh: Mesh) -> None:
    async with MeshServer([StateManagerServicer(mesh.manager, heartbeat_s=0.02)]) as server:
        clients = Clients({STATE: server.address})
        call: Any = clients.stub(StateManagerServiceStub).WatchState(pb.WatchStateRequest())
        snapshot, beat = await call.read(), await call.read()
        call.cancel()
        await clients.close()
    assert snapshot.WhichOneof("update") == "snapshot"
    assert beat.WhichOneof("update") == "heartbeat"
    assert beat.revision == snapshot.revision


async def test_portfolio_is_what_the_fills_amount_to(mesh: Mesh) -> None:
    engine = Engine()
    trades = [engine.trade(size, price) for size, price in ((2, 100), (1, 103), (-4, 110), (1, 90))]
    position = trading_pb.PositionUpdated(position=engine.position())
    portfolio = await mesh.heard(await mesh.publish(*trades, position))
    assert portfolio.fills == 4
    assert portfolio.realized_pnl_e9 == 20 * engine.cash
    assert portfolio.commission_e9 == engine.commission
    (held,) = portfolio.positions
    assert (held.symbol, held.quantity, held.cost_e9, held.version) == (SYMBOL, 0, 0, 4)
    assert not held.HasField("average_price_e9")
    assert not held.HasField("unrealized_pnl_e9")
    assert [(day.date, day.realized_pnl_e9, day.fills) for day in portfolio.daily] == [(DAY, 20 * engine.cash, 4)]


async def test_fill_published_again_under_another_event_id_is_booked_once(mesh: Mesh) -> None:
    engine = Engine()
    trade = engine.trade(2, 100)
    portfolio = await mesh.heard(await mesh.publish(trade, trade, trade))
    assert (portfolio.fills, portfolio.positions[0].quantity) == (1, 2)


async def test_fill_is_listed_as_it_was_told(mesh: Mesh) -> None:
    trade = Engine().trade(-2, 100)
    await mesh.heard(await mesh.publish(trade))
    assert list((await mesh.stub.ListTrades(pb.ListTradesRequest())).trades) == [trade.fill]
    assert list((await mesh.stub.ListTrades(pb.ListTradesRequest(symbol="ESZ26-CME"))).trades) == []


async def test_fills_of_the_time_away_are_booked_after_the_restart(mesh: Mesh) -> None:
    engine = Engine()
    await mesh.heard(await mesh.publish(engine.trade(2, 100)))
    await mesh.stop()
    sequence = await mesh.publish(engine.trade(-1, 101), engine.trade(-1, 102))
    await mesh.start()
    portfolio = await mesh.heard(sequence)
    assert (portfolio.fills, portfolio.realized_pnl_e9) == (3, 20 * engine.cash)


async def test_fills_from_before_the_first_start_are_booked(tmp_path: Path) -> None:
    mesh, engine = Mesh(tmp_path), Engine()
    await mesh.start_bus()
    sequence = await mesh.publish(engine.trade(2, 100), engine.trade(-2, 101))
    await mesh.start()
    assert (await mesh.heard(sequence)).fills == 2
    await mesh.stop()
    await mesh.stop_bus()


async def test_emergency_stop_stops_the_system_and_only_its_clearing_brings_it_back(mesh: Mesh) -> None:
    await mesh.heard(await mesh.publish(stopped()))
    state = await mesh.state()
    assert (state.system_state, state.auto_trade_enabled) == (pb.SYSTEM_STATE_EMERGENCY_STOP, False)
    told = await refusal(mesh.stub.UpdateState(change(["system_state"], system_state=pb.SYSTEM_STATE_ONLINE)))
    assert told.reason == "ERROR_REASON_STATE_CONFLICT"
    assert "ClearEmergencyStop" in told.message
    await mesh.heard(await mesh.publish(status(latched=False, mode=control_pb.TRADING_MODE_MANUAL)))
    state = await mesh.state()
    assert (state.system_state, state.auto_trade_enabled) == (pb.SYSTEM_STATE_ONLINE, False)


async def test_emergency_stop_holds_over_a_restart(mesh: Mesh) -> None:
    await mesh.heard(await mesh.publish(stopped()))
    await mesh.restart()
    assert (await mesh.state()).system_state == pb.SYSTEM_STATE_EMERGENCY_STOP


async def test_audit_log_names_who_did_what_newest_first(mesh: Mesh) -> None:
    await mesh.stub.UpdateState(change(["order_quantity"], order_quantity=2))
    full, manual = control_pb.TRADING_MODE_FULL_AUTO, control_pb.TRADING_MODE_MANUAL
    await mesh.heard(
        await mesh.publish(status(latched=False, mode=full), status(latched=False, mode=manual), stopped())
    )
    entries = (await mesh.stub.ListAuditEntries(pb.ListAuditEntriesRequest())).entries
    assert [(entry.actor, entry.action) for entry in entries] == [
        ("bert", "state.update"),
        ("bert", "emergency_stop.triggered"),
        ("bert", "trading_state.changed"),
        ("bert", "trading_state.changed"),
        ("anna", "state.update"),
        ("state_manager", "state.update"),
    ]
    assert [entry.entry_id for entry in entries] == sorted((entry.entry_id for entry in entries), reverse=True)
    assert json.loads(entries[2].before_json)["mode"] == "TRADING_MODE_FULL_AUTO"
    assert json.loads(entries[2].after_json)["mode"] == "TRADING_MODE_MANUAL"
    assert entries[3].before_json == ""
    assert (json.loads(entries[4].before_json)["order_quantity"], entries[4].reason) == (1, "test")
    assert json.loads(entries[4].after_json)["order_quantity"] == 2
    mine = await mesh.stub.ListAuditEntries(pb.ListAuditEntriesRequest(actor="anna"))
    assert [entry.actor for entry in mine.entries] == ["anna"]
    one = await mesh.stub.ListAuditEntries(pb.ListAuditEntriesRequest(action="state.update", page_size=1))
    rest = await mesh.stub.ListAuditEntries(
        pb.ListAuditEntriesRequest(action="state.update", page_token=one.next_page_token)
    )
    assert [entry.actor for entry in (*one.entries, *rest.entries)] == ["bert", "anna", "state_manager"]


async def test_without_a_bus_the_state_is_served_degraded_and_comes_online_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "BUS_WAIT_S", 0.05)
    mesh = Mesh(tmp_path)
    await mesh.start_bus()
    await mesh.stop_bus()
    await mesh.start()
    state = await mesh.state()
    assert (state.system_state, state.auto_trade_enabled) == (pb.SYSTEM_STATE_STARTING, False)
    assert bootstrap.BUS_AWAY in mesh.conditions.held()
    await mesh.start_bus()

    async def online() -> bool:
        return (await mesh.state()).system_state == pb.SYSTEM_STATE_ONLINE and not mesh.conditions.held()

    await until(online)
    await mesh.stop()
    await mesh.stop_bus()


class Process:
    """A state manager in a process of its own, without a mesh around it."""

    def __init__(self, folder: Path) -> None:
        self._paths = MeshPaths(folder)
        self._paths.create()
        save(config_of(), self._paths.config_file)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        """Its stub; the process is killed at the end, whatever it is doing."""
        log = self._paths.log_file("state_manager")
        process = self._started(log)
        try:
            clients = Clients({STATE: await self._address(log)})
            yield clients.stub(StateManagerServiceStub)
            process.kill()
            await clients.close()
        finally:
            process.kill()
            process.wait(10)

    def _started(self, log: Path) -> subprocess.Popen[bytes]:
        log.unlink(missing_ok=True)
        program = "import sys; from minhos_mesh.runtime.host import run_service; run_service(*sys.argv[1:])"
        arguments = ("state_manager", "state_manager-1", str(self._paths.data_dir))
        return subprocess.Popen([sys.executable, "-c", program, *arguments])

    async def _address(self, log: Path) -> str:
        async with asyncio.timeout(20):
            while True:
                for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
                    told = json.loads(line)
                    if told["event"] == "service.bound":
                        return str(told["address"])
                await asyncio.sleep(0.01)


async def test_answered_update_survives_kill_9_and_a_repeated_one_is_not_done_twice(tmp_path: Path) -> None:
    process, answers = Process(tmp_path), list[Any]()
    for life in range(3):
        async with process.running() as stub:
            for number, answer in enumerate(answers):
                assert await stub.UpdateState(change(["flags"], f"r-{number}", flags={"life": str(number)})) == answer
            held = await stub.GetState(pb.GetStateRequest())
            assert not answers or held.state == answers[-1].state
            answers.append(await stub.UpdateState(change(["flags"], f"r-{life}", flags={"life": str(life)})))
    assert [answer.state.version for answer in answers] == [2, 3, 4]
