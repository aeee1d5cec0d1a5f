"""Decides who may feed a symbol: one source of one generation and one provenance at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Provenance(IntEnum):
    """Where market data comes from."""

    LIVE = 1
    DELAYED = 2
    REPLAY = 3
    SIMULATED = 4


@dataclass(frozen=True, slots=True)
class Source:
    """Who feeds a symbol with which generation of data."""

    name: str
    provenance: Provenance
    epoch: int


class SourceConflict(Exception):
    """Expected: another source feeds the symbol, or another stream of the same source took the place of this one."""

    def __init__(self, symbol: str, source: Source, held: Source, why: str) -> None:
        self.symbol, self.source, self.epoch = symbol, source.name, source.epoch
        self.held, self.held_epoch = held.name, held.epoch
        super().__init__(
            f"{symbol} is fed by {held.name} (epoch {held.epoch}): {source.name} (epoch {source.epoch}) {why}"
        )


class ProvenanceRefused(Exception):
    """Expected: a source changed its provenance without a new epoch."""

    def __init__(self, symbol: str, source: Source, held: Provenance) -> None:
        self.symbol, self.source, self.epoch = symbol, source.name, source.epoch
        self.field, self.seen, self.allowed = "open.provenance", source.provenance.name, held.name
        super().__init__(
            f"source {source.name} of {symbol} was {held.name} and now says {source.provenance.name} under the same "
            f"epoch {source.epoch}: a new provenance needs a new epoch"
        )


def goes_on(symbol: str, held: Source | None, source: Source) -> bool:
    """Whether a source brings more of the generation that is held; another one begins anew.

    Raises ProvenanceRefused when the provenance changes within an epoch, SourceConflict when another source says the
    same epoch.
    """
    if held is None:
        return False
    if (held.name, held.epoch) == (source.name, source.epoch):
        if held.provenance is not source.provenance:
            raise ProvenanceRefused(symbol, source, held.provenance)
        return True
    if held.epoch == source.epoch:
        raise SourceConflict(symbol, source, held, "needs an epoch of its own")
    return False
