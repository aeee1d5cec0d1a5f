"""Wires the Sierra simulator: settings of the feed, writer, servicer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.runtime.config import ConfigError, MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.symbols import parse_symbol
from minhos_mesh.sierra_simulator.domain.faults import (
    FaultConflict,
    FaultNotPossible,
    FaultRefused,
    FaultUnknown,
    TooManyFaults,
)
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind, SpeedRefused
from minhos_mesh.sierra_simulator.domain.gaps import Gap
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_feed import DtcFeed
from minhos_mesh.sierra_simulator.dtc_file import OrderFile
from minhos_mesh.sierra_simulator.dtc_server import DtcServer
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings
from minhos_mesh.sierra_simulator.fault_dtc import ServerFaults
from minhos_mesh.sierra_simulator.service import SierraSimulator, SimulatorFailed
from minhos_mesh.sierra_simulator.servicer import SierraSimulatorServicer
from minhos_mesh.sierra_simulator.settings import SettingsRefused, SimulatorSettings

_LOG = get_logger("sierra_simulator")

ORDERS: Final = "sierra_simulator_orders"
"""Name of the database of the orders at its DTC server."""
PROBLEM: Final = "FILE_NOT_WRITTEN"

ERRORS: ErrorTable = {
    SpeedRefused: ErrorRow(
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_INVALID_FIELD,
        ("field", "seen", "allowed"),
        field="field",
    ),
    SimulatorFailed: ErrorRow(grpc.StatusCode.FAILED_PRECONDITION, error_reason_pb2.ERROR_REASON_FILE_INVALID),
    FaultRefused: ErrorRow(
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_INVALID_FIELD,
        ("field", "seen", "allowed"),
        field="field",
    ),
    FaultNotPossible: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION, error_reason_pb2.ERROR_REASON_FAULT_NOT_POSSIBLE, ("kind", "needs")
    ),
    FaultConflict: ErrorRow(
        grpc.StatusCode.ALREADY_EXISTS, error_reason_pb2.ERROR_REASON_REQUEST_CONFLICT, ("request_id",)
    ),
    FaultUnknown: ErrorRow(
        grpc.StatusCode.NOT_FOUND, error_reason_pb2.ERROR_REASON_FAULT_UNKNOWN, ("request_id", "active")
    ),
    TooManyFaults: ErrorRow(
        grpc.StatusCode.RESOURCE_EXHAUSTED, error_reason_pb2.ERROR_REASON_LIMIT_REACHED, ("seen", "limit")
    ),
}


@asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Builds the service; it writes its history when the port is bound. Raises ConfigError."""

    def hold(problem: str) -> None:
        if problem:
            context.conditions.set(PROBLEM, problem)
        else:
            context.conditions.clear(PROBLEM)

    server = dtc_server(context)
    first, *others = (settings_of(context.config, context.paths, root) for root in context.config.feed.products())
    shown = None if server is None else DtcFeed(server, context.clock)
    simulator = SierraSimulator(
        first,
        clock=context.clock,
        tasks=context.tasks,
        others=others if first.feed is FeedKind.RANDOM_WALK else (),
        on_problem=hold,
        on_records=None if shown is None else shown.on_records,
        on_book=None if shown is None else shown.on_book,
        dtc=None if server is None else ServerFaults(server),
    )

    async def start() -> None:
        try:
            await simulator.start()
            if server is not None:
                await server.start()
                _LOG.info("dtc.serving", port=server.port)
        except SimulatorFailed as failed:
            raise ConfigError(f"[feed] cannot begin: {failed}") from failed
        except OSError as error:
            port = context.config.feed.dtc_port
            why = os.strerror(error.errno).lower() if error.errno else error.strerror
            raise ConfigError(
                f"feed.dtc_port is {port}, which cannot be listened on: 127.0.0.1:{port}, {why};"
                " end the program that has it, or set another feed.dtc_port"
            ) from error

    try:
        yield ServiceParts(servicers=[SierraSimulatorServicer(simulator)], errors=ERRORS, start=start)
    finally:
        if server is not None:
            await server.close()
        simulator.close()


def dtc_server(context: ServiceContext) -> DtcServer | None:
    """The DTC server that the configuration asks for, not listening yet; None when it asks for none. Raises ConfigError."""
    feed = context.config.feed
    if feed.dtc_port is None:
        return None
    settings = DtcServerSettings(
        port=feed.dtc_port,
        refused_exchanges=frozenset(feed.dtc_refused_exchanges),
        instruments=context.config.specs(),
    )
    exchange = SimulatedExchange(settings, context.config.symbols())
    try:
        file = OrderFile(context.paths.store_file(ORDERS))
        exchange.restore(file.load())
    except OSError as error:
        raise ConfigError(str(error)) from error
    return DtcServer(exchange, clock=context.clock, folder=context.paths.sierra_dir, file=file)


def settings_of(config: MeshConfig, paths: MeshPaths, root: str = "") -> SimulatorSettings:
    """What the configuration says about the feed, and about one product of a random walk (the first). Raises ConfigError."""
    feed, root = config.feed, root or config.feed.products()[0]
    if feed.kind == "none":
        raise ConfigError("feed.kind is none: there is nothing for the simulator to write, leave it out")
    try:
        return SimulatorSettings(
            folder=paths.sierra_dir,
            feed=FeedKind.REPLAY if feed.kind == "replay" else FeedKind.RANDOM_WALK,
            symbol=next((text for text in config.symbols() if parse_symbol(text).root == root), None),
            root=root,
            seed=feed.seed,
            ticks_per_s=feed.ticks_per_second,
            history_s=int(feed.history_hours * 3600),
            replay_file=feed.file.expanduser() if feed.kind == "replay" and feed.file is not None else None,
            replay_speed=0.0 if feed.speed == "max" else float(feed.speed),
            passes=feed.loops,
            gaps=[
                Gap(_us(gap.after_s), _us(gap.length_s), None if gap.every_s is None else _us(gap.every_s))
                for gap in feed.gaps
            ],
            depth_levels=feed.depth_levels,
            keep_depth_days=feed.keep_depth_days,
            run_id=_run_id(paths.config_file),
            instruments=config.specs(),
        )
    except SettingsRefused as refused:
        raise ConfigError(f"[feed] {refused}") from None


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _run_id(config_file: Path) -> str:
    """Names the run of the mesh: its configuration is written anew by each `minhos up`, and by nothing else."""
    try:
        return str(config_file.stat().st_mtime_ns)
    except OSError:
        return ""
