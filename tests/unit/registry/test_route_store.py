from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from minhos_mesh.registry.domain.routes import (
    Author,
    HeaderRule,
    RouteHistory,
    RouteRevision,
    RouteRule,
    Selector,
    SelectorKind,
    Target,
)
from minhos_mesh.registry.route_store import KIND, RouteStore, decoded, encoded
from minhos_mesh.registry.store import Document, DocumentChange, DocumentMoved

RISK = "risk.Risk"
V2 = Selector(SelectorKind.VERSION, "v2")
AUTHOR = Author("r", "me", "because", 17, "mark")
CANARY = RouteRule((Target(V2, 10),), (HeaderRule("x", None, V2), HeaderRule("y", "1", V2)), strict=True)


@dataclass
class SharedDocuments:
    """What two registries of one mesh share, in memory."""

    held: dict[str, Document] = field(default_factory=dict)
    revision: int = 0
    listeners: list[Callable[[DocumentChange], None]] = field(default_factory=list)

    async def list(self, kind: str) -> tuple[Document, ...]:
        assert kind == KIND
        return tuple(self.held.values())

    async def write(self, kind: str, name: str, value: bytes, *, expected: int | None = None) -> int:
        newest = self.held[name].revision if name in self.held else 0
        if expected is not None and expected != newest:
            raise DocumentMoved(kind, name, expected=expected, newest=newest)
        self.revision += 1
        document = self.held[name] = Document(kind, name, value, self.revision)
        for listener in self.listeners:
            listener(DocumentChange(kind, name, self.revision, document))
        return self.revision

    def on_change(self, kind: str, listener: Callable[[DocumentChange], None]) -> None:
        self.listeners.append(listener)


def history(rule: RouteRule | None = CANARY, number: int = 1) -> RouteHistory:
    return RouteHistory(RISK, (RouteRevision(number, rule, AUTHOR),))


SELECTORS = st.builds(Selector, st.sampled_from(SelectorKind), st.text(min_size=1))
RULES = st.builds(
    RouteRule,
    st.lists(st.builds(Target, SELECTORS, st.integers(0, 100)), max_size=3).map(tuple),
    st.lists(st.builds(HeaderRule, st.text(), st.none() | st.text(), SELECTORS), max_size=3).map(tuple),
    st.booleans(),
)
AUTHORS = st.builds(Author, st.text(), st.text(), st.text(), st.integers(0, 2**62), st.text())
REVISIONS = st.builds(RouteRevision, st.integers(1, 2**40), st.none() | RULES, AUTHORS, st.none() | st.integers(0, 9))


@given(st.lists(REVISIONS, max_size=4).map(tuple))
def test_a_history_is_read_as_it_was_written(revisions: tuple[RouteRevision, ...]) -> None:
    kept = RouteHistory(RISK, revisions)
    assert decoded(RISK, encoded(kept)) == kept


async def test_what_one_registry_changes_the_other_knows() -> None:
    shared, told = SharedDocuments(), 0

    def changed() -> None:
        nonlocal told
        told += 1

    one, two = RouteStore(shared), RouteStore(shared)
    await one.load(lambda: None)
    await two.load(changed)
    await one.save(history())
    assert (two.rules(), told) == ({RISK: CANARY}, 1)
    await two.save(history(None, 2))
    assert one.rules() == {}


async def test_of_two_changes_at_once_one_is_refused() -> None:
    shared = SharedDocuments()
    one, two = RouteStore(shared), RouteStore(shared)
    await one.load(lambda: None)
    await two.load(lambda: None)
    shared.listeners.clear()
    await one.save(history())
    with pytest.raises(DocumentMoved):
        await two.save(history(None, 2))


async def test_a_later_start_finds_what_was_kept() -> None:
    shared = SharedDocuments()
    first = RouteStore(shared)
    await first.load(lambda: None)
    await first.save(history())
    later = RouteStore(shared)
    await later.load(lambda: None)
    assert later.histories == {RISK: history()}


@pytest.mark.parametrize("value", [b"no json", b"[1]", b'[{"number": 1}]', b'{"a": 1}', b"null"])
async def test_a_damaged_route_counts_as_none_and_can_be_set_anew(value: bytes) -> None:
    shared = SharedDocuments()
    await shared.write(KIND, RISK, value)
    store = RouteStore(shared)
    with capture_logs() as logs:
        await store.load(lambda: None)
    assert [entry["event"] for entry in logs] == ["route.damaged"]
    assert store.rules() == {}
    await store.save(history())
    assert store.rules() == {RISK: CANARY}
