"""Clients that refuse what they are told (NACK): it is told, withheld from them alone, and harms nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from minhos_mesh.registry.ads_limits import LOGGED_REFUSALS, MAX_REFUSALS
from minhos_mesh.registry.domain.routes import RouteRule, Selector, SelectorKind, Target
from minhos_mesh.registry.envoy import PackedResource
from minhos_mesh.registry.xds_resources import CDS, CLUSTER, EDS, LDS, RDS, Resources

CONTRACT = "test.v1.EchoService"
GET = f"/{CONTRACT}/Get"
V2 = Selector(SelectorKind.VERSION, "v2")
SUBSET = f"{CONTRACT}/version:v2"


def bad_cluster(plane: Any, name: str) -> Callable[[Resources], Resources]:
    """Asks for a balancing that gRPC core does not have."""
    parsed = plane.messages.message_class(CLUSTER)

    def twist(resources: Resources) -> Resources:
        good = parsed.FromString(resources[CDS][name].value)
        good.lb_policy = good.DESCRIPTOR.fields_by_name["lb_policy"].enum_type.values_by_name["LEAST_REQUEST"].number
        bad = PackedResource(CDS, good.SerializeToString(deterministic=True))
        return {**resources, CDS: {**resources[CDS], name: bad}}

    return twist


async def test_what_a_stock_client_refuses_is_told_and_it_goes_on_with_what_it_had(plane: Any, wait_until: Any) -> None:
    await plane.add("a")
    client = await plane.caller()
    assert await client.count(5) == {"a": 5}
    plane.twist = bad_cluster(plane, CONTRACT)
    plane.publish()
    await wait_until(lambda: plane.withheld, "it refuses")
    (withheld,) = plane.withheld["stock-client"]
    assert (withheld.name, withheld.older) == (CONTRACT, True)
    assert "LB policy is not supported" in withheld.text, withheld.text
    assert plane.discovery.stats().refused == 1
    (refused,) = plane.discovery.refusals()
    assert (refused.client, refused.refusal.type_url, refused.refusal.names) == ("stock-client", CDS, (CONTRACT,))
    await plane.add("b")
    assert (await client.ask("until", path=GET, wanted="b"))["at"] is not None
    assert await client.count(20) == {"a": 10, "b": 10}
    assert plane.discovery.stats().refused == 1, "it is not told the same again"
    plane.twist = lambda resources: resources
    plane.publish()
    await wait_until(lambda: not plane.withheld, "it takes what is mended")


async def test_one_bad_resource_takes_no_other_with_it(plane: Any, wait_until: Any) -> None:
    await plane.add("old")
    await plane.add("new", "v2")
    client = await plane.caller()
    assert (await client.ask("until", path=GET, wanted="new"))["at"] is not None
    taken = plane.discovery.stats().acknowledged
    plane.route(RouteRule((Target(V2, 50),)))
    # Calls may reach it without the route; only what it has taken for good can stay when a worse one comes.
    await wait_until(
        lambda: plane.discovery.stats().acknowledged >= taken + 3, "route, cluster and endpoints are taken"
    )
    plane.twist = bad_cluster(plane, SUBSET)
    plane.publish()
    await wait_until(lambda: plane.withheld, "it refuses")
    assert [each.name for each in plane.withheld["stock-client"]] == [SUBSET]
    await plane.add("old-2")
    assert (await client.ask("until", path=GET, wanted="old-2"))["at"] is not None
    found = await client.count(100)
    assert set(found) == {"old", "old-2", "new"}, found


async def test_two_clients_are_told_different_things_when_one_refuses(
    plane: Any, new_stream: Callable[[], Any], wait_until: Any
) -> None:
    await plane.add("a")
    picky, easy = new_stream(), new_stream()
    answers = []
    for stream, node in ((picky, "picky"), (easy, "easy")):
        await stream.ask(CDS, CONTRACT, node=node)
        answers.append(await stream.heard())
    await picky.ask(CDS, CONTRACT, to=answers[0], error="no", node="picky")
    again = await picky.heard()
    assert len(again.resources) == 0
    await easy.ask(CDS, CONTRACT, to=answers[1], node="easy")
    await wait_until(lambda: plane.discovery.stats().acknowledged == 1, "the other takes it")
    assert set(plane.withheld) == {"picky"}


async def test_a_refusal_without_a_text_or_a_name_is_told_all_the_same(
    plane: Any, new_stream: Callable[[], Any], wait_until: Any
) -> None:
    await plane.add("a")
    stream = new_stream()
    await stream.ask(EDS, CONTRACT, node="")
    answer = await stream.heard()
    message = plane.messages.discovery_request(
        type_url=EDS, resource_names=[CONTRACT], response_nonce=answer.nonce, error_detail={"code": 13}
    )
    await stream.call.write(message.SerializeToString())
    await wait_until(lambda: plane.withheld, "it refuses")
    assert plane.withheld[""][0].text == "refused with code 13 and no text"


async def test_a_storm_of_refusals_is_counted_logged_sparingly_and_ended(
    plane: Any, new_stream: Callable[[], Any], wait_until: Any
) -> None:
    await plane.add("a")
    client = await plane.caller()
    stream = new_stream()
    await stream.ask(CDS, CONTRACT)
    answer = await stream.heard()
    with capture_logs() as logs:
        for _ in range(MAX_REFUSALS + 1):
            await stream.ask(CDS, CONTRACT, to=answer, error=f"{CONTRACT}: no")
        ended = await stream.ended()
    assert ended.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ended.details() == f"{MAX_REFUSALS + 1} refusals within 10 s, allowed are {MAX_REFUSALS}"
    told = [entry for entry in logs if entry["event"] == "discovery.refused"]
    assert LOGGED_REFUSALS <= len(told) < 20
    assert plane.discovery.stats().refused == MAX_REFUSALS + 1
    assert len(plane.discovery.refusals()) <= 100
    await wait_until(lambda: not plane.withheld, "it is gone, and nothing is withheld from anybody")
    assert await client.count(5) == {"a": 5}


@pytest.mark.parametrize("type_url", [LDS, RDS, CDS, EDS])
async def test_old_answers_and_strange_nonces_do_nothing(
    type_url: str, plane: Any, new_stream: Callable[[], Any]
) -> None:
    await plane.add("a")
    stream = new_stream()
    await stream.ask(type_url, CONTRACT)
    answer = await stream.heard()
    answer.nonce = "from another life"
    await stream.ask(type_url, CONTRACT, "b", to=answer)
    with pytest.raises(TimeoutError):
        await stream.heard(within_s=0.2)
