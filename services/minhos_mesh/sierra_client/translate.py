"""Decides how feeds, files and ticks are said in the contracts, and the other way round."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import provenance_pb2
from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_mesh.runtime.tick_layout import wire_of
from minhos_mesh.runtime.ticks import batch_in_field
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.sierra_client.bridge_translate import bridge_to_proto
from minhos_mesh.sierra_client.depth_feed import DepthStatus
from minhos_mesh.sierra_client.domain import FeedState, Provenance
from minhos_mesh.sierra_client.dtc_translate import dtc_to_proto
from minhos_mesh.sierra_client.feed import FeedStatus
from minhos_mesh.sierra_client.listing import DataFile
from minhos_mesh.sierra_client.ports import Opening
from minhos_mesh.sierra_client.service import ClientStatus
from minhos_mesh.sierra_files.as_ticks import as_ticks
from minhos_mesh.sierra_files.ticks import TickColumns

PROVENANCES = {
    Provenance.LIVE: provenance_pb2.PROVENANCE_LIVE,
    Provenance.DELAYED: provenance_pb2.PROVENANCE_DELAYED,
    Provenance.REPLAY: provenance_pb2.PROVENANCE_REPLAY,
    Provenance.SIMULATED: provenance_pb2.PROVENANCE_SIMULATED,
}

_STATES = {
    FeedState.WAITING_FOR_FILE: pb2.SIERRA_FEED_STATE_WAITING_FOR_FILE,
    FeedState.DISCONNECTED: pb2.SIERRA_FEED_STATE_DISCONNECTED,
    FeedState.READING: pb2.SIERRA_FEED_STATE_READING,
    FeedState.TAILING: pb2.SIERRA_FEED_STATE_TAILING,
    FeedState.ENDED: pb2.SIERRA_FEED_STATE_ENDED,
    FeedState.ERROR: pb2.SIERRA_FEED_STATE_ERROR,
}

_BATCH_FIELD = ingest_pb2.IngestTicksRequest.BATCH_FIELD_NUMBER


def batch_request(opening: Opening, columns: TickColumns, first_position: int, receive_ns: int | None) -> bytes:
    """An encoded IngestTicksRequest with one batch; `receive_ns` None: each tick was received at its event time."""
    ticks = as_ticks(columns, receive_ns)
    provenance = PROVENANCES[opening.provenance]
    return batch_in_field(_BATCH_FIELD, opening.symbol, provenance, opening.epoch, first_position, wire_of(ticks))


def open_request(opening: Opening) -> ingest_pb2.IngestTicksRequest:
    """The message that introduces a source."""
    return ingest_pb2.IngestTicksRequest(
        open=ingest_pb2.IngestOpen(
            source=opening.source,
            symbol=opening.symbol,
            provenance=PROVENANCES[opening.provenance],
            epoch=opening.epoch,
        )
    )


def end_request(through_position: int) -> ingest_pb2.IngestTicksRequest:
    """The message that says that a source has ended."""
    return ingest_pb2.IngestTicksRequest(end=ingest_pb2.IngestEnd(through_position=through_position))


def status_to_proto(status: ClientStatus) -> pb2.SierraStatus:
    """The status of the client."""
    return pb2.SierraStatus(
        folder=str(status.folder),
        feeds=[_feed_to_proto(feed) for feed in status.feeds],
        ingest_connected=status.ingest_connected,
        bridge=bridge_to_proto(status.bridge),
        dtc=dtc_to_proto(status.dtc),
        books=[_books_to_proto(books) for books in status.books],
    )


def file_to_proto(file: DataFile) -> pb2.SierraFile:
    """A data file."""
    return pb2.SierraFile(
        name=file.name,
        symbol=file.symbol,
        size_bytes=file.size_bytes,
        records=file.records,
        first_time=time_to_proto(file.first_time_ns),
        last_time=time_to_proto(file.last_time_ns),
        error=file.error,
        simulated=file.simulated,
    )


def time_to_proto(time_ns: int | None) -> Timestamp | None:
    """A time in ns since the Unix epoch; None stays unset."""
    if time_ns is None:
        return None
    return timestamp(time_ns)


def _books_to_proto(books: DepthStatus) -> pb2.SierraDepthStatus:
    return pb2.SierraDepthStatus(
        symbol=books.symbol,
        file=books.file,
        reason=books.reason,
        books_read=books.books_read,
        books_sent=books.books_sent,
        commands_refused=books.commands_refused,
        event_time=time_to_proto(books.event_time_ns),
    )


def _feed_to_proto(feed: FeedStatus) -> pb2.SierraFeedStatus:
    return pb2.SierraFeedStatus(
        symbol=feed.symbol,
        file=feed.file,
        state=_STATES[feed.state],
        reason=feed.reason,
        records_read=feed.records_read,
        records_acknowledged=feed.records_acknowledged,
        records_expected=feed.records_expected,
        epoch=feed.epoch,
        provenance=PROVENANCES[feed.provenance],
        event_time=time_to_proto(feed.event_time_ns),
        reconnects=feed.reconnects,
        generation_reason=feed.generation_reason,
    )
