"""What is wrong is refused with a clear message, by command and by call, and the mesh runs on."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from tests.e2e.books import events
from tests.e2e.recording import make_recording
from tests.e2e.running_mesh import Mesh, processes_of

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.health.v1.health_events_pb2 import ServiceUnhealthy
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_mesh.runtime.errors import CallError, read

pytestmark = pytest.mark.timeout(90)

E9 = 1_000_000_000


def told(call: Callable[[], object]) -> CallError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return read(caught.value)


@pytest.fixture(autouse=True)
def mesh_runs_on(mesh: Mesh) -> Iterator[None]:
    before = mesh.pids()
    yield
    assert mesh.pids() == before
    assert {service.restarts for service in mesh.services().values()} == {0}


class TestRecordings:
    """Files that are given to `up --feed replay`; nothing is started for them."""

    @pytest.fixture
    def replay(self, own: Mesh) -> Iterator[Callable[[Path], str]]:
        def run(file: Path) -> str:
            done = own.run("up", "--feed", "replay", "--file", str(file), "--until-end").refused(str(file))
            return done.err

        yield run
        assert processes_of(own.data_dir) == {}

    def test_missing(self, replay: Callable[[Path], str], tmp_path: Path) -> None:
        assert "does not exist" in replay(tmp_path / "MNQZ26-CME.scid")

    def test_no_scid_file(self, replay: Callable[[Path], str], tmp_path: Path) -> None:
        file = tmp_path / "MNQZ26-CME.scid"
        file.write_text("Date,Open,High,Low,Close\n" * 20, encoding="ascii")
        assert "SCID" in replay(file)

    def test_header_without_a_record(self, replay: Callable[[Path], str], tmp_path: Path) -> None:
        file = make_recording(tmp_path)
        os.truncate(file, 56)
        assert "no record" in replay(file)

    def test_name_that_is_no_symbol(self, own: Mesh, tmp_path: Path) -> None:
        file = make_recording(tmp_path).rename(tmp_path / "history.csv")
        own.run("up", "--feed", "replay", "--file", str(file), "--until-end").refused("'history'", "expected ROOT")
        assert processes_of(own.data_dir) == {}

    def test_file_cut_in_the_middle_of_a_record_is_replayed_to_its_last_whole_one(
        self, own: Mesh, tmp_path: Path
    ) -> None:
        file = make_recording(tmp_path)
        os.truncate(file, 56 + 40 * 300 + 17)
        report = tmp_path / "report.json"
        said = own.ok("up", "--file", str(file), "--speed", "max", "--until-end", "--report", str(report))
        assert '"records_read": 300,' in said
        assert processes_of(own.data_dir) == {}


class TestOrders:
    """By call; what a person types is in the next class."""

    @pytest.fixture
    def place(self, mesh: Mesh) -> Iterator[Callable[..., CallError]]:
        stub = mesh.stub(OrderServiceStub)
        symbol = mesh.stub(MarketDataProviderServiceStub).GetMarketData(market_pb.GetMarketDataRequest()).symbol

        def refused(**terms: Any) -> CallError:
            full = terms_pb.OrderTerms(
                **{
                    "symbol": symbol,
                    "side": terms_pb.SIDE_BUY,
                    "type": terms_pb.ORDER_TYPE_LIMIT if "limit_price_e9" in terms else terms_pb.ORDER_TYPE_MARKET,
                    "quantity": 1,
                    "time_in_force": terms_pb.TIME_IN_FORCE_DAY,
                    **terms,
                }
            )
            return told(
                lambda: stub.PlaceOrder(
                    orders_pb.PlaceOrderRequest(request_id=str(uuid.uuid4()), actor="test", terms=full)
                )
            )

        yield refused
        by_hand = [o for o in stub.ListOrders(orders_pb.ListOrdersRequest(page_size=1000)).orders if o.actor == "test"]
        assert by_hand == []

    @pytest.mark.parametrize("quantity", [0, -1, 1_000_000_000, -(2**63)])
    def test_quantity_out_of_range(self, place: Callable[..., CallError], quantity: int) -> None:
        error = place(quantity=quantity)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")
        assert "quantity" in error.message
        assert str(quantity) in error.message

    def test_quantity_beyond_what_any_order_may_have(self, place: Callable[..., CallError]) -> None:
        error = place(quantity=1_000_000)
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "quantity" in error.message
        assert "10000" in error.message.replace("1000000", "")

    @pytest.mark.parametrize("price_e9", [23_768, 23_768_000_000])
    def test_price_off_by_the_scale_names_what_was_probably_meant(
        self, place: Callable[..., CallError], price_e9: int
    ) -> None:
        error = place(limit_price_e9=price_e9)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_PRICE_SCALE")
        assert "probably meant" in error.message
        assert "23768" in error.message

    def test_price_off_the_tick_names_the_nearest(self, place: Callable[..., CallError]) -> None:
        error = place(limit_price_e9=23_768_300_000_000)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_PRICE_OFF_TICK")
        assert "23768.25" in error.message
        assert "23768.50" in error.message

    @pytest.mark.parametrize("price_e9", [0, -23_768 * E9])
    def test_price_that_is_none(self, place: Callable[..., CallError], price_e9: int) -> None:
        assert place(limit_price_e9=price_e9).code is grpc.StatusCode.INVALID_ARGUMENT

    def test_unknown_symbol_names_the_known(self, place: Callable[..., CallError]) -> None:
        error = place(symbol="NOPEZ26-CME")
        assert error.reason == "ERROR_REASON_SYMBOL_UNKNOWN"
        assert "known are NQ" in error.message

    def test_side_that_is_not_said(self, place: Callable[..., CallError]) -> None:
        assert place(side=terms_pb.SIDE_UNSPECIFIED).code is grpc.StatusCode.INVALID_ARGUMENT

    def test_limit_order_without_a_price(self, place: Callable[..., CallError]) -> None:
        assert place(type=terms_pb.ORDER_TYPE_LIMIT).code is grpc.StatusCode.INVALID_ARGUMENT


class TestCommands:
    """What a person mistypes."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("order", "place", "buy", "0"), ("quantity", "1")),
            (("order", "place", "buy", "--", "-1"), ("quantity", "-1")),
            (("order", "place", "buy", "1", "--limit", "23768250000000"), ("probably meant 23768.25",)),
            (("order", "place", "buy", "1", "--limit", "cheap"), ("--limit", "cheap", "23500.25")),
            (("order", "place", "buy", "1", "--symbol", "NOPE"), ("NOPE", "known are NQ")),
            (("order", "cancel", "no-such-order"), ("no-such-order", "not known")),
            (("tail", "depth", "--symbol", "NOPE"), ("NOPE", "known are NQ")),
            (("tail", "orders", "--symbol", "NOPE"), ("--symbol is 'NOPE'", "allowed with market and depth only")),
            (
                ("risk", "limits", "--max-drawdown", "-1", "--reason", "x"),
                ("--max-drawdown is -1.00", "allowed is above 0"),
            ),
            (("tail", "prices"), ("prices", "events, market, depth, signals, orders")),
            (("logs", "no_such_service"), ("no_such_service", "trading_engine")),
            (("frobnicate",), ("frobnicate",)),
        ],
    )
    def test_a_mistake_is_told(self, mesh: Mesh, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
        mesh.run(*arguments).refused(*words)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--until-end", "--detach"), ("--until-end and --detach",)),
            (("--until-end",), ("--feed replay --file",)),
            (("--feed", "live"), ("feed.kind", "live", "simulated")),
        ],
    )
    def test_a_mistake_of_up_starts_nothing(
        self, own: Mesh, arguments: tuple[str, ...], words: tuple[str, ...]
    ) -> None:
        own.run("up", *arguments).refused(*words)
        assert processes_of(own.data_dir) == {}

    def test_up_twice_names_the_mesh_that_runs(self, mesh: Mesh) -> None:
        mesh.run("up", "--detach").refused("already runs", str(mesh.data_dir), "minhos down")

    def test_commands_without_a_mesh_say_how_to_start_one(self, own: Mesh) -> None:
        for command in ("down", "status"):
            own.run(command).refused("no mesh runs", str(own.data_dir), "minhos up")
        assert not own.data_dir.exists()


class TestMarketData:
    def test_unknown_symbol_is_not_found(self, mesh: Mesh) -> None:
        stub = mesh.stub(MarketDataProviderServiceStub)
        error = told(lambda: stub.GetMarketData(market_pb.GetMarketDataRequest(symbol="NOPEZ26-CME")))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_SYMBOL_UNKNOWN")
        assert error.metadata["symbol"] == "NOPEZ26-CME"

    def test_symbol_that_can_be_none_is_invalid(self, mesh: Mesh) -> None:
        stub = mesh.stub(MarketDataProviderServiceStub)
        error = told(lambda: stub.GetMarketData(market_pb.GetMarketDataRequest(symbol="N Q")))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")


class TestEvents:
    """Publishing what the bus does not take."""

    @pytest.fixture
    def publish(self, mesh: Mesh) -> Iterator[Callable[[str, AnyMessage], CallError]]:
        stub = mesh.stub(EventBusServiceStub)

        def refused(kind: str, payload: AnyMessage) -> CallError:
            now = Timestamp()
            now.GetCurrentTime()
            event = event_pb2.Event(
                event_id=str(uuid.uuid4()), type=kind, version=1, source="bad_input", subject="x", event_time=now,
                payload=payload,
            )  # fmt: skip
            return told(lambda: stub.Publish(bus_pb.PublishRequest(events=[event])))

        yield refused
        assert events(mesh, source="bad_input") == []

    def test_unknown_event_type(self, publish: Callable[[str, AnyMessage], CallError]) -> None:
        error = publish("trade.imagined", packed(ServiceUnhealthy(service="x")))
        assert error.reason == "ERROR_REASON_EVENT_TYPE_UNKNOWN"
        assert "trade.imagined" in error.message

    def test_payload_of_another_type(self, publish: Callable[[str, AnyMessage], CallError]) -> None:
        error = publish("trade.executed", packed(ServiceUnhealthy(service="x")))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_EVENT_PAYLOAD_INVALID")
        assert "ServiceUnhealthy" in error.message
        assert "TradeExecuted" in error.message

    def test_payload_that_breaks_its_rules(self, publish: Callable[[str, AnyMessage], CallError]) -> None:
        error = publish("service.unhealthy", packed(ServiceUnhealthy(service="")))
        assert error.reason == "ERROR_REASON_EVENT_PAYLOAD_INVALID"
        assert "service" in error.message

    def test_payload_that_is_no_message(self, publish: Callable[[str, AnyMessage], CallError]) -> None:
        garbage = AnyMessage(type_url=packed(ServiceUnhealthy()).type_url, value=b"\xff\xff\xff")
        assert publish("service.unhealthy", garbage).reason == "ERROR_REASON_EVENT_PAYLOAD_INVALID"


def packed(message: Any) -> AnyMessage:
    made = AnyMessage()
    made.Pack(message)
    return made
