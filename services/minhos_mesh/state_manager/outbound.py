"""Decides how a change of the state is told: as an event that is committed together with it."""

from __future__ import annotations

from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.outbox import Outbox
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.state_manager.domain.state import State
from minhos_mesh.state_manager.ports import Receipt
from minhos_mesh.state_manager.translate import state_event

SUBJECT = "state"
"""Subject of the events; there is one state."""


class OutboxAnnouncer:
    """Tells through the outbox of the same database; see `Announcer`."""

    def __init__(self, outbox: Outbox, events: EventClient) -> None:
        self._outbox, self._events = outbox, events

    def changed(self, connection: Connection, state: State, *, actor: str, reason: str, cause: Receipt | None) -> None:
        """Adds the event to the transaction."""
        event = self._events.event(
            state_event(state, actor, reason),
            subject=SUBJECT,
            time_ns=state.updated_ns,
            correlation_id="" if cause is None else cause.correlation_id,
        )
        if cause is not None:
            event.causation_id = cause.event_id
        self._outbox.add(connection, [event])
