"""Decides which order of ours a report is about, holds back what comes too early, and settles all of them on a connect."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from minhos_mesh.dtc.enums import BuySell
from minhos_mesh.dtc.order_state import (
    Applied,
    OrderState,
    TrackedOrder,
    VenueUpdate,
    apply,
    book,
    confirm,
    dispute,
    end,
    judge,
    lose,
    settle,
)
from minhos_mesh.dtc.reports import FillReport, OrderReport
from minhos_mesh.dtc.settled import contracts, said, totals

HELD_BACK: Final = 1_000
"""Reports of orders that are not known (yet), which are kept until their order is told; the oldest are dropped."""

NEVER: Final = 1 << 62
ON_THE_WAY_NS: Final = 5_000_000_000
"""How long an order may take to the server, also on a connection that is broken on our side."""

_TOLD: Final = 3
"""How many possible fills are named."""
_SAME_FILL_NS: Final = 2_000_000_000
"""Fills of a list carry whole seconds: two of the same size and price that close together may be one."""


@dataclass(slots=True)
class LedgerCounts:
    """What reports turned out to be."""

    reports: int = 0
    without_news: int = 0
    """Reports that changed nothing: told twice, or older than what was known."""
    not_ours: int = 0
    """Reports of orders that were not placed here, or whose order was not told yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a server has listed when it was asked on a connect, complete."""

    open_orders: tuple[OrderReport, ...]
    fills: tuple[FillReport, ...]
    fills_from_ns: int
    """All fills since then are in the list."""
    asked_ns: int = NEVER
    """When it was asked for."""
    on_the_way_ns: int = ON_THE_WAY_NS
    """How long before that an order may have been sent, or lost, and still be on its way to the server."""
    account_is_ours: bool = False
    """True when nobody else trades on the account: then a fill that no known order explains is of an unknown one."""
    reported: bool = False
    """True when the open orders were given to report() as they came, between what else the server told."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """Contracts by symbol, negative when short; a symbol that is not in it is flat."""


class OrderLedger:
    """Our orders at one server; every change comes back as updates, nothing is told twice."""

    def __init__(self, orders: Iterable[TrackedOrder] = ()) -> None:
        """Begins with the orders that were known before, for example from a store."""
        self.counts = LedgerCounts()
        self._orders: dict[str, TrackedOrder] = {}
        self._by_server_id: dict[str, str] = {}
        self._changed: dict[str, TrackedOrder] = {}
        self._early: deque[OrderReport] = deque(maxlen=HELD_BACK)
        for order in orders:
            self._keep(order)
        self._changed.clear()

    def __len__(self) -> int:
        return len(self._orders)

    def get(self, client_order_id: str) -> TrackedOrder | None:
        """An order by our id."""
        return self._orders.get(client_order_id)

    def all(self) -> tuple[TrackedOrder, ...]:
        """Every order in the order in which they were placed."""
        return tuple(self._orders.values())

    def alive(self) -> tuple[TrackedOrder, ...]:
        """The orders that work, or of which that is not known."""
        return tuple(order for order in self._orders.values() if not order.state.done)

    def take_changed(self) -> list[TrackedOrder]:
        """The orders that have changed since this was last called, also in what nobody is told of, to be written down."""
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def knows(self, server_order_id: str, client_order_id: str) -> bool:
        """Whether either id is that of an order of ours."""
        return server_order_id in self._by_server_id or client_order_id in self._orders

    def placed(self, order: TrackedOrder) -> None:
        """Notes an order before it is sent. Raises ValueError for an id that was used before."""
        if order.client_order_id in self._orders:
            raise ValueError(f"order {order.client_order_id} was placed before")
        self._keep(order)

    def report(self, report: OrderReport) -> tuple[VenueUpdate, ...]:
        """Takes one ORDER_UPDATE, from now or from a list, whenever it comes."""
        self.counts.reports += 1
        order = self._find(report)
        if order is None:
            self.counts.not_ours += 1
            self._early.append(report)
            return ()
        known = set(order.server_order_ids)
        applied = apply(order, report)
        if applied.order == order and not applied.updates:
            self.counts.without_news += 1
        self._keep(applied.order)
        learnt = set(applied.order.server_order_ids) - known
        return (*applied.updates, *(self._take_up(learnt) if learnt and self._early else ()))

    def listed_fills(self, fills: Sequence[FillReport]) -> tuple[VenueUpdate, ...]:
        """Takes a list of fills; those that were told before are left out, also under another execution id."""
        told: list[VenueUpdate] = []
        by_order: dict[str, list[FillReport]] = {}
        for fill in fills:
            client_id = self._by_server_id.get(fill.server_order_id)
            if client_id is not None:
                by_order.setdefault(client_id, []).append(fill)
        for client_id, listed in by_order.items():
            for fill in _not_told(self._orders[client_id].told_by_server, listed):
                told += self._settle(book(self._orders[client_id], fill))
        return tuple(told)

    def disconnected(self, now_ns: int) -> tuple[VenueUpdate, ...]:
        """The connection broke: what was sent and not answered is now unknown."""
        told: list[VenueUpdate] = []
        for order in self.alive():
            told += self._settle(lose(order, "the connection broke before the server answered", now_ns))
        return tuple(told)

    def settle(
        self, client_order_id: str, fills: Sequence[FillReport], state: OrderState, text: str
    ) -> tuple[VenueUpdate, ...]:
        """Ends an order by the word of a person. Raises KeyError for an id that is not known."""
        return self._settle(settle(self._orders[client_order_id], fills, state, text))

    def confirm(self, client_order_id: str) -> tuple[VenueUpdate, ...]:
        """Ends the dispute about an order that a person has settled. Raises KeyError for an id that is not known."""
        return self._settle(confirm(self._orders[client_order_id]))

    def reconcile(self, listing: Listing, concerned: Collection[str] | None = None) -> tuple[VenueUpdate, ...]:
        """Settles orders by what the server has listed; afterwards none is unknown that the lists can settle.

        On a connect, before anything new is sent, all are concerned; in mid-session only those that the server had
        answered before it was asked, by our ids.
        """
        told: list[VenueUpdate] = []
        listed: set[str] = set()
        for report in listing.open_orders:
            told += () if listing.reported else self.report(report)
            found = self._find(report)
            if found is not None:
                listed.add(found.client_order_id)
        told += self.listed_fills(listing.fills)
        settled = [
            order.client_order_id
            for order in self.alive()
            if order.client_order_id not in listed and (concerned is None or order.client_order_id in concerned)
        ]
        if listing.account_is_ours:
            told += self._adopt(settled, listing)
        strange = Strange(
            tuple(self._strange(listing.fills)),
            tuple(report for report in listing.open_orders if self._find(report) is None),
        )
        for client_id in settled:
            order = self._orders[client_id]
            if not order.state.done:
                told += self._settle(_not_listed(order, listing, strange))
        for order in [order for order in self._orders.values() if order.settled and _is_told_of(order, listing)]:
            if order.client_order_id not in listed:
                told += self._compare(order, listing)
        return tuple(told)

    def _compare(self, order: TrackedOrder, listing: Listing) -> tuple[VenueUpdate, ...]:
        """Compares the word of a person on an order with a list that holds everything of it."""
        if order.server_order_ids:
            return self._settle(judge(order, max(order.final_quantity or 0, contracts(order.heard))))
        if not order.settled_fills and not listing.account_is_ours:
            return ()  # whose the fills of unknown orders are nobody can tell
        groups: dict[str, list[FillReport]] = {}
        for fill in listing.fills:
            if fill.server_order_id not in self._by_server_id and _could_be_of(order, fill):
                groups.setdefault(fill.server_order_id, []).append(fill)
        alike = [server_id for server_id, fills in groups.items() if totals(fills) == totals(order.settled_fills)]
        if len(alike) == 1:
            self._keep(replace(order, server_order_ids=(alike[0],)))
            return (*self.listed_fills(groups[alike[0]]), *self._settle(judge(self._orders[order.client_order_id])))
        possible = [f"{said(fills)} ({server_id})" for server_id, fills in groups.items() if _explains(order, fills)]
        if alike or not (order.settled_fills or possible):
            return self._settle(dispute(order, ""))
        others = f", but of orders that nobody knows {'; '.join(possible[:_TOLD])}" if possible else ""
        text = f"a person has told {said(order.settled_fills)}, and the server lists no such fill{others}"
        return self._settle(dispute(order, text))

    def _adopt(self, unsettled: Sequence[str], listing: Listing) -> tuple[VenueUpdate, ...]:
        """Gives the fills of an unknown server order to the one order of ours that they can be of, when there is one."""
        groups: dict[str, list[FillReport]] = {}
        for fill in self._strange(listing.fills):
            groups.setdefault(fill.server_order_id, []).append(fill)
        nameless = [self._orders[client_id] for client_id in unsettled if not self._orders[client_id].server_order_ids]
        told: list[VenueUpdate] = []
        for server_id, fills in groups.items():
            takers = [order for order in nameless if _explains(order, fills)]
            if len(takers) == 1 and sum(_explains(takers[0], other) for other in groups.values()) == 1:
                self._keep(replace(takers[0], server_order_ids=(server_id,)))
                told += self.listed_fills(fills)
        return tuple(told)

    def _strange(self, fills: Iterable[FillReport]) -> list[FillReport]:
        """Fills of no order that is known by its id, but for those that a person has told already."""
        strange = [fill for fill in fills if fill.server_order_id not in self._by_server_id]
        settled = [order for order in self._orders.values() if order.settled] if strange else []
        for told in (fill for order in settled if not order.server_order_ids for fill in order.fills):
            twin = next((fill for fill in strange if _same_fill(told, fill)), None)
            if twin is not None:
                strange.remove(twin)
        return strange

    def _find(self, report: OrderReport) -> TrackedOrder | None:
        for server_id in (report.server_order_id, report.previous_server_order_id):
            client_id = self._by_server_id.get(server_id) if server_id else None
            if client_id is not None:
                return self._orders[client_id]
        return self._orders.get(report.client_order_id) if report.client_order_id else None

    def _keep(self, order: TrackedOrder) -> None:
        if self._orders.get(order.client_order_id) == order:
            return
        self._changed[order.client_order_id] = order
        self._orders[order.client_order_id] = order
        for server_id in order.server_order_ids:
            self._by_server_id[server_id] = order.client_order_id

    def _settle(self, applied: Applied) -> tuple[VenueUpdate, ...]:
        self._keep(applied.order)
        return applied.updates

    def _take_up(self, server_ids: set[str]) -> tuple[VenueUpdate, ...]:
        """Applies what was held back of an order whose id is now known."""
        due = [report for report in self._early if report.server_order_id in server_ids]
        for report in due:
            self._early.remove(report)
            self.counts.reports -= 1
            self.counts.not_ours -= 1
        return tuple(update for report in due for update in self.report(report))


@dataclass(frozen=True, slots=True)
class Strange:
    """What a server has listed that is of no order we know by its id."""

    fills: tuple[FillReport, ...]
    open_orders: tuple[OrderReport, ...]


def _is_told_of(order: TrackedOrder, listing: Listing) -> bool:
    """Whether a list holds everything of an order that a person has settled."""
    last_ns = max((fill.time_ns or 0 for fill in order.settled_fills), default=0)
    return listing.fills_from_ns <= order.submitted_ns and last_ns <= listing.asked_ns


def _not_listed(order: TrackedOrder, listing: Listing, strange: Strange) -> Applied:
    """An order that the server does not list among the open ones; its listed fills are booked."""
    if order.filled_quantity >= order.quantity:
        return end(order, OrderState.FILLED, "")
    if order.missing_quantity or listing.fills_from_ns > order.submitted_ns:
        return _unknown(order, "the server no longer lists it, and its list of fills does not say what was filled")
    if order.server_order_ids:
        text = f"the server no longer lists it: {order.filled_quantity} of {order.quantity} were filled"
        return end(order, OrderState.CANCELED, text)
    if listing.asked_ns - max(order.submitted_ns, order.lost_ns) < listing.on_the_way_ns:
        return _unknown(order, "the server does not list it, and it may still be on its way there")
    if any(_could_be_of(order, fill) for fill in strange.fills):
        return _unknown(order, "the server does not list it, and has fills that may be of it")
    if any(not report.client_order_id and _alike_terms(order, report) for report in strange.open_orders):
        return _unknown(order, "the server lists an order without our id that may be it")
    return end(order, OrderState.REJECTED, "the server never took it: it is not listed, and no fill can be of it")


def _unknown(order: TrackedOrder, text: str) -> Applied:
    return (
        Applied(order)
        if (order.state, order.text) == (OrderState.UNKNOWN, text)
        else end(order, OrderState.UNKNOWN, text)
    )


def _could_be_of(order: TrackedOrder, fill: FillReport) -> bool:
    late = fill.time_ns is None or fill.time_ns + _SAME_FILL_NS >= order.submitted_ns
    return late and (fill.symbol, fill.side) == (order.symbol, order.side)


def _explains(order: TrackedOrder, fills: Sequence[FillReport]) -> bool:
    """Whether fills of one server order can be of an order: instrument, side, time, quantity and its limit allow it."""
    sign = 1 if order.side is BuySell.BUY else -1
    limit_e9 = order.limit_price_e9
    within = limit_e9 is None or all(sign * fill.price_e9 <= sign * limit_e9 for fill in fills)
    whole = sum(fill.quantity for fill in fills) <= order.quantity
    return within and whole and all(_could_be_of(order, fill) for fill in fills)


def _alike_terms(order: TrackedOrder, report: OrderReport) -> bool:
    return (report.symbol, report.side) == (order.symbol, order.side)


def _not_told(told: Sequence[FillReport], listed: Sequence[FillReport]) -> list[FillReport]:
    """The fills of a list that were not told before; what was told under an id that the list lacks is matched by likeness."""
    ids = {fill.execution_id for fill in listed}
    unmatched = [fill for fill in told if fill.execution_id not in ids]
    known = {fill.execution_id for fill in told}
    fresh: list[FillReport] = []
    for fill in listed:
        if fill.execution_id in known:
            continue
        twin = next((other for other in unmatched if _alike(other, fill)), None)
        if twin is None:
            fresh.append(fill)
        else:
            unmatched.remove(twin)
    return fresh


def _alike(known: FillReport, fill: FillReport) -> bool:
    vague = known.time_ns is None or fill.time_ns is None
    near = vague or abs((known.time_ns or 0) - (fill.time_ns or 0)) <= _SAME_FILL_NS
    return near and (known.quantity, known.price_e9) == (fill.quantity, fill.price_e9)


def _same_fill(one: FillReport, other: FillReport) -> bool:
    """Whether two fills can be the same but for when they happened."""
    return (one.symbol, one.side, one.quantity, one.price_e9) == (
        other.symbol,
        other.side,
        other.quantity,
        other.price_e9,
    )
