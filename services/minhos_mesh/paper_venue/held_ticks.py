"""Decides how far a replay may go: ticks wait here until the engine says that it has acted on everything before them."""

from __future__ import annotations

from collections import deque

from minhos_mesh.runtime.ticks import TickBatchView


class HeldTicks:
    """The ticks of one symbol that came before they may take effect."""

    def __init__(self) -> None:
        self._batches: deque[TickBatchView] = deque()
        self._count = 0
        self._newest = 0
        self._allowed: dict[int, int] = {}
        self._told: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def newest(self) -> int:
        """Sequence of the newest tick that came; 0 before the first."""
        return self._newest

    def restart(self) -> None:
        """Forget the ticks, since the source began anew; what is allowed counts by epoch and stays."""
        self._batches.clear()
        self._count = self._newest = 0

    def add(self, batch: TickBatchView) -> None:
        """Take a batch; what came before is left out."""
        new = batch.after(self._newest)
        if len(new):
            self._batches.append(new)
            self._count += len(new)
            self._newest = new.last_sequence

    def allow(self, epoch: int, through_sequence: int) -> None:
        """Let ticks of an epoch take effect up to a sequence; less than before changes nothing."""
        if through_sequence > self._allowed.get(epoch, 0):
            self._allowed[epoch] = through_sequence

    def release(self, epoch: int) -> list[TickBatchView]:
        """Give the ticks that may take effect now, in order."""
        through = self._allowed.get(epoch, 0)
        released: list[TickBatchView] = []
        while self._batches and self._batches[0].first_sequence <= through:
            batch = self._batches.popleft()
            rest = batch.after(through)
            if len(rest):
                self._batches.appendleft(rest)
                batch = TickBatchView(
                    batch.symbol,
                    batch.provenance,
                    batch.epoch,
                    batch.first_sequence,
                    batch.ticks[: len(batch) - len(rest)],
                )
            self._count -= len(batch)
            released.append(batch)
        return released

    def reached(self, epoch: int, sequence: int) -> bool:
        """Return, once for each place, whether everything that is allowed has taken effect."""
        through = self._allowed.get(epoch, 0)
        if not through or sequence < through or self._told == (epoch, through):
            return False
        self._told = (epoch, through)
        return True
