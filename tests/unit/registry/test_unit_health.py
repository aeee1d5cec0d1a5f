"""What several supervised processes of one service make of its health."""

from __future__ import annotations

from typing import Any

import pytest

from minhos_mesh.registry.domain.supervision import Phase, Unit
from minhos_mesh.registry.unit_notes import UnitNotes


class Registry:
    """Keeps what it is told of services."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.instances = self

    def note_service(self, _service: str, **changes: Any) -> None:
        self.told |= changes

    def process_ended(self, *_told: object) -> None:
        """An instance is gone; its health is told elsewhere."""

    def forget_gone(self, _service: str) -> None:
        """What is gone is told elsewhere too."""


def serving(slot: int, **fields: Any) -> Unit:
    given = {"wanted": True, "phase": Phase.SERVING, "pid": 100 + slot, "instance_id": f"a-{slot}", **fields}
    return Unit("a", slot=slot, **given)


@pytest.mark.parametrize(
    ("units", "wanted", "restarts"),
    [
        ([serving(1)], 1, 0),
        ([serving(1), serving(2)], 2, 0),
        ([serving(1, restarts=2), serving(2, phase=Phase.BACKOFF, restarts=3, failures=3)], 2, 5),
        ([serving(1), serving(2, wanted=False, phase=Phase.STOPPED)], 1, 0),
        ([serving(1), serving(2, phase=Phase.ENDED)], 1, 0),
        ([serving(1, wanted=False, phase=Phase.STOPPED)], 1, 0),
    ],
)
def test_as_many_instances_should_serve_as_are_wanted(units: list[Unit], wanted: int, restarts: int) -> None:
    registry = Registry()
    notes = UnitNotes(registry)  # type: ignore[arg-type] # the part of a registry that it talks to
    for unit in units:
        notes.note(unit)
    assert registry.told["wanted_instances"] == wanted
    assert registry.told["restarts"] == restarts
