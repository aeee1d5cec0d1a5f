"""Decides what each event that the state manager reads leads to, once, whatever the bus delivers again."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from minhos_api.events.v1 import event_pb2
from minhos_api.trading.v1 import trading_events_pb2 as trading
from minhos_mesh.runtime.events import PayloadHandler
from minhos_mesh.runtime.inbox import Inbox
from minhos_mesh.state_manager import translate
from minhos_mesh.state_manager.ports import Receipt
from minhos_mesh.state_manager.service import StateManager

CONSUMER = "state_manager"
"""Name of the durable consumer, and of the inbox."""


class Inbound:
    """Hears events and hands them to the state manager."""

    def __init__(self, manager: StateManager, inbox: Inbox) -> None:
        self._manager, self._inbox = manager, inbox

    def handlers(self) -> Mapping[type[Message], PayloadHandler]:
        """What to do with which payload."""
        return {
            trading.TradeExecuted: self.trade_executed,
            trading.PositionUpdated: self.position_updated,
            trading.TradingStateChanged: self.trading_state_changed,
            trading.EmergencyStopTriggered: self.emergency_stop_triggered,
        }

    async def trade_executed(self, event: event_pb2.Event, payload: trading.TradeExecuted) -> None:
        """Books a fill."""
        told = translate.told_from_pb(payload.position)
        await self._manager.take_trade(self._receipt(event), translate.trade_from_pb(payload), told)

    async def position_updated(self, event: event_pb2.Event, payload: trading.PositionUpdated) -> None:
        """Holds the projection against what its owner says."""
        await self._manager.take_position(self._receipt(event), translate.told_from_pb(payload.position))

    async def trading_state_changed(self, event: event_pb2.Event, payload: trading.TradingStateChanged) -> None:
        """Audits the change and follows the emergency stop."""
        await self._manager.take_news(self._receipt(event), translate.news_from_status(event.type, payload.status))

    async def emergency_stop_triggered(self, event: event_pb2.Event, payload: trading.EmergencyStopTriggered) -> None:
        """Audits the stop and follows it."""
        await self._manager.take_news(self._receipt(event), translate.news_from_latch(event.type, payload.latch))

    def _receipt(self, event: event_pb2.Event) -> Receipt:
        return Receipt(
            sequence=event.sequence,
            is_first=lambda connection: self._inbox.take(connection, event),
            event_id=event.event_id,
            correlation_id=event.correlation_id,
        )
