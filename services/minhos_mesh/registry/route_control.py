"""Decides how a route is changed: checked against who is there, made a revision, kept, and only then told to all clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from minhos_mesh.registry.domain.directory import Present, Rotation
from minhos_mesh.registry.domain.routes import (
    Author,
    RequestReused,
    RevisionMoved,
    RouteHistory,
    RouteRule,
    Selector,
    check_rule,
    check_targets,
    spread,
)
from minhos_mesh.registry.mesh_services import EVERYWHERE
from minhos_mesh.registry.route_store import RouteStore
from minhos_mesh.registry.service import Registry
from minhos_mesh.registry.store import DocumentMoved
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger

TAKEN_IN_SECONDS: Final = 0.5
"""How long a change waits for a client that does not answer."""

_log = get_logger("registry.routes")


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes a route, and from where."""

    request_id: str
    asked: str
    """The request shortened to a mark."""
    actor: str
    reason: str = ""
    expected: int | None = None
    """Newest revision that the change was made from; None when any will do."""


@dataclass(frozen=True, slots=True)
class SelectorStanding:
    """Whom a selector means now."""

    selector: Selector
    instances: tuple[str, ...]
    serving: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteStanding:
    """The route of one contract, and what becomes of it now."""

    history: RouteHistory
    selectors: tuple[SelectorStanding, ...] = ()
    notes: tuple[str, ...] = ()


class RouteControl:
    """Changes and tells routes. One change at a time."""

    def __init__(
        self, registry: Registry, store: RouteStore, clock: Clock, settled: Callable[[float], Awaitable[bool]]
    ) -> None:
        """`settled` waits until all clients have taken in what they were told, for so many seconds at the most."""
        self._registry, self._store, self._clock, self._settled = registry, store, clock, settled
        self._one_at_a_time = asyncio.Lock()

    @property
    def newest(self) -> int:
        """Number of the newest revision of any route."""
        return max((history.newest for history in self._store.histories.values()), default=0)

    def contracts_of(self, name: str) -> tuple[str, ...]:
        """The contracts that a name stands for. Raises ServiceUnknown."""
        self._registry.resolve(name)
        views = self._registry.views()
        if name in views:
            return tuple(sorted(set(views[name].known.contracts) - {EVERYWHERE}))
        known = {*self._registry.contracts(), *(c for view in views.values() for c in view.known.contracts)}
        return tuple(sorted(c for c in known if name in (c, c.rpartition(".")[2])))

    async def set(self, name: str, rule: RouteRule, change: Change) -> tuple[RouteStanding, ...]:
        """Sets the route of all contracts of a name.

        Raises ServiceUnknown, RouteInvalid, RouteTargetUnknown, RevisionMoved or RequestReused.
        """
        check_rule(rule)

        def check(contract: str) -> None:
            check_targets(contract, rule, self._instances(contract))

        return await self._change(name, change, lambda old, number, author: old.changed(number, rule, author), check)

    async def delete(self, name: str, change: Change) -> tuple[RouteStanding, ...]:
        """Removes the routes of all contracts of a name that have one. Raises ServiceUnknown, RouteUnknown, RevisionMoved or RequestReused."""
        return await self._change(name, change, lambda old, number, author: old.changed(number, None, author))

    async def roll_back(self, name: str, to_revision: int | None, change: Change) -> tuple[RouteStanding, ...]:
        """Goes back one change or to a revision. Raises ServiceUnknown, RouteUnknown, RevisionMoved or RequestReused."""
        return await self._change(
            name, change, lambda old, number, author: old.rolled_back(number, to_revision, author)
        )

    def standing(self, contract: str) -> RouteStanding:
        """The route of one contract as it is followed now."""
        history = self._history(contract)
        if history.rule is None:
            return RouteStanding(history)
        there = self._instances(contract)
        in_rotation = [present for present in there if present.rotation() is Rotation.IN]
        selectors = tuple(
            SelectorStanding(
                selector,
                tuple(sorted(str(present.key) for present in there if selector.fits(present))),
                tuple(sorted(str(present.key) for present in in_rotation if selector.fits(present))),
            )
            for selector in history.rule.selectors()
        )
        return RouteStanding(history, selectors, spread(history.rule, in_rotation).notes)

    def list(self, name: str, *, with_earlier: bool) -> tuple[RouteStanding, ...]:
        """The routes of the contracts of a name, or all when it is empty; with those that were removed when asked for. Raises ServiceUnknown."""
        contracts = self.contracts_of(name) if name else sorted(self._store.histories)
        histories = [self._history(contract) for contract in contracts]
        return tuple(
            self.standing(history.contract)
            for history in histories
            if history.rule is not None or (with_earlier and history.revisions)
        )

    async def _change(
        self,
        name: str,
        change: Change,
        make: Callable[[RouteHistory, int, Author], RouteHistory],
        check: Callable[[str], None] = lambda _contract: None,
    ) -> tuple[RouteStanding, ...]:
        async with self._one_at_a_time:
            contracts = self.contracts_of(name)
            todo = [contract for contract in contracts if not self._done_before(contract, change)]
            newest = max((_before(self._history(contract), change) for contract in contracts), default=0)
            if todo and change.expected is not None and change.expected != newest:
                raise RevisionMoved(name, change.expected, newest)
            for contract in todo:
                check(contract)
            author = Author(change.request_id, change.actor, change.reason, self._clock.wall_ns(), change.asked)
            made = _made([self._history(contract) for contract in todo], make, self.newest + 1, author)
            for history in made:
                await self._save(history)
            if made:
                self._registry.changed(at_once=True)
                await self._settled(TAKEN_IN_SECONDS)
        return tuple(self.standing(contract) for contract in contracts)

    async def _save(self, history: RouteHistory) -> None:
        try:
            await self._store.save(history)
        except DocumentMoved as error:
            raise RevisionMoved(history.contract, history.newest, error.newest) from error
        newest = history.revisions[-1]
        _log.info(
            "route.changed",
            contract=history.contract,
            revision=newest.number,
            restored=newest.restored,
            rule=None if newest.rule is None else repr(newest.rule),
            actor=newest.author.actor,
            reason=newest.author.reason,
        )

    def _done_before(self, contract: str, change: Change) -> bool:
        made = self._history(contract).by_request(change.request_id)
        if made is not None and made.author.asked != change.asked:
            raise RequestReused(change.request_id)
        return made is not None

    def _history(self, contract: str) -> RouteHistory:
        return self._store.histories.get(contract, RouteHistory(contract))

    def _instances(self, contract: str) -> tuple[Present, ...]:
        present = self._registry.instances.present.values()
        return tuple(p for p in present if contract in p.contracts and not p.gone)


def _before(history: RouteHistory, change: Change) -> int:
    """The newest revision that this change did not make itself, should it be asked for a second time."""
    return max((r.number for r in history.revisions if r.author.request_id != change.request_id), default=0)


def _made(
    before: list[RouteHistory],
    make: Callable[[RouteHistory, int, Author], RouteHistory],
    number: int,
    author: Author,
) -> list[RouteHistory]:
    """The histories that change. A contract of several for which there is nothing to do is left out; for one alone that is an error."""
    made: list[RouteHistory] = []
    refused: list[Exception] = []
    for history in before:
        try:
            after = make(history, number, author)
        except LookupError as error:
            refused.append(error)
            continue
        if after is not history:
            made.append(after)
    if refused and len(refused) == len(before):
        raise refused[0]
    return made
