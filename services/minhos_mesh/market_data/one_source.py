"""Decides which stream of which source feeds a symbol: one source at a time, and of its streams the newest."""

from __future__ import annotations

from minhos_mesh.market_data.domain.source import Source, SourceConflict
from minhos_mesh.market_data.ports import Owner


class OneSource:
    """What the ticks and the order books of a symbol have in common while the service runs."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self.owner: Owner | None = None
        """The session of the source that is connected."""

    def close(self, owner: Owner) -> None:
        """Disconnects a source, unless another stream has taken its place."""
        if self.owner is owner:
            self.owner = None

    def _refuse_another(self, held: Source | None, source: Source) -> None:
        if self.owner is not None and held is not None and (held.name, held.epoch) != (source.name, source.epoch):
            raise SourceConflict(self._symbol, source, held, "must wait until the stream of that one ends")

    def _seat(self, source: Source, owner: Owner) -> None:
        former, self.owner = self.owner, owner
        if former is not None:
            former.fail(self._replaced(source))

    def _replaced(self, source: Source) -> SourceConflict:
        return SourceConflict(self._symbol, source, source, "has another stream, which took the place of this one")
