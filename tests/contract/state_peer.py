"""A stand-in of the state manager: one state that a test changes, and its Watch as the contract has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_api.state.v1 import state_manager_service_pb2_grpc as state_grpc
from minhos_mesh.runtime.watch import RevisionLog

STATE = "minhos_api.state.v1.StateManagerService"


class FakeState(state_grpc.StateManagerServiceServicer):
    """What is ONLINE with everything on, until a test changes it; `asked` keeps how it was watched."""

    def __init__(self, **fields: Any) -> None:
        values = {
            "system_state": pb.SYSTEM_STATE_ONLINE,
            "trading_enabled": True,
            "auto_trade_enabled": True,
            "risk_enabled": True,
            "auto_threshold": 0.75,
            "order_quantity": 1,
            "version": 2,
        }
        self.state = pb.State(**{**values, **fields})
        self.asked: list[int | None] = []
        self.heartbeat_s = 0.05
        self.silent = False
        self._log: RevisionLog[pb.State] = RevisionLog(self.state.version)

    def change(self, **fields: Any) -> None:
        """Change fields of the state and tell who watches."""
        changed = pb.State()
        changed.CopyFrom(self.state)
        for name, value in fields.items():
            if name == "flags":
                changed.flags.clear()
                changed.flags.update(value)
            else:
                setattr(changed, name, value)
        changed.version += 1
        self.state = changed
        self._log.append(changed)

    def forget(self) -> None:
        """Hold no change any more, as after a restart."""
        self._log = RevisionLog(self.state.version)

    async def GetState(self, request: pb.GetStateRequest, context: Any) -> pb.GetStateResponse:
        return pb.GetStateResponse(state=self.state)

    async def WatchState(self, request: pb.WatchStateRequest, context: Any) -> AsyncIterator[pb.WatchStateResponse]:
        after = request.after_revision if request.HasField("after_revision") else None
        self.asked.append(after)
        if after is None:
            after = self._log.newest
            yield pb.WatchStateResponse(snapshot=pb.StateSnapshot(state=self.state), revision=after)
        elif after == self._log.newest:
            yield pb.WatchStateResponse(heartbeat=pb.StateHeartbeat(), revision=after)
        async for revision, state in self._log.follow(after, self.heartbeat_s):
            if state is not None:
                yield pb.WatchStateResponse(state=state, revision=revision)
            elif not self.silent:
                yield pb.WatchStateResponse(heartbeat=pb.StateHeartbeat(), revision=revision)

    async def _unused(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not part of this stand-in")

    _unused_any: Any = _unused
    UpdateState = GetPortfolio = ListTrades = ListAuditEntries = _unused_any
