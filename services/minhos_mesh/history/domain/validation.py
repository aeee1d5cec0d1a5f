"""Decides which ticks are accepted and under which reason the others are counted: by the source and, for times to come, the clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from minhos_mesh.runtime.tick_layout import VALUES, Row, TickArray, TickFlag, TickKind, Trades

BoolArray = npt.NDArray[np.bool_]

PRICE, SIZE = int(TickFlag.HAS_PRICE), int(TickFlag.HAS_SIZE)
BID, ASK = int(TickFlag.HAS_BID), int(TickFlag.HAS_ASK)
BOTH = BID | ASK
_PRICES = PRICE | BOTH
TRADE, QUOTE = int(TickKind.TRADE), int(TickKind.QUOTE)


class Reason(StrEnum):
    """Why a tick was refused; when several hold, the first in this order counts."""

    MALFORMED = "MALFORMED"
    NON_POSITIVE_PRICE = "NON_POSITIVE_PRICE"
    OFF_TICK = "OFF_TICK"
    CROSSED = "CROSSED"
    ZERO_SIZE = "ZERO_SIZE"
    FUTURE = "FUTURE"
    STALE = "STALE"
    OUT_OF_ORDER = "OUT_OF_ORDER"


REASONS = tuple(Reason)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a symbol's ticks must satisfy; times in ns, prices in 1e-9 units."""

    tick_e9: int
    """Every price is a multiple of it."""
    stale_after_ns: int = 300_000_000_000
    """A tick older than the newest accepted one is OUT_OF_ORDER, and STALE when it is older by more than this."""
    future_after_ns: int = 86_400_000_000_000
    """A tick later than wall time plus this is FUTURE, whatever its provenance: what has not been cannot be history."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which ticks of a batch are accepted."""

    accepted: BoolArray | None
    """A mask; None when all are."""
    rejected: Mapping[Reason, int]
    """How many were refused, by reason."""
    trades: Trades | None = None
    """Columns of the batch where all of it are accepted trades that carry the same."""


ALL_ACCEPTED = Verdict(None, {})


def judge(ticks: TickArray, newest_ns: int, rules: Rules, wall_ns: int) -> Verdict:
    """Judges a batch that follows a tick of event time `newest_ns` (0 = none).

    `wall_ns`, the time now, bounds event times: one record of a wrong year would else make all behind it STALE. One or two
    ticks are judged one by one, which is faster and gives the same.
    """
    if len(ticks) <= 2:
        return _judge_few(ticks, newest_ns, rules, wall_ns)
    trades = Trades.of(ticks)
    if trades is not None and _all_are_good(trades, newest_ns, rules, wall_ns):
        return Verdict(None, {}, trades)
    failures = _failures(ticks, rules, wall_ns)
    good = ~np.logical_or.reduce(list(failures.values()))
    times = ticks["event_time_ns"]
    if not good.all():
        times = np.where(good, times, newest_ns)
    newest = np.maximum.accumulate(np.maximum(times, newest_ns))
    behind = newest - times
    late = good & (behind > 0)
    if good.all() and not late.any():
        return ALL_ACCEPTED
    failures[Reason.STALE] = late & (behind > rules.stale_after_ns)
    failures[Reason.OUT_OF_ORDER] = late
    return _verdict(failures, len(ticks))


def _all_are_good(trades: Trades, newest_ns: int, rules: Rules, wall_ns: int) -> bool:
    """Whether none of these is refused: the usual case, told cheaply. False only says that each has to be judged."""
    carried, times, (price, bid, ask) = trades.carried, trades.event_time_ns, trades.prices_e9
    if not carried & PRICE:
        return False
    latest = wall_ns + rules.future_after_ns
    if not max(newest_ns, 1) <= times[0] or times[-1] > latest or (times[1:] < times[:-1]).any():
        return False
    if carried & BOTH == BOTH:
        if (bid > ask).any() or not _are_steps(trades.prices_e9, rules.tick_e9):
            return False
    else:
        carry = ((price, PRICE), (bid, BID), (ask, ASK))
        if not all(_are_steps(each, rules.tick_e9) for each, flag in carry if carried & flag):
            return False
    return not carried & SIZE or bool(trades.size.all())


def _are_steps(prices_e9: npt.NDArray[np.int64], step: int) -> bool:
    return bool(prices_e9.min() > 0) and not (prices_e9 // step * step != prices_e9).any()


def _failures(ticks: TickArray, rules: Rules, wall_ns: int) -> dict[Reason, BoolArray]:
    flags, kind, times = ticks["flags"], ticks["kind"], ticks["event_time_ns"]
    has_price, has_bid, has_ask = (flags & PRICE) != 0, (flags & BID) != 0, (flags & ASK) != 0
    price, bid, ask = ticks["price_e9"], ticks["bid_e9"], ticks["ask_e9"]
    trade, step = kind == TRADE, rules.tick_e9
    complete = np.where(trade, has_price, (kind == QUOTE) & (has_bid | has_ask))
    return {
        Reason.MALFORMED: ~complete | (times <= 0),
        Reason.NON_POSITIVE_PRICE: (has_price & (price <= 0)) | (has_bid & (bid <= 0)) | (has_ask & (ask <= 0)),
        Reason.OFF_TICK: (has_price & (price % step != 0))
        | (has_bid & (bid % step != 0))
        | (has_ask & (ask % step != 0)),
        Reason.CROSSED: has_bid & has_ask & (bid > ask),
        Reason.ZERO_SIZE: trade & ((flags & SIZE) != 0) & (ticks["size"] == 0),
        Reason.FUTURE: times > wall_ns + rules.future_after_ns,
    }


def _verdict(failures: Mapping[Reason, BoolArray], count: int) -> Verdict:
    open_still = np.ones(count, np.bool_)
    rejected: dict[Reason, int] = {}
    for reason in REASONS:
        if reason in failures:
            hit = open_still & failures[reason]
            if number := int(np.count_nonzero(hit)):
                rejected[reason] = number
                open_still &= ~hit
    return Verdict(open_still, rejected)


def _judge_few(ticks: TickArray, newest_ns: int, rules: Rules, wall_ns: int) -> Verdict:
    mask: list[bool] = []
    rejected: dict[Reason, int] = {}
    latest = wall_ns + rules.future_after_ns
    for row in VALUES.iter_unpack(ticks.tobytes()):
        reason = reason_of(row, newest_ns, rules, latest)
        mask.append(reason is None)
        if reason is None:
            newest_ns = row[0]
        else:
            rejected[reason] = rejected.get(reason, 0) + 1
    return Verdict(np.array(mask, np.bool_), rejected) if rejected else ALL_ACCEPTED


def reason_of(row: Row, newest_ns: int, rules: Rules, latest_ns: int) -> Reason | None:
    """Why one tick is refused; None when it is accepted."""
    time_ns, _, price, bid, ask, size, _, _, flags, kind, _ = row
    step = rules.tick_e9
    if flags & _PRICES != _PRICES:
        price = price if flags & PRICE else step
        bid = bid if flags & BID else step
        ask = ask if flags & ASK else step
    if time_ns <= 0 or not (flags & PRICE if kind == TRADE else kind == QUOTE and flags & BOTH):
        return Reason.MALFORMED
    if price <= 0 or bid <= 0 or ask <= 0:
        return Reason.NON_POSITIVE_PRICE
    if price % step or bid % step or ask % step:
        return Reason.OFF_TICK
    if flags & BOTH == BOTH and bid > ask:
        return Reason.CROSSED
    if kind == TRADE and flags & SIZE and size == 0:
        return Reason.ZERO_SIZE
    if time_ns > latest_ns:
        return Reason.FUTURE
    if time_ns < newest_ns:
        return Reason.STALE if newest_ns - time_ns > rules.stale_after_ns else Reason.OUT_OF_ORDER
    return None
