"""Orders of one server are not mixed with those of another of the same account name, and the sentence says what is open where."""

from __future__ import annotations

from pathlib import Path

from tests.contract.dtc_harness import SYMBOL, DtcHarness
from tests.contract.venue_conformance import order, submit, terms
from tests.waiting import eventually

from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings

SETTINGS = DtcServerSettings(session=ServerSettings(name="SierraChart"))


def harness(folder: Path, formerly: str = "") -> DtcHarness:
    made = DtcHarness(folder, settings=SETTINGS)
    made.dtc = {"account_is_simulated": True, "trade_account": "Sim1", "formerly": formerly}
    return made


async def test_simulation_of_another_sierra_chart_is_refused_and_one_that_moved_is_taken_once_declared(
    tmp_path: Path,
) -> None:
    first = harness(tmp_path)
    await first.serve()
    await first.start()
    await first.show(0, 1)
    await submit(first, terms(SYMBOL, quantity=2))
    resting = await submit(first, terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
    formerly = f"127.0.0.1:{first.server.port}"
    other = harness(tmp_path)
    await first.stop()
    await other.serve()  # while the first one still holds its port, so that this one has another
    await other.begin()
    said = await eventually(lambda: other.core.problems(trades=True).get("DTC_SERVER_CHANGED"), "it is told")
    assert f"account 'Sim1', at {formerly}, with 1 open order and the position +2 {SYMBOL}, and what answers is" in said
    assert f'dtc.formerly = "{formerly}"' in said
    assert (await order(other, resting.client_order_id)).state == pb.VENUE_ORDER_STATE_WORKING
    await other.stop()
    moved = harness(tmp_path, formerly)
    moved.server = other.server
    await moved.start()
    assert moved.core.problems(trades=True) == {}
    await moved.stop()
    settled = harness(tmp_path)
    settled.server = other.server
    await settled.start()
    assert settled.core.other_server == "", "the new address is noted, and need not be declared for ever"
    await settled.close()
    await first.server.close()
