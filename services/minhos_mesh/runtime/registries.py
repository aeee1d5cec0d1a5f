"""Decides at which registry of the mesh an instance attaches: its own, or another when that one is away for too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

HOME_S: Final = 2.0
"""How long its own registry may be away before an instance goes elsewhere; one that is started again is back sooner."""


class Registries:
    """Says where to try next."""

    def __init__(
        self,
        home: str,
        others: Callable[[], Sequence[str]] = tuple,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`home` is the registry of the data folder; `others` gives those that live or are configured, as known now."""
        self._home, self._others, self._monotonic = home, others, monotonic
        self._away_since: float | None = None
        self.address = home
        """Where to attach."""

    def answered(self) -> None:
        """The registry at `address` has granted a lease; it is kept while it answers."""
        self._away_since = None

    def failed(self) -> None:
        """The registry at `address` does not answer or cannot grant: chooses where to try next."""
        now = self._monotonic()
        if self._away_since is None:
            self._away_since = now
        if self.address == self._home and now - self._away_since < HOME_S:
            return
        others = [other for other in self._others() if other != self._home]
        if self.address == self._home:
            self.address = others[0] if others else self._home
        else:
            at = others.index(self.address) + 1 if self.address in others else len(others)
            self.address = others[at] if at < len(others) else self._home
