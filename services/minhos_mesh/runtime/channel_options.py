"""Decides the transport settings of every channel and server, in one place, so that both ends agree.

`grpc.http2.ping_timeout_ms` is what really ends a connection to a frozen peer: without it gRPC waits a minute. Servers must
allow the pings that clients send, or they answer ENHANCE_YOUR_CALM and cut the connection.
"""

from __future__ import annotations

from typing import Final

Options = tuple[tuple[str, str | int], ...]

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Largest message in either direction."""

CHANNEL: Final[Options] = (
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 500),
    ("grpc.http2.ping_timeout_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 0),
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
)
"""For every client channel. None goes idle: an idle one forgets where its service is, and needs the registry to find it again."""

ATTACH: Final[Options] = tuple((k, 300 if k == "grpc.max_reconnect_backoff_ms" else v) for k, v in CHANNEL)
"""For the stream that holds a lease: a registry that is there again is noticed before the leases it remembers run out."""

SERVER: Final[Options] = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 400),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
"""For every server; `so_reuseport` off makes a taken port an error instead of a shared one."""
