"""Decides what must be given from outside so that what happens can be told as events: what makes messages of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.history import HealthChange
from minhos_mesh.registry.outbox import Fact


@dataclass(frozen=True, slots=True)
class FactMakers:
    """How facts are put into messages; given from outside, since this module knows no messages."""

    health: Callable[[HealthChange], Sequence[Fact]]
    started: Callable[[Present, int], Fact]
    stopped: Callable[[Present, bool, str, int], Fact]
