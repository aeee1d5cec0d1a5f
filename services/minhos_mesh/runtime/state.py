"""Decides how a service follows the state that the state manager owns: what was heard last is in force, also while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2
from minhos_api.state.v1 import state_manager_service_pb2 as pb2
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceStub
from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.errors import read as read_error
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.streams import cancelled_from_outside

SILENCE_S: Final = 15.0
"""Three heartbeats; a stream that is silent for so long is opened again."""

CONDITION: Final = "STATE_AWAY"
"""Held until the state manager is heard, and again while it cannot be reached."""

STARTING: Final = "STARTING"
"""System state in which the state manager has not settled yet what a first start begins with."""

_LOG: Final = get_logger("runtime.state")
_BACKOFF: Final = Backoff(first=0.05, factor=2.0, limit=1.0)
_POSITION_LOST: Final = error_reason_pb2.ErrorReason.Name(error_reason_pb2.ERROR_REASON_POSITION_LOST)
_LOST: Final = (grpc.RpcError, grpc.aio.BaseError, TimeoutError, asyncio.InvalidStateError)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateView:
    """The state of the system as its owner told it; see `State` of the contract."""

    system_state: str
    """`ONLINE` and its like."""
    trading_enabled: bool
    auto_trade_enabled: bool
    risk_enabled: bool
    auto_threshold: float
    """Confidence from which a signal is acted on without a person."""
    order_quantity: int
    """Contracts of an order that a signal leads to."""
    flags: Mapping[str, str] = field(default_factory=dict)
    version: int

    @property
    def settled(self) -> bool:
        """Whether the state manager has come up; before that nothing is traded automatically."""
        return self.system_state != STARTING


class StateFollower:
    """The newest state, through any number of broken connections and restarts of its owner."""

    def __init__(self, context: ServiceContext, *, silence_s: float = SILENCE_S) -> None:
        self.current: StateView | None = None
        """What is in force; None until the state manager was heard for the first time."""
        self._stub: Any = context.clients.stub(StateManagerServiceStub)
        self._conditions = context.conditions
        self._tasks = context.tasks
        self._silence_s = silence_s
        self._revision: int | None = None
        self._reached = False
        self._news = asyncio.Event()
        self._listeners: list[Callable[[StateView], None]] = []

    def start(self) -> None:
        """Begins to follow, until the tasks of the service end."""
        self._show_away()
        self._tasks.start(self._run(), "state")

    def listen(self, listener: Callable[[StateView], None]) -> None:
        """Calls `listener` with each state that is not the one before, from the next one on."""
        self._listeners.append(listener)

    async def wait_first(self, timeout_s: float) -> StateView:
        """The state, once there is one. Raises TimeoutError."""
        return await self.wait_until(lambda _: True, timeout_s)

    async def wait_until(self, holds: Callable[[StateView], bool], timeout_s: float) -> StateView:
        """The first state for which `holds` is true. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                view, news = self.current, self._news
                if view is not None and holds(view):
                    return view
                await news.wait()

    async def _run(self) -> None:
        failures = 0
        while True:
            self._reached = False
            call = self._stub.WatchState(pb2.WatchStateRequest(after_revision=self._revision), wait_for_ready=True)
            try:
                why = await self._read(call)
            except asyncio.CancelledError:
                if cancelled_from_outside():
                    raise
                why = "the stream was cancelled"
            except _LOST as error:
                if self._is_position_lost(error):
                    continue  # begins with a snapshot
                why = _told(error)
            finally:
                call.cancel()
            failures = 1 if self._reached else failures + 1
            if failures == 1:
                _LOG.warning("state.away", why=why, version=self.current.version if self.current else None)
            self._show_away()
            await asyncio.sleep(_BACKOFF.delay(failures))

    async def _read(self, call: Any) -> str:
        while True:
            async with asyncio.timeout(self._silence_s):
                response = await call.read()
            if response is grpc.aio.EOF:
                return "the stream ended"
            state = _state_in(response)
            if state is not None:
                self._revision = response.revision
                self._take(view_of(state))
            if not self._reached:
                self._reached = True
                self._conditions.clear(CONDITION)
                _LOG.info("state.followed", version=self.current.version if self.current else None)

    def _take(self, view: StateView) -> None:
        if view == self.current:
            return
        self.current = view
        self._news.set()
        self._news = asyncio.Event()
        for listener in self._listeners:
            listener(view)

    def _is_position_lost(self, error: BaseException) -> bool:
        """Whether what was resumed behind is gone; a snapshot is asked for then."""
        if self._revision is None or not isinstance(error, grpc.RpcError):
            return False
        if read_error(error).reason != _POSITION_LOST:
            return False
        _LOG.warning("state.position_lost", revision=self._revision)
        self._revision = None
        return True

    def _show_away(self) -> None:
        known = self.current
        if known is None:
            self._conditions.set(CONDITION, "the state manager has not been heard since the start of this service")
        else:
            text = f"the state manager cannot be reached: its state of version {known.version} stays in force"
            self._conditions.set(CONDITION, text)


def view_of(state: pb2.State) -> StateView:
    """A state from the wire."""
    known = state.system_state in pb2.SystemState.values()
    name = pb2.SystemState.Name(state.system_state) if known else str(state.system_state)
    return StateView(
        system_state=name.removeprefix("SYSTEM_STATE_"),
        trading_enabled=state.trading_enabled,
        auto_trade_enabled=state.auto_trade_enabled,
        risk_enabled=state.risk_enabled,
        auto_threshold=state.auto_threshold,
        order_quantity=state.order_quantity,
        flags=dict(state.flags),
        version=state.version,
    )


def _state_in(response: pb2.WatchStateResponse) -> pb2.State | None:
    """The state of a snapshot or a change; None of a heartbeat."""
    kind = response.WhichOneof("update")
    if kind == "snapshot":
        return response.snapshot.state
    return response.state if kind == "state" else None


def _told(error: BaseException) -> str:
    if isinstance(error, grpc.RpcError):
        told = read_error(error)
        return f"{told.code.name}: {told.message}"
    return "silent for too long" if isinstance(error, TimeoutError) else type(error).__name__
