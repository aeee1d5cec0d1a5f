"""Ports for servers that must be told theirs before they listen; whoever can takes port 0 instead."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
