"""What the registry's store in etcd must hold for several registries of one mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from tests.contract.registry.store_engines import (
    DEADLINE_S,
    KEY,
    RECORD,
    OnEtcd,
    Opened,
    allow,
    eventually,
    is_gone,
    is_ready,
    record,
)

from minhos_mesh.registry.domain.health import Condition, Serving
from minhos_mesh.registry.domain.leases import InstanceHeld, InstanceKey, StaleToken
from minhos_mesh.registry.store import (
    Departure,
    DocumentChange,
    DocumentMoved,
    InstanceReport,
    StoreUnavailable,
)
from minhos_mesh.registry.stores import etcd_messages as wire


async def test_what_one_registry_admits_is_seen_by_the_other(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    given = record()
    token = await a.store.admit(given, allow)
    seen = await eventually(lambda: b.heard.held.get(KEY), "seen at b")
    assert seen.record == replace(given, token=token)
    assert seen.holder != b.store._member
    assert b.heard.services["risk_manager"] == (RECORD.contracts, RECORD.needs)
    told = InstanceReport(Serving.SERVING, conditions=(Condition("SLOW", "it is slow"),), check_failures=1)
    a.store.report(KEY, token, told)
    await a.store.mark_ready(KEY, token)
    seen = await eventually(lambda: h if (h := b.heard.held[KEY]).record.ever_ready else None, "ready at b")
    assert (seen.report, seen.record.token) == (told, token)
    await a.store.remove(KEY, token, Departure(in_order=False, how="it lost its connection"))
    await eventually(lambda: KEY in b.heard.went, "gone at b")
    assert b.heard.went[KEY] == (token, Departure(in_order=False, how="it lost its connection"))


async def test_a_document_that_one_registry_writes_is_told_to_the_other(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    told: list[DocumentChange] = []
    b.store.documents.on_change("routes", told.append)
    first = await a.store.documents.write("routes", "a.B", b"1", expected=0)
    await eventually(lambda: told, "told to b")
    assert told[0].document == await b.store.documents.read("routes", "a.B")
    second = await b.store.documents.write("routes", "a.B", b"2", expected=first)
    with pytest.raises(DocumentMoved):
        await a.store.documents.write("routes", "a.B", b"3", expected=first)
    await a.store.documents.delete("routes", "a.B")
    await eventually(lambda: len(told) == 3, "all told to b")
    assert [(c.document.value if c.document else None) for c in told] == [b"1", b"2", None]
    assert told[1].revision == second < told[2].revision


async def test_members_know_each_other_by_address(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    await eventually(lambda: [m.address for m in a.heard.members] == ["address-of-b"], "a knows b")
    state = await b.store.load()
    assert [m.address for m in state.members] == ["address-of-a"]


async def test_two_registries_never_grant_one_token(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    one = (a.store.admit(record(f"a-{n}"), allow) for n in range(40))
    other = (b.store.admit(record(f"b-{n}"), allow) for n in range(40))
    granted = await asyncio.gather(*one, *other)
    assert len(set(granted)) == 80


async def test_of_two_registries_that_admit_one_instance_the_later_one_knows_of_the_first(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")

    def free_at(opened: Opened) -> Callable[[], None]:
        def check() -> None:
            if (held := opened.heard.held.get(KEY)) is not None:
                raise InstanceHeld(KEY, held.record.token)

        return check

    for _round in range(10):
        results = await asyncio.gather(
            a.store.admit(record(), free_at(a)), b.store.admit(record(), free_at(b)), return_exceptions=True
        )
        won = [r for r in results if isinstance(r, int)]
        assert len(won) == 1, results
        assert [type(r) for r in results if not isinstance(r, int)] == [InstanceHeld]
        winner, loser = (a, b) if isinstance(results[0], int) else (b, a)
        assert await winner.store.remove(KEY, won[0]) is True
        await eventually(partial(is_gone, loser, KEY), "gone")


async def test_an_instance_that_moves_is_lost_to_the_registry_it_left(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    old = await a.store.admit(record(), allow)
    await a.store.mark_ready(KEY, old)
    await eventually(lambda: KEY in b.heard.held, "seen at b")
    new = await b.store.admit(record(port=5000), allow)
    assert new > old
    seen = await eventually(lambda: a.heard.held.get(KEY), "seen at a")
    assert (seen.record.token, seen.record.port) == (new, 5000)
    a.store.report(KEY, old, InstanceReport(late=True))
    assert await a.store.remove(KEY, old) is False
    with pytest.raises(StaleToken):
        await a.store.mark_ready(KEY, old)
    assert (await b.store.load()).instances[0].token == new


async def test_exactly_one_registry_inherits_what_a_dead_one_held(two: OnEtcd) -> None:
    a, b, c = await two.open("a"), await two.open("b"), await two.open("c")
    tokens = {n: await a.store.admit(record(f"i-{n}"), allow) for n in range(6)}
    await eventually(lambda: len(b.heard.held) == len(c.heard.held) == 6, "seen by both")
    await a.stop()
    await eventually(lambda: len(b.heard.heirs) + len(c.heard.heirs) == 6, "inherited")
    assert not b.heard.heirs.keys() & c.heard.heirs.keys()
    for number, token in tokens.items():
        key = InstanceKey("risk_manager", f"i-{number}")
        heir, other = (b, c) if key in b.heard.heirs else (c, b)
        assert heir.heard.heirs[key].token == token
        assert await heir.store.remove(key, token, Departure(False, "it never came back")) is True
        await eventually(partial(is_gone, other, key), "told to the other")


async def test_a_registry_that_is_back_in_time_keeps_its_instances(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    token = await a.store.admit(record(), allow)
    await a.stop()
    again = await two.open("a")
    assert [r.token for r in again.store.state.instances] == [token]
    await asyncio.sleep(two.ttl_s + 0.7)
    assert b.heard.heirs == {}
    await again.store.mark_ready(KEY, token)


async def test_a_registry_that_starts_alone_inherits_at_once(two: OnEtcd) -> None:
    a = await two.open("a")
    token = await a.store.admit(record(), allow)
    await a.stop()
    await asyncio.sleep(two.ttl_s + 1.0)
    b = await two.open("b")
    assert [(r.key, r.token) for r in b.store.state.instances] == [(KEY, token)]
    assert await b.store.remove(KEY, token) is True


async def test_a_frozen_registry_takes_its_instances_back_while_they_are_attached_to_it(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    token = await a.store.admit(record(), allow)
    await eventually(lambda: KEY in b.heard.held, "seen at b")
    await a.store._client.call(wire.REVOKE, id=a.store._lease)  # as after a long absence
    await eventually(lambda: KEY in b.heard.heirs, "inherited by b")
    seen = await eventually(lambda: b.heard.held.get(KEY), "a has it again")
    assert (seen.holder, seen.record.token) == (a.store._member, token)
    assert a.heard.went == {}
    assert a.heard.held == {}
    assert await a.store.admit(record(), allow) > token


async def test_an_etcd_that_is_away_is_waited_for(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    token = await a.store.admit(record(), allow)
    two.server.stop()
    with pytest.raises(StoreUnavailable, match=f"etcd did not answer .* within 2 s .*{two.server.endpoint}"):
        await a.store.admit(record("other"), allow)
    with pytest.raises(StoreUnavailable):
        await a.store.documents.write("routes", "a", b"1")
    await eventually(lambda: a.heard.troubles[-1:] and a.heard.troubles[-1] is not None, "trouble is told")
    waiting = asyncio.create_task(a.store.mark_ready(KEY, token))
    two.server.start()
    async with asyncio.timeout(DEADLINE_S):
        await waiting
    await eventually(lambda: is_ready(b), "the watch goes on")
    await eventually(lambda: a.heard.troubles[-1] is None, "all is well")
    assert await a.store.admit(record("other"), allow) > token
    await eventually(lambda: InstanceKey("risk_manager", "other") in b.heard.held, "seen at b")


async def test_a_frozen_etcd_is_told_within_its_deadline(two: OnEtcd) -> None:
    a = await two.open("a")
    two.server.freeze()
    start = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable, match="DEADLINE_EXCEEDED"):
        await a.store.admit(record(), allow)
    assert asyncio.get_running_loop().time() - start < 3.0
    two.server.thaw()
    assert await a.store.admit(record(), allow) > 0


async def test_tokens_stay_above_the_old_ones_when_etcd_is_set_up_anew(two: OnEtcd) -> None:
    a = await two.open("a")
    token = max([await a.store.admit(record(f"i-{number}"), allow) for number in range(30)])

    async def noted() -> bool:
        return bool(await a.store.last_token() == token)

    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not await noted():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)
    await a.stop()
    two.server.stop()
    two.server.empty()
    two.server.start()
    again = await two.open("a")
    assert await again.store.admit(record(), allow) > token


async def test_a_watch_goes_on_over_a_compaction(two: OnEtcd) -> None:
    a, b = await two.open("a"), await two.open("b")
    gone = await a.store.admit(record("gone"), allow)
    await eventually(lambda: len(b.heard.held) == 1, "seen at b")
    await b.pause()
    await a.store.remove(InstanceKey("risk_manager", "gone"), gone, Departure(False, "it died"))
    token = await a.store.admit(record(), allow)
    newest = a.store._mirror.revision_of(a.store._keys.token(KEY))
    channel = a.store._client._channel(two.server.endpoint)
    compact = wire.RANGE.request(limit=newest).SerializeToString()[1:]
    await channel.unary_unary("/etcdserverpb.KV/Compact")(b"\x08" + compact)
    b.resume()
    await eventually(lambda: KEY in b.heard.held, "seen at b")
    assert b.heard.held[KEY].record.token == token
    assert b.heard.went == {InstanceKey("risk_manager", "gone"): (gone, Departure(False, "it died"))}
    assert b.store._mirror.revision >= newest


async def test_an_endpoint_that_is_dead_is_passed_over(two: OnEtcd) -> None:
    two.endpoints = ["127.0.0.1:9", two.server.endpoint]
    a, b = await two.open("a"), await two.open("b")
    token = await a.store.admit(record(), allow)
    assert (await eventually(lambda: b.heard.held.get(KEY), "seen at b")).record.token == token
    await a.store.mark_ready(KEY, token)
    await eventually(lambda: is_ready(b), "ready at b")
