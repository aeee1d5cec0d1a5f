"""An order that a person has settled and the DTC server tells otherwise of: told until a person lets it stand, booked as it was told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.dtc_harness import SYMBOL, DtcHarness, on_a_shared_account
from tests.contract.test_dtc_venue import lost_and_filled
from tests.contract.venue_conformance import TICK, P, Watch, filled, fills, order, refused, submit, terms
from tests.waiting import eventually

from minhos_api.venue.v1 import venue_service_pb2 as pb

CONDITION = "DTC_SETTLED_OTHERWISE"


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[DtcHarness]:
    async with on_a_shared_account(tmp_path) as harness:
        yield harness


def confirm(known: pb.VenueOrder, request_id: str = "stands") -> pb.ConfirmSettlementRequest:
    return pb.ConfirmSettlementRequest(
        request_id=request_id, client_order_id=known.client_order_id, actor="ann", reason="the log was misread"
    )


def problems(venue: DtcHarness) -> dict[str, str]:
    return venue.core.problems(trades=True)


async def test_fill_settled_at_another_price_stays_booked_and_is_told_with_both_until_a_person_confirms(
    shared: DtcHarness,
) -> None:
    known = await lost_and_filled(shared)
    settled = (await shared.stub.SettleUnknownOrder(filled(known, (2, 5)))).order
    assert settled.state == pb.VENUE_ORDER_STATE_FILLED
    said = await eventually(lambda: problems(shared).get(CONDITION), "the difference is told")
    both = "a person has told 2 @ 23501.25, and the server lists no such fill, but of orders that nobody knows 2 @ 23500.25"
    assert both in said
    assert said.startswith("order lost: ")
    told = await order(shared, "lost")
    assert (told.settlement_dispute in said, told.revision > settled.revision) == (True, True)
    await shared.kill()
    assert CONDITION in problems(shared), "also over a crash"
    (booked,) = await fills(shared, "lost")
    assert (booked.quantity, booked.price_e9) == (2, P + 5 * TICK)
    async with Watch(shared, told.revision) as watch:
        stands = (await shared.stub.ConfirmSettlement(confirm(known))).order
        (message,) = [message async for message in watch.until_done("lost")]
    assert message.order == stands
    assert (stands.settlement_dispute, stands.filled_quantity, stands.average_price_e9) == ("", 2, P + 5 * TICK)
    assert CONDITION not in problems(shared)
    await shared.kill()
    assert (await shared.stub.ConfirmSettlement(confirm(known))).order == stands, "once per request id"
    assert problems(shared) == {}, "what was confirmed is not told again"
    assert await refused(shared.stub.ConfirmSettlement(confirm(known, "again"))) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ORDER_STATE",
    )
    other: Any = confirm(known)
    other.reason = "something else"
    assert (await refused(shared.stub.ConfirmSettlement(other)))[1] == "REQUEST_CONFLICT"


async def test_only_an_order_in_dispute_is_confirmed(shared: DtcHarness) -> None:
    plain = await submit(shared, terms(SYMBOL))
    assert (await refused(shared.stub.ConfirmSettlement(confirm(plain))))[1] == "ORDER_STATE"
    unknown = pb.VenueOrder(client_order_id="nobody")
    assert (await refused(shared.stub.ConfirmSettlement(confirm(unknown))))[1] == "ORDER_UNKNOWN"
