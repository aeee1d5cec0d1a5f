"""Decides what is remembered of a change of the world, and what the state manager hears from the trading engine."""

from __future__ import annotations

from dataclasses import dataclass

UPDATE = "state.update"
"""Action of a change of the state itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change: who, what, about what, before and after as JSON (empty when there was nothing), why."""

    entry_id: int = 0
    at_ns: int
    actor: str
    action: str
    subject: str
    before_json: str = ""
    after_json: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingNews:
    """What the trading engine told about mode, state and emergency stop; `after_json` is the whole of it."""

    action: str
    actor: str
    reason: str
    at_ns: int
    after_json: str
    latched: bool
    latch_reason: str
