"""Decides whether an instance may join: its contracts against those of the mesh and against what live dependents were built with.

(a) What the mesh's own contracts promise must be kept by every contract that is claimed. (b) What a live dependent was
built with must be kept by every contract that it needs. Additions break nothing. An older release may lack what was added
since, as long as the newer one breaks nothing of it and no live dependent calls what it lacks; an instance that only comes
back after its stream broke is not refused for calls that came up meanwhile, since it serves either way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from minhos_mesh.compatibility.compare import LOST_CALLS, Scope, compare, missing_contracts
from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.compatibility.offer import check_known, consumed, published, scope_of, shared_types
from minhos_mesh.compatibility.violation import Violation
from minhos_mesh.registry.attachment import Claim
from minhos_mesh.registry.domain.contract_gate import ContractViolation, Finding, Report, is_older
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need
from minhos_mesh.runtime.contracts import EVENT_BUS

MAX_HELD_BYTES: Final = 32 * 1_048_576
"""Bytes of all different descriptor sets that attached instances may have brought."""
_KEPT_RESULTS: Final = 1_024


class NoRoomForDescriptors(Exception):
    """Expected of a broken or hostile client only: instances bring more different contracts than can be held."""

    def __init__(self, seen: int) -> None:
        super().__init__(f"descriptor sets of all instances have {seen} bytes together: allowed are {MAX_HELD_BYTES}")
        self.limit = "bytes of all descriptor sets"
        self.seen = seen
        self.allowed = MAX_HELD_BYTES


@dataclass(frozen=True, slots=True)
class Built:
    """What an attached instance was built with."""

    serves: frozenset[str]
    needs: frozenset[str]
    """Contracts."""
    set: ContractSet


@dataclass(frozen=True, slots=True)
class Standing:
    """How an offer stands in time to what it is compared with."""

    older: bool = False
    """It is of an older release of the contracts."""
    resumed: bool = False
    """It was admitted before and serves."""


_NEW: Final = Standing()


class _Found(dict[Violation, tuple[set[str], set[InstanceKey]]]):
    """Violations with the contracts through which they matter and the instances that they harm."""


class ContractGate:
    """Holds what is known of contracts, and judges offers."""

    def __init__(self, mesh: ContractSet, release: str) -> None:
        """`mesh` is the mesh's own contract set, `release` the version of its contracts."""
        self.mesh = mesh
        self._release = release
        self._built: dict[InstanceKey, Built] = {}
        self._instances: dict[Built, frozenset[InstanceKey]] = {}
        self._results: dict[tuple[str, str, Scope], tuple[Violation, ...]] = {}

    def check(self, claim: Claim) -> None:
        """Refuses an offer that breaks something. Raises ContractViolation or NoRoomForDescriptors."""
        if claim.built is None:
            return
        self._check_room(claim)
        standing = Standing(self.is_older(claim.versions.get("contracts", "")), claim.presented is not None)
        found = self._found(claim.built, claim.contracts, standing, claim.key)
        unserved = [name for name in claim.contracts if name not in claim.built.symbols.services]
        findings = [*_findings(found), *self._unserved(unserved)]
        if findings:
            raise ContractViolation(findings)

    def joined(self, claim: Claim) -> None:
        """Remembers what an instance that was admitted was built with."""
        self.left(claim.key)
        if claim.built is not None:
            self.knows(claim.key, claim.contracts, claim.needs, claim.built)

    def knows(self, key: InstanceKey, contracts: Collection[str], needs: Iterable[Need], built: ContractSet) -> None:
        """Remembers what an instance was built with that is attached, here or elsewhere."""
        self.left(key)
        needed = {need.contract for need in needs}
        if published(built, contracts) or consumed(built, contracts):
            needed.add(EVENT_BUS)
        found = Built(frozenset(contracts), frozenset(needed), built)
        self._built[key] = found
        self._instances[found] = self._instances.get(found, frozenset()) | {key}

    def ahead_of(self, key: InstanceKey) -> tuple[Finding, ...]:
        """What an instance was built with that those who serve it now do not keep; `consumers` are here who serves it."""
        built, found = self._built.get(key), _Found()
        if built is None:
            return ()
        for other, keys in self._instances.items():
            for name in (built.needs & other.serves) - built.serves:
                for violation in self._against_dependent(other.set, name, built, _NEW):
                    through, serving = found.setdefault(violation, (set(), set()))
                    through.add(name)
                    serving.update(keys)
        return tuple(_findings(found))

    def left(self, key: InstanceKey) -> None:
        """Forgets an instance that serves no more, or is about to leave: nothing harms it from now on."""
        built = self._built.pop(key, None)
        if built is not None:
            others = self._instances.pop(built) - {key}
            if others:
                self._instances[built] = others

    def built(self, key: InstanceKey) -> Built | None:
        """What an instance was built with; None when it has not said so."""
        return self._built.get(key)

    def builds(self) -> tuple[Built, ...]:
        """All different builds of attached instances."""
        return tuple(self._instances)

    def attached(self) -> Mapping[ContractSet, frozenset[InstanceKey]]:
        """All different descriptor sets of attached instances, with who was built with them."""
        found: dict[ContractSet, frozenset[InstanceKey]] = {}
        for built, keys in self._instances.items():
            found[built.set] = found.get(built.set, frozenset()) | keys
        return found

    def is_older(self, release: str) -> bool:
        """Whether a release of the contracts is before the mesh's own."""
        return is_older(release, self._release)

    def report(
        self,
        offered: ContractSet,
        contracts: Iterable[str],
        standing: Standing = _NEW,
        *,
        whole: bool = False,
        types: bool = False,
    ) -> Report:
        """What an offer of these contracts would break, and what it was measured by.

        With `types` also all messages and enums of the offer that are known count. Raises DescriptorsInvalid when nothing of it is.
        """
        claimed, instances = sorted(set(contracts)), dict(self._instances)
        violated = self._found(offered, claimed, standing)
        met = self._found_types(offered, standing, violated) if types else frozenset(claimed)
        findings = _findings(violated)
        if whole:
            known = {finding.violation for finding in findings}
            findings += _gone([v for v in missing_contracts(self.mesh, offered) if v not in known], instances)
        served = {*self.mesh.symbols.services, *(name for built in instances for name in built.serves)}
        dependents = sorted(
            key
            for built, keys in instances.items()
            if self._relied_on(offered, claimed, built) or (types and _met(built, offered))
            for key in keys
        )
        new = tuple(name for name in offered.services if name not in served)
        check_known(claimed, new, met)
        return Report(tuple(findings), tuple(claimed), new, tuple(str(key) for key in dependents))

    def _found(
        self, offered: ContractSet, contracts: Iterable[str], standing: Standing, but: InstanceKey | None = None
    ) -> _Found:
        """Violations with the contracts and the instances that they matter to; `but` is the one that offers."""
        claimed, found = frozenset(contracts), _Found()
        for name in claimed:
            for violation in self._against_mesh(offered, name, standing):
                found.setdefault(violation, (set(), set()))[0].add(name)
        for built, keys in list(self._instances.items()):
            for name in self._relied_on(offered, claimed, built) if keys != {but} else ():
                for violation in self._against_dependent(offered, name, built, standing):
                    through, harmed = found.setdefault(violation, (set(), set()))
                    through.add(name)
                    harmed.update(keys - {but})
        return found

    def _found_types(self, offered: ContractSet, standing: Standing, found: _Found) -> frozenset[str]:
        """Adds what is broken of messages and enums, whichever contract they belong to; returns those that the mesh knows."""
        known = shared_types(self.mesh, offered)
        for violation in self._judged(self.mesh, offered, Scope(frozenset(), types=known), standing):
            found.setdefault(violation, (set(), set()))
        for built, keys in list(self._instances.items()):
            types = _met(built, offered)
            for violation in self._judged(built.set, offered, Scope(frozenset(), types=types), standing):
                found.setdefault(violation, (set(), set()))[1].update(keys)
            known |= types
        return known

    def _relied_on(self, offered: ContractSet, claimed: Collection[str], built: Built) -> frozenset[str]:
        """Contracts that matter to an instance: it needs them, or hears events that their servers publish."""
        hears = consumed(built.set, built.serves)
        return frozenset(
            name
            for name in claimed
            if name in built.needs or hears & (published(offered, [name]) | published(self.mesh, [name]))
        )

    def _against_mesh(self, offered: ContractSet, name: str, standing: Standing) -> tuple[Violation, ...]:
        if name not in self.mesh.symbols.services:
            return ()  # a contract that only this instance knows; the mesh has promised nothing
        scope = scope_of(self.mesh, offered, name, published(self.mesh, [name]))
        return self._judged(self.mesh, offered, scope, standing)

    def _judged(
        self, old: ContractSet, offered: ContractSet, scope: Scope, standing: Standing
    ) -> tuple[Violation, ...]:
        """What is broken, but for what an older release only lacks."""
        found = self._compare(old, offered, scope)
        if found and (standing.older or standing.resumed) and not self._compare(offered, old, scope):
            return ()
        return found

    def _against_dependent(
        self, offered: ContractSet, name: str, built: Built, standing: Standing
    ) -> tuple[Violation, ...]:
        if name in built.needs and name not in built.set.symbols.services:
            return ()  # it needs the contract and did not bring what it was built with
        told = published(offered, [name]) | published(self.mesh, [name])
        scope = scope_of(built.set, offered, name, told & consumed(built.set, built.serves))
        if name not in built.needs:
            scope = Scope(frozenset(), scope.events)  # it hears of it through the bus and never calls it
        found = self._compare(built.set, offered, scope)
        if found and (standing.older or standing.resumed) and not self._compare(offered, built.set, scope):
            return () if standing.resumed else tuple(v for v in found if v.rule in LOST_CALLS)
        return found

    def _compare(self, old: ContractSet, new: ContractSet, scope: Scope) -> tuple[Violation, ...]:
        key = (old.digest, new.digest, scope)
        if key not in self._results:
            while len(self._results) >= _KEPT_RESULTS:
                self._results.pop(next(iter(self._results)), None)
            self._results[key] = compare(old, new, scope)
        return self._results[key]

    def _unserved(self, names: Iterable[str]) -> list[Finding]:
        """Contracts that are claimed without being in the offer, and that the mesh does not know either."""
        rule, why = "PACKAGE_SERVICE_NO_DELETE", "it is not in the offer"
        return [
            Finding(Violation("", name, rule, "claimed", why), (name,))
            for name in names
            if name not in self.mesh.symbols.services
        ]

    def _check_room(self, claim: Claim) -> None:
        held = {built.set.digest: built.set.size for built, keys in self._instances.items() if keys != {claim.key}}
        if claim.built is not None and claim.built.digest not in held:
            seen = sum(held.values()) + claim.built.size
            if seen > MAX_HELD_BYTES:
                raise NoRoomForDescriptors(seen)


def _met(built: Built, offered: ContractSet) -> frozenset[str]:
    """Messages and enums of an offer that an instance meets: in calls of what it needs, or in events that it hears."""
    reach = built.set.symbols.reach(built.needs, consumed(built.set, built.serves))
    return (reach.all | reach.enums) & shared_types(built.set, offered)


def _findings(found: _Found) -> list[Finding]:
    return [
        Finding(violation, tuple(sorted(through)), tuple(str(key) for key in sorted(harmed)))
        for violation, (through, harmed) in sorted(found.items())
    ]


def _gone(missing: Iterable[Violation], instances: Mapping[Built, Collection[InstanceKey]]) -> list[Finding]:
    """Contracts that a whole contract set has no longer, with who needs them."""
    return [
        Finding(
            each,
            (each.element,),
            tuple(
                str(key) for key in sorted(k for b, keys in instances.items() if each.element in b.needs for k in keys)
            ),
        )
        for each in missing
    ]
