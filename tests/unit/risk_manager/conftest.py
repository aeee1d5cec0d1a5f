"""Questions and desks that pass every check unless a test changes something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minhos_mesh.matching import OrderType, Side
from minhos_mesh.risk_manager.domain.breaker import Breaker
from minhos_mesh.risk_manager.domain.desk import RiskDesk
from minhos_mesh.risk_manager.domain.limits import RiskLimits, Switches
from minhos_mesh.risk_manager.domain.question import AccountView, Evidence, Provenance, Question
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS
from minhos_mesh.venue.domain.orders import Terms

E9 = 1_000_000_000
NQ = "NQZ26-CME"
P = 25_000 * E9
NOW = 1_795_000_000 * E9
"""18 November 2026, within a session."""

Ask = Callable[..., Question]
MakeDesk = Callable[..., RiskDesk]


@pytest.fixture
def ask() -> Ask:
    def make(request_id: str = "q-1", **changes: Any) -> Question:
        terms_changes = {
            name: changes.pop(name)
            for name in ("symbol", "side", "order_type", "quantity", "limit_price_e9", "stop_price_e9")
            if name in changes
        }
        at_ns = changes.pop("at_ns", NOW)
        terms = replace(Terms(symbol=NQ, side=Side.BUY, order_type=OrderType.MARKET, quantity=1), **terms_changes)
        evidence = Evidence(
            event_time_ns=at_ns, last_e9=P, bid_e9=P, ask_e9=P, sequence=1, epoch=1, provenance=Provenance.SIMULATED
        )
        evidence = replace(evidence, **changes.pop("evidence_changes", {}))
        question = Question(
            request_id=request_id,
            order_id=request_id,
            terms=terms,
            dry_run=False,
            account=AccountView(),
            evidence=evidence,
            decision_time_ns=at_ns,
        )
        return replace(question, **changes)

    return make


@pytest.fixture
def make_desk() -> MakeDesk:
    def make(breaker: Breaker | None = None, live_venue: bool = False, replay: bool = False, **limits: Any) -> RiskDesk:
        desk = RiskDesk(
            limits=RiskLimits(**limits),
            limits_version=1,
            breaker=breaker or Breaker(),
            specs=DEFAULT_INSTRUMENTS,
            approval_ns=10 * E9,
            live_venue=live_venue,
            replay=replay,
        )
        desk.switches = Switches(trading_enabled=True, risk_enabled=True, system_state="ONLINE")
        return desk

    return make
