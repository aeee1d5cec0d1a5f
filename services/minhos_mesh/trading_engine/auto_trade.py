"""Decides by what rules the machine trades by itself: those of the last state heard, and not at all before the first."""

from __future__ import annotations

from collections.abc import Callable

from minhos_mesh.runtime.state import StateFollower, StateView
from minhos_mesh.trading_engine.domain.signals import AutoRules, SignalPolicy


class AutoTrade:
    """The state of the system as the engine uses it; `policy` is the part of the rules that no state changes."""

    def __init__(self, state: StateFollower, policy: SignalPolicy) -> None:
        self._state = state
        self._policy = policy

    @property
    def rules(self) -> AutoRules | None:
        """What the state says now; None when it was never heard."""
        view = self._state.current
        if view is None:
            return None
        return AutoRules(enabled=view.auto_trade_enabled, threshold=view.auto_threshold, quantity=view.order_quantity)

    def policy(self) -> SignalPolicy:
        """Give the policy that holds now."""
        return self._policy.under(self.rules)

    async def settled(self, timeout_s: float) -> bool:
        """Wait until the state manager has come up, so that a replay never depends on who was there first."""
        try:
            await self._state.wait_until(lambda view: view.settled, timeout_s)
        except TimeoutError:
            return False
        return True

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of the rules."""
        known = self.rules

        def heard(_: StateView) -> None:
            nonlocal known
            before, known = known, self.rules
            if known != before:
                listener()

        self._state.listen(heard)
