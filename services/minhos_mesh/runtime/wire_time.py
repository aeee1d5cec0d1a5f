"""Decides how an instant stands in a message of the contracts."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

NS = 1_000_000_000


def timestamp(time_ns: int) -> Timestamp:
    """Nanoseconds since the Unix epoch as a Timestamp."""
    return Timestamp(seconds=time_ns // NS, nanos=time_ns % NS)
