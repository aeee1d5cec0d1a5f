"""Decides how order books are said in the contracts, and the other way round."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import depth_pb2, provenance_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_mesh.market_data.domain.depth import Book, DepthFeed, Level
from minhos_mesh.runtime.wire_time import timestamp


def book_from_proto(message: depth_pb2.Depth, wall_ns: int) -> Book:
    """A book as a source sends it; one without a time of receipt was received at `wall_ns`."""
    return Book(
        sequence=message.sequence,
        event_time_ns=message.event_time.ToNanoseconds() if message.HasField("event_time") else None,
        receive_time_ns=message.receive_time.ToNanoseconds() if message.HasField("receive_time") else wall_ns,
        bids=tuple(map(_level, message.bids)),
        asks=tuple(map(_level, message.asks)),
    )


def _level(message: depth_pb2.DepthLevel) -> Level:
    orders = message.order_count if message.HasField("order_count") else None
    return Level(message.price_e9, message.size, orders)


def depth_to_proto(feed: DepthFeed) -> depth_pb2.Depth | None:
    """The newest book; None stays unset."""
    book, source = feed.book, feed.source
    if book is None or source is None:
        return None
    return depth_pb2.Depth(
        symbol=feed.symbol,
        bids=[_level_to_proto(level) for level in book.bids],
        asks=[_level_to_proto(level) for level in book.asks],
        event_time=_time(book.event_time_ns),
        receive_time=_time(book.receive_time_ns),
        sequence=book.sequence,
        epoch=source.epoch,
        provenance=provenance_pb2.Provenance.ValueType(int(source.provenance)),
    )


def _level_to_proto(level: Level) -> depth_pb2.DepthLevel:
    return depth_pb2.DepthLevel(price_e9=level.price_e9, size=level.size, order_count=level.orders)


def _time(time_ns: int | None) -> Timestamp | None:
    if time_ns is None:
        return None
    return timestamp(time_ns)


def depth_opened(through: int) -> bytes:
    """What is held of a source of books."""
    opened = ingest_pb2.IngestDepthOpened(through_sequence=through)
    return ingest_pb2.IngestDepthResponse(opened=opened).SerializeToString()


def depth_acknowledged(through: int, rejected: int) -> bytes:
    """What was taken from it."""
    ack = ingest_pb2.IngestDepthAck(through_sequence=through, rejected=rejected)
    return ingest_pb2.IngestDepthResponse(ack=ack).SerializeToString()


def depth_source_beat() -> bytes:
    """A sign of life for it."""
    return ingest_pb2.IngestDepthResponse(heartbeat=ingest_pb2.IngestHeartbeat()).SerializeToString()
