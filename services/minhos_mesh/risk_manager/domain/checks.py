"""Decides whether an order may be sent: one small function for each named check, all evaluated, in one ordered table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from minhos_mesh.matching import OrderType
from minhos_mesh.matching.order import LIMITED, STOPPED
from minhos_mesh.risk_manager.domain.breaker import Breaker
from minhos_mesh.risk_manager.domain.exposure import Reach, value_e9
from minhos_mesh.risk_manager.domain.limits import RiskLimits, Switches
from minhos_mesh.risk_manager.domain.question import (
    AccountView,
    CheckCode,
    CheckResult,
    Evidence,
    Held,
    Provenance,
)
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.money import MoneyError, check_scale, check_tick, format_e9
from minhos_mesh.runtime.symbols import Symbol, expiry_date
from minhos_mesh.venue.domain.orders import Terms

DUPLICATE_WINDOW_NS = 1_000_000_000
RATE_WINDOW_NS = 60_000_000_000
CLOCK_TOLERANCE_NS = 5_000_000_000
"""How far a price may lie in the future before its time is taken to be wrong."""
DELAY_ALLOWED_NS = 20 * 60 * 1_000_000_000
"""How much later than its event time DELAYED data may come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that the checks of one order look at; money in 1e-9 units, times in ns."""

    terms: Terms
    symbol: Symbol | None
    spec: InstrumentSpec | None
    unknown_because: str
    now_ns: int
    day: date
    limits: RiskLimits
    switches: Switches | None
    """What the state of the system lets through; None when it was never heard."""
    breaker: Breaker
    evidence: Evidence | None
    session_open: bool
    orders_last_minute: int
    identical_age_ns: int | None
    """How long ago the same order was approved; None when it was not within the window."""
    order_known: bool
    """True when this order id was approved under another request id."""
    view: AccountView
    reach: Mapping[str, Reach]
    """Worst case per symbol with the order itself."""
    reduces: bool
    profit_today_e9: int
    profit_unknown_for: str | None
    drawdown_e9: int
    """Fall from the highest profit of the day."""
    contradiction: str | None
    live_venue: bool
    prices: Callable[[str], int | None]
    multipliers: Callable[[str], int | None]
    own_provenance: Provenance | None


Check = Callable[[Case], CheckResult]


def _result(code: CheckCode, passed: bool, observed: str, limit: str, failed: str) -> CheckResult:
    name = code.name.replace("_", " ").capitalize()
    return CheckResult(code, passed, observed, limit, f"{name}: {observed}." if passed else f"{failed}.")


def _money(case: Case, amount_e9: int) -> str:
    return f"{format_e9(amount_e9)} {case.spec.currency if case.spec is not None else ''}".rstrip()


def _freed(code: CheckCode, case: Case, observed: str, limit: str) -> CheckResult | None:
    """Return a passed result for an order that only reduces a position: holding it would be the larger risk."""
    if not case.reduces:
        return None
    message = f"Passes, since the order only reduces the {case.view.positions[case.terms.symbol].quantity} held."
    return CheckResult(code, True, observed, limit, message)


def check_instrument(case: Case) -> CheckResult:
    """The instrument is known, tradeable and not expired."""
    code, limit = CheckCode.INSTRUMENT, "a known, tradeable instrument"
    if case.spec is None or case.symbol is None:
        return CheckResult(code, False, case.terms.symbol, limit, f"{case.unknown_because}.")
    if not case.spec.tradeable:
        return CheckResult(
            code, False, case.terms.symbol, limit, f"{case.terms.symbol} is quoted only and cannot be traded."
        )
    if case.symbol.is_future and expiry_date(case.symbol) < case.day:
        expired = expiry_date(case.symbol).isoformat()
        return CheckResult(code, False, f"expired {expired}", limit, f"{case.terms.symbol} expired on {expired}.")
    return _result(code, True, case.terms.symbol, limit, "")


def check_quantity(case: Case) -> CheckResult:
    """The quantity is within the bounds of one order."""
    quantity, most = case.terms.quantity, case.limits.max_order_quantity
    observed, limit = f"{quantity} contracts", f"1 to {most} contracts"
    freed = _freed(CheckCode.QUANTITY, case, observed, limit)
    if freed is not None and quantity >= 1:
        return freed
    failed = f"An order of {quantity} contracts is not within 1 to {most}"
    return _result(CheckCode.QUANTITY, 1 <= quantity <= most, observed, limit, failed)


def _prices(terms: Terms) -> tuple[tuple[str, int], ...]:
    named = (("limit_price_e9", terms.limit_price_e9), ("stop_price_e9", terms.stop_price_e9))
    return tuple((name, price) for name, price in named if price is not None)


def check_price_tick(case: Case) -> CheckResult:
    """The prices that the type needs are there, on the scale and on the tick."""
    code, terms = CheckCode.PRICE_TICK, case.terms
    if case.spec is None:
        return CheckResult(code, False, "tick not known", "a multiple of the tick", "The tick is not known.")
    limit = f"a multiple of {format_e9(case.spec.tick_e9)}"
    observed = ", ".join(format_e9(price) for _, price in _prices(terms)) or "no price"
    for name, price, needed in (
        ("limit_price_e9", terms.limit_price_e9, terms.order_type in LIMITED),
        ("stop_price_e9", terms.stop_price_e9, terms.order_type in STOPPED),
    ):
        if (price is not None) != needed:
            wants = "needs" if needed else "has no"
            return CheckResult(code, False, observed, limit, f"A {terms.order_type.value} order {wants} {name}.")
    reference = case.evidence.reference_e9 if case.evidence is not None else None
    try:
        for name, price_e9 in _prices(terms):
            check_scale(price_e9, field=name, tick_e9=case.spec.tick_e9, reference_e9=reference)
            check_tick(price_e9, case.spec.tick_e9, field=name)
    except MoneyError as wrong:
        return CheckResult(code, False, observed, limit, f"{wrong}.")
    return _result(code, True, observed, limit, "")


def check_price_collar(case: Case) -> CheckResult:
    """Prices of the order are near the last one."""
    code, most = CheckCode.PRICE_COLLAR, case.limits.price_collar_ticks
    limit = f"{most} ticks"
    if case.terms.order_type is OrderType.MARKET and not _prices(case.terms):
        return _result(code, True, "no price of its own", limit, "")
    reference = case.evidence.reference_e9 if case.evidence is not None else None
    if reference is None or case.spec is None:
        return CheckResult(code, False, "no price to compare with", limit, "There is no price to compare with.")
    away = max((abs(price - reference) for _, price in _prices(case.terms)), default=0)
    ticks = -(-away // case.spec.tick_e9)
    failed = f"A price is {ticks} ticks from the last one, {format_e9(reference)}; {most} are allowed"
    return _result(code, ticks <= most, f"{ticks} ticks", limit, failed)


def check_fresh_price(case: Case) -> CheckResult:
    """The newest price is fresh."""
    code, limit = CheckCode.FRESH_PRICE, f"{_seconds(case.limits.max_price_age_ns)} s"
    evidence = case.evidence
    if evidence is None or evidence.reference_e9 is None or evidence.event_time_ns is None:
        return CheckResult(code, False, "no price", limit, f"There is no price of {case.terms.symbol}.")
    age_ns, allowed_ns = case.now_ns - evidence.event_time_ns, age_allowed_ns(case.limits, evidence.provenance)
    observed = f"{_seconds(age_ns)} s"
    if age_ns < -CLOCK_TOLERANCE_NS:
        return CheckResult(code, False, observed, limit, "The newest price lies in the future: a clock is wrong.")
    failed = f"The newest price is {observed} old; {_seconds(allowed_ns)} s are allowed"
    return _result(code, age_ns <= allowed_ns, observed, limit, failed)


def age_allowed_ns(limits: RiskLimits, provenance: Provenance) -> int:
    """Return how old a price of this origin may be that an order is based on."""
    return limits.max_price_age_ns + (DELAY_ALLOWED_NS if provenance is Provenance.DELAYED else 0)


def _seconds(time_ns: int) -> str:
    return format_e9(time_ns // 1_000_000 * 1_000_000, at_least=1)


def check_session(case: Case) -> CheckResult:
    """The session is open."""
    observed = "open" if case.session_open else "closed"
    return _result(CheckCode.SESSION, case.session_open, observed, "open", "The session is closed")


def check_trading_enabled(case: Case) -> CheckResult:
    """Trading is enabled by the limits and by the state of the system, which runs; one that was never heard enables nothing."""
    code, off = CheckCode.TRADING_ENABLED, _switched_off(case)
    observed = f"off: {', '.join(off)}" if off else "enabled"
    freed = _freed(code, case, observed, "enabled") if off else None
    return freed or _result(
        code, not off, observed, "enabled", f"Trading is switched off ({', '.join(off)}); only reductions pass"
    )


def _switched_off(case: Case) -> list[str]:
    switches = case.switches
    state = (
        [(False, "the state manager has never been heard")]
        if switches is None
        else [
            (switches.trading_enabled, "trading_enabled of the state is false"),
            (switches.risk_enabled, "risk_enabled of the state is false"),
            (switches.running, f"system_state is {switches.system_state}"),
        ]
    )
    named = [(case.limits.trading_enabled, "trading_enabled of the risk limits is false"), *state]
    return [text for enabled, text in named if not enabled]


def check_breaker(case: Case) -> CheckResult:
    """The breaker is not tripped."""
    code, breaker = CheckCode.BREAKER, case.breaker
    observed = f"tripped by {breaker.tripped_by}" if breaker.tripped else "not tripped"
    freed = _freed(code, case, observed, "not tripped") if breaker.tripped else None
    failed = f"The breaker was tripped by {breaker.tripped_by}: {breaker.reason}"
    return freed or _result(code, not breaker.tripped, observed, "not tripped", failed)


def check_order_rate(case: Case) -> CheckResult:
    """Orders do not come too fast."""
    code, most, count = CheckCode.ORDER_RATE, case.limits.max_orders_per_minute, case.orders_last_minute
    observed, limit = f"{count} orders before it in 60 s", f"{most} orders in 60 s"
    freed = _freed(code, case, observed, limit) if count >= most else None
    failed = f"{count} orders were approved in the last 60 s; {most} are allowed"
    return freed or _result(code, count < most, observed, limit, failed)


def check_duplicate(case: Case) -> CheckResult:
    """The same order is not asked for again within a second, nor its id under another request id."""
    code, limit = CheckCode.DUPLICATE, f"the same order not within {_seconds(DUPLICATE_WINDOW_NS)} s"
    if case.order_known:
        return CheckResult(code, False, "order id seen", limit, "This order id was approved under another request id.")
    age = case.identical_age_ns
    observed = "not seen" if age is None else f"the same {_seconds(age)} s ago"
    return _result(code, age is None, observed, limit, f"The same order was approved {_seconds(age or 0)} s ago")


def check_position_limit(case: Case) -> CheckResult:
    """The position stays within its limit, with working orders and reservations."""
    code, most, symbol = CheckCode.POSITION_LIMIT, case.limits.max_position, case.terms.symbol
    reach = case.reach[symbol]
    observed, limit = f"{reach.held} held, at worst {reach.widest} contracts", f"{most} contracts"
    freed = _freed(code, case, observed, limit) if reach.widest > most else None
    failed = (
        f"With working orders and reservations it could reach {reach.widest} contracts of {symbol}; {most} are allowed"
    )
    return freed or _result(code, reach.widest <= most, observed, limit, failed)


def check_open_positions(case: Case) -> CheckResult:
    """Not too many symbols are open."""
    code, most = CheckCode.OPEN_POSITIONS, case.limits.max_open_positions
    count = sum(1 for reach in case.reach.values() if reach.widest > 0)
    observed, limit = f"{count} symbols", f"{most} symbols"
    freed = _freed(code, case, observed, limit) if count > most else None
    failed = f"{count} symbols would be open; {most} are allowed"
    return freed or _result(code, count <= most, observed, limit, failed)


def check_exposure(case: Case) -> CheckResult:
    """The value of all positions stays within its limit."""
    code, most = CheckCode.EXPOSURE, case.limits.max_exposure_e9
    limit, total = _money(case, most), 0
    for symbol, reach in case.reach.items():
        held = case.view.positions.get(symbol, Held())
        value = value_e9(symbol, reach.widest, held, case.prices, case.multipliers(symbol))
        if value is None:
            freed = _freed(code, case, "not known", limit)
            return freed or CheckResult(code, False, "not known", limit, f"The value of {symbol} is not known.")
        total += value
    freed = _freed(code, case, _money(case, total), limit) if total > most else None
    failed = f"All positions together could be worth {_money(case, total)}; {limit} are allowed"
    return freed or _result(code, total <= most, _money(case, total), limit, failed)


def check_daily_loss(case: Case) -> CheckResult:
    """The loss of the day is within its limit."""
    code, most = CheckCode.DAILY_LOSS, case.limits.max_daily_loss_e9
    loss = max(-case.profit_today_e9, 0)
    observed, limit = f"{_money(case, loss)} lost", _money(case, most)
    if case.profit_unknown_for is not None:
        observed = f"not known for {case.profit_unknown_for}"
    passed = case.profit_unknown_for is None and loss <= most
    freed = _freed(code, case, observed, limit) if not passed else None
    failed = f"The loss of the day is {observed}; {limit} are allowed"
    return freed or _result(code, passed, observed, limit, failed)


def check_drawdown(case: Case) -> CheckResult:
    """The fall from the highest equity of the day is within its limit."""
    code, most, fall = CheckCode.DRAWDOWN, case.limits.max_drawdown_e9, case.drawdown_e9
    observed, limit = _money(case, fall), _money(case, most)
    freed = _freed(code, case, observed, limit) if fall > most else None
    failed = f"Equity is {observed} below its highest of the day; {limit} are allowed"
    return freed or _result(code, fall <= most, observed, limit, failed)


def check_account_view(case: Case) -> CheckResult:
    """The asker's view of the account does not contradict the published facts."""
    code, observed = CheckCode.ACCOUNT_VIEW, f"version {case.view.version}"
    limit = "no contradiction to published facts"
    return _result(code, case.contradiction is None, observed, limit, f"Contradiction: {case.contradiction}")


def check_provenance(case: Case) -> CheckResult:
    """The origin of the data is allowed at the venue, and is what this service sees itself."""
    code, seen = CheckCode.PROVENANCE, case.evidence.provenance if case.evidence is not None else Provenance.UNSPECIFIED
    limit = "LIVE" if case.live_venue else "LIVE, DELAYED, REPLAY or SIMULATED"
    if case.own_provenance is not None and seen is not case.own_provenance:
        known = case.own_provenance.name
        return CheckResult(code, False, seen.name, known, f"The data is said to be {seen.name} and is {known}.")
    allowed = seen is Provenance.LIVE if case.live_venue else seen is not Provenance.UNSPECIFIED
    return _result(code, allowed, seen.name, limit, f"Data that is {seen.name} may not lead to an order here")


CHECKS: tuple[tuple[CheckCode, Check], ...] = (
    (CheckCode.INSTRUMENT, check_instrument),
    (CheckCode.QUANTITY, check_quantity),
    (CheckCode.PRICE_TICK, check_price_tick),
    (CheckCode.PRICE_COLLAR, check_price_collar),
    (CheckCode.FRESH_PRICE, check_fresh_price),
    (CheckCode.SESSION, check_session),
    (CheckCode.TRADING_ENABLED, check_trading_enabled),
    (CheckCode.BREAKER, check_breaker),
    (CheckCode.ORDER_RATE, check_order_rate),
    (CheckCode.DUPLICATE, check_duplicate),
    (CheckCode.POSITION_LIMIT, check_position_limit),
    (CheckCode.OPEN_POSITIONS, check_open_positions),
    (CheckCode.EXPOSURE, check_exposure),
    (CheckCode.DAILY_LOSS, check_daily_loss),
    (CheckCode.DRAWDOWN, check_drawdown),
    (CheckCode.ACCOUNT_VIEW, check_account_view),
    (CheckCode.PROVENANCE, check_provenance),
)


def evaluate(case: Case) -> tuple[CheckResult, ...]:
    """Evaluate every check, in the order of the table."""
    return tuple(check(case) for _, check in CHECKS)
