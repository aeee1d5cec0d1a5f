"""Decides how instances are looked at from outside: their standard health is watched and asked."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.health import CHECK_FAILURES_UNTIL_UNHEALTHY, Serving
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.service import Registry
from minhos_mesh.runtime import channel_options
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.streams import messages
from minhos_mesh.runtime.tasks import OwnedTasks

CHECK_TIMEOUT_S: Final = 3.0
"""How long an instance may take to answer a check."""
WATCH_RETRY_S: Final = 1.0
"""Pause before a broken watch is opened again."""

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_log = get_logger("registry.monitor")


class HealthMonitor:
    """Looks at every instance for as long as it is there."""

    def __init__(
        self, registry: Registry, tasks: OwnedTasks, *, check_s: float, own_key: InstanceKey | None = None
    ) -> None:
        """Checks come every `check_s` seconds, twice as often after an error; the registry asks itself nothing."""
        self._registry, self._tasks, self._check_s, self._own_key = registry, tasks, check_s, own_key
        self._watching: dict[InstanceKey, tuple[int, asyncio.Task[None]]] = {}
        registry.on_arrival(self._on_arrival)

    def _on_arrival(self, present: Present, here: bool) -> None:
        token, task = self._watching.get(present.key, (None, None))
        if here and token != present.token:
            if task is not None:  # a new token replaces the watch of the stream before it
                task.cancel()
            looking = self._tasks.start(self._look(present), f"monitor-{present.key}")
            self._watching[present.key] = (present.token, looking)
        elif not here and task is not None and token == present.token:
            del self._watching[present.key]
            task.cancel()

    async def _look(self, present: Present) -> None:
        if present.key == self._own_key or not present.port:
            return  # a process that is only watched listens nowhere
        async with grpc.aio.insecure_channel(present.address, options=channel_options.CHANNEL) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stub names no methods
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(stub, present))
                group.create_task(self._check_for_ever(stub, present))

    async def _check_for_ever(self, stub: Any, present: Present) -> None:
        failures = 0
        while True:
            try:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=CHECK_TIMEOUT_S, wait_for_ready=True)
                failures = 0
                self._note(present, check_failures=0, check_error="")
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    failures += 1
                    text = f"{error.code().name} {error.details()}"
                    if failures <= CHECK_FAILURES_UNTIL_UNHEALTHY:  # what goes on for hours is said when it begins
                        _log.warning("check.failed", instance_key=str(present.key), failures=failures, error=text)
                    self._note(present, check_failures=failures, check_error=text)
            await asyncio.sleep(self._check_s / 2 if failures else self._check_s)

    async def _watch(self, stub: Any, present: Present) -> None:
        while True:
            try:
                async for response in messages(stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)):
                    serves = response.status == _SERVING
                    self._note(present, watched=Serving.SERVING if serves else Serving.NOT_SERVING)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return
            self._note(present, watched=Serving.UNKNOWN)
            await asyncio.sleep(WATCH_RETRY_S)

    def _note(self, present: Present, **changes: object) -> None:
        self._registry.instances.note(present.key, present.token, **changes)
