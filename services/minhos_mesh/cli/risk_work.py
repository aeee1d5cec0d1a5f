"""Decides what the commands of risk ask of the risk manager, and what is said about a reset."""

from __future__ import annotations

from typing import Final

import grpc

from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_mesh.cli import risk_view as view
from minhos_mesh.cli import show
from minhos_mesh.cli.asking import actor, fresh_id
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link, connected, unreachable
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.paths import MeshPaths

_RISK: Final = "risk_manager"


async def show_risk(paths: MeshPaths, *, as_json: bool) -> None:
    """The limits with their use, the breaker, and what stops orders."""
    async with connected(paths, without_registry=_RISK) as link:
        metrics = await view.metrics_of(link)
    if as_json:
        show.as_json({**show.message_dict(metrics), "stops": view.stops(metrics)})
        return
    show.out.print(show.table(("LIMIT", "USED", "ALLOWED", "NOTE"), view.rows(metrics), right=("USED", "ALLOWED")))
    show.out.print(view.profit_text(metrics))
    show.out.print(f"checks since its start: {metrics.checks}, refused {metrics.refusals}{view.refusals_text(metrics)}")
    _print_stops(metrics)


async def reset(paths: MeshPaths, reason: str, *, as_json: bool) -> None:
    """Resets the breaker and says what was reset. Raises CommandFailed when nothing was tripped."""
    if not reason.strip():
        raise CommandFailed("--reason is missing: say why it is safe to go on, it is kept with the reset")
    request = pb.ResetBreakerRequest(request_id=fresh_id(), actor=actor(), reason=reason)
    async with connected(paths, "the breaker was not reset") as link:
        before = await view.metrics_of(link)
        if not before.breaker.tripped:
            raise CommandFailed(nothing_to_reset(before))
        try:
            answer = await link.clients.stub(RiskManagerServiceStub).ResetBreaker(request)
        except grpc.aio.AioRpcError as error:
            if unreachable(error):
                raise CommandFailed(
                    "the risk manager did not answer in time, so it is not known whether the breaker was reset:"
                    " `minhos risk` shows it"
                ) from None
            if errors.read(error).reason == "ERROR_REASON_STATE_CONFLICT":
                raise CommandFailed(nothing_to_reset(before)) from None
            raise
        after = await _after(link)
    if as_json:
        show.as_json({"reset": show.message_dict(before.breaker), "breaker": show.message_dict(answer.breaker)})
        return
    show.out.print(f"the breaker is reset; it was {view.tripped(before.breaker)}", markup=False)
    if after is None:
        return
    _print_stops(after)
    if trips_again(after):
        show.out.print(
            "the loss of the day is beyond 120 % of its limit, so the breaker trips again at the next order, trade or price of"
            " what is held: wait for 00:00 UTC, or raise max_daily_loss"
        )


async def _after(link: Link) -> pb.RiskMetrics | None:
    """What is seen after a reset, which stands whether or not this is answered."""
    try:
        return await view.metrics_of(link)
    except grpc.aio.AioRpcError:
        return None


def trips_again(metrics: pb.RiskMetrics) -> bool:
    """Whether the loss of the day is still one that trips the breaker, as the contract says."""
    profit_e9 = view.profit_e9_of(metrics)
    return profit_e9 is not None and -profit_e9 * 100 > metrics.limits.max_daily_loss_e9 * 120


def nothing_to_reset(metrics: pb.RiskMetrics) -> str:
    """Why a breaker was not reset, with what stops orders instead."""
    rest = [text for text in view.stops(metrics) if not text.startswith("BREAKER")]
    others = f"; what stops orders is: {'; '.join(rest)}" if rest else ""
    return f"nothing to reset: the breaker is not tripped{others}"


def _print_stops(metrics: pb.RiskMetrics) -> None:
    found = view.stops(metrics)
    view.print_stops(found)
    if not found:
        show.out.print("the breaker is not tripped, and the limits of the account leave room")
