"""Decides what a route means: which instances get which share of the calls, what happens when nobody of them serves, and
what its earlier revisions were.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from minhos_mesh.registry.domain.directory import Present, Rotation

KEPT_REVISIONS = 100
"""Changes of one contract's route that are remembered."""


class SelectorKind(enum.Enum):
    """What a selector looks at."""

    VERSION = "version"
    SERVICE = "service"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True)
class Selector:
    """Names some of the instances that serve a contract."""

    kind: SelectorKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.value}"

    def fits(self, present: Present) -> bool:
        """Whether it names this instance."""
        if self.kind is SelectorKind.VERSION:
            return present.version == self.value
        if self.kind is SelectorKind.SERVICE:
            return present.key.service == self.value
        return self.value in (str(present.key), place_of(present))


_NUMBERED = re.compile(r"(.+-[0-9]{1,4})-[0-9a-f]{8}")


def place_of(present: Present) -> str | None:
    """The place among several that the keeper starts, `worker/worker-2`, which each later process in it has too; None
    for an instance that named itself.
    """
    numbered = _NUMBERED.fullmatch(str(present.key))
    return numbered[1] if numbered else None


@dataclass(frozen=True, slots=True)
class Target:
    """A share of the calls."""

    selector: Selector
    percent: int


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """Calls with a header of this value, or of any value when that is None, go to some instances."""

    header: str
    exact: str | None
    selector: Selector


@dataclass(frozen=True, slots=True)
class RouteRule:
    """How the calls of one contract are spread. What the targets leave of 100 goes to the instances that nothing names."""

    targets: tuple[Target, ...] = ()
    headers: tuple[HeaderRule, ...] = ()
    strict: bool = False
    """Whether the calls of a target of which nobody serves wait or fail instead of going to the others."""

    def selectors(self) -> tuple[Selector, ...]:
        """All selectors, each once, those of the targets first."""
        named = (*(t.selector for t in self.targets), *(h.selector for h in self.headers))
        return tuple(dict.fromkeys(named))


class RouteInvalid(ValueError):
    """Expected: a route cannot be meant as it was given."""

    def __init__(self, field_name: str, seen: str, allowed: str) -> None:
        super().__init__(f"{field_name} is {seen}: allowed is {allowed}")
        self.field, self.seen, self.allowed = field_name, seen, allowed


class RouteTargetUnknown(LookupError):
    """Expected: no attached instance of the contract is what a route names."""

    def __init__(self, contract: str, selector: Selector, known: Sequence[str]) -> None:
        self.contract, self.selector = contract, str(selector)
        self.known = ", ".join(known) or "none: no instance of it is attached"
        super().__init__(f"{contract} has no instance with {selector}; known: {self.known}")


class RouteUnknown(LookupError):
    """Expected: a contract has no route, or no revision of one to go back to."""

    def __init__(self, contract: str, text: str, revision: int | None = None) -> None:
        super().__init__(f"{contract} {text}")
        self.contract, self.revision = contract, revision


class RevisionMoved(Exception):
    """Expected: somebody else changed the route meanwhile."""

    def __init__(self, contract: str, expected: int, current: int) -> None:
        super().__init__(f"the route of {contract} is at revision {current}, the change was made from {expected}")
        self.contract, self.expected, self.current = contract, expected, current


class RequestReused(Exception):
    """Expected of a careless caller: a request id came before with another request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id {request_id!r} came before with another request")
        self.request_id = request_id
        self.field = "request_id"


def check_rule(rule: RouteRule) -> None:
    """Refuses what cannot be meant. Raises RouteInvalid."""
    total, seen = 0, set[Selector]()
    for index, target in enumerate(rule.targets):
        if target.selector in seen:
            raise RouteInvalid(f"rule.targets[{index}].selector", str(target.selector), "each selector once")
        seen.add(target.selector)
        total += target.percent
    if total > 100:
        shares = " + ".join(str(target.percent) for target in rule.targets)
        raise RouteInvalid("rule.targets", f"{shares} = {total} percent", "at most 100 percent together")
    conditions = [(h.header, h.exact) for h in rule.headers]
    for index, condition in enumerate(conditions):
        if condition in conditions[:index]:
            raise RouteInvalid(f"rule.headers[{index}]", f"{_condition(rule.headers[index])} again", "each header once")


def check_targets(contract: str, rule: RouteRule, instances: Collection[Present]) -> None:
    """Refuses a route to nobody. Raises RouteTargetUnknown for the first selector that names no attached instance."""
    for selector in rule.selectors():
        if not any(selector.fits(present) for present in instances):
            raise RouteTargetUnknown(contract, selector, names_of(instances))


def names_of(instances: Iterable[Present]) -> tuple[str, ...]:
    """What these instances can be named by in a route."""
    there = sorted(instances, key=lambda present: present.key)
    kinds = (
        (f"version {p.version}" for p in there if p.version),
        (f"service {p.key.service}" for p in there),
        (f"instance {place_of(p) or p.key}" for p in there),
    )
    return tuple(dict.fromkeys(name for kind in kinds for name in kind))


# What becomes of a route with the instances that are there now.


@dataclass(frozen=True, slots=True)
class Spread:
    """How calls are spread now. A selector of None stands for the others: the instances that no selector names."""

    shares: tuple[tuple[Selector | None, int], ...]
    headers: tuple[HeaderRule, ...] = ()
    others_are_all: bool = False
    """Whether the others are all instances, since no share can be followed."""
    notes: tuple[str, ...] = ()
    """What is not as the route says, for people."""
    strict: bool = False
    """Whether calls are lost to what the notes say, instead of going to others."""


WITHOUT_ROUTE = Spread(((None, 100),), others_are_all=True)


def others(rule: RouteRule, instances: Iterable[Present]) -> tuple[Present, ...]:
    """The instances that no selector of the route names."""
    selectors = rule.selectors()
    return tuple(p for p in instances if not any(selector.fits(p) for selector in selectors))


def spread(rule: RouteRule, instances: Collection[Present]) -> Spread:
    """Follows a route as far as somebody serves: the share of a target without an instance in rotation goes to the others,
    that of others without one to the targets, and when nobody at all is left by it, to whoever there is.

    A strict route is followed to the letter.
    """
    if rule.strict:
        return _strict(rule, instances)
    serving = [present for present in instances if present.rotation() is Rotation.IN]
    usable = {s for s in rule.selectors() if any(s.fits(p) for p in serving)}
    notes = [
        f"{selector} has no instance that serves: {_its_calls(rule, selector)} go to the others"
        for selector in rule.selectors()
        if selector not in usable and serving
    ]
    shares = [(t.selector, t.percent) for t in rule.targets if t.percent and t.selector in usable]
    left = 100 - sum(percent for _selector, percent in shares)
    headers = tuple(h for h in rule.headers if h.selector in usable)
    rest_serves = bool(others(rule, serving))
    if rest_serves or not serving:
        kept: list[tuple[Selector | None, int]] = [*shares, *([(None, left)] if left else [])]
        return Spread(tuple(kept), headers, not serving, tuple(notes))
    if not shares:
        notes.append("nobody else serves: all calls go to whoever does")
        return Spread(((None, 100),), headers, others_are_all=True, notes=tuple(notes))
    if left:
        notes.append(f"nobody else serves: their {left} % go to {_listed(s for s, _p in shares)}")
    return Spread(tuple(shares), headers, notes=tuple(notes))


def _strict(rule: RouteRule, instances: Collection[Present]) -> Spread:
    left = 100 - sum(target.percent for target in rule.targets)
    shares: list[tuple[Selector | None, int]] = [(t.selector, t.percent) for t in rule.targets if t.percent]
    if left:
        shares.append((None, left))
    serving = [present for present in instances if present.rotation() is Rotation.IN]
    notes = tuple(
        f"{selector} has no instance that serves: {_its_calls(rule, selector)} wait or fail"
        for selector in rule.selectors()
        if not any(selector.fits(present) for present in serving)
    )
    return Spread(tuple(shares), rule.headers, notes=notes, strict=True)


def _its_calls(rule: RouteRule, selector: Selector) -> str:
    percent = sum(target.percent for target in rule.targets if target.selector == selector)
    conditions = [_condition(header) for header in rule.headers if header.selector == selector]
    parts = [f"its {percent} %"] if percent else []
    if conditions:
        parts.append(f"calls with {' or '.join(conditions)}")
    return " and ".join(parts) or "its calls (0 %)"


def _condition(rule: HeaderRule) -> str:
    return rule.header if rule.exact is None else f"{rule.header}={rule.exact}"


def _listed(selectors: Iterable[Selector]) -> str:
    return " and ".join(str(selector) for selector in selectors)


# How a route came to be.


@dataclass(frozen=True, slots=True)
class Author:
    """Who changed a route, when, why, and by which request."""

    request_id: str
    actor: str
    reason: str
    time_ns: int
    asked: str
    """What the request asked for, shortened to a mark; the same id with another mark is refused."""


@dataclass(frozen=True, slots=True)
class RouteRevision:
    """One change of a contract's route."""

    number: int
    rule: RouteRule | None
    """None when the contract had no route any more."""
    author: Author
    restored: int | None = None
    """Number of the revision that a rollback brought back, 0 for the time before the first; None when it was none."""

    @property
    def origin(self) -> int:
        """The revision whose rule this is."""
        return self.number if self.restored is None else self.restored


@dataclass(frozen=True, slots=True)
class RouteHistory:
    """All that is known of one contract's route."""

    contract: str
    revisions: tuple[RouteRevision, ...] = ()
    """Oldest first."""

    @property
    def newest(self) -> int:
        """Number of the newest revision; 0 when there never was one."""
        return self.revisions[-1].number if self.revisions else 0

    @property
    def rule(self) -> RouteRule | None:
        """The route that holds; None when there is none."""
        return self.revisions[-1].rule if self.revisions else None

    def by_request(self, request_id: str) -> RouteRevision | None:
        """The change that a request made; None when it made none here."""
        return next((r for r in reversed(self.revisions) if r.author.request_id == request_id), None)

    def changed(self, number: int, rule: RouteRule | None, author: Author) -> RouteHistory:
        """With a new route, or without one; the same when that holds already. Raises RouteUnknown when there is none to remove."""
        if rule is None and self.rule is None:
            raise RouteUnknown(self.contract, "has no route")
        return self if rule == self.rule else self._with(RouteRevision(number, rule, author))

    def rolled_back(self, number: int, to_revision: int | None, author: Author) -> RouteHistory:
        """With the route as it was one change before, or at a revision. Raises RouteUnknown."""
        wanted = to_revision
        if wanted is None:
            wanted = self._before(self.revisions[-1].origin if self.revisions else 0)
        if wanted == 0:
            return self._with(RouteRevision(number, None, author, 0))
        source = next((r for r in self.revisions if r.number == wanted), None)
        if source is None:
            raise RouteUnknown(self.contract, f"has no revision {wanted} of its route", wanted)
        return self._with(RouteRevision(number, source.rule, author, source.origin))

    def _before(self, origin: int) -> int:
        if origin == 0:
            raise RouteUnknown(self.contract, "has no earlier route to go back to")
        earlier = [r.number for r in self.revisions if r.number < origin]
        if not earlier and len(self.revisions) >= KEPT_REVISIONS:
            raise RouteUnknown(self.contract, "has no earlier route to go back to that is still remembered")
        return earlier[-1] if earlier else 0

    def _with(self, revision: RouteRevision) -> RouteHistory:
        return replace(self, revisions=(*self.revisions, revision)[-KEPT_REVISIONS:])


def rules_of(histories: Mapping[str, RouteHistory]) -> dict[str, RouteRule]:
    """The routes that hold, by contract."""
    return {name: history.rule for name, history in histories.items() if history.rule is not None}
