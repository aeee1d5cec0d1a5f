"""What every engine of the registry's store must hold."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.contract.registry.store_engines import (
    KEY,
    RECORD,
    Engine,
    allow,
    eventually,
    record,
)

from minhos_mesh.registry.domain.health import Assessment, Cause, Reason, State
from minhos_mesh.registry.domain.history import HealthChange
from minhos_mesh.registry.domain.leases import InstanceHeld, StaleToken
from minhos_mesh.registry.outbox import Fact
from minhos_mesh.registry.store import (
    Desired,
    DocumentChange,
    DocumentMoved,
)


async def test_tokens_grow_over_restarts_and_instances_come_back(engine: Engine) -> None:
    one = await engine.open()
    first, second = record(), record()
    tokens = [await one.store.admit(first, allow), await one.store.admit(second, allow)]
    await one.store.mark_ready(KEY, tokens[1])
    assert 0 < tokens[0] < tokens[1]
    await one.stop()
    again = await engine.open()
    state = again.store.state
    assert state.instances == (replace(second, token=tokens[1], ever_ready=True),)
    assert state.tokens == ((KEY, tokens[1]),)
    assert [(s.service, s.desired, s.contracts, s.needs) for s in state.services] == [
        ("risk_manager", None, RECORD.contracts, RECORD.needs)
    ]
    assert await again.store.admit(record(), allow) > tokens[1]


async def test_no_two_grants_at_once_have_one_token(engine: Engine) -> None:
    one = await engine.open()
    granted = await asyncio.gather(*(one.store.admit(record(f"r-{n}"), allow) for n in range(40)))
    assert len(set(granted)) == 40
    assert len((await one.store.load()).instances) == 40


async def test_a_refused_claim_leaves_nothing(engine: Engine) -> None:
    def refuse() -> None:
        raise InstanceHeld(KEY, 1)

    one = await engine.open()
    with pytest.raises(InstanceHeld):
        await one.store.admit(record(), refuse)
    await one.stop()
    assert (await engine.open()).store.state.instances == ()


async def test_a_replaced_owner_can_neither_mark_nor_remove(engine: Engine) -> None:
    one = await engine.open()
    old, new = await one.store.admit(record(), allow), await one.store.admit(record(), allow)
    with pytest.raises(StaleToken) as caught:
        await one.store.mark_ready(KEY, old)
    assert (caught.value.fencing_token, caught.value.newest) == (old, new)
    assert await one.store.remove(KEY, old) is False
    assert await one.store.remove(KEY, new) is True
    assert await one.store.remove(KEY, new) is False
    await one.stop()
    again = await engine.open()
    assert again.store.state.instances == ()
    assert again.store.state.tokens == ((KEY, new),)
    with pytest.raises(StaleToken):
        await again.store.mark_ready(KEY, new)


async def test_what_should_run_is_kept_beside_what_it_serves(engine: Engine) -> None:
    one = await engine.open()
    await one.store.admit(record(), allow)
    await one.store.set_desired("risk_manager", Desired.STOPPED)
    await one.store.set_desired("ai_brain", Desired.RUNNING)
    await one.stop()
    again = await engine.open()
    services = {s.service: (s.desired, len(s.contracts)) for s in again.store.state.services}
    assert services == {"risk_manager": (Desired.STOPPED, 1), "ai_brain": (Desired.RUNNING, 0)}
    assert await again.store.wishes() == {"risk_manager": Desired.STOPPED, "ai_brain": Desired.RUNNING}


async def test_a_service_is_forgotten_when_nothing_of_it_is_attached(engine: Engine) -> None:
    one = await engine.open()
    token = await one.store.admit(record(), allow)
    await one.store.forget_service("risk_manager")
    assert [s.service for s in (await one.store.load()).services] == ["risk_manager"]
    assert await one.store.remove(KEY, token)
    await one.store.forget_service("risk_manager")
    await one.store.forget_service("risk_manager")
    await one.stop()
    again = await engine.open()
    assert again.store.state.services == ()
    await again.store.admit(record(), allow)
    assert [(s.service, s.contracts, s.needs) for s in (await again.store.load()).services] == [
        ("risk_manager", RECORD.contracts, RECORD.needs)
    ]


async def test_a_service_that_somebody_wanted_is_not_forgotten(engine: Engine) -> None:
    one = await engine.open()
    await one.store.set_desired("risk_manager", Desired.STOPPED)
    await one.store.forget_service("risk_manager")
    await one.stop()
    again = await engine.open()
    assert [(s.service, s.desired) for s in again.store.state.services] == [("risk_manager", Desired.STOPPED)]


async def test_tokens_are_above_what_a_store_has_seen_and_stay_so(engine: Engine) -> None:
    one = await engine.open()
    seen = [10**9, 5, 10**9 + 1, 2 * 10**9]
    granted = [await one.store.admit(replace(record(f"r-{n}"), token=token), allow) for n, token in enumerate(seen)]
    assert all(token > before for token, before in zip(granted, seen, strict=True))
    assert granted == sorted(set(granted))
    at_once = [replace(record(f"s-{n}"), token=3 * 10**9 - n) for n in range(10)]
    more = await asyncio.gather(*(one.store.admit(each, allow) for each in at_once))
    assert all(token > each.token for token, each in zip(more, at_once, strict=True))
    assert len({*granted, *more}) == 14
    await one.stop()
    again = await engine.open()
    assert await again.store.admit(record(), allow) > max(more)


async def test_health_changes_are_kept_with_their_events(engine: Engine) -> None:
    reason = Reason(Cause.LEASE_EXPIRED, "a-1", "ran out")
    change = HealthChange(7, "a", State.HEALTHY, Assessment(State.UNHEALTHY, (reason,)), 70)
    one = await engine.open()
    await one.store.append_changes([change], [Fact("service.health_changed", "a", b"x", 70)])
    assert [w.fact.payload for w in await one.outbox.first(5)] == [b"x"]
    await one.stop()
    again = await engine.open()
    assert again.store.state.latest == (change,)
    listed = await again.store.list_changes(service="a", since_ns=None, before_revision=None, limit=5)
    assert listed == (change,)


async def test_a_document_is_read_back_as_it_was_acknowledged(engine: Engine) -> None:
    one = await engine.open()
    documents = one.store.documents
    assert await documents.read("routes", "a.B") is None
    first = await documents.write("routes", "a.B", b"1")
    second = await documents.write("routes", "a.B", b"\x00\xff", expected=first)
    third = await documents.write("routes", "a/C", b"", expected=0)
    await documents.write("contracts", "a.B", b"other kind")
    assert 0 < first < second < third
    found = await documents.list("routes")
    assert [(d.kind, d.name, d.value, d.revision) for d in found] == [
        ("routes", "a.B", b"\x00\xff", second),
        ("routes", "a/C", b"", third),
    ]
    await one.stop()
    again = await engine.open()
    assert await again.store.documents.read("routes", "a.B") == found[0]


async def test_a_document_that_moved_is_not_written_over(engine: Engine) -> None:
    documents = (await engine.open()).store.documents
    first = await documents.write("routes", "a", b"1")
    second = await documents.write("routes", "a", b"2")
    for attempt in (
        documents.write("routes", "a", b"3", expected=first),
        documents.write("routes", "a", b"3", expected=0),
        documents.delete("routes", "a", expected=first),
    ):
        with pytest.raises(DocumentMoved) as caught:
            await attempt
        assert caught.value.newest == second
    with pytest.raises(DocumentMoved) as caught:
        await documents.write("routes", "b", b"3", expected=first)
    assert caught.value.newest == 0
    assert await documents.delete("routes", "a", expected=second) is True
    assert await documents.delete("routes", "a") is False


async def test_changes_of_documents_are_told_in_order(engine: Engine) -> None:
    documents = (await engine.open()).store.documents
    told: list[DocumentChange] = []
    documents.on_change("routes", told.append)
    revision = await documents.write("routes", "a", b"1")
    await documents.write("contracts", "a", b"not told")
    await asyncio.gather(*(documents.write("routes", f"n{n}", b"v") for n in range(10)))
    await documents.delete("routes", "a")
    await eventually(lambda: len(told) == 12, "all told")
    assert [c.revision for c in told] == sorted({c.revision for c in told})
    first = told[0].document
    assert first is not None
    assert (first.name, first.value, first.revision) == ("a", b"1", revision)
    assert (told[-1].name, told[-1].document) == ("a", None)
