"""Decides how documents are kept in etcd: one key each, whose revision of change is the revision of the document."""

from __future__ import annotations

from typing import Any

from minhos_mesh.registry.store import Document, DocumentChange, DocumentListener, DocumentMoved
from minhos_mesh.registry.stores import etcd_messages as wire
from minhos_mesh.registry.stores.etcd_client import EtcdClient
from minhos_mesh.registry.stores.etcd_layout import Layout


class EtcdDocuments:
    """Documents in etcd."""

    def __init__(self, client: EtcdClient, layout: Layout) -> None:
        self._client, self._layout = client, layout
        self._listeners: list[tuple[str, DocumentListener]] = []

    async def read(self, kind: str, name: str) -> Document | None:
        """The newest value that was acknowledged anywhere; None when there is none."""
        answer = await self._client.call(wire.RANGE, key=self._layout.document(kind, name))
        return self._document(answer.kvs[0]) if answer.kvs else None

    async def list(self, kind: str) -> tuple[Document, ...]:
        """All of one kind by name, as of one revision."""
        _revision, found = await self._client.read_all(self._layout.document(kind, ""))
        return tuple(self._document(pair) for pair in found)

    async def write(self, kind: str, name: str, value: bytes, *, expected: int | None = None) -> int:
        """Keeps a value and returns its revision. Raises DocumentMoved."""
        key = self._layout.document(kind, name)
        conditions = [] if expected is None else [wire.unchanged(key, expected)]
        answer = await self._client.call(
            wire.TXN, compare=conditions, success=[wire.put(key, value)], failure=[wire.read(key)]
        )
        if answer.succeeded:
            return int(answer.header.revision)
        found = answer.responses[0].response_range.kvs
        if found and found[0].value == value:
            return int(found[0].mod_revision)  # an answer was lost on its way, and the write was asked for again
        raise DocumentMoved(kind, name, expected=expected or 0, newest=found[0].mod_revision if found else 0)

    async def delete(self, kind: str, name: str, *, expected: int | None = None) -> bool:
        """Removes a document; says whether it was there. Raises DocumentMoved."""
        key = self._layout.document(kind, name)
        conditions = [] if expected is None else [wire.unchanged(key, expected)]
        answer = await self._client.call(
            wire.TXN, compare=conditions, success=[wire.delete(key)], failure=[wire.read(key)]
        )
        if answer.succeeded:
            return bool(answer.responses[0].response_delete_range.deleted)
        found = answer.responses[0].response_range.kvs
        raise DocumentMoved(kind, name, expected=expected or 0, newest=found[0].mod_revision if found else 0)

    def on_change(self, kind: str, listener: DocumentListener) -> None:
        """Calls `listener` with each change of this kind, as the watch of the store sees it."""
        self._listeners.append((kind, listener))

    def written(self, pair: Any) -> None:
        """The watch saw a document."""
        document = self._document(pair)
        self._tell(DocumentChange(document.kind, document.name, document.revision, document))

    def deleted(self, pair: Any) -> None:
        """The watch saw a document go."""
        _, kind, name = self._layout.parts(pair.key)
        self._tell(DocumentChange(kind, name, pair.mod_revision, None))

    def _document(self, pair: Any) -> Document:
        _, kind, name = self._layout.parts(pair.key)
        return Document(kind, name, pair.value, pair.mod_revision)

    def _tell(self, change: DocumentChange) -> None:
        for kind, listener in tuple(self._listeners):
            if kind == change.kind:
                listener(change)
