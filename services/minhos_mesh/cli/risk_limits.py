"""Decides how limits are typed, changed one by one from what they are, and told before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import grpc

from minhos_api.risk.v1 import risk_limits_pb2
from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_mesh.cli import show
from minhos_mesh.cli.asking import actor, fresh_id
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import connected, unreachable
from minhos_mesh.cli.options import span_ns
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.money import MoneyError, parse_e9
from minhos_mesh.runtime.paths import MeshPaths

_MONEY: Final = ("max_exposure", "max_daily_loss", "max_drawdown")
_MOST_E9: Final = 1_000_000_000 * 1_000_000_000
_AGE: Final = "max_price_age"
_OLDEST_S: Final = 86_400
_FIELDS: Final[Mapping[str, str]] = {name: f"{name}_e9" for name in _MONEY}
"""Names of the contract that are not the names of the options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """New limits as they are typed; None leaves one as it is. Money in decimals, times in seconds."""

    max_order_quantity: int | None = None
    max_position: int | None = None
    max_open_positions: int | None = None
    max_exposure: str | None = None
    max_daily_loss: str | None = None
    max_drawdown: str | None = None
    price_collar_ticks: int | None = None
    max_price_age: float | None = None
    max_orders_per_minute: int | None = None
    trading_enabled: bool | None = None

    def given(self) -> dict[str, int | str | float | bool]:
        """What was typed, by the name of its option."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


async def change(paths: MeshPaths, wanted: Wanted, reason: str, *, as_json: bool) -> None:
    """Shows the limits, or changes those that are given. Raises CommandFailed for what cannot be read, and when they changed meanwhile."""
    given = wanted.given()
    if given and not reason.strip():
        raise CommandFailed("--reason is missing: say why the limits change, it is kept with the change")
    if reason.strip() and not given:
        raise CommandFailed(f"--reason {reason!r} is given and no limit is: name one, such as --max-position 3")
    changes = risk_limits_pb2.RiskLimits()
    for name, value in given.items():
        _lay(changes, name, value)
    async with connected(paths, "no limit was changed") as link:
        stub = link.clients.stub(RiskManagerServiceStub)
        before = await stub.GetRiskLimits(pb.GetRiskLimitsRequest())
        if not given:
            _tell(before.limits, before.limits, before.version, as_json=as_json)
            return
        limits = risk_limits_pb2.RiskLimits()
        limits.CopyFrom(before.limits)
        for name in given:
            _lay(limits, name, given[name])
        request = pb.SetRiskLimitsRequest(
            request_id=fresh_id(),
            limits=limits,
            expected_version=before.version,
            actor=actor(),
            reason=reason,
        )
        try:
            answer = await stub.SetRiskLimits(request)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) or error from None
    _tell(answer.limits, before.limits, answer.version, as_json=as_json)


def _failed(error: grpc.aio.AioRpcError) -> CommandFailed | None:
    """What a person is told instead of the error of a call; None when that says it well."""
    if unreachable(error):
        return CommandFailed(
            "the risk manager did not answer in time, so it is not known whether the limits changed: `minhos risk limits` shows"
        )
    if errors.read(error).reason == "ERROR_REASON_VERSION_MISMATCH":
        return CommandFailed(
            "somebody else changed the limits at the same moment, and nothing was changed here: try again"
        )
    return None


def _lay(limits: risk_limits_pb2.RiskLimits, name: str, value: str | float | bool) -> None:
    option = f"--{name.replace('_', '-')}"
    if name == _AGE:
        limits.max_price_age.FromNanoseconds(span_ns(option, float(value), _OLDEST_S))
        return
    if name in _MONEY:
        try:
            value = parse_e9(str(value), field=option)
        except MoneyError as error:
            raise CommandFailed(str(error)) from None
        if not 0 < value <= _MOST_E9:
            raise CommandFailed(f"{option} is {show.money(value)}: allowed is above 0, at most {show.money(_MOST_E9)}")
    try:
        setattr(limits, _FIELDS.get(name, name), value)
    except ValueError:
        raise CommandFailed(f"{option} is {value}: that is more than can be counted") from None


def rows(limits: risk_limits_pb2.RiskLimits, before: risk_limits_pb2.RiskLimits) -> list[tuple[str, str, str]]:
    """Each limit as its option is named, with what it was where that differs."""
    found = []
    for field in fields(Wanted):
        now, then = _shown(limits, field.name), _shown(before, field.name)
        found.append((field.name, now, "" if now == then else f"was {then}"))
    return found


def _shown(limits: risk_limits_pb2.RiskLimits, name: str) -> str:
    if name == _AGE:
        return f"{limits.max_price_age.ToNanoseconds() / 1e9:g} s"
    value = getattr(limits, _FIELDS.get(name, name))
    if name in _MONEY:
        return show.money(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tell(
    limits: risk_limits_pb2.RiskLimits, before: risk_limits_pb2.RiskLimits, version: int, *, as_json: bool
) -> None:
    if as_json:
        show.as_json({"limits": show.message_dict(limits), "version": version})
        return
    show.out.print(show.table(("LIMIT", "VALUE", "NOTE"), rows(limits, before), right=("VALUE",)))
    show.out.print(f"limits version {version}; what is used of them: `minhos risk`")
