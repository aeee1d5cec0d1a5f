"""Decides what the state manager asks of the mesh around it, so that each can be another one, or a fake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from minhos_mesh.runtime.storage import Connection
from minhos_mesh.state_manager.domain.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """An event that was heard: its place in the bus, and whether it is heard for the first time."""

    sequence: int
    is_first: Callable[[Connection], bool]
    """Asked once, first thing in the transaction of what the event leads to."""
    event_id: str = ""
    correlation_id: str = ""


class Announcer(Protocol):
    """The way of a change to the mesh; it is written with the change."""

    def changed(self, connection: Connection, state: State, *, actor: str, reason: str, cause: Receipt | None) -> None:
        """Puts a `state.changed` event into the transaction that `connection` is in."""
        ...
