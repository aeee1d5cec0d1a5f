from __future__ import annotations

from collections.abc import Mapping

import pytest

from minhos_mesh.registry.ads_stream import (
    MAX_NAMES,
    MAX_TEXT,
    MAX_UNKNOWN,
    DiscoveryStream,
    Refusal,
    Request,
    Response,
    Snapshot,
    TooManyNames,
)
from minhos_mesh.registry.envoy import PackedResource
from minhos_mesh.registry.xds_resources import CDS, EDS, LDS, RDS


def res(type_url: str, text: str) -> PackedResource:
    return PackedResource(type_url, text.encode())


def snapshot(version: str, **by_type: Mapping[str, str]) -> Snapshot:
    urls = {"lds": LDS, "rds": RDS, "cds": CDS, "eds": EDS}
    return Snapshot(
        version, {urls[t]: {n: res(urls[t], text) for n, text in names.items()} for t, names in by_type.items()}
    )


def no_fallback(_type_url: str, _name: str) -> PackedResource | None:
    return None


def drain(stream: DiscoveryStream, state: Snapshot) -> list[Response]:
    responses = []
    while (response := stream.next_response(state)) is not None:
        responses.append(response)
        assert len(responses) < 20
    return responses


def ask(stream: DiscoveryStream, type_url: str, *names: str, to: Response | None = None) -> Refusal | None:
    return stream.receive(Request(type_url, names, to.nonce if to else ""))


def bodies(response: Response) -> list[str]:
    return [r.value.decode() for r in response.resources]


ONE = snapshot("1", lds={"a": "l1"}, rds={"a": "r1"}, cds={"a": "c1", "b": "cb"}, eds={"a": "e1", "b": "eb"})


def connected(state: Snapshot = ONE) -> DiscoveryStream:
    stream = DiscoveryStream(no_fallback)
    for type_url in (LDS, RDS, CDS, EDS):
        ask(stream, type_url, "a")
        for response in drain(stream, state):
            ask(stream, type_url, "a", to=response)
    assert drain(stream, state) == []
    return stream


def test_a_client_gets_what_it_asked_for_and_nothing_else() -> None:
    stream = DiscoveryStream(no_fallback)
    ask(stream, CDS, "a")
    (response,) = drain(stream, ONE)
    assert (response.type_url, response.version, bodies(response)) == (CDS, "1", ["c1"])


def test_an_acknowledgement_is_not_answered() -> None:
    stream = connected()
    assert stream.accepted == 4
    assert drain(stream, ONE) == []


def test_only_what_changed_is_pushed() -> None:
    two = snapshot("2", lds={"a": "l1"}, rds={"a": "r1"}, cds={"a": "c1"}, eds={"a": "e2", "b": "eb2"})
    (response,) = drain(connected(), two)
    assert (response.type_url, response.version, bodies(response)) == (EDS, "2", ["e2"])


def test_pushes_come_make_before_break() -> None:
    two = snapshot("2", lds={"a": "l2"}, rds={"a": "r2"}, cds={"a": "c2"}, eds={"a": "e2"})
    assert [r.type_url for r in drain(connected(), two)] == [CDS, EDS, LDS, RDS]


def test_a_slow_client_gets_the_newest_state_only() -> None:
    stream = connected()
    three = snapshot("3", lds={"a": "l1"}, rds={"a": "r1"}, cds={"a": "c1"}, eds={"a": "e3"})
    assert [(r.version, bodies(r)) for r in drain(stream, three)] == [("3", ["e3"])]


def test_a_removed_cluster_stays_until_the_client_has_left_its_route() -> None:
    stream = connected()
    two = snapshot("2", lds={"a": "l1"}, rds={"a": "r2"}, cds={}, eds={"a": "e1"})
    (routes,) = drain(stream, two)
    assert routes.type_url == RDS
    ask(stream, RDS, "a", to=routes)
    (clusters,) = drain(stream, two)
    assert (clusters.type_url, bodies(clusters)) == (CDS, [])


def test_a_new_subscription_is_answered_even_when_nothing_changed() -> None:
    stream = connected()
    ask(stream, EDS, "a", "b", to=Response(EDS, "1", stream_nonce(stream, EDS), ()))
    (response,) = drain(stream, ONE)
    assert bodies(response) == ["eb"]


def stream_nonce(stream: DiscoveryStream, type_url: str) -> str:
    return stream._subscriptions[type_url].nonce


def test_a_client_that_left_a_name_gets_it_again_when_it_comes_back() -> None:
    stream = connected()
    ask(stream, EDS, to=Response(EDS, "1", stream_nonce(stream, EDS), ()))
    assert drain(stream, ONE) == []
    ask(stream, EDS, "a", to=Response(EDS, "1", stream_nonce(stream, EDS), ()))
    assert [bodies(r) for r in drain(stream, ONE)] == [["e1"]]


def test_an_answer_to_an_older_response_changes_nothing() -> None:
    stream = connected()
    ask(stream, EDS, "a", "b", to=Response(EDS, "1", "0", ()))
    assert drain(stream, ONE) == []


def test_the_refusal_of_an_older_response_is_still_told() -> None:
    stream = connected()
    refusal = stream.receive(Request(EDS, ("a",), nonce="0", error="bad"))
    assert refusal is not None
    assert refusal.text == "bad"


def refuse(stream: DiscoveryStream, response: Response, names: tuple[str, ...], text: str) -> Refusal:
    refusal = stream.receive(Request(response.type_url, names, response.nonce, error=text))
    assert refusal is not None
    return refusal


def test_a_refused_resource_is_withheld_and_the_rest_is_sent_again() -> None:
    stream = DiscoveryStream(no_fallback)
    ask(stream, CDS, "a", "b")
    (first,) = drain(stream, ONE)
    refusal = refuse(stream, first, ("a", "b"), "cluster b: LB policy not supported")
    assert (refusal.names, refusal.version) == (("b",), "1")
    (second,) = drain(stream, ONE)
    assert bodies(second) == ["c1"]
    ask(stream, CDS, "a", "b", to=second)
    assert drain(stream, ONE) == []


def test_a_client_that_refused_a_change_keeps_what_it_had() -> None:
    stream = connected()
    two = snapshot("2", lds={"a": "l1"}, rds={"a": "r1"}, cds={"a": "broken"}, eds={"a": "e1"})
    (push,) = drain(stream, two)
    refuse(stream, push, ("a",), "a is broken")
    (again,) = drain(stream, two)
    assert bodies(again) == ["c1"]


def test_a_refused_resource_is_offered_again_once_it_has_changed() -> None:
    stream = connected()
    two = snapshot("2", lds={"a": "l1"}, rds={"a": "broken"}, cds={"a": "c1"}, eds={"a": "e1"})
    (push,) = drain(stream, two)
    refuse(stream, push, ("a",), "no such thing")
    for response in drain(stream, two):
        ask(stream, RDS, "a", to=response)
    three = snapshot("3", lds={"a": "l1"}, rds={"a": "mended"}, cds={"a": "c1"}, eds={"a": "e1"})
    (mended,) = drain(stream, three)
    assert bodies(mended) == ["mended"]


def test_a_client_that_refuses_everything_is_not_answered_for_ever() -> None:
    stream = DiscoveryStream(no_fallback)
    ask(stream, CDS, "a", "b")
    sent = 0
    while sent < 20 and (responses := drain(stream, ONE)):
        sent += len(responses)
        refuse(stream, responses[-1], ("a", "b"), "no")
    assert sent < 5


def test_an_unknown_name_is_answered_by_the_fallback_and_by_the_real_thing_once_it_is_known() -> None:
    stream = DiscoveryStream(lambda type_url, name: res(type_url, f"nobody serves {name}"))
    ask(stream, RDS, "z")
    (response,) = drain(stream, ONE)
    assert bodies(response) == ["nobody serves z"]
    ask(stream, RDS, "z", to=response)
    (push,) = drain(stream, snapshot("2", rds={"z": "rz"}))
    assert bodies(push) == ["rz"]


def test_the_absence_of_a_cluster_is_said_at_once() -> None:
    stream = DiscoveryStream(no_fallback)
    ask(stream, CDS, "ghost")
    (response,) = drain(stream, ONE)
    assert response.resources == ()


def test_a_proxy_that_names_nothing_gets_all_clusters() -> None:
    stream = DiscoveryStream(no_fallback)
    ask(stream, CDS)
    (response,) = drain(stream, ONE)
    assert bodies(response) == ["c1", "cb"]


def test_a_type_we_do_not_serve_is_ignored() -> None:
    stream = DiscoveryStream(no_fallback)
    assert ask(stream, "type.googleapis.com/envoy.config.runtime.v3.Runtime", "x") is None
    assert drain(stream, ONE) == []


def test_a_client_that_asks_for_too_much_is_refused() -> None:
    stream = DiscoveryStream(no_fallback)
    with pytest.raises(TooManyNames, match="2001 names, allowed are 2000"):
        ask(stream, EDS, *(str(n) for n in range(MAX_NAMES + 1)))
    with pytest.raises(TooManyNames, match="513 characters"):
        ask(stream, EDS, "x" * 513)


def test_an_unknown_name_costs_something_so_there_may_not_be_many() -> None:
    stream = DiscoveryStream(res)
    ask(stream, RDS, *(f"n{number}" for number in range(MAX_UNKNOWN)))
    assert len(drain(stream, ONE)[0].resources) == MAX_UNKNOWN
    more = DiscoveryStream(res)
    ask(more, RDS, *(f"n{number}" for number in range(MAX_UNKNOWN + 1)))
    with pytest.raises(TooManyNames, match="65 names that nobody knows, allowed are 64"):
        drain(more, ONE)


def test_all_names_of_a_stream_count_together() -> None:
    stream = DiscoveryStream(no_fallback)
    many = [f"{number:0500d}" for number in range(300)]
    ask(stream, EDS, *many)
    ask(stream, RDS, *many[:200])
    with pytest.raises(TooManyNames, match="characters in all, allowed are 262144"):
        ask(stream, CDS, *many[:100])


def test_a_refusal_of_a_subset_does_not_take_the_contract_with_it() -> None:
    state = snapshot("1", cds={"a": "c1", "a/version:v2": "c2"})
    stream = DiscoveryStream(no_fallback)
    ask(stream, CDS, "a", "a/version:v2")
    (response,) = drain(stream, state)
    assert refuse(stream, response, ("a", "a/version:v2"), "[a/version:v2: no good]").names == ("a/version:v2",)
    (again,) = drain(stream, state)
    assert bodies(again) == ["c1"]


def test_what_is_withheld_is_told_with_the_reason_until_it_changes_or_the_client_leaves_it() -> None:
    stream = connected()
    two = snapshot("2", lds={"a": "l1"}, rds={"a": "broken"}, cds={"a": "c1"}, eds={"a": "e1"})
    (push,) = drain(stream, two)
    refuse(stream, push, ("a",), "a: no such thing" + "!" * 1_000)
    (told,) = stream.withheld(two)
    assert (told.name, told.older, len(told.text)) == ("a", True, MAX_TEXT)
    assert stream.withheld(ONE) == ()


def test_a_stream_has_proven_itself_once_it_answered() -> None:
    stream = DiscoveryStream(no_fallback)
    ask(stream, CDS, "a")
    (response,) = drain(stream, ONE)
    assert not stream.proven
    ask(stream, CDS, "a", to=response)
    assert stream.proven
