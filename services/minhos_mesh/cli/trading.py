"""Commands that trade: positions, orders, order place, cancel and replace, mode, halt, resume, emergency stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_control_service_pb2_grpc import TradingControlServiceStub
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_mesh.cli import risk_view, show
from minhos_mesh.cli.asking import actor, fresh_id
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link, connected, unreachable
from minhos_mesh.cli.narrow import print_table
from minhos_mesh.runtime.config import load_saved
from minhos_mesh.runtime.money import MoneyError, parse_e9
from minhos_mesh.runtime.paths import MeshPaths

_NARROW: Final = 100
"""Characters of a line below which times are told in seconds."""
_ENGINE: Final = "trading_engine"
"""Who is asked where it listened last while the registry is silent, by commands that make nothing riskier."""


async def positions(paths: MeshPaths, *, as_json: bool) -> None:
    """What is held, with profit and loss."""
    async with connected(paths, without_registry=_ENGINE) as link:
        found = await link.clients.stub(TradingEngineServiceStub).GetPositions(
            engine_pb.GetPositionsRequest(include_flat=True)
        )
    if as_json:
        show.as_json(show.message_dict(found))
        return
    rows = [
        (
            position.symbol,
            str(position.quantity),
            show.money(show.optional(position, "average_price_e9")),
            show.money(position.realized_pnl_e9),
            show.money(show.optional(position, "unrealized_pnl_e9")),
            show.money(position.commission_e9),
        )
        for position in found.positions
    ]
    columns = ("SYMBOL", "QUANTITY", "AVERAGE", "REALIZED", "UNREALIZED", "COMMISSION")
    show.out.print(show.table(columns, rows, right=columns[1:]))
    show.out.print(
        f"realized {show.money(found.realized_pnl_e9)}  open {show.money(show.optional(found, 'unrealized_pnl_e9'))}"
        f"  commission {show.money(found.commission_e9)}"
    )


async def orders(paths: MeshPaths, count: int, *, as_json: bool) -> None:
    """The newest orders."""
    async with connected(paths, without_registry=_ENGINE) as link:
        found = await link.clients.stub(OrderServiceStub).ListOrders(orders_pb.ListOrdersRequest(page_size=count))
    if as_json:
        show.as_json(show.message_dict(found))
        return
    print_orders([order_row(order) for order in found.orders])
    for line in unknown_note(found.orders):
        show.out.print(line, style="yellow")
    if found.all_orders_count > len(found.orders):
        show.out.print(f"{len(found.orders)} of {found.all_orders_count} orders; --count shows more")


def unknown_note(orders: Sequence[order_pb2.Order]) -> list[str]:
    """What is told below a list of orders in which some are UNKNOWN, or were settled otherwise: why, and what to do."""
    unknown = [order for order in orders if order.state == order_pb2.ORDER_STATE_UNKNOWN]
    lines = [f"{order.order_id} is UNKNOWN: {order.reason_message}" for order in unknown]
    if unknown:
        lines.append(
            "The venue is asked on. What it cannot find out a person looks up and tells it:"
            " `minhos order settle ORDER --filled QUANTITY@PRICE --reason WHY`, or --canceled, or --never-arrived."
        )
    disputed = [order for order in orders if order.settlement_dispute]
    lines += [f"{order.order_id} was settled, and {order.settlement_dispute}" for order in disputed]
    if disputed:
        lines.append(
            "What is booked stays. Compare both, then let it stand: `minhos order confirm ORDER --reason WHY`."
        )
    return lines


def print_orders(rows: list[tuple[str, ...]]) -> None:
    """A table of rows as `order_row` makes them; a narrow terminal leaves out what `--json` tells, and milliseconds."""
    columns = ("TIME", "ORDER", "SYMBOL", "SIDE", "TYPE", "QTY", "FILLED", "AVERAGE", "STATE", "WHY")
    if show.out.width < _NARROW:
        rows = [(time.partition(".")[0], *others) for time, *others in rows]
    print_table(columns, rows, right=("QTY", "FILLED", "AVERAGE"), leave_out=("WHY", "AVERAGE", "TYPE", "SYMBOL"))


def order_row(order: order_pb2.Order) -> tuple[str, ...]:
    """One order as a row of a table."""
    return (
        show.clock(order.create_time),
        order.order_id,
        order.terms.symbol,
        show.enum_name(order.terms, "side"),
        price_text(order.terms),
        str(order.terms.quantity),
        str(order.filled_quantity),
        show.money(show.optional(order, "average_price_e9")),
        show.enum_name(order, "state"),
        order.reason_message or (f"signal {order.signal_id}" if order.signal_id else f"by {order.actor}"),
    )


def price_text(terms: terms_pb.OrderTerms) -> str:
    """Kind of an order with its prices."""
    limit, stop = show.optional(terms, "limit_price_e9"), show.optional(terms, "stop_price_e9")
    parts = [show.enum_name(terms, "type")]
    parts += [f"@ {show.money(limit)}"] if limit is not None else []
    parts += [f"stop {show.money(stop)}"] if stop is not None else []
    return " ".join(parts)


async def place(
    paths: MeshPaths,
    side: str,
    quantity: int,
    *,
    symbol: str | None,
    limit: str | None,
    stop: str | None,
    time_in_force: str,
    reduce_only: bool,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Places an order and shows what became of it so far. Raises CommandFailed when the mesh denied it."""
    terms = _terms(paths, side, quantity, symbol, limit, stop, time_in_force)
    request = orders_pb.PlaceOrderRequest(
        request_id=request_id or fresh_id(), terms=terms, actor=actor(), reduce_only=reduce_only
    )
    async with connected(paths, "the order was not sent") as link:
        try:
            answer = await link.clients.stub(OrderServiceStub).PlaceOrder(request)
        except grpc.aio.AioRpcError as error:
            if unreachable(error):
                raise CommandFailed(_not_known(request.request_id)) from None
            raise
    _show_order(answer.order, as_json=as_json)
    if answer.order.state == order_pb2.ORDER_STATE_DENIED:
        failed = [check.message for check in answer.order.checks if not check.passed]
        raise CommandFailed("the order was denied: " + (" ".join(failed) or answer.order.reason_message))


async def cancel(paths: MeshPaths, order_id: str, *, as_json: bool) -> None:
    """Asks to cancel an order."""
    async with connected(paths, without_registry=_ENGINE) as link:
        answer = await link.clients.stub(OrderServiceStub).CancelOrder(
            orders_pb.CancelOrderRequest(order_id=order_id, actor=actor())
        )
    _show_order(answer.order, as_json=as_json)


async def replace(
    paths: MeshPaths,
    order_id: str,
    *,
    quantity: int | None,
    limit: str | None,
    stop: str | None,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Asks to change a working order. Raises CommandFailed when nothing is to change, or the venue refused it."""
    if quantity is None and limit is None and stop is None:
        raise CommandFailed("nothing to change: give --quantity, --limit or --stop")
    limit_e9, stop_e9 = _prices(limit, stop)
    request = orders_pb.ReplaceOrderRequest(
        order_id=order_id,
        request_id=request_id or fresh_id(),
        quantity=quantity,
        limit_price_e9=limit_e9,
        stop_price_e9=stop_e9,
        actor=actor(),
    )
    async with connected(paths) as link:
        answer = await link.clients.stub(OrderServiceStub).ReplaceOrder(request)
    _show_order(answer.order, as_json=as_json)
    if answer.order.reason == order_pb2.ORDER_REASON_VENUE_REJECTED:
        raise CommandFailed(answer.order.reason_message)


async def trading_state(paths: MeshPaths, *, as_json: bool) -> None:
    """Mode, state and emergency stop."""
    async with connected(paths, without_registry=_ENGINE) as link:
        answer = await link.clients.stub(TradingControlServiceStub).GetTradingState(control_pb.GetTradingStateRequest())
        stops = await _stops(link, as_json=as_json)
    show_state(answer.status, as_json=as_json)
    risk_view.print_stops(stops)


async def set_mode(paths: MeshPaths, mode: str, reason: str, *, as_json: bool) -> None:
    """Changes the mode."""
    value = _enum(control_pb.TradingMode, "TRADING_MODE_", mode, "mode")
    async with connected(paths) as link:
        answer = await link.clients.stub(TradingControlServiceStub).SetTradingMode(
            control_pb.SetTradingModeRequest(request_id=fresh_id(), mode=value, actor=actor(), reason=reason)
        )
        stops = await _stops(link, as_json=as_json)
    show_state(answer.status, as_json=as_json)
    risk_view.print_stops(stops)


async def halt(paths: MeshPaths, reason: str, *, reduce: bool, as_json: bool) -> None:
    """Halts trading, or lets only reductions through."""
    state = control_pb.TRADING_STATE_REDUCING if reduce else control_pb.TRADING_STATE_HALTED
    async with connected(paths, without_registry=_ENGINE) as link:
        answer = await link.clients.stub(TradingControlServiceStub).Halt(
            control_pb.HaltRequest(request_id=fresh_id(), state=state, actor=actor(), reason=reason)
        )
    show_state(answer.status, as_json=as_json)


async def resume(paths: MeshPaths, reason: str, *, as_json: bool) -> None:
    """Lets trading go on."""
    async with connected(paths) as link:
        answer = await link.clients.stub(TradingControlServiceStub).Resume(
            control_pb.ResumeRequest(request_id=fresh_id(), actor=actor(), reason=reason)
        )
        stops = await _stops(link, as_json=as_json)
    show_state(answer.status, as_json=as_json)
    risk_view.print_stops(stops)


async def emergency_stop(paths: MeshPaths, reason: str, *, flatten: bool, as_json: bool) -> None:
    """Stops everything. Raises CommandFailed when the venue has not confirmed it all."""
    async with connected(paths, without_registry=_ENGINE) as link:
        answer = await link.clients.stub(TradingControlServiceStub).EmergencyStop(
            control_pb.EmergencyStopRequest(actor=actor(), reason=reason, flatten=flatten)
        )
    if as_json:
        show.as_json(show.message_dict(answer))
    else:
        show_state(answer.status, as_json=False)
        show.out.print(f"cancelled {len(answer.canceled)} orders, {len(answer.flattening)} orders flatten positions")
    if answer.unconfirmed:
        raise CommandFailed("not confirmed by the venue, call again: " + "; ".join(answer.unconfirmed))


async def clear_emergency_stop(paths: MeshPaths, reason: str, *, as_json: bool) -> None:
    """Clears the emergency stop; trading stays halted until `minhos resume`."""
    async with connected(paths) as link:
        answer = await link.clients.stub(TradingControlServiceStub).ClearEmergencyStop(
            control_pb.ClearEmergencyStopRequest(request_id=fresh_id(), actor=actor(), reason=reason)
        )
    show_state(answer.status, as_json=as_json)


async def _stops(link: Link, *, as_json: bool) -> list[str]:
    """What the risk manager lets pass no more, to be told to people beside the state of trading."""
    return [] if as_json else await risk_view.stops_now(link)


def show_state(status: control_pb.TradingStatus, *, as_json: bool) -> None:
    """Mode, state and latch in two lines."""
    if as_json:
        show.as_json(show.message_dict(status))
        return
    why = state_reason(status)
    reason = f" ({why})" if why else ""
    show.out.print(
        f"mode {show.enum_name(status, 'mode')}, state {show.enum_name(status, 'state')}{reason},"
        f" {_acting(status)} at venue {status.venue}{' (real money)' if status.venue_live else ''}"
    )
    if status.emergency_stop.latched:
        latch = status.emergency_stop
        show.out.print(f"EMERGENCY STOP by {latch.actor}: {latch.reason}", style="bold red")


def state_reason(status: control_pb.TradingStatus) -> str:
    """Why not everything trades: the reason of a halt, or why signals are left; empty when there is none."""
    if status.state != control_pb.TRADING_STATE_ACTIVE:
        return status.state_reason
    return f"signals are not acted on: {status.signals_off_reason}" if status.signals_off_reason else ""


def _acting(status: control_pb.TradingStatus) -> str:
    """What becomes of a signal."""
    automatic = status.mode != control_pb.TRADING_MODE_MANUAL
    active = status.state == control_pb.TRADING_STATE_ACTIVE and not status.signals_off_reason
    threshold: float | None = show.optional(status, "auto_threshold")
    if threshold is None or not automatic or not active:
        return "not acting on signals"
    return f"acting on signals from {threshold:.2f}"


def _terms(
    paths: MeshPaths,
    side: str,
    quantity: int,
    symbol: str | None,
    limit: str | None,
    stop: str | None,
    time_in_force: str,
) -> terms_pb.OrderTerms:
    kinds = {
        (False, False): terms_pb.ORDER_TYPE_MARKET,
        (True, False): terms_pb.ORDER_TYPE_LIMIT,
        (False, True): terms_pb.ORDER_TYPE_STOP,
        (True, True): terms_pb.ORDER_TYPE_STOP_LIMIT,
    }
    limit_e9, stop_e9 = _prices(limit, stop)
    return terms_pb.OrderTerms(
        symbol=symbol or load_saved(paths.config_file).primary(),
        side=_enum(terms_pb.Side, "SIDE_", side, "side"),
        type=kinds[limit is not None, stop is not None],
        quantity=quantity,
        limit_price_e9=limit_e9,
        stop_price_e9=stop_e9,
        time_in_force=_enum(terms_pb.TimeInForce, "TIME_IN_FORCE_", time_in_force, "--time-in-force"),
    )


def _prices(limit: str | None, stop: str | None) -> tuple[int | None, int | None]:
    try:
        limit_e9 = None if limit is None else parse_e9(limit, field="--limit")
        stop_e9 = None if stop is None else parse_e9(stop, field="--stop")
    except MoneyError as error:
        raise CommandFailed(str(error)) from None
    return limit_e9, stop_e9


def _not_known(request_id: str) -> str:
    return (
        "the trading engine did not answer in time, so it is not known whether the order was placed: `minhos orders` shows"
        f" it once it was; with --request-id {request_id} it can be tried again and is never placed twice"
    )


def _enum(kind: Any, prefix: str, text: str, what: str) -> Any:
    names = list(kind.keys())
    name = prefix + text.upper().replace("-", "_")
    if name not in names or name.endswith("_UNSPECIFIED"):
        allowed = [key.removeprefix(prefix) for key in names if not key.endswith("_UNSPECIFIED")]
        raise CommandFailed(f"{what} is {text!r}: allowed are {', '.join(allowed)}")
    return kind.Value(name)


def _show_order(order: order_pb2.Order, *, as_json: bool) -> None:
    if as_json:
        show.as_json(show.message_dict(order))
        return
    show.out.print(
        f"order {order.order_id}: {show.enum_name(order.terms, 'side')} {order.terms.quantity} {order.terms.symbol}"
        f" {price_text(order.terms)} is {show.enum_name(order, 'state')}"
        f"{': ' + order.reason_message if order.reason_message else ''}"
    )
