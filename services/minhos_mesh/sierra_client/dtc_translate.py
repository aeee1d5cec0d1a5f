"""Decides how the connection to the DTC server is said in the contract."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_mesh.sierra_client.dtc_view import DtcView


def dtc_to_proto(view: DtcView | None) -> pb2.SierraDtcStatus | None:
    """The connection; None where there is none."""
    if view is None:
        return None
    return pb2.SierraDtcStatus(
        address=view.address,
        state=pb2.SierraDtcState.Value(f"SIERRA_DTC_STATE_{view.state}"),
        reason=view.reason,
        since_time=Timestamp(seconds=view.since_ns // 10**9, nanos=view.since_ns % 10**9 // 1000 * 1000),
        encoding=view.encoding,
        server=view.server,
        account=view.account,
        simulated=view.simulated,
        trading_permitted=view.trading_permitted,
        connects=view.connects,
        settled=view.settled,
        unknown_orders=view.unknown_orders,
        market_data=[
            pb2.SierraDtcMarketData(
                symbol=data.symbol,
                state=pb2.SierraDtcDataState.Value(f"SIERRA_DTC_DATA_STATE_{data.state}"),
                reason=data.reason,
                ticks=data.ticks,
            )
            for data in view.data
        ],
        unknown_symbols=view.unknown_symbols,
        live_refused=view.live_refused,
    )
