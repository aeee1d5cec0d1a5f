"""Decides how a count that is made piece by piece stays right while events come, are read and are removed."""

from __future__ import annotations


class Behind:
    """How many events a consumer has still to come to."""

    def __init__(self) -> None:
        self.known = False
        """Whether `value` is the number; else it is what is counted so far."""
        self.value = 0
        self.round = 0
        """Grows when a count that is under way means nothing any more."""
        self._counted_through = 0
        self._came_after = 0

    def forget(self) -> None:
        """The number is not known any more."""
        self.known, self.value = False, 0
        self.round += 1

    def begin(self, through: int) -> int:
        """Counting begins: of what is there up to a sequence; what is behind it is told by `came`. Gives the round."""
        self.forget()
        self._counted_through, self._came_after = 0, through
        return self.round

    def count_through(self, sequence: int) -> None:
        """The next piece is about to be counted, up to here."""
        self._counted_through = sequence

    def end(self) -> None:
        """Everything is counted."""
        self.known = True

    def came(self, count: int) -> None:
        """Events were appended."""
        self.value += count

    def gone(self, sequence: int) -> None:
        """An event was read, or removed before it was; one that is not counted yet will not be found any more."""
        if self.known or sequence <= self._counted_through or sequence > self._came_after:
            self.value -= 1
