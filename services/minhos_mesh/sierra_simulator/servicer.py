"""Serves SierraSimulatorService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as pb2
from minhos_api.sierra.v1 import sierra_simulator_service_pb2_grpc as pb2_grpc
from minhos_mesh.sierra_simulator.service import SierraSimulator
from minhos_mesh.sierra_simulator.translate import fault_from_proto, fault_to_proto, state_to_proto

HEARTBEAT_S = 2.0
"""Longest silence of WatchReplay, as its contract says."""

INTERVAL_S = 0.1
"""Shortest time between two states of WatchReplay, as its contract says."""


class SierraSimulatorServicer(pb2_grpc.SierraSimulatorServiceServicer):
    """One per process."""

    def __init__(
        self, simulator: SierraSimulator, *, heartbeat_s: float = HEARTBEAT_S, interval_s: float = INTERVAL_S
    ) -> None:
        self._simulator = simulator
        self._heartbeat_s = heartbeat_s
        self._interval_s = interval_s

    async def GetStatus(
        self, _request: pb2.SierraSimulatorServiceGetStatusRequest, _context: Any
    ) -> pb2.SierraSimulatorServiceGetStatusResponse:
        return pb2.SierraSimulatorServiceGetStatusResponse(simulator=self._state(), revision=self._simulator.revision)

    async def SetFeed(self, request: pb2.SetFeedRequest, _context: Any) -> pb2.SetFeedResponse:
        self._simulator.set_speed(request.speed)
        return pb2.SetFeedResponse(simulator=self._state())

    async def Pause(self, _request: pb2.PauseRequest, _context: Any) -> pb2.PauseResponse:
        self._simulator.pause()
        return pb2.PauseResponse(simulator=self._state())

    async def Resume(self, _request: pb2.ResumeRequest, _context: Any) -> pb2.ResumeResponse:
        self._simulator.resume()
        return pb2.ResumeResponse(simulator=self._state())

    async def InjectFault(self, request: pb2.InjectFaultRequest, _context: Any) -> pb2.InjectFaultResponse:
        return pb2.InjectFaultResponse(fault=fault_to_proto(self._simulator.inject(fault_from_proto(request))))

    async def ListFaults(self, _request: pb2.ListFaultsRequest, _context: Any) -> pb2.ListFaultsResponse:
        return pb2.ListFaultsResponse(faults=[fault_to_proto(fault) for fault in self._simulator.faults()])

    async def ClearFaults(self, request: pb2.ClearFaultsRequest, _context: Any) -> pb2.ClearFaultsResponse:
        ended = self._simulator.clear_faults(request.request_id)
        return pb2.ClearFaultsResponse(faults=[fault_to_proto(fault) for fault in ended])

    async def WatchReplay(
        self, request: pb2.WatchReplayRequest, _context: Any
    ) -> AsyncIterator[pb2.WatchReplayResponse]:
        simulator, seen = self._simulator, request.after_revision
        if request.HasField("after_revision"):
            simulator.check_revision(seen)
        else:
            seen = simulator.revision
            yield pb2.WatchReplayResponse(snapshot=pb2.SimulatorSnapshot(simulator=self._state()), revision=seen)
        while True:
            await simulator.wait_progress(seen, self._heartbeat_s - self._interval_s)
            before, seen = seen, simulator.revision
            if seen == before:
                yield pb2.WatchReplayResponse(heartbeat=pb2.SimulatorHeartbeat(), revision=seen)
            else:
                yield pb2.WatchReplayResponse(change=self._state(), revision=seen)
                await asyncio.sleep(self._interval_s)

    def _state(self) -> pb2.SimulatorState:
        return state_to_proto(self._simulator.status())
