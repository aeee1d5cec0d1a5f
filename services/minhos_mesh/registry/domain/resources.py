"""Decides what the use of a process is called and how its share of a processor follows from two looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """What one process takes of its machine. None where it was not or may not be read."""

    cpu_seconds: float
    """Processor time since it began."""
    sampled_ns: int
    """When it was read, ns since the Unix epoch."""
    cpu_percent: float | None = None
    """Share of one core over the last few seconds, in percent."""
    rss_bytes: int | None = None
    pss_bytes: int | None = None
    """Proportional share of memory: what several processes share counts for each in part."""
    open_files: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class CpuMark:
    """How much processor time a process had used at a moment of the monotonic clock, both in seconds."""

    at: float
    cpu_seconds: float


def cpu_percent(marks: Sequence[CpuMark]) -> float | None:
    """The share of one core between the first and the last mark, in percent; None from fewer than two moments."""
    if len(marks) < 2 or marks[-1].at <= marks[0].at:
        return None
    used = marks[-1].cpu_seconds - marks[0].cpu_seconds
    return max(0.0, 100.0 * used / (marks[-1].at - marks[0].at))
