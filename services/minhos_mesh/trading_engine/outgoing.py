"""Decides how facts of the engine become events in its outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minhos_api.events.v1 import event_pb2
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.outbox import Outbox
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.trading_engine.domain.control import Control
from minhos_mesh.trading_engine.ports import TradingFact
from minhos_mesh.trading_engine.service import ControlView
from minhos_mesh.trading_engine.translate_control import payloads_of

_LONGEST_CORRELATION = 64


class OutboxEvents:
    """Puts facts into the outbox; the bus gets them in the order in which the steps were written."""

    def __init__(self, outbox: Outbox, events: EventClient, view: Callable[[Control], ControlView]) -> None:
        self._outbox = outbox
        self._events = events
        self._view = view

    def prepare(self, facts: Sequence[TradingFact]) -> list[object]:
        """Make the events of these facts."""
        made: list[object] = []
        for fact in facts:
            view = None if fact.control is None else self._view(fact.control)
            order_id = "" if fact.order is None else fact.order.order_id
            fits = 0 < len(fact.signal_id) <= _LONGEST_CORRELATION
            for payload, subject in payloads_of(fact, view):
                made.append(
                    self._events.event(
                        payload,
                        subject=subject,
                        time_ns=fact.at_ns,
                        correlation_id=fact.signal_id if fits else order_id,
                    )
                )
        return made

    def add(self, connection: Connection, events: Sequence[Any]) -> None:
        """Write events into the transaction of the step."""
        found: list[event_pb2.Event] = list(events)
        self._outbox.add(connection, found)
