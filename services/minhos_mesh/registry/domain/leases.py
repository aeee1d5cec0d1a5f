"""Decides who holds the lease of an instance: granting, renewing, running out, and refusing stale owners.

A lease is held as long as heartbeats come. Each grant carries a fencing token that is higher than every token granted
before, so that whoever keeps a resource can refuse an owner that was replaced without knowing it. Times are seconds
of a monotonic clock that the caller gives.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

LATE_SECONDS = 2.0
"""Silence after which an instance gets no more traffic, should its lease be longer."""
LEASE_SECONDS = 3.0
"""Silence after which the lease has run out and another may take the instance over, unless configured otherwise."""
RETURN_SECONDS = 3.0
"""How long the owner of a recovered lease has at least: it first has to notice that the registry is there again."""


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


class LeaseBook:
    """All leases, and the highest token each instance was ever granted.

    A heartbeat costs the same however many leases there are: they are kept in the order of their last heartbeat, so that
    those which run out come first.
    """

    def __init__(self, time_to_live: float = LEASE_SECONDS) -> None:
        """A lease has run out `time_to_live` seconds after its last heartbeat."""
        self.time_to_live = time_to_live
        self._leases: dict[InstanceKey, Lease] = {}
        self._last: dict[InstanceKey, int] = {}

    @property
    def leases(self) -> Mapping[InstanceKey, Lease]:
        """All leases, the one with the oldest heartbeat first."""
        return MappingProxyType(self._leases)

    def last_token(self, key: InstanceKey) -> int:
        """The highest token that an instance was ever granted; 0 when none is known."""
        return self._last.get(key, 0)

    def grant(self, key: InstanceKey, *, lease_id: str, token: int, presented: int | None, now: float) -> Lease:
        """Grants `key` under `token`, which the caller has taken from the persistent counter.

        `presented` is the token of the lease that the claimant held before, None for a new process. Raises
        InstanceHeld or StaleToken.
        """
        self.check_claim(key, presented=presented, now=now)
        last = self.last_token(key)
        if token <= last:
            raise StaleToken(key, f"cannot be granted token {token}, {last} was", shown=token, newest=last)
        lease = Lease(lease_id, key, token, now, self.time_to_live)
        self._put(lease)
        return lease

    def check_claim(self, key: InstanceKey, *, presented: int | None, now: float) -> None:
        """Whether a claim may be granted now, before a token is spent on it. Raises InstanceHeld or StaleToken."""
        last = self.last_token(key)
        if presented is not None and presented != last:
            text = f"shows fencing token {presented}, the newest one is {last}"
            raise StaleToken(key, text, shown=presented, newest=last)
        current = self.live(key, now)
        if current is not None and presented is None:
            raise InstanceHeld(key, current.token)

    def renew(self, key: InstanceKey, lease_id: str, token: int, now: float) -> None:
        """Takes a heartbeat. Raises StaleToken when this lease is not the one that holds the instance."""
        lease = self._leases.get(key)
        if lease is None or lease.lease_id != lease_id or lease.token != token:
            newest = self.last_token(key)
            text = f"sent a heartbeat under token {token}, but does not hold the lease; the newest is {newest}"
            raise StaleToken(key, text, shown=token, newest=newest)
        if now - lease.renewed >= lease.time_to_live:
            text = f"sent a heartbeat after {now - lease.renewed:.1f} s of silence, its lease has run out"
            raise StaleToken(key, text, shown=token, newest=lease.token)
        self._put(Lease(lease_id, key, token, now, self.time_to_live))

    def release(self, key: InstanceKey, lease_id: str) -> None:
        """Ends a lease; one that is already held by another stays."""
        lease = self._leases.get(key)
        if lease is not None and lease.lease_id == lease_id:
            del self._leases[key]

    def recover(self, lease: Lease) -> None:
        """Takes a lease of an earlier life of the registry back, as long as its owner may come back."""
        self._put(replace(lease, time_to_live=max(self.time_to_live, RETURN_SECONDS), recovered=True))

    def remember_token(self, key: InstanceKey, token: int) -> None:
        """Takes in the last token of an instance, as the store has it."""
        self._last[key] = max(token, self.last_token(key))

    def expire(self, now: float) -> tuple[Lease, ...]:
        """Removes what has run out and returns it."""
        gone = []
        for lease in self._leases.values():
            if lease.standing(now) is Standing.EXPIRED:
                gone.append(lease)
            elif not lease.recovered:
                break
        for lease in gone:
            del self._leases[lease.key]
        return tuple(gone)

    def late(self, now: float) -> tuple[Lease, ...]:
        """Leases that are late and have not run out."""
        found = []
        for lease in self._leases.values():
            standing = lease.standing(now)
            if standing is Standing.LIVE and not lease.recovered:
                break
            if standing is Standing.LATE:
                found.append(lease)
        return tuple(found)

    def forgive(self, now: float) -> None:
        """Gives every lease its full time again, because the registry itself stood still and could take no heartbeats."""
        for key, lease in self._leases.items():
            self._leases[key] = replace(lease, renewed=now)

    def live(self, key: InstanceKey, now: float) -> Lease | None:
        """The lease of an instance, None when there is none or it has run out."""
        lease = self._leases.get(key)
        return lease if lease is not None and lease.standing(now) is not Standing.EXPIRED else None

    def next_change(self, now: float) -> float | None:
        """When the standing of any lease changes next; None without leases."""
        soonest: float | None = None
        for lease in self._leases.values():
            change = lease.next_change(now)
            soonest = change if soonest is None else min(soonest, change)
            if not lease.recovered and lease.standing(now) is Standing.LIVE:
                break  # all that follow were heard of later
        return soonest

    def _put(self, lease: Lease) -> None:
        self._leases.pop(lease.key, None)
        self._leases[lease.key] = lease
        self.remember_token(lease.key, lease.token)
