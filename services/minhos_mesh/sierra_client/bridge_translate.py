"""Decides how the bridge is said in the contract, and what the configuration says of it."""

from __future__ import annotations

from minhos_api.market.v1 import provenance_pb2
from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.sierra_client.bridge_orders import TradeStatus
from minhos_mesh.sierra_client.bridge_source import FOLDER, BridgeSettings
from minhos_mesh.sierra_client.bridge_status import BridgeState, BridgeStatus, Way
from minhos_mesh.sierra_client.domain import Provenance

_STATES = {
    BridgeState.DISCONNECTED: pb2.SIERRA_BRIDGE_STATE_DISCONNECTED,
    BridgeState.SILENT: pb2.SIERRA_BRIDGE_STATE_SILENT,
    BridgeState.STREAMING: pb2.SIERRA_BRIDGE_STATE_STREAMING,
    BridgeState.POLLING: pb2.SIERRA_BRIDGE_STATE_POLLING,
    BridgeState.ERROR: pb2.SIERRA_BRIDGE_STATE_ERROR,
}
_WAYS = {
    None: pb2.SIERRA_BRIDGE_WAY_UNSPECIFIED,
    Way.LIVE_DATA: pb2.SIERRA_BRIDGE_WAY_LIVE_DATA,
    Way.MARKET_DATA: pb2.SIERRA_BRIDGE_WAY_MARKET_DATA,
    Way.POLLING: pb2.SIERRA_BRIDGE_WAY_POLLING,
}
_TRADE_STATUSES = {
    TradeStatus.NOT_ASKED: pb2.SIERRA_BRIDGE_TRADE_STATUS_UNSPECIFIED,
    TradeStatus.INVENTED: pb2.SIERRA_BRIDGE_TRADE_STATUS_INVENTED,
    TradeStatus.ABSENT: pb2.SIERRA_BRIDGE_TRADE_STATUS_ABSENT,
    TradeStatus.UNPROVEN: pb2.SIERRA_BRIDGE_TRADE_STATUS_UNPROVEN,
}
_PROVENANCES = {
    Provenance.DELAYED: provenance_pb2.PROVENANCE_DELAYED,
    Provenance.SIMULATED: provenance_pb2.PROVENANCE_SIMULATED,
}


def bridge_settings(config: MeshConfig, paths: MeshPaths) -> BridgeSettings | None:
    """What the configuration says; None when it names no bridge."""
    section = config.bridge
    if section.address is None:
        return None
    return BridgeSettings(
        address=section.address,
        ticks_e9={symbol: config.spec(symbol).tick_e9 for symbol in config.bridge_symbols()},
        folder=paths.data_dir / FOLDER,
        provenance=Provenance[section.provenance],
        history_ns=int(config.sierra_client.history_hours * 3_600_000_000_000),
        poll_s=section.poll_s,
        silent_s=section.silent_s,
    )


def bridge_to_proto(status: BridgeStatus | None) -> pb2.SierraBridgeStatus | None:
    """The status of the bridge; None where there is none."""
    if status is None:
        return None
    time_ns = status.quote_time_ns
    quote_time = None if time_ns is None else timestamp(time_ns)
    return pb2.SierraBridgeStatus(
        address=status.address,
        state=_STATES[status.state],
        reason=status.reason,
        way=_WAYS[status.way],
        dialect=status.dialect,
        version=status.version,
        provenance=_PROVENANCES[status.provenance],
        quotes_read=status.quotes_read,
        ticks_written=status.ticks_written,
        refused=status.refused,
        reconnects=status.reconnects,
        quote_time=quote_time,
        symbols_offered=status.symbols_offered,
        trade_status=_TRADE_STATUSES[status.trade_status],
        trade_status_reason=status.trade_status_reason,
    )
