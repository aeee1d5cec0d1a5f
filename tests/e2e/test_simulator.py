"""The simulated market of a running mesh: its order book goes all the way to readers, and faults are made and ended by command."""

from __future__ import annotations

from typing import Any

from tests.e2e.running_mesh import Mesh
from tests.waiting import until

from minhos_api.market.v1 import market_data_provider_service_pb2 as market
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub


def books(mesh: Mesh, count: int) -> list[Any]:
    """The next books that market data streams."""
    wanted = market.MarketSubscription(kinds=[market.MARKET_DATA_KIND_DEPTH])
    stream = mesh.stub(MarketDataProviderServiceStub).StreamMarketData(
        market.StreamMarketDataRequest(subscription=wanted), timeout=30
    )
    found = []
    for message in stream:
        if message.HasField("depth"):
            found.append(message.depth)
            if len(found) == count:
                break
    stream.cancel()
    return found


def test_the_order_book_of_the_simulator_is_streamed_with_ten_levels_of_each_side(mesh: Mesh) -> None:
    found = books(mesh, 5)
    assert [book.sequence for book in found] == sorted({book.sequence for book in found})
    for book in found:
        bids, asks = [level.price_e9 for level in book.bids], [level.price_e9 for level in book.asks]
        assert len(bids) == len(asks) == 10
        assert bids == [bids[0] - at * 250_000_000 for at in range(10)]
        assert asks == [asks[0] + at * 250_000_000 for at in range(10)]
        assert bids[0] < asks[0]
        assert all(level.size >= level.order_count >= 1 for level in (*book.bids, *book.asks))


def test_a_gap_is_made_shown_and_ended_by_command(mesh: Mesh) -> None:
    before = mesh.json("simulator", "status")
    assert before["activity"] == "SIMULATOR_ACTIVITY_RUNNING"
    made = mesh.json("simulator", "fault", "feed_gap", "--id", "gap of a test")["fault"]
    assert (made["kind"], made["active"]) == ("SIMULATOR_FAULT_KIND_FEED_GAP", True)

    def left_out() -> bool:
        (fault,) = mesh.json("simulator", "status")["faults"]
        return not str(fault["effect"]).startswith("0 ")

    until(left_out, "records are left out")
    (ended,) = mesh.json("simulator", "clear", "gap of a test")["faults"]
    assert ended["effect"].endswith("records were left out")
    assert "gap of a test" in mesh.ok("simulator", "faults")
    assert mesh.ok("simulator", "clear").strip() == "no fault"


def test_what_makes_no_sense_is_refused_in_words(mesh: Mesh) -> None:
    mesh.run("simulator", "fault", "earthquake").refused("'earthquake' is no kind of fault: allowed are feed_silence,")
    mesh.run("simulator", "fault", "feed_gap", "--for", "-1").refused(
        "--for is -1: allowed is a number of seconds above 0"
    )
    mesh.run("simulator", "fault", "feed_gap", "--delay", "3").refused("delay is 3 s: allowed is unset for")
    mesh.run("simulator", "fault", "dtc_rejects").refused("feed.dtc_port is not set")
    mesh.run("simulator", "clear", "nobody").refused("fault 'nobody' is not known")
    mesh.run("simulator", "speed", "0").refused("speed 0 is refused: a random walk has 0.1 to 10000 ticks a second")
