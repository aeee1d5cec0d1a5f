"""Decides what one discovery stream is sent and when: subscriptions, nonces, refused resources, push order.

Pure state machine without I/O, one per stream. It holds at most what the client subscribed to (bounded by
`MAX_NAMES`), never a queue of pushes: a slow client gets the newest state, not every state in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from minhos_mesh.registry.envoy import PackedResource
from minhos_mesh.registry.xds_resources import CDS, LDS, PUSH_ORDER, RDS, Resources

MAX_NAMES = 2_000
"""Names one stream may subscribe to, per type."""
MAX_NAME_LENGTH = 512
MAX_NAME_CHARACTERS = 256 * 1024
"""Characters of all names that one stream may subscribe to."""
MAX_UNKNOWN = 64
"""Names nobody knows that one stream may subscribe to, per type; each costs an answer of its own."""
MAX_TEXT = 500
"""Characters of a client's reason that are kept."""
_READ_TEXT = 16 * 1024
"""Characters of it that are searched for names."""
_MAX_REFUSED = 256
_WHOLE_STATE_TYPES = frozenset({LDS, CDS})
"""Types whose every response lists all resources, because a missing one means that it is gone."""

Fallback = Callable[[str, str], PackedResource | None]


class TooManyNames(Exception):
    """The client subscribed to more names, or longer ones, than one stream may hold; expected of broken clients."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The resources of the mesh at one moment, with the version that stands in the responses."""

    version: str
    resources: Resources


@dataclass(frozen=True, slots=True)
class Request:
    """What a client says: what it wants of one type, and what it thought of the last response."""

    type_url: str
    names: tuple[str, ...]
    nonce: str = ""
    error: str | None = None
    """The client's reason for refusing the last response; None when it accepted it."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the client is sent."""

    type_url: str
    version: str
    nonce: str
    resources: tuple[PackedResource, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response that the client did not accept."""

    type_url: str
    version: str
    names: tuple[str, ...]
    """The resources held to be at fault; they are withheld from this client until they change."""
    text: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """A resource that a client does not take as it is now, so that it works with an older one or none."""

    name: str
    text: str
    """The client's reason."""
    older: bool
    """Whether it has an older one."""


@dataclass(slots=True)
class _Subscription:
    names: frozenset[str] = frozenset()
    wildcard: bool = False
    nonce: str = ""
    version: str = ""
    acknowledged: bool = True
    answer_due: bool = True
    sent: dict[str, bytes] = field(default_factory=dict)
    accepted: dict[str, PackedResource] = field(default_factory=dict)
    pending: dict[str, PackedResource] = field(default_factory=dict)
    unknown: dict[str, PackedResource | None] = field(default_factory=dict)
    refused: dict[tuple[str, bytes], str] = field(default_factory=dict)
    """What was refused, with the reason."""


class DiscoveryStream:
    """The conversation with one discovery client."""

    def __init__(self, fallback: Fallback) -> None:
        self._fallback = fallback
        self._subscriptions: dict[str, _Subscription] = {}
        self._responses = 0
        self.accepted = 0
        """Responses the client acknowledged."""

    def receive(self, request: Request) -> Refusal | None:
        """Takes one request in; returns the refusal when it is one. Raises TooManyNames."""
        if request.type_url not in PUSH_ORDER:
            return None
        self._check_names(request)
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            subscription = _Subscription(wildcard=not request.names and request.type_url in _WHOLE_STATE_TYPES)
            self._subscriptions[request.type_url] = subscription
        elif request.nonce != subscription.nonce:
            return self._stale(request)
        refusal = self._judge(request, subscription)
        self._subscribe(subscription, frozenset(request.names))
        return refusal

    def next_response(self, snapshot: Snapshot) -> Response | None:
        """The next thing to send, in make-before-break order; None when the client has all it should have."""
        for type_url in PUSH_ORDER:
            response = self._respond(type_url, snapshot, linger=True)
            if response is not None:
                return response
        if self._routes_settled():
            return self._respond(CDS, snapshot, linger=False)
        return None

    @property
    def answered(self) -> bool:
        """Whether the client has acknowledged or refused all that it was sent."""
        return all(subscription.acknowledged for subscription in self._subscriptions.values())

    @property
    def proven(self) -> bool:
        """Whether the client has answered a response, as every working one does."""
        return self.accepted > 0 or any(s.refused for s in self._subscriptions.values())

    def withheld(self, snapshot: Snapshot) -> tuple[Withheld, ...]:
        """The resources that the client refused as they are now, by name."""
        found = [
            Withheld(name, text, name in subscription.accepted)
            for type_url, subscription in self._subscriptions.items()
            for (name, value), text in subscription.refused.items()
            if name in subscription.names and _is(snapshot.resources.get(type_url, {}).get(name), value)
        ]
        return tuple(sorted(found, key=lambda each: each.name))

    def subscribed(self, type_url: str) -> frozenset[str]:
        """The names the client asked for, of one type."""
        subscription = self._subscriptions.get(type_url)
        return subscription.names if subscription is not None else frozenset()

    def _stale(self, request: Request) -> Refusal | None:
        """An answer to an older response is not acted on, but a refusal in it is still worth telling."""
        if request.error is None:
            return None
        return Refusal(request.type_url, "", (), readable(request.error, MAX_TEXT))

    def _judge(self, request: Request, subscription: _Subscription) -> Refusal | None:
        if not request.nonce:
            return None
        subscription.acknowledged = True
        pending, subscription.pending = subscription.pending, {}
        if request.error is None:
            subscription.accepted.update(pending)
            self.accepted += 1
            return None
        text = readable(request.error, MAX_TEXT)
        at_fault = _at_fault(request.error[:_READ_TEXT], pending, subscription)
        for name in at_fault:
            subscription.refused[name, pending[name].value] = text
        while len(subscription.refused) > _MAX_REFUSED:
            subscription.refused.pop(next(iter(subscription.refused)))
        if at_fault:  # what was right in the refused response has to be sent again without the rest
            for name in pending:
                subscription.sent.pop(name, None)
            subscription.answer_due = request.type_url in _WHOLE_STATE_TYPES
        return Refusal(request.type_url, subscription.version, tuple(sorted(at_fault)), text)

    def _subscribe(self, subscription: _Subscription, names: frozenset[str]) -> None:
        if names:
            subscription.wildcard = False
        if names - subscription.names:
            subscription.answer_due = True
        for name in subscription.names - names:
            for kept in (subscription.sent, subscription.accepted, subscription.pending, subscription.unknown):
                kept.pop(name, None)
        subscription.names = names

    def _respond(self, type_url: str, snapshot: Snapshot, *, linger: bool) -> Response | None:
        subscription = self._subscriptions.get(type_url)
        if subscription is None:
            return None
        wanted = self._wanted(type_url, subscription, snapshot, linger=linger)
        changed = {n: r for n, r in wanted.items() if subscription.sent.get(n) != r.value}
        whole = type_url in _WHOLE_STATE_TYPES
        gone = whole and any(name not in wanted for name in subscription.sent)
        if not changed and not gone and not subscription.answer_due:
            return None
        subscription.answer_due = False
        to_send = wanted if whole else changed
        if not to_send and not whole:
            return None
        return self._send(type_url, subscription, snapshot.version, to_send)

    def _wanted(
        self, type_url: str, subscription: _Subscription, snapshot: Snapshot, *, linger: bool
    ) -> dict[str, PackedResource]:
        known: Mapping[str, PackedResource] = snapshot.resources.get(type_url, {})
        names: Iterable[str] = known if subscription.wildcard else sorted(subscription.names)
        wanted: dict[str, PackedResource] = {}
        unknown = 0
        for name in names:
            resource = known.get(name)
            if resource is None:
                unknown += 1
                resource = self._unknown(type_url, subscription, name) if unknown <= MAX_UNKNOWN else None
            if resource is None and linger and name in subscription.sent:
                resource = subscription.accepted.get(name)
            if resource is not None and (name, resource.value) in subscription.refused:
                resource = subscription.accepted.get(name)
            if resource is not None:
                wanted[name] = resource
        if unknown > MAX_UNKNOWN:
            raise TooManyNames(f"resource_names: {unknown} names that nobody knows, allowed are {MAX_UNKNOWN}")
        return wanted

    def _unknown(self, type_url: str, subscription: _Subscription, name: str) -> PackedResource | None:
        """What is said about a name nobody knows; made once, since every push asks for it again."""
        if name not in subscription.unknown:
            subscription.unknown[name] = self._fallback(type_url, name)
        return subscription.unknown[name]

    def _send(
        self, type_url: str, subscription: _Subscription, version: str, resources: Mapping[str, PackedResource]
    ) -> Response:
        self._responses += 1
        subscription.nonce = str(self._responses)
        subscription.version = version
        subscription.acknowledged = False
        subscription.pending.update(resources)
        if type_url in _WHOLE_STATE_TYPES:
            subscription.sent.clear()
        subscription.sent.update({name: resource.value for name, resource in resources.items()})
        return Response(type_url, version, subscription.nonce, tuple(resources.values()))

    def _check_names(self, request: Request) -> None:
        names = request.names
        if len(names) > MAX_NAMES:
            raise TooManyNames(f"resource_names: {len(names)} names, allowed are {MAX_NAMES}")
        for name in names:
            if len(name) > MAX_NAME_LENGTH:
                raise TooManyNames(f"resource_names: a name of {len(name)} characters, allowed are {MAX_NAME_LENGTH}")
        others = (s.names for type_url, s in self._subscriptions.items() if type_url != request.type_url)
        characters = sum(map(len, names)) + sum(len(name) for names_of in others for name in names_of)
        if characters > MAX_NAME_CHARACTERS:
            raise TooManyNames(f"resource_names: {characters} characters in all, allowed are {MAX_NAME_CHARACTERS}")

    def _routes_settled(self) -> bool:
        routes = self._subscriptions.get(RDS)
        return routes is None or routes.acknowledged


def readable(text: str, longest: int) -> str:
    """What a client says as people may see it: cut, and without what would drive a terminal."""
    return "".join(character if character.isprintable() else " " for character in text[:longest])


def _is(resource: PackedResource | None, value: bytes) -> bool:
    return resource is not None and resource.value == value


def _at_fault(text: str, pending: Mapping[str, PackedResource], subscription: _Subscription) -> list[str]:
    """The resources a refusal speaks of: those it names, else all that are new to the client.

    The name of a contract is also how the names of its subsets begin, so the longest names are looked for first.
    """
    named = []
    for name in sorted(pending, key=len, reverse=True):
        if name in text:
            named.append(name)
            text = text.replace(name, "")
    if named:
        return named
    return [name for name, r in pending.items() if subscription.accepted.get(name) != r]
