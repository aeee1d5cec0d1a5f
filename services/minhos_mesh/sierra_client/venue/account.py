"""Decides what the venue holds as the server tells it: positions by the newest word, with our fills since then, and balances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from minhos_mesh.dtc.enums import BuySell
from minhos_mesh.dtc.reports import BalanceReport, FillReport, PositionReport


@dataclass(slots=True)
class ServerAccount:
    """Positions and balance of one account at a DTC server; symbols are the server's own."""

    name: str = ""
    balance: BalanceReport | None = None
    told: dict[str, PositionReport] = field(default_factory=dict)
    """Position by symbol as the server told it last; flat ones are not in it."""
    ours: dict[str, int] = field(default_factory=dict)
    """Contracts that all our fills add up to, in the order of the server's words."""
    since: dict[str, int] = field(default_factory=dict)
    """Contracts that our fills have added since the server told that position, negative when they sold."""

    def settled(self, name: str, positions: Iterable[PositionReport], balance: BalanceReport | None) -> None:
        """Takes a whole list."""
        self.name, self.balance = name, balance or self.balance
        self.told = {position.symbol: position for position in positions if position.quantity}
        self.since.clear()

    def booked(self, fill: FillReport) -> None:
        """Takes a fill of ours, which the server's word on the position may already hold or not."""
        signed = fill.quantity if fill.side is BuySell.BUY else -fill.quantity
        self.since[fill.symbol] = self.since.get(fill.symbol, 0) + signed
        self.ours[fill.symbol] = self.ours.get(fill.symbol, 0) + signed

    def position(self, report: PositionReport) -> None:
        """Takes the server's word on one position."""
        if self.name and report.account not in {"", self.name}:
            return
        self.told.pop(report.symbol, None)
        if report.quantity:
            self.told[report.symbol] = report
        self.since.pop(report.symbol, None)

    def note_balance(self, report: BalanceReport) -> None:
        """Takes the server's word on the balance; what it leaves out stays as it was."""
        if self.name and report.account not in {"", self.name}:
            return
        before = self.balance
        if before is None:
            self.balance = report
            return
        kept: Callable[[int | None, int | None], int | None] = lambda new, old: old if new is None else new  # noqa: E731 - three times the same
        self.balance = replace(
            report,
            currency=report.currency or before.currency,
            cash_e9=kept(report.cash_e9, before.cash_e9),
            available_e9=kept(report.available_e9, before.available_e9),
        )

    def quantity(self, symbol: str) -> int:
        """Contracts as the server told them last, negative when short."""
        found = self.told.get(symbol)
        return 0 if found is None else found.quantity

    def possible(self, symbol: str) -> tuple[int, ...]:
        """What may be held: the server's word, and that with our fills since."""
        told = self.quantity(symbol)
        since = self.since.get(symbol, 0)
        return (told, told + since) if since else (told,)

    @property
    def current(self) -> bool:
        """Whether the server has told every position since our last fill of it."""
        return not any(self.since.values())
