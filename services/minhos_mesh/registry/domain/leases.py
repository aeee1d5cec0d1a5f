"""Decides who holds the lease of an instance: granting, renewing, running out, and refusing stale owners.

A lease is held as long as heartbeats come. Each grant carries a fencing token that is higher than every token granted
before, so that whoever keeps a resource can refuse an owner that was replaced without knowing it. Times are seconds
of a monotonic clock that the caller gives.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

LATE_SECONDS = 2.0
"""Silence after which an instance gets no more traffic, should its lease be longer."""
LEASE_SECONDS = 3.0
"""Silence after which the lease has run out and another may take the instance over, unless configured otherwise."""


@dataclass(frozen=True, slots=True, order=True)
class InstanceKey:
    """One instance of one service."""

    service: str
    instance_id: str

    def __str__(self) -> str:
        return f"{self.service}/{self.instance_id}"


class LeaseRefused(Exception):
    """A claim or a heartbeat that cannot be accepted; expected."""


class InstanceHeld(LeaseRefused):
    """Another process holds the lease of this instance and is alive."""

    def __init__(self, key: InstanceKey, token: int) -> None:
        super().__init__(f"{key} is held under token {token} by a process that is alive")
        self.instance_id = key.instance_id
        self.newest = token


class StaleToken(LeaseRefused):
    """The fencing token is not the one that holds the lease: its owner was replaced or ran out."""

    def __init__(self, key: InstanceKey, text: str, *, shown: int, newest: int) -> None:
        super().__init__(f"{key} {text}")
        self.instance_id = key.instance_id
        self.fencing_token = shown
        self.newest = newest


class Standing(enum.Enum):
    """How a lease stands at a moment."""

    LIVE = "LIVE"
    LATE = "LATE"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one process to be an instance."""

    lease_id: str
    key: InstanceKey
    token: int
    renewed: float
    time_to_live: float = LEASE_SECONDS
    recovered: bool = False
    """Read back from the store after a restart of the registry; its owner has not come back yet, and is not held to be
    late before the lease has run out, since a restart must never take working endpoints away.
    """

    def standing(self, now: float) -> Standing:
        """Whether heartbeats still come."""
        silent = now - self.renewed
        if silent >= self.time_to_live:
            return Standing.EXPIRED
        late = silent >= LATE_SECONDS and not self.recovered
        return Standing.LATE if late else Standing.LIVE

    def next_change(self, now: float) -> float:
        """When the standing changes next if no heartbeat comes."""
        late, end = self.renewed + LATE_SECONDS, self.renewed + self.time_to_live
        return min(late, end) if now < late and not self.recovered else end


@dataclass(frozen=True, slots=True)
class LeaseBook:
    """All leases, and the highest token each instance was ever granted."""

    leases: Mapping[InstanceKey, Lease] = field(default_factory=lambda: MappingProxyType({}))
    last_tokens: Mapping[InstanceKey, int] = field(default_factory=lambda: MappingProxyType({}))
    time_to_live: float = LEASE_SECONDS
    """Seconds without a heartbeat after which a lease has run out."""

    def grant(
        self, key: InstanceKey, *, lease_id: str, token: int, presented: int | None, now: float
    ) -> tuple[LeaseBook, Lease]:
        """Grants `key` under `token`, which the caller has taken from the persistent counter.

        `presented` is the token of the lease that the claimant held before, None for a new process. Raises
        InstanceHeld or StaleToken.
        """
        self.check_claim(key, presented=presented, now=now)
        if token <= self.highest_token():
            highest = self.highest_token()
            raise StaleToken(key, f"cannot be granted token {token}, {highest} was", shown=token, newest=highest)
        lease = Lease(lease_id, key, token, now, self.time_to_live)
        return self._with(lease), lease

    def check_claim(self, key: InstanceKey, *, presented: int | None, now: float) -> None:
        """Whether a claim may be granted now, before a token is spent on it. Raises InstanceHeld or StaleToken."""
        last = self.last_tokens.get(key, 0)
        if presented is not None and presented != last:
            text = f"shows fencing token {presented}, the newest one is {last}"
            raise StaleToken(key, text, shown=presented, newest=last)
        current = self.live(key, now)
        if current is not None and presented is None:
            raise InstanceHeld(key, current.token)

    def renew(self, key: InstanceKey, lease_id: str, token: int, now: float) -> LeaseBook:
        """Takes a heartbeat. Raises StaleToken when this lease is not the one that holds the instance."""
        lease = self.leases.get(key)
        if lease is None or lease.lease_id != lease_id or lease.token != token:
            newest = self.last_tokens.get(key, 0)
            text = f"sent a heartbeat under token {token}, but does not hold the lease; the newest is {newest}"
            raise StaleToken(key, text, shown=token, newest=newest)
        if lease.standing(now) is Standing.EXPIRED:
            text = f"sent a heartbeat after {now - lease.renewed:.1f} s of silence, its lease has run out"
            raise StaleToken(key, text, shown=token, newest=lease.token)
        return self._with(replace(lease, renewed=now, recovered=False))

    def release(self, key: InstanceKey, lease_id: str) -> LeaseBook:
        """Ends a lease; one that is already held by another stays."""
        lease = self.leases.get(key)
        if lease is None or lease.lease_id != lease_id:
            return self
        return self._without([key])

    def recover(self, lease: Lease) -> LeaseBook:
        """Takes a lease of an earlier life of the registry back, as long as its owner may come back."""
        return self._with(replace(lease, time_to_live=self.time_to_live, recovered=True))

    def remember_token(self, key: InstanceKey, token: int) -> LeaseBook:
        """Takes the last token of an instance back from the store."""
        return replace(self, last_tokens=MappingProxyType({**self.last_tokens, key: token}))

    def expire(self, now: float) -> tuple[LeaseBook, tuple[Lease, ...]]:
        """Removes what has run out and returns it."""
        gone = tuple(lease for lease in self.leases.values() if lease.standing(now) is Standing.EXPIRED)
        return (self._without(lease.key for lease in gone) if gone else self), gone

    def forgive(self, now: float) -> LeaseBook:
        """Gives every lease its full time again, because the registry itself stood still and could take no heartbeats."""
        renewed = {key: replace(lease, renewed=now) for key, lease in self.leases.items()}
        return replace(self, leases=MappingProxyType(renewed))

    def live(self, key: InstanceKey, now: float) -> Lease | None:
        """The lease of an instance, None when there is none or it has run out."""
        lease = self.leases.get(key)
        return lease if lease is not None and lease.standing(now) is not Standing.EXPIRED else None

    def of_service(self, service: str, now: float) -> tuple[Lease, ...]:
        """The leases of a service that have not run out."""
        return tuple(
            lease
            for lease in self.leases.values()
            if lease.key.service == service and lease.standing(now) is not Standing.EXPIRED
        )

    def next_change(self, now: float) -> float | None:
        """When the standing of any lease changes next; None without leases."""
        return min((lease.next_change(now) for lease in self.leases.values()), default=None)

    def highest_token(self) -> int:
        """The highest token this book has seen."""
        return max(self.last_tokens.values(), default=0)

    def _with(self, lease: Lease) -> LeaseBook:
        tokens = {**self.last_tokens, lease.key: max(lease.token, self.last_tokens.get(lease.key, 0))}
        leases = MappingProxyType({**self.leases, lease.key: lease})
        return replace(self, leases=leases, last_tokens=MappingProxyType(tokens))

    def _without(self, keys: Iterable[InstanceKey]) -> LeaseBook:
        gone = set(keys)
        kept = {key: lease for key, lease in self.leases.items() if key not in gone}
        return replace(self, leases=MappingProxyType(kept))
