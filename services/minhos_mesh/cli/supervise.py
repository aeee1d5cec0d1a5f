"""Starts, stops and restarts one service, and shows each step as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc

from minhos_api.registry.v1 import supervisor_service_pb2 as pb
from minhos_api.registry.v1.supervisor_service_pb2_grpc import SupervisorServiceStub
from minhos_mesh.cli import show, start
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import connected, running_registry
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.catalogue import REGISTRY
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load_saved
from minhos_mesh.runtime.keeper_client import KeeperClient, KeeperRefused, keeper_state
from minhos_mesh.runtime.keeper_protocol import ProcessInfo
from minhos_mesh.runtime.paths import MeshPaths

_FAILED: Final = pb.SupervisionProgress.PHASE_FAILED
_TOLD: Final = "ERROR_REASON_START_TIMEOUT"
_LOOK_S: Final = 0.01

Steps = AsyncIterator[Any]
Step = Callable[[pb.SupervisionProgress.Phase.ValueType, str], None]


async def start_service(paths: MeshPaths, service: str, *, as_json: bool) -> None:
    """Starts a service, one that a person has stopped, too, with all it requires. Raises CommandFailed."""
    await _show(paths, lambda stub: stub.StartService(pb.StartServiceRequest(service=service)), as_json)


async def stop_service(paths: MeshPaths, service: str, *, as_json: bool) -> None:
    """Stops a service, which stays stopped. Raises CommandFailed."""
    await _show(paths, lambda stub: stub.StopService(pb.StopServiceRequest(service=service)), as_json)


async def restart_service(paths: MeshPaths, service: str, *, as_json: bool) -> None:
    """Puts a new process in the place of the present one, without a failed call where that can be. Raises CommandFailed."""
    if service == REGISTRY:
        await _restart_registry(paths, as_json)
        return
    await _show(paths, lambda stub: stub.RestartService(pb.RestartServiceRequest(service=service)), as_json)


async def _restart_registry(paths: MeshPaths, as_json: bool) -> None:
    """The keeper starts it again as soon as it has ended; all others serve on and attach to the new one."""
    began = time.monotonic()
    keeper = keeper_state(paths.data_dir)
    if keeper is None:
        raise CommandFailed("no keeper runs the registry at the moment: `minhos status` says more")
    old = next((info for info in keeper.processes if info.root), None)

    def step(phase: pb.SupervisionProgress.Phase.ValueType, message: str) -> None:
        progress = pb.SupervisionProgress(service=REGISTRY, phase=phase, message=message)
        progress.elapsed.FromNanoseconds(round((time.monotonic() - began) * 1e9))
        _say(progress, as_json)

    if old is None:
        step(pb.SupervisionProgress.PHASE_WAITING, "it has just ended, the keeper starts it again")
    else:
        await _end_registry(paths, old, step)
    new = await _next_registry(paths, None if old is None else old.pid, start.REGISTRY_S)
    if new is None:
        raise CommandFailed(
            f"no new registry runs {start.REGISTRY_S:g} s after the old one ended: `minhos logs keeper`"
        )
    step(pb.SupervisionProgress.PHASE_STARTING, f"process {new} started")
    await start.registry_ready(paths)
    step(pb.SupervisionProgress.PHASE_READY, f"serves (process {new})")


async def _end_registry(paths: MeshPaths, old: ProcessInfo, step: Step) -> None:
    """Asks it to end, and kills it when it does not; it may end by itself at any moment."""
    with contextlib.suppress(KeeperRefused):
        KeeperClient(paths.data_dir).signal(old.instance_id, signal.SIGTERM)
    step(pb.SupervisionProgress.PHASE_STOPPING, f"process {old.pid} was asked to end")
    patience_s = load_saved(paths.config_file).registry.stop_deadline_s
    if await _next_registry(paths, old.pid, patience_s) is None and _registry_process(paths) == old.pid:
        with contextlib.suppress(KeeperRefused):
            KeeperClient(paths.data_dir).signal(old.instance_id, signal.SIGKILL)
        step(
            pb.SupervisionProgress.PHASE_STOPPING,
            f"process {old.pid} did not end within {patience_s:g} s and was killed",
        )


async def _next_registry(paths: MeshPaths, old: int | None, within_s: float) -> int | None:
    deadline = time.monotonic() + within_s
    while (new := _registry_process(paths)) in (None, old):
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_LOOK_S)
    return new


def _registry_process(paths: MeshPaths) -> int | None:
    keeper = keeper_state(paths.data_dir)
    return next((info.pid for info in keeper.processes if info.root), None) if keeper is not None else None


async def _show(paths: MeshPaths, call: Callable[[Any], Steps], as_json: bool) -> None:
    async with connected(paths, "nothing was started or stopped"):
        pass  # a registry that is silent is said at once
    clients = Clients(registry=running_registry(paths))
    failed = False
    try:
        async for answer in call(clients.stub(SupervisorServiceStub)):
            failed = failed or answer.progress.phase == _FAILED
            _say(answer.progress, as_json)
    except grpc.aio.AioRpcError as error:
        if failed and errors.read(error).reason == _TOLD:
            # The step that failed has told everything already.
            raise CommandFailed("it did not come true; the line above says why") from None
        raise
    finally:
        await clients.close()


def _say(progress: pb.SupervisionProgress, as_json: bool) -> None:
    if as_json:
        print(json.dumps(show.message_dict(progress)))
    else:
        show.out.print(start.progress_line(progress), markup=False)
