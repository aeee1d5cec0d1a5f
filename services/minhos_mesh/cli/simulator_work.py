"""Decides what the commands of the simulator ask of it, and how its answers are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as pb
from minhos_api.sierra.v1.sierra_simulator_service_pb2_grpc import SierraSimulatorServiceStub
from minhos_mesh.cli import show
from minhos_mesh.cli.asking import fresh_id
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import connected
from minhos_mesh.cli.narrow import print_table
from minhos_mesh.cli.options import span_ns
from minhos_mesh.runtime.paths import MeshPaths

_LONGEST_S: Final = 86_400
_LATEST_S: Final = 60
"""How long a fault may last, and how late messages may be, as the contract says."""
_PREFIX = "SIMULATOR_FAULT_KIND_"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A fault as it is typed; times in seconds."""

    kind: str
    symbol: str
    probability: float | None
    duration_s: float | None
    delay_s: float | None
    request_id: str


async def status(paths: MeshPaths, *, as_json: bool) -> None:
    """What is written and how far."""
    async with connected(paths) as link:
        answer = await link.clients.stub(SierraSimulatorServiceStub).GetStatus(
            pb.SierraSimulatorServiceGetStatusRequest()
        )
    _show_state(answer.simulator, as_json=as_json)


async def set_speed(paths: MeshPaths, speed: str, *, as_json: bool) -> None:
    """Changes the rate. Raises CommandFailed."""
    try:
        value = 0.0 if speed == "max" else float(speed)
    except ValueError:
        raise CommandFailed(f"speed is {speed!r}: a number or max is needed") from None
    async with connected(paths) as link:
        answer = await link.clients.stub(SierraSimulatorServiceStub).SetFeed(pb.SetFeedRequest(speed=value))
    _show_state(answer.simulator, as_json=as_json)


async def pause(paths: MeshPaths, *, as_json: bool) -> None:
    """Stops writing."""
    async with connected(paths) as link:
        answer = await link.clients.stub(SierraSimulatorServiceStub).Pause(pb.PauseRequest())
    _show_state(answer.simulator, as_json=as_json)


async def resume(paths: MeshPaths, *, as_json: bool) -> None:
    """Writes again."""
    async with connected(paths) as link:
        answer = await link.clients.stub(SierraSimulatorServiceStub).Resume(pb.ResumeRequest())
    _show_state(answer.simulator, as_json=as_json)


async def inject(paths: MeshPaths, wanted: Wanted, *, as_json: bool) -> None:
    """Makes a fault and shows it. Raises CommandFailed."""
    request = fault_request(wanted)
    async with connected(paths) as link:
        answer = await link.clients.stub(SierraSimulatorServiceStub).InjectFault(request)
    _show_faults([answer.fault], answer, as_json=as_json)


async def list_faults(paths: MeshPaths, *, as_json: bool) -> None:
    """Shows the faults that are known."""
    async with connected(paths) as link:
        answer = await link.clients.stub(SierraSimulatorServiceStub).ListFaults(pb.ListFaultsRequest())
    _show_faults(answer.faults, answer, as_json=as_json)


async def clear(paths: MeshPaths, request_id: str, *, as_json: bool) -> None:
    """Ends one fault or all, and shows what it ended."""
    async with connected(paths) as link:
        answer = await link.clients.stub(SierraSimulatorServiceStub).ClearFaults(
            pb.ClearFaultsRequest(request_id=request_id)
        )
    _show_faults(answer.faults, answer, as_json=as_json)


def fault_request(wanted: Wanted) -> pb.InjectFaultRequest:
    """The request that is meant. Raises CommandFailed, with all kinds for one that is none."""
    name = wanted.kind.upper().replace("-", "_")
    if name == "UNSPECIFIED" or f"{_PREFIX}{name}" not in pb.SimulatorFaultKind.keys():  # noqa: SIM118 - no dictionary
        raise CommandFailed(f"{wanted.kind!r} is no kind of fault: allowed are {', '.join(kinds())}")
    request = pb.InjectFaultRequest(
        request_id=wanted.request_id or fresh_id(),
        kind=pb.SimulatorFaultKind.Value(f"{_PREFIX}{name}"),
        symbol=wanted.symbol,
        probability=wanted.probability,
    )
    spans = (("duration", "--for", wanted.duration_s, _LONGEST_S), ("delay", "--delay", wanted.delay_s, _LATEST_S))
    for field, option, seconds, most in spans:
        if seconds is not None:
            getattr(request, field).FromNanoseconds(span_ns(option, seconds, most))
    return request


def kinds() -> list[str]:
    """What can be typed."""
    names = pb.SimulatorFaultKind.keys()
    return [name.removeprefix(_PREFIX).lower() for name in names if not name.endswith("_UNSPECIFIED")]


def _show_state(state: pb.SimulatorState, *, as_json: bool) -> None:
    if as_json:
        show.as_json(show.message_dict(state))
        return
    what = "a random walk" if state.feed == pb.SIMULATOR_FEED_RANDOM_WALK else "a recording"
    pace = f"{state.speed:g} ticks a second" if state.feed == pb.SIMULATOR_FEED_RANDOM_WALK else _times(state)
    activity = show.enum_name(state, "activity")
    show.out.print(f"{activity}: {what}, {pace}" + (f": {state.reason}" if state.reason else ""))
    rows = [
        (
            each.symbol,
            str(each.records_written),
            show.clock(each.event_time) if each.HasField("event_time") else "-",
            Path(each.file).name,
            Path(each.depth_file).name if each.depth_file else "-",
        )
        for each in state.symbols
    ]
    show.out.print(show.table(("SYMBOL", "RECORDS", "NEWEST", "FILE", "ORDER BOOK"), rows, right=("RECORDS",)))
    if state.faults:
        _print_faults(state.faults)


def _times(state: pb.SimulatorState) -> str:
    pace = "as fast as it can be" if state.speed == 0 else f"{state.speed:g} times as fast as it happened"
    return f"{pace}, {state.passes} times" if state.passes > 1 else pace


def _show_faults(faults: Sequence[pb.SimulatorFault], answer: Any, *, as_json: bool) -> None:
    if as_json:
        show.as_json(show.message_dict(answer))
    elif faults:
        _print_faults(faults)
    else:
        show.out.print("no fault")


def _print_faults(faults: Sequence[pb.SimulatorFault]) -> None:
    """A table; in a narrow terminal what each fault does stands below it."""
    rows = [
        (
            each.request_id,
            show.enum_name(each, "kind").lower(),
            each.symbol or "all",
            "active" if each.active else "over",
            show.clock(each.begin_time),
            show.clock(each.end_time) if each.HasField("end_time") else "when cleared",
            each.effect,
        )
        for each in faults
    ]
    columns = ("ID", "FAULT", "SYMBOL", "STATE", "FROM", "UNTIL", "EFFECT")
    if "EFFECT" not in print_table(columns, rows, right=(), leave_out=("EFFECT", "FROM", "UNTIL", "SYMBOL")):
        for line in dict.fromkeys(f"{fault}: {effect}" for _, fault, *_, effect in rows if effect):
            show.out.print(line, soft_wrap=True)
