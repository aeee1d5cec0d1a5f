"""Decides how much one client, or all of them together, may ask of the registry by attaching.

The services of the plan have room kept for them, so that whoever attaches beside them cannot keep them out. Beyond a limit
a stream ends with a clear error; what it held is let go, and nothing else of the mesh is touched.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from minhos_mesh.registry.domain.directory import Known
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.instances import MAX_INSTANCES, Instances
from minhos_mesh.runtime.clock import Clock

HELLO_SECONDS: Final = 5.0
"""How long a stream may be open before it says hello."""
KEPT_FOR_PLAN: Final = 256
"""Of all instances that may be attached, those that only services of the plan may take."""
MAX_STRANGERS: Final = 512
"""Services that nobody planned and that are known because they attached."""
HELLOS_PER_SECOND: Final = 200.0
"""Hellos of all strangers together, or of one planned service, in the long run; as many as may be attached may come at once."""
BEATS_PER_SECOND: Final = 50.0
"""Heartbeats of one stream in the long run."""
BEATS_AT_ONCE: Final = 200.0
"""Heartbeats of one stream that may come at once."""
MAX_BEAT_BYTES: Final = 64 * 1024
"""Size of a heartbeat or a goodbye."""
MAX_NEEDS: Final = 256
"""Contracts that one instance may say it needs."""


class TooMuch(Exception):
    """Expected of a broken or hostile client only: a limit of attaching is passed."""

    def __init__(self, limit: str, seen: int | str, allowed: int | str) -> None:
        super().__init__(f"{limit}: {seen}, allowed are {allowed}")
        self.limit, self.seen, self.allowed = limit, seen, allowed


@dataclass(slots=True)
class Bucket:
    """Lets `rate` through in a second in the long run, and `burst` at once."""

    rate: float
    burst: float
    left: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> Bucket:
        """A bucket from which nothing was taken yet."""
        return cls(rate, burst, burst, now)

    def take(self, now: float) -> bool:
        """Takes one, if there is one."""
        self.left = min(self.burst, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is configured."""

    of_service: int = 1_024
    """Instances of one service that may be attached at once."""
    silent: int = 2_048
    """Streams that have not said hello yet; beyond them the one that has been silent longest gives way."""


class SilentStream:
    """One stream that has not said hello yet."""

    def __init__(self, deadline: asyncio.Timeout, bound: int) -> None:
        self._deadline, self._bound = deadline, bound
        self.gave_way = False

    def give_way(self) -> None:
        """Ends the wait for its hello at once."""
        self.gave_way = True
        self._deadline.reschedule(asyncio.get_running_loop().time())

    def too_many(self) -> TooMuch:
        """What it is told when it gives way."""
        return TooMuch("streams that have not said hello", f"more than {self._bound}", self._bound)


class AttachLimits:
    """The limits of one registry."""

    def __init__(self, clock: Clock, planned: Collection[str], instances: Instances, bounds: Bounds) -> None:
        """`planned` are the services of the plan; `instances` those that are there or still told of."""
        self._clock, self._planned, self._instances = clock, frozenset(planned), instances
        self._bounds = bounds
        self._silent: dict[SilentStream, None] = {}
        self._hellos: dict[str, Bucket] = {}
        self._entering: Counter[str] = Counter()

    @property
    def silent(self) -> int:
        """Streams that have not said hello yet."""
        return len(self._silent)

    @contextmanager
    def silence(self, deadline: asyncio.Timeout) -> Iterator[SilentStream]:
        """While a stream is waited for to say hello; the longest silent one gives way when there are too many."""
        stream = SilentStream(deadline, self._bounds.silent)
        self._silent[stream] = None
        if len(self._silent) > self._bounds.silent:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.give_way()
        try:
            yield stream
        finally:
            self._silent.pop(stream, None)

    @contextmanager
    def entering(self, key: InstanceKey, known: Mapping[str, Known]) -> Iterator[None]:
        """While an instance is admitted. Raises TooMuch when there is no room for it. `known` are all known services."""
        planned = key.service in self._planned
        self._check_rate(key.service if planned else "")
        if not self._is_here(key):  # else it comes back, and takes no more room than it had
            self._check_room(key.service, known, planned=planned)
        self._entering[key.service] += 1
        try:
            yield
        finally:
            self._entering[key.service] -= 1
            self._entering += Counter()

    def to_forget(self, known: Mapping[str, Known]) -> str | None:
        """The stranger to forget before one more is let in: not there, and lost the longest ago; None while there is room."""
        if len(self._strangers(known)) < MAX_STRANGERS:
            return None
        away = [name for name in self._strangers(known) if name in known and not self._count(name)]
        away = [name for name in away if known[name].wanted is None]
        return min(away, key=lambda name: (known[name].lost_at or 0.0, name), default=None)

    def beats(self) -> Bucket:
        """What one stream may send in heartbeats."""
        return Bucket.full(BEATS_PER_SECOND, BEATS_AT_ONCE, self._clock.monotonic())

    def check_beat(self, beats: Bucket) -> None:
        """Takes one heartbeat in. Raises TooMuch when they come too fast."""
        if not beats.take(self._clock.monotonic()):
            raise TooMuch("heartbeats a second", f"more than {BEATS_PER_SECOND:.0f}", f"{BEATS_PER_SECOND:.0f}")

    def _check_room(self, service: str, known: Mapping[str, Known], *, planned: bool) -> None:
        of_service = self._count(service)
        if of_service >= self._bounds.of_service:
            raise TooMuch(f"attached instances of {service}", of_service, self._bounds.of_service)
        if planned:
            return
        attached = self._instances.living() + self._entering.total()
        if attached >= MAX_INSTANCES - KEPT_FOR_PLAN:
            raise TooMuch("attached instances", attached, MAX_INSTANCES - KEPT_FOR_PLAN)
        strangers = self._strangers(known)
        if service not in strangers and len(strangers) >= MAX_STRANGERS:
            raise TooMuch("services that attached by themselves", len(strangers), MAX_STRANGERS)

    def _strangers(self, known: Mapping[str, Known]) -> set[str]:
        """Services that nobody planned, those that are being admitted for the first time among them."""
        return {*known, *self._entering} - self._planned

    def _check_rate(self, whose: str) -> None:
        now = self._clock.monotonic()
        bucket = self._hellos.get(whose)
        if bucket is None:
            bucket = self._hellos[whose] = Bucket.full(HELLOS_PER_SECOND, float(MAX_INSTANCES), now)
        if not bucket.take(now):
            limit = f"hellos of {whose} a second" if whose else "hellos of services that nobody planned, a second"
            raise TooMuch(limit, f"more than {HELLOS_PER_SECOND:.0f}", f"{HELLOS_PER_SECOND:.0f}")

    def _is_here(self, key: InstanceKey) -> bool:
        present = self._instances.present.get(key)
        return present is not None and not present.gone

    def _count(self, service: str) -> int:
        """Instances of a service that are there, those that are being admitted among them."""
        return sum(not present.gone for present in self._instances.of_service(service)) + self._entering[service]
