"""Where the calls of a stock gRPC client land: in turn, by priority and zone, by route, away from those that drain or are sick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tests.waiting import eventually

from minhos_mesh.registry.domain.health import Silence
from minhos_mesh.registry.domain.routes import HeaderRule, RouteRule, Selector, SelectorKind, Target

CONTRACT = "test.v1.EchoService"
GET, PUT, SLOW = (f"/{CONTRACT}/{name}" for name in ("Get", "Put", "Slow"))
V2 = Selector(SelectorKind.VERSION, "v2")


async def until(client: Any, wanted: str, **given: Any) -> None:
    found = await client.ask("until", path=GET, wanted=wanted, **given)
    assert found["at"] is not None, found


# Instances.


async def test_calls_go_to_all_instances_in_turn(plane: Any) -> None:
    for name in ("a", "b", "c"):
        await plane.add(name)
    client = await plane.caller()
    for name in ("a", "b", "c"):
        await until(client, name)
    assert await client.count(60) == {"a": 20, "b": 20, "c": 20}
    assert plane.discovery.stats().refused == 0


async def test_one_that_drains_gets_no_new_call_and_ends_those_it_has(plane: Any) -> None:
    old = await plane.add("old")
    client = await plane.caller()
    await client.ask("begin", path=SLOW, timeout=20.0)
    await old.entered.wait()
    await plane.add("new")
    await until(client, "new")
    plane.change("old", leaving=True)
    assert await plane.discovery.settled(2.0)
    await asyncio.sleep(0.02)
    before = old.calls
    assert await client.count(100) == {"new": 100}
    assert old.calls == before
    plane.remove("old")
    assert await client.count(20) == {"new": 20}
    old.let_go.set()
    ((who, _took),) = await client.ask("finish")
    assert who == "old", "a call that had begun ends where it began"


async def test_one_that_is_late_gets_no_call_until_it_is_back(plane: Any) -> None:
    await plane.add("a")
    await plane.add("b")
    client = await plane.caller()
    await until(client, "b")
    plane.change("b", silence=Silence.LATE)
    assert await plane.discovery.settled(2.0)
    await asyncio.sleep(0.02)
    assert await client.count(50) == {"a": 50}
    plane.change("b", silence=Silence.LIVE)
    await until(client, "b")


async def test_the_lowest_priority_serves_while_one_of_it_does(plane: Any) -> None:
    await plane.add("first", priority=0)
    await plane.add("second", priority=5)
    client = await plane.caller()
    assert await client.count(30) == {"first": 30}
    plane.change("first", silence=Silence.LATE)
    await until(client, "second")
    assert await client.count(30) == {"second": 30}
    plane.change("first", silence=Silence.LIVE)
    await until(client, "first")
    await asyncio.sleep(0.05)
    assert await client.count(30) == {"first": 30}


async def test_a_client_prefers_its_own_zone_and_goes_elsewhere_when_nobody_there_serves(plane: Any) -> None:
    await plane.add("east", zone="east")
    await plane.add("west", zone="west")
    in_east, in_west = await plane.caller("east"), await plane.caller("west")
    nowhere = await plane.caller("north")
    assert await in_east.count(20) == {"east": 20}
    assert await in_west.count(20) == {"west": 20}
    await until(nowhere, "east")
    await until(nowhere, "west")
    assert await nowhere.count(20) == {"east": 10, "west": 10}
    plane.change("west", leaving=True)
    await until(in_west, "east")
    assert await in_west.count(20) == {"east": 20}


# Routes.


async def test_a_share_of_the_calls_goes_to_a_version(plane: Any) -> None:
    await plane.add("old-1")
    await plane.add("old-2")
    await plane.add("new", "v2")
    client = await plane.caller()
    await until(client, "new")
    plane.route(RouteRule((Target(V2, 10),)))
    await until(client, "old-1")
    await until(client, "new", limit=10.0)
    await until(client, "old-2")
    found = await client.count(1_000)
    assert 50 <= found["new"] <= 160, found
    assert abs(found["old-1"] - found["old-2"]) <= 2, "the rest goes in turn to the others"
    assert sum(found.values()) == 1_000


async def test_a_header_leads_to_a_version_and_no_other_call_gets_there(plane: Any) -> None:
    await plane.add("old")
    await plane.add("new", "v2")
    client = await plane.caller()
    await until(client, "new")
    plane.route(RouteRule((Target(V2, 0),), (HeaderRule("x-canary", "1", V2), HeaderRule("x-any", None, V2))))
    await until(client, "new", metadata={"x-canary": "1"})
    assert await plane.discovery.settled(2.0)
    await asyncio.sleep(0.05)
    for path in (GET, PUT):
        assert await client.count(20, path, metadata={"x-canary": "1"}) == {"new": 20}
        assert await client.count(20, path, metadata={"x-any": "whatever"}) == {"new": 20}
        assert await client.count(20, path, metadata={"x-canary": "2"}) == {"old": 20}
        assert await client.count(20, path) == {"old": 20}


async def test_a_route_falls_back_while_its_target_is_away_and_is_followed_again_then(plane: Any) -> None:
    await plane.add("old")
    await plane.add("new", "v2")
    client = await plane.caller()
    plane.route(RouteRule((Target(V2, 100),)))
    await until(client, "new")
    await asyncio.sleep(0.05)
    assert await client.count(20) == {"new": 20}
    plane.remove("new")
    await until(client, "old")
    assert await client.count(20) == {"old": 20}
    await plane.add("new-again", "v2")
    await until(client, "new-again")
    await asyncio.sleep(0.05)
    assert await client.count(20) == {"new-again": 20}


async def test_a_strict_route_lets_calls_wait_for_its_target(plane: Any) -> None:
    await plane.add("old")
    plane.route(RouteRule((Target(V2, 100),), strict=True))
    client = await plane.caller()
    ((who, took),) = await client.ask("call", path=GET, timeout=8.0)
    assert who.startswith("UNAVAILABLE")
    assert took < 8.0, "it was told before its deadline"
    await client.ask("begin", path=GET, timeout=10.0, wait=True)
    await plane.add("new", "v2")
    ((who, _took),) = await client.ask("finish")
    assert who == "new"


async def test_changing_routes_back_and_forth_loses_no_call(plane: Any) -> None:
    await plane.add("old")
    await plane.add("new", "v2")
    client = await plane.caller()
    await until(client, "new")
    await client.ask("start", path=PUT, timeout=5.0, workers=4)
    rules = [RouteRule((Target(V2, 10),)), RouteRule((Target(V2, 100),)), RouteRule((Target(V2, 0),)), None]
    for number in range(20):
        plane.route(rules[number % len(rules)])
        await asyncio.sleep(0.05)
    report = await client.ask("stop")
    assert set(report["by"]) == {"old", "new"}, report["by"]
    assert min(report["by"].values()) > 50


# Policy.


async def test_a_call_that_may_be_repeated_is_repeated_elsewhere_and_no_other(plane_with: Callable[..., Any]) -> None:
    plane = await plane_with(ejection=_off())
    for name in ("a", "b", "c"):
        await plane.add(name)
    client = await plane.caller()
    for name in ("a", "b", "c"):
        await until(client, name)
    plane.backends["b"].failure = grpc.StatusCode.UNAVAILABLE
    assert set(await client.count(60)) == {"a", "c"}
    found = await client.count(60, PUT)
    assert found["UNAVAILABLE: b fails"] == 20


async def test_retries_can_be_switched_off(plane_with: Callable[..., Any]) -> None:
    plane = await plane_with(ejection=_off(), retries=0)
    await plane.add("a")
    await plane.add("b")
    client = await plane.caller()
    await until(client, "b")
    plane.backends["b"].failure = grpc.StatusCode.UNAVAILABLE
    assert (await client.count(20))["UNAVAILABLE: b fails"] == 10


@pytest.mark.parametrize("way", ["failures", "success_rate"])
async def test_an_instance_that_always_fails_is_left_alone_for_a_while(
    way: str, plane_with: Callable[..., Any]
) -> None:
    plane = await plane_with(
        ejection=_way(way),
        ejection_interval_ms=200,
        ejection_time_ms=1_000,
        ejection_min_requests=5,
        ejection_deviations=0.5,
    )
    for name in ("a", "b", "sick"):
        await plane.add(name)
    client = await plane.caller()
    for name in ("a", "b", "sick"):
        await until(client, name)
    plane.backends["sick"].failure = grpc.StatusCode.INTERNAL

    failed: list[int] = []

    async def left_alone() -> bool:
        await client.ask("start", path=PUT, workers=1, pause=0.002)
        await asyncio.sleep(0.8)
        report = await client.ask("stop")
        failed.append(report["by"].get("INTERNAL: sick fails", 0))
        return bool(await client.count(60, PUT) == {"a": 30, "b": 30})

    # On a busy machine the while may be over before all calls are counted.
    await eventually(left_alone, "the sick one is left alone", within_s=30)
    assert failed[0] > 0
    plane.backends["sick"].failure = None
    await until(client, "sick", limit=20.0)


async def test_no_instance_is_left_alone_when_it_is_the_only_one(plane_with: Callable[..., Any]) -> None:
    plane = await plane_with(ejection=_way("failures"), ejection_interval_ms=100, ejection_min_requests=5)
    only = await plane.add("only")
    client = await plane.caller()
    await until(client, "only")
    only.failure = grpc.StatusCode.INTERNAL
    await client.ask("start", path=PUT, workers=1, pause=0.002)
    await asyncio.sleep(0.5)
    assert set((await client.ask("stop"))["by"]) == {"INTERNAL: only fails"}
    only.failure = None
    assert await client.count(10) == {"only": 10}


async def test_more_calls_at_once_than_the_circuit_breaker_lets_through_fail_at_once(
    plane_with: Callable[..., Any],
) -> None:
    plane = await plane_with(max_requests=5)
    slow = await plane.add("slow")
    client = await plane.caller()
    await until(client, "slow")
    slow.pause_s = 1.0
    found = await client.ask("at_once", path=GET, n=20)
    assert found.count("slow") == 5
    refused = [who for who in found if who != "slow"]
    assert len(refused) == 15
    assert all(who.startswith("UNAVAILABLE: circuit breaker drop") for who in refused), set(refused)


# Names.


@pytest.mark.parametrize("name", ["test.v1.EchoServise", "nobody", "a b/c", "minhos_api.risk.v1.RiskManagerService"])
async def test_a_name_that_nobody_serves_is_answered_at_once_even_to_those_who_wait(name: str, plane: Any) -> None:
    client = await plane.caller()
    for wait in (False, True):
        ((who, took),) = await client.ask(
            "call", path=GET, target=f"xds:///{name.replace(' ', '%20')}", wait=wait, timeout=10.0
        )
        assert who.startswith("UNAVAILABLE: No matching route found"), who
        assert took < 9.0, "it was told long before its deadline"


async def test_a_service_that_restarts_lets_calls_wait_for_it(plane: Any) -> None:
    await plane.add("a")
    client = await plane.caller()
    await until(client, "a")
    plane.change("a", exit_text="killed")
    await plane.backends["a"].server.stop(0)
    await asyncio.sleep(0.1)
    await client.ask("begin", path=GET, timeout=10.0, wait=True)
    await asyncio.sleep(0.2)
    await plane.add("b")
    ((who, _took),) = await client.ask("finish")
    assert who == "b"


def _off() -> Any:
    return _way("off")


def _way(name: str) -> Any:
    from minhos_mesh.registry.domain.routing import Ejection

    return Ejection(name)
