"""Decides what makes a service less than healthy by its own word."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Conditions:
    """Conditions of one service, each a code and a sentence; empty when all is well."""

    def __init__(self) -> None:
        self._held: dict[str, str] = {}
        self._listeners: list[Callable[[], None]] = []

    def set(self, code: str, message: str) -> None:
        """Holds the condition, for example `NO_TICKS`, until it is cleared."""
        if self._held.get(code) != message:
            self._held[code] = message
            self._tell()

    def clear(self, code: str) -> None:
        """Lets go of the condition; nothing happens when it is not held."""
        if self._held.pop(code, None) is not None:
            self._tell()

    def held(self) -> Mapping[str, str]:
        """What is held now."""
        return dict(self._held)

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every change."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
