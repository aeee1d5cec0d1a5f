"""Decides how moments are told to people."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_text(time_ns: int) -> str:
    """Return a moment in UTC to the second."""
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
