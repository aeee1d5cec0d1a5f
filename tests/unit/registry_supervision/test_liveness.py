from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.health import Silence
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.supervision import Phase, Unit
from minhos_mesh.registry.liveness import Liveness
from minhos_mesh.runtime.clock import ManualClock

UNIT = Unit("engine", wanted=True, phase=Phase.SERVING, instance_id="engine-1", pid=17)


@dataclass
class FakeUnits:
    unit: Unit
    condemned: list[tuple[str, str]] = field(default_factory=list)

    def units(self) -> tuple[Unit, ...]:
        return (self.unit,)

    def condemn(self, service: str, reason: str) -> None:
        self.condemned.append((service, reason))


def present(silence: Silence, gone_at: float | None, instance_id: str = "engine-1") -> Present:
    return Present(
        key=InstanceKey("engine", instance_id),
        host="127.0.0.1",
        port=1,
        contracts=(),
        lease_id="",
        token=1,
        version="",
        attached_ns=0,
        silence=silence,
        gone_at=gone_at,
    )


@pytest.mark.parametrize(
    ("unit", "seen", "given_up"),
    [
        (UNIT, present(Silence.EXPIRED, 989.0), True),
        (UNIT, present(Silence.LOST, 989.0), True),
        (UNIT, present(Silence.EXPIRED, 991.0), False),
        (UNIT, present(Silence.LATE, None), False),
        (UNIT, present(Silence.LIVE, None), False),
        (UNIT, present(Silence.EXPIRED, 989.0, "engine-0"), False),
        (
            Unit("engine", wanted=False, phase=Phase.STOPPING, instance_id="engine-1", pid=17),
            present(Silence.LOST, 1.0),
            False,
        ),
        (Unit("engine", wanted=True, phase=Phase.STARTING), present(Silence.LOST, 1.0), False),
        (
            Unit("engine", wanted=True, phase=Phase.STOPPING, instance_id="engine-1", pid=17, kill_at=1001.0),
            present(Silence.LOST, 1.0),
            False,
        ),
    ],
    ids=[
        "lease ran out long ago",
        "stream lost long ago",
        "not yet long enough",
        "late",
        "live",
        "an instance before it",
        "not wanted",
        "no process",
        "about to be killed already",
    ],
)
def test_a_process_that_lives_in_silence_is_given_up(unit: Unit, seen: Present, given_up: bool) -> None:
    def instances(service: str) -> Iterable[Present]:
        return [seen] if service == "engine" else []

    units = FakeUnits(unit)
    Liveness(instances, units, ManualClock(monotonic=1000.0), deadline_s=lambda _service: 10.0).look()
    assert bool(units.condemned) is given_up
    if given_up:
        assert units.condemned == [("engine", "process 17 has been silent for 11 s and is killed")]
