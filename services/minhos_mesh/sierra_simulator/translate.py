"""Decides how the state of the simulator is said in the contract."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as pb2
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind
from minhos_mesh.sierra_simulator.service import Activity, SimulatorStatus

_FEEDS = {
    FeedKind.RANDOM_WALK: pb2.SIMULATOR_FEED_RANDOM_WALK,
    FeedKind.REPLAY: pb2.SIMULATOR_FEED_REPLAY,
}

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
    )


def _time(time_ns: int | None) -> Timestamp | None:
    if time_ns is None:
        return None
    return Timestamp(seconds=time_ns // 1_000_000_000, nanos=time_ns % 1_000_000_000)
