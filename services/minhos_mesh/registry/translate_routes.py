"""Decides how the messages of RouteService and the registry's own values are turned into each other."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from google.protobuf.message import Message

from minhos_api.registry.v1 import route_service_pb2 as pb
from minhos_mesh.registry.domain.routes import (
    HeaderRule,
    RouteRevision,
    RouteRule,
    Selector,
    SelectorKind,
    Target,
)
from minhos_mesh.registry.route_control import Change, RouteStanding
from minhos_mesh.runtime.wire_time import timestamp

_IDENTITY: Final = "request_id"


def change_from(request: Any) -> Change:
    """Who asks for a change of a route."""
    expected = request.expected_revision if request.HasField("expected_revision") else None
    return Change(request.request_id, _mark(request), request.actor, request.reason, expected)


def _mark(request: Message) -> str:
    """What the request asks for, whatever its id."""
    content = type(request)()
    content.CopyFrom(request)
    content.ClearField(_IDENTITY)
    told = request.DESCRIPTOR.full_name.encode() + content.SerializeToString(deterministic=True)
    return hashlib.blake2s(told, digest_size=12).hexdigest()


def rule_from(rule: pb.RouteRule) -> RouteRule:
    """A route as it is asked for."""
    targets = tuple(Target(selector_from(target.selector), target.percent) for target in rule.targets)
    headers = tuple(
        HeaderRule(each.header, each.exact if each.HasField("exact") else None, selector_from(each.selector))
        for each in rule.headers
    )
    return RouteRule(targets, headers, rule.strict)


def selector_from(selector: pb.InstanceSelector) -> Selector:
    """Whom a selector names."""
    kind = selector.WhichOneof("selector") or ""
    return Selector(SelectorKind(kind), getattr(selector, kind))


def selector_to(selector: Selector) -> pb.InstanceSelector:
    """A selector as it is told."""
    match selector.kind:
        case SelectorKind.VERSION:
            return pb.InstanceSelector(version=selector.value)
        case SelectorKind.SERVICE:
            return pb.InstanceSelector(service=selector.value)
        case SelectorKind.INSTANCE:
            return pb.InstanceSelector(instance=selector.value)


def rule_to(rule: RouteRule) -> pb.RouteRule:
    """A route as it is told."""
    told = pb.RouteRule(
        targets=[pb.RouteTarget(selector=selector_to(t.selector), percent=t.percent) for t in rule.targets],
        strict=rule.strict,
    )
    for header in rule.headers:
        each = told.headers.add(header=header.header, selector=selector_to(header.selector))
        if header.exact is None:
            each.present = True
        else:
            each.exact = header.exact
    return told


def revision_to(revision: RouteRevision) -> pb.RouteRevision:
    """One change."""
    return pb.RouteRevision(
        revision=revision.number,
        rule=None if revision.rule is None else rule_to(revision.rule),
        restored_revision=revision.restored,
        change_time=timestamp(revision.author.time_ns),
        actor=revision.author.actor,
        reason=revision.author.reason,
    )


def route_to(standing: RouteStanding, *, with_earlier: bool = False) -> pb.Route:
    """The route of one contract."""
    revisions = standing.history.revisions
    return pb.Route(
        contract=standing.history.contract,
        current=revision_to(revisions[-1]) if revisions else None,
        selectors=[
            pb.SelectorState(selector=selector_to(s.selector), instances=s.instances, serving=s.serving)
            for s in standing.selectors
        ],
        notes=standing.notes,
        earlier=[revision_to(revision) for revision in reversed(revisions[:-1])] if with_earlier else (),
    )
