"""Decides how routes are kept: one document for each contract with its history, as JSON, in the store that all registries share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, Protocol

from minhos_mesh.registry.domain.routes import (
    Author,
    HeaderRule,
    RouteHistory,
    RouteRevision,
    RouteRule,
    Selector,
    SelectorKind,
    Target,
    rules_of,
)
from minhos_mesh.registry.store import Document, DocumentChange
from minhos_mesh.runtime.log import get_logger

KIND: Final = "route"

_log = get_logger("registry.routes")


class RouteDamaged(Exception):
    """Unexpected: a kept route cannot be read. It counts as none, and is left as it is until it is set anew."""


class RouteDocuments(Protocol):
    """What routes need of the store."""

    async def list(self, kind: str) -> tuple[Document, ...]:
        """All documents of a kind."""
        ...

    async def write(self, kind: str, name: str, value: bytes, *, expected: int | None = None) -> int:
        """Keeps a document, when it is at the expected revision, and returns the new one. Raises DocumentMoved."""
        ...

    def on_change(self, kind: str, listener: Callable[[DocumentChange], None]) -> None:
        """Tells each change from now on, whoever made it."""
        ...


class RouteStore:
    """The histories of all routes. What another registry changes is taken in too."""

    def __init__(self, documents: RouteDocuments) -> None:
        self._documents = documents
        self._at: dict[str, int] = {}
        self.histories: dict[str, RouteHistory] = {}
        """By contract, as far as is known here."""

    def rules(self) -> dict[str, RouteRule]:
        """The routes that hold, by contract."""
        return rules_of(self.histories)

    async def load(self, changed: Callable[[], None]) -> None:
        """Reads all histories; `changed` is called from then on when another registry changed one."""
        self._documents.on_change(KIND, lambda change: self._take_in(change, changed))
        for document in await self._documents.list(KIND):
            self._keep(document)

    async def save(self, history: RouteHistory) -> None:
        """Keeps a history, durable when it returns. Raises DocumentMoved when another registry was faster."""
        name = history.contract
        revision = await self._documents.write(KIND, name, encoded(history), expected=self._at.get(name, 0))
        if revision > self._at.get(name, 0):
            self._at[name], self.histories[name] = revision, history

    def _take_in(self, change: DocumentChange, changed: Callable[[], None]) -> None:
        if change.document is not None and self._keep(change.document):
            changed()

    def _keep(self, document: Document) -> bool:
        if document.revision <= self._at.get(document.name, 0):
            return False
        self._at[document.name] = document.revision
        try:
            self.histories[document.name] = decoded(document.name, document.value)
        except RouteDamaged as error:
            _log.exception("route.damaged", contract=document.name, error=str(error))
            self.histories[document.name] = RouteHistory(document.name)
        return True


def encoded(history: RouteHistory) -> bytes:
    """A history as JSON."""
    return json.dumps([_revision_to(revision) for revision in history.revisions], separators=(",", ":")).encode()


def decoded(contract: str, value: bytes) -> RouteHistory:
    """What `encoded` made. Raises RouteDamaged."""
    try:
        return RouteHistory(contract, tuple(_revision_from(revision) for revision in json.loads(value)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RouteDamaged(f"the kept route of {contract} cannot be read: {error!r}") from error


def _revision_to(revision: RouteRevision) -> dict[str, Any]:
    author = revision.author
    return {
        "number": revision.number,
        "rule": None if revision.rule is None else _rule_to(revision.rule),
        "restored": revision.restored,
        "request_id": author.request_id,
        "asked": author.asked,
        "actor": author.actor,
        "reason": author.reason,
        "time_ns": author.time_ns,
    }


def _revision_from(kept: dict[str, Any]) -> RouteRevision:
    author = Author(kept["request_id"], kept["actor"], kept["reason"], kept["time_ns"], kept["asked"])
    rule = None if kept["rule"] is None else _rule_from(kept["rule"])
    return RouteRevision(kept["number"], rule, author, kept["restored"])


def _rule_to(rule: RouteRule) -> dict[str, Any]:
    return {
        "targets": [[t.selector.kind.value, t.selector.value, t.percent] for t in rule.targets],
        "headers": [[h.header, h.exact, h.selector.kind.value, h.selector.value] for h in rule.headers],
        "strict": rule.strict,
    }


def _rule_from(kept: dict[str, Any]) -> RouteRule:
    targets = tuple(Target(Selector(SelectorKind(kind), value), percent) for kind, value, percent in kept["targets"])
    headers = tuple(
        HeaderRule(header, exact, Selector(SelectorKind(kind), value)) for header, exact, kind, value in kept["headers"]
    )
    return RouteRule(targets, headers, kept["strict"])
