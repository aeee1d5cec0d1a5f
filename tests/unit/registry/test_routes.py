from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.registry.domain.directory import Known, Present
from minhos_mesh.registry.domain.health import Serving, Silence
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.routes import (
    KEPT_REVISIONS,
    Author,
    HeaderRule,
    RouteHistory,
    RouteInvalid,
    RouteRule,
    RouteTargetUnknown,
    RouteUnknown,
    Selector,
    SelectorKind,
    Target,
    check_rule,
    check_targets,
    names_of,
    others,
    spread,
)
from minhos_mesh.registry.domain.routing import (
    HeaderRoute,
    RoutingView,
    WeightedCluster,
    routing_view,
    subset_name,
)

RISK = "risk.Risk"
V1, V2, V3 = (Selector(SelectorKind.VERSION, version) for version in ("v1", "v2", "v3"))


def instance(name: str, version: str, port: int, service: str = "risk", **changes: object) -> Present:
    made = Present(
        key=InstanceKey(service, name),
        host="127.0.0.1",
        port=port,
        contracts=(RISK,),
        lease_id="l",
        token=1,
        version=version,
        attached_ns=0,
        serving=Serving.SERVING,
        ever_ready=True,
    )
    return replace(made, **changes)  # type: ignore[arg-type] # fields of Present


ONE, TWO, NEW = instance("one", "v1", 1), instance("two", "v1", 2), instance("new", "v2", 3)
SICK = replace(NEW, silence=Silence.LATE)
CANARY = RouteRule((Target(V2, 10),))


def view(rule: RouteRule, *there: Present) -> RoutingView:
    return routing_view({}, [Known("risk", (RISK,), wanted=True)], there, 0.0, {RISK: rule})


def ports(seen: RoutingView) -> dict[str, list[int]]:
    return {cluster.name: [e.port for e in cluster.endpoints] for cluster in seen.clusters}


def test_a_share_goes_to_the_instances_it_names_and_the_rest_to_all_others() -> None:
    seen = view(CANARY, ONE, TWO, NEW)
    assert seen.contracts[0].clusters == (WeightedCluster(subset_name(RISK, V2), 10), WeightedCluster(RISK, 90))
    assert ports(seen) == {RISK: [1, 2], subset_name(RISK, V2): [3]}
    assert seen.notes() == {}


def test_a_header_leads_to_the_instances_it_names_and_nobody_else_gets_there() -> None:
    rule = RouteRule((Target(V2, 0),), (HeaderRule("x-canary", "1", V2),))
    seen = view(rule, ONE, NEW)
    assert seen.contracts[0].clusters == (WeightedCluster(RISK),)
    assert seen.contracts[0].header_routes == (HeaderRoute("x-canary", "1", subset_name(RISK, V2)),)
    assert ports(seen)[RISK] == [1]


FALLBACKS = [
    ("target sick", CANARY, (ONE, SICK), ((None, 100),), "version v2 has no instance that serves: its 10 % go to the others"),
    ("target gone", CANARY, (ONE,), ((None, 100),), "version v2 has no instance that serves: its 10 % go to the others"),
    ("others gone", CANARY, (NEW,), ((V2, 10),), "nobody else serves: their 90 % go to version v2"),
    ("all of it", RouteRule((Target(V2, 100),)), (ONE, NEW), ((V2, 100),), ""),
    ("all gone", CANARY, (), ((None, 100),), ""),
    ("nothing for it and nobody else", RouteRule((Target(V2, 0),)), (NEW,), ((None, 100),), "nobody else serves: all calls go to whoever does"),
    (
        "header to nobody", RouteRule((), (HeaderRule("x", None, V3),)), (ONE,), ((None, 100),),
        "version v3 has no instance that serves: calls with x go to the others",
    ),
    (
        "two of three", RouteRule((Target(V2, 10), Target(V3, 20))), (ONE, NEW), ((V2, 10), (None, 90)),
        "version v3 has no instance that serves: its 20 % go to the others",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("_name", "rule", "there", "shares", "note"), FALLBACKS, ids=[row[0] for row in FALLBACKS])
def test_a_route_to_nobody_falls_back_and_says_so(
    _name: str, rule: RouteRule, there: tuple[Present, ...], shares: tuple[tuple[Selector | None, int], ...], note: str
) -> None:
    seen = spread(rule, there)
    assert seen.shares == shares
    assert "; ".join(seen.notes) == note


def test_a_strict_route_is_followed_to_the_letter() -> None:
    strict = replace(CANARY, strict=True)
    seen = view(strict, ONE, SICK)
    assert seen.contracts[0].clusters == (WeightedCluster(subset_name(RISK, V2), 10), WeightedCluster(RISK, 90))
    assert seen.notes() == {RISK: ("version v2 has no instance that serves: its 10 % wait or fail",)}


def test_a_route_is_not_seen_when_nobody_serves_or_will() -> None:
    seen = routing_view({}, [Known("risk", (RISK,), wanted=False)], [], 0.0, {RISK: CANARY})
    assert seen.contracts[0].clusters == ()


def test_the_place_of_one_of_several_names_each_process_in_it() -> None:
    first, second = instance("risk-2-1c56e221", "v1", 1), instance("risk-2-9f00aa13", "v1", 2)
    other, own = instance("risk-1-1c56e221", "v1", 3), instance("canary-1", "v1", 4)
    place = Selector(SelectorKind.INSTANCE, "risk/risk-2")
    assert [place.fits(each) for each in (first, second, other, own)] == [True, True, False, False]
    assert Selector(SelectorKind.INSTANCE, "risk/canary-1").fits(own)
    assert names_of([first, own])[-2:] == ("instance risk/canary-1", "instance risk/risk-2")


def test_instances_of_a_service_or_one_alone_can_be_named() -> None:
    legacy = instance("old", "v1", 9, service="legacy")
    by_service = RouteRule((Target(Selector(SelectorKind.SERVICE, "risk"), 10),))
    assert others(by_service, [legacy, ONE]) == (legacy,)
    by_instance = RouteRule((Target(Selector(SelectorKind.INSTANCE, "risk/two"), 50),))
    assert others(by_instance, [ONE, TWO]) == (ONE,)


SELECTORS = st.sampled_from([V1, V2, V3, Selector(SelectorKind.INSTANCE, "risk/one")])
RULES = st.builds(
    RouteRule,
    st.lists(st.builds(Target, SELECTORS, st.integers(0, 33)), max_size=3, unique_by=lambda t: t.selector).map(tuple),
    st.lists(st.builds(HeaderRule, st.just("x"), st.sampled_from(["1", None]), SELECTORS), max_size=2).map(tuple),
)
INSTANCES = st.lists(st.sampled_from([ONE, TWO, NEW, SICK, replace(TWO, leaving=True)]), unique_by=lambda p: p.key)


@given(RULES, INSTANCES)
def test_whoever_gets_calls_serves_as_long_as_anybody_does(rule: RouteRule, there: list[Present]) -> None:
    seen = view(rule, *there)
    (contract,) = seen.contracts
    healthy = {c.name: [e for e in c.endpoints if e.health.value == "HEALTHY"] for c in seen.clusters}
    used = [share.cluster for share in contract.clusters] + [h.cluster for h in contract.header_routes]
    assert contract.clusters
    assert set(used) <= set(healthy), "no route leads to a cluster that clients do not know"
    if any(p.rotation() is not None and p.rotation().value == "IN" for p in there):  # type: ignore[union-attr] # just asked
        assert all(healthy[cluster] for cluster in used)


@given(RULES, INSTANCES)
def test_every_instance_stands_in_some_cluster(rule: RouteRule, there: list[Present]) -> None:
    told = {e.port for cluster in view(rule, *there).clusters for e in cluster.endpoints}
    assert told == {present.port for present in there}


INVALID = [
    (RouteRule((Target(V1, 60), Target(V2, 50))), "rule.targets", "60 + 50 = 110 percent"),
    (RouteRule((Target(V1, 1), Target(V1, 2))), "rule.targets[1].selector", "each selector once"),
    (RouteRule((), (HeaderRule("x", "1", V1), HeaderRule("x", "1", V2))), "rule.headers[1]", "x=1 again"),
]


@pytest.mark.parametrize(("rule", "field", "text"), INVALID)
def test_a_route_that_cannot_be_meant_is_refused(rule: RouteRule, field: str, text: str) -> None:
    with pytest.raises(RouteInvalid, match=text.replace("+", "\\+")) as refused:
        check_rule(rule)
    assert refused.value.field == field


def test_a_route_to_nobody_is_refused_with_the_names_that_there_are() -> None:
    check_targets(RISK, CANARY, [ONE, SICK])
    with pytest.raises(RouteTargetUnknown) as refused:
        check_targets(RISK, RouteRule((Target(V3, 10),)), [ONE, NEW])
    assert str(refused.value) == (
        "risk.Risk has no instance with version v3; known: version v2, version v1, service risk,"
        " instance risk/new, instance risk/one"
    )
    with pytest.raises(RouteTargetUnknown, match="none: no instance of it is attached"):
        check_targets(RISK, CANARY, [])


# How it came to be.


def author(request_id: str = "r") -> Author:
    return Author(request_id, "me", "", 0, "m")


def history(*rules: RouteRule | None) -> RouteHistory:
    made = RouteHistory(RISK)
    for number, rule in enumerate(rules, start=1):
        made = made.changed(number, rule, author(f"r{number}"))
    return made


HALF = RouteRule((Target(V2, 50),))


def test_a_rollback_goes_one_change_back_and_the_next_one_further() -> None:
    once = history(CANARY, HALF).rolled_back(3, None, author())
    assert (once.rule, once.revisions[-1].restored) == (CANARY, 1)
    twice = once.rolled_back(4, None, author())
    assert (twice.rule, twice.revisions[-1].restored) == (None, 0)
    with pytest.raises(RouteUnknown, match="has no earlier route to go back to"):
        twice.rolled_back(5, None, author())


def test_a_removed_route_comes_back_by_rollback() -> None:
    assert history(CANARY, None).rolled_back(3, None, author()).rule == CANARY


def test_a_change_after_a_rollback_goes_back_to_what_held_then() -> None:
    again = history(CANARY, HALF).rolled_back(3, None, author()).changed(4, HALF, author("x"))
    back = again.rolled_back(5, None, author())
    assert back.rule == CANARY, "what the change before it had brought back"
    assert back.rolled_back(6, None, author()).rule is None
    assert again.rolled_back(5, 3, author()).rule == CANARY
    assert again.rolled_back(5, 0, author()).rule is None
    with pytest.raises(RouteUnknown, match="has no revision 17"):
        again.rolled_back(5, 17, author())


def test_the_same_route_again_is_no_change() -> None:
    assert history(CANARY).changed(2, CANARY, author()).newest == 1


def test_what_is_not_there_cannot_be_removed_or_brought_back() -> None:
    with pytest.raises(RouteUnknown, match="has no route"):
        history().changed(1, None, author())
    with pytest.raises(RouteUnknown, match="no earlier route"):
        history().rolled_back(1, None, author())


def test_only_so_many_changes_are_remembered() -> None:
    many = history(*(RouteRule((Target(V2, number % 2 + 1),)) for number in range(KEPT_REVISIONS + 20)))
    assert len(many.revisions) == KEPT_REVISIONS
    back = many
    with pytest.raises(RouteUnknown, match="still remembered"):
        for number in range(1_000, 1_300):
            back = back.rolled_back(number, None, author())
