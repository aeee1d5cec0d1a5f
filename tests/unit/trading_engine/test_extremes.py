"""Nothing that the rules let through is more than 64 bits can tell, and what the venue tells is never too much."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_api.brain.v1 import signal_pb2
from minhos_api.market.v1 import provenance_pb2
from minhos_mesh.runtime.money import E9, INT64_MAX, multiply_e9
from minhos_mesh.runtime.storage import Database
from minhos_mesh.trading_engine.domain.account import Account, OrderChange
from minhos_mesh.trading_engine.domain.control import Control, TradingMode
from minhos_mesh.trading_engine.domain.errors import InvalidOrder
from minhos_mesh.trading_engine.domain.order_events import FillReported, OrderCreated
from minhos_mesh.trading_engine.domain.orders import (
    MAX_QUANTITY,
    Fill,
    OrderTerms,
    OrderType,
    Origin,
    Provenance,
    Side,
)
from minhos_mesh.trading_engine.domain.validation import InstrumentSpec, check_terms
from minhos_mesh.trading_engine.ports import TradingFact
from minhos_mesh.trading_engine.store import MIGRATIONS, Changes, Store, decode_control, encode_control
from minhos_mesh.trading_engine.translate import (
    order_to_proto,
    performance_to_proto,
    position_to_proto,
    signal_from_proto,
    time_from_proto,
)
from minhos_mesh.trading_engine.translate_control import payloads_of

SYMBOL = "NQZ26-CME"
LARGEST_PRICE_E9 = 10**15
PRICES = st.integers(1, LARGEST_PRICE_E9 // E9).map(lambda points: points * E9)
INT64 = st.integers(-(2**63), 2**63 - 1)


def spec_of(multiplier: int) -> InstrumentSpec:
    return InstrumentSpec(symbol=SYMBOL, tick_e9=E9, multiplier_e9=multiplier * E9, currency="USD")


@given(
    quantity=st.integers(-(2**63), 2**63 - 1) | st.integers(1, MAX_QUANTITY),
    price_e9=PRICES,
    reference_e9=st.none() | PRICES,
    multiplier=st.integers(1, 1_000_000),
)
def test_the_value_of_an_order_that_passes_fits_64_bits(
    quantity: int, price_e9: int, reference_e9: int | None, multiplier: int
) -> None:
    terms = OrderTerms(
        symbol=SYMBOL, side=Side.BUY, quantity=quantity, order_type=OrderType.LIMIT, limit_price_e9=price_e9
    )
    try:
        check_terms(terms, spec_of(multiplier), max_quantity=MAX_QUANTITY, reference_e9=reference_e9)
    except InvalidOrder:
        return
    assert multiply_e9(price_e9, multiplier * E9) * quantity <= INT64_MAX


def _fill(number: int, side: Side, quantity: int, price_e9: int, commission_e9: int, at_ns: int) -> Fill:
    return Fill(
        fill_id=f"f-{number}",
        order_id=f"o-{number}",
        symbol=SYMBOL,
        side=side,
        quantity=quantity,
        price_e9=price_e9,
        commission_e9=commission_e9,
        cumulative_quantity=quantity,
        at_ns=at_ns,
        provenance=Provenance.SIMULATED,
    )


FILLS = st.lists(
    st.tuples(st.sampled_from(Side), st.integers(1, 2**63 - 1), INT64, INT64, st.integers(0, INT64_MAX)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(fills=FILLS, multiplier=st.integers(1, 1_000_000))
def test_whatever_is_filled_is_booked_told_and_written(
    fills: list[tuple[Side, int, int, int, int]], multiplier: int
) -> None:
    account = Account({SYMBOL: multiplier * E9})
    steps: list[OrderChange] = []
    for number, (side, quantity, price_e9, commission_e9, at_ns) in enumerate(fills):
        terms = OrderTerms(symbol=SYMBOL, side=side, quantity=min(quantity, 2**40), order_type=OrderType.MARKET)
        origin = Origin(request_id=f"r-{number}", actor="ann", provenance=Provenance.SIMULATED, decision_ns=at_ns)
        order_id = f"o-{number}"
        steps.append(account.add(OrderCreated(at_ns=at_ns, order_id=order_id, terms=terms, origin=origin)))
        fill = _fill(number, side, quantity, price_e9, commission_e9, at_ns)
        change = account.apply(order_id, FillReported(at_ns=at_ns, fill=fill))
        assert change is not None
        assert change.booking is not None
        steps.append(change)
        order_to_proto(change.order)
        position_to_proto(change.booking.position, change.booking.position.unrealized_e9(price_e9))
        payloads_of(TradingFact(at_ns=at_ns, booking=change.booking, order=change.order), None)
    performance_to_proto(account.performance)


async def test_sums_beyond_64_bits_are_written_and_read_back_exactly(tmp_path: Path) -> None:
    account = Account({SYMBOL: 50 * E9})
    steps = []
    for number in range(3):
        terms = OrderTerms(symbol=SYMBOL, side=Side.BUY, quantity=MAX_QUANTITY, order_type=OrderType.MARKET)
        origin = Origin(request_id=f"r-{number}", actor="ann", provenance=Provenance.REPLAY, decision_ns=INT64_MAX)
        created = OrderCreated(at_ns=INT64_MAX, order_id=f"o-{number}", terms=terms, origin=origin)
        steps.append(account.add(created))
        fill = _fill(number, Side.BUY, MAX_QUANTITY, LARGEST_PRICE_E9, INT64_MAX, INT64_MAX)
        change = account.apply(f"o-{number}", FillReported(at_ns=INT64_MAX, fill=fill))
        assert change is not None
        steps.append(change)
    assert account.positions[SYMBOL].cost_e9 == 3 * 10**19
    async with Database(tmp_path / "engine.db", migrations=MIGRATIONS) as database:
        store = Store(database)
        assert await store.write([(Changes(orders=tuple(steps)), None)]) == [True]
        kept = await store.load()
    assert kept.positions == account.positions
    assert position_to_proto(kept.positions[SYMBOL]).cost_e9 == INT64_MAX


@given(seconds=INT64, nanos=st.integers(-(2**31), 2**31 - 1), number=st.integers(0, 2**64 - 1))
def test_every_time_and_number_of_a_signal_fits_where_it_is_written(seconds: int, nanos: int, number: int) -> None:
    told = signal_pb2.Signal(symbol=SYMBOL, through_sequence=number)
    told.quote.provenance = provenance_pb2.PROVENANCE_REPLAY
    told.quote.epoch = told.quote.sequence = number
    told.decision_time.seconds, told.decision_time.nanos = seconds, nanos
    signal = signal_from_proto(told)
    assert signal is not None
    for value in (signal.at_ns, signal.epoch, signal.sequence, time_from_proto(told.decision_time)):
        assert 0 <= value <= INT64_MAX


async def test_control_of_a_former_version_is_read_with_its_reason_for_mode_and_state(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    body = (
        '{"mode": "MANUAL", "state": "HALTED", "emergency": null, "reason": "lunch", "actor": "ann",'
        ' "changed_ns": 1790000000000000001, "version": 7}'
    )
    async with Database(path, migrations=MIGRATIONS[:2]) as database:
        await database.write(lambda connection: connection.execute("INSERT INTO control VALUES (1, 7, ?)", (body,)))
    async with Database(path, migrations=MIGRATIONS) as database:
        control = (await Store(database).load()).control
    assert control is not None
    assert (control.state_reason, control.mode_actor, control.state_ns) == ("lunch", "ann", 1790000000000000001)
    assert control.version == 7


def test_a_control_is_read_back_as_it_was_written() -> None:
    control = Control(mode=TradingMode.SEMI_AUTO, mode_reason="why", mode_actor="ann", mode_ns=5, version=3)
    assert decode_control(encode_control(control)) == control
