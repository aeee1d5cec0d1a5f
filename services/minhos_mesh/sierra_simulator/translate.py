"""Decides how the state of the simulator is said in the contract."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as pb2
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.sierra_simulator.domain.faults import Fault, FaultKind, FaultOrder
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind
from minhos_mesh.sierra_simulator.service import Activity, SimulatorStatus, SymbolStatus

_FEEDS = {
    FeedKind.RANDOM_WALK: pb2.SIMULATOR_FEED_RANDOM_WALK,
    FeedKind.REPLAY: pb2.SIMULATOR_FEED_REPLAY,
}

_KINDS = {kind: pb2.SimulatorFaultKind.Value(f"SIMULATOR_FAULT_KIND_{kind.value}") for kind in FaultKind}
_KIND_OF = {number: kind for kind, number in _KINDS.items()}

_ACTIVITIES = {
    Activity.RUNNING: pb2.SIMULATOR_ACTIVITY_RUNNING,
    Activity.PAUSED: pb2.SIMULATOR_ACTIVITY_PAUSED,
    Activity.ENDED: pb2.SIMULATOR_ACTIVITY_ENDED,
    Activity.FAILED: pb2.SIMULATOR_ACTIVITY_FAILED,
}


def state_to_proto(status: SimulatorStatus) -> pb2.SimulatorState:
    """The state of the simulator."""
    return pb2.SimulatorState(
        feed=_FEEDS[status.feed],
        activity=_ACTIVITIES[status.activity],
        symbol=status.symbol,
        file="" if status.file is None else str(status.file),
        records_written=status.records_written,
        records_total=status.records_total,
        event_time=_time(status.event_time_ns),
        speed=status.speed,
        seed=status.seed,
        reason=status.failure,
        faults=[fault_to_proto(fault) for fault in status.faults],
        symbols=[_symbol(symbol) for symbol in status.symbols],
        passes=status.passes,
        records_left_out=status.records_left_out,
    )


def fault_from_proto(request: pb2.InjectFaultRequest) -> FaultOrder:
    """The fault that is asked for."""
    return FaultOrder(
        request.request_id,
        _KIND_OF[request.kind],
        request.symbol,
        request.probability if request.HasField("probability") else None,
        request.duration.ToNanoseconds() if request.HasField("duration") else None,
        request.delay.ToNanoseconds() if request.HasField("delay") else None,
    )


def fault_to_proto(fault: Fault) -> pb2.SimulatorFault:
    """A fault that was made."""
    order, delay = fault.order, None
    if order.delay_ns is not None:
        delay = Duration()
        delay.FromNanoseconds(order.delay_ns)
    return pb2.SimulatorFault(
        request_id=order.request_id,
        kind=_KINDS[order.kind],
        symbol=order.symbol,
        probability=order.probability,
        begin_time=_time(fault.begin_ns),
        end_time=_time(fault.end_ns),
        active=fault.active,
        effect=fault.effect,
        delay=delay,
    )


def _symbol(symbol: SymbolStatus) -> pb2.SimulatedSymbol:
    return pb2.SimulatedSymbol(
        symbol=symbol.symbol,
        file=str(symbol.file),
        records_written=symbol.records_written,
        event_time=_time(symbol.event_time_ns),
        depth_file="" if symbol.depth_file is None else str(symbol.depth_file),
        depth_records_written=symbol.depth_records_written,
    )


def _time(time_ns: int | None) -> Timestamp | None:
    if time_ns is None:
        return None
    return timestamp(time_ns)
