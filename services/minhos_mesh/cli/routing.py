"""Decides what the commands of routes ask of the registry, and how they tell its answers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
from rich.console import Group, RenderableType
from rich.text import Text

from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.registry.v1 import route_service_pb2 as pb
from minhos_api.registry.v1.route_service_pb2_grpc import RouteServiceStub
from minhos_mesh.cli import narrow, show
from minhos_mesh.cli.asking import actor, fresh_id
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link, connected
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.paths import MeshPaths

_OF_KEEPER = re.compile(r"([a-z][a-z0-9_]*)/(\1(?:-[0-9]{1,4})?)-[0-9a-f]{8}")
"""An instance as the keeper names it: its service, its number where there are several, and what is random."""
_SERVICE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")


async def set_route(
    paths: MeshPaths,
    name: str,
    to: Sequence[str],
    headers: Sequence[str],
    *,
    strict: bool,
    reason: str,
    expected: int | None,
    as_json: bool,
) -> None:
    """Sets the route of a contract, or of all contracts of a service. Raises CommandFailed."""
    parsed = [parse_target(text) for text in to]
    async with connected(paths) as link:
        rule = make_rule(parsed, headers, (await link.services()).services, strict=strict)
        request = pb.SetRouteRequest(
            request_id=fresh_id(),
            name=service_name(name),
            rule=rule,
            expected_revision=expected,
            actor=actor(),
            reason=reason,
        )
        with _known(name):
            answer = await link.clients.stub(RouteServiceStub).SetRoute(request)
    for sentence in passing(who for who, _percent in parsed):
        show.err.print(sentence)
    _tell(answer.routes, answer, as_json=as_json)


async def list_routes(paths: MeshPaths, name: str, *, history: bool, as_json: bool) -> None:
    """All routes, or those of a contract or service."""
    routes: list[pb.Route] = []
    async with connected(paths) as link:
        stub, token = link.clients.stub(RouteServiceStub), ""
        while True:
            request = pb.ListRoutesRequest(name=service_name(name), with_earlier=history, page_token=token)
            with _known(name):
                answer = await stub.ListRoutes(request)
            routes.extend(answer.routes)
            token = answer.next_page_token
            if not token:
                break
    _tell(routes, pb.ListRoutesResponse(routes=routes, revision=answer.revision), as_json=as_json)


async def clear(paths: MeshPaths, name: str, *, reason: str, expected: int | None, as_json: bool) -> None:
    """Removes the route of a contract, or of all contracts of a service."""
    async with connected(paths) as link:
        request = pb.DeleteRouteRequest(
            request_id=fresh_id(),
            name=service_name(name),
            expected_revision=expected,
            actor=actor(),
            reason=reason,
        )
        with _known(name):
            answer = await link.clients.stub(RouteServiceStub).DeleteRoute(request)
    if as_json:
        show.as_json(show.message_dict(answer))
        return
    for contract in answer.contracts:
        show.out.print(f"{contract}: calls go to all instances in turn (revision {answer.revision})")


async def roll_back(
    paths: MeshPaths, name: str, revision: int | None, *, reason: str, expected: int | None, as_json: bool
) -> None:
    """Goes back to the route before, or to a revision."""
    async with connected(paths) as link:
        request = pb.RollbackRouteRequest(
            request_id=fresh_id(),
            name=service_name(name),
            to_revision=revision,
            expected_revision=expected,
            actor=actor(),
            reason=reason,
        )
        with _known(name):
            answer = await link.clients.stub(RouteServiceStub).RollbackRoute(request)
    _tell(answer.routes, answer, as_json=as_json)


async def notes(link: Link) -> list[str]:
    """What is not as the routes say, one sentence for each, with the contract."""
    answer = await link.clients.stub(RouteServiceStub).ListRoutes(pb.ListRoutesRequest(page_size=1_000))
    return [f"route of {route.contract.rpartition('.')[2]}: {note}" for route in answer.routes for note in route.notes]


@contextlib.contextmanager
def _known(name: str) -> Iterator[None]:
    """Tells of a name that nobody knows what it may be; a contract begins with a capital letter or has dots."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        told = errors.read(error)
        if told.reason != "ERROR_REASON_SERVICE_UNKNOWN":
            raise
        raise CommandFailed(unknown_text(name, told.message)) from None


def unknown_text(name: str, told: str) -> str:
    """What is said of a name that the registry does not know, from what it said itself."""
    if name[:1].isupper() or "." in name:
        return f"there is no contract {name!r}: `minhos contract list` shows all"
    return told.replace("there is no service", "there is no service or contract", 1)


def service_name(text: str) -> str:
    """A name as the registry knows it; `trading-engine` is `trading_engine`."""
    return text.replace("-", "_") if _SERVICE.fullmatch(text) else text


def parse_target(text: str) -> tuple[str, int | None]:
    """`v2=10` as who and percent. Raises CommandFailed."""
    who, separator, percent = text.partition("=")
    if not who:
        raise CommandFailed(f"--to is {text!r}: allowed is WHO or WHO=PERCENT, for example v2=10")
    if not separator:
        return who, None
    digits = percent.removesuffix("%")
    if not digits.isascii() or not digits.isdigit() or int(digits[:4]) > 100:
        raise CommandFailed(f"--to is {text!r}: allowed is a percentage from 0 to 100, for example {who}=10")
    return who, int(digits)


def make_rule(
    targets: Sequence[tuple[str, int | None]],
    headers: Sequence[str],
    services: Iterable[registry.Service],
    *,
    strict: bool,
) -> pb.RouteRule:
    """The route that was typed. Raises CommandFailed when it is not clear who is meant by a header."""
    named = {service.name for service in services}
    if headers and len(targets) != 1:
        raise CommandFailed(f"--header needs exactly one --to that its calls go to, there are {len(targets)}")
    if not headers:
        for who, percent in targets:
            if percent is None:
                raise CommandFailed(
                    f"--to {who} has no share: {who}=10 is 10 %, --header leads calls there by a header"
                )
    rule = pb.RouteRule(strict=strict)
    for who, percent in targets:
        rule.targets.add(selector=selector_of(who, named), percent=percent or 0)
    for text in headers:
        header, separator, value = text.partition("=")
        each = rule.headers.add(header=header.lower(), selector=selector_of(targets[0][0], named))
        if separator:
            each.exact = value
        else:
            each.present = True
    return rule


def selector_of(who: str, services: set[str]) -> pb.InstanceSelector:
    """Who is meant: with a slash one instance, a known service, or else a version."""
    if "/" in who:
        return pb.InstanceSelector(instance=who)
    if service_name(who) in services:
        return pb.InstanceSelector(service=service_name(who))
    return pb.InstanceSelector(version=who)


def passing(targets: Iterable[str]) -> Iterator[str]:
    """A warning for each target that ends with one process: one that the keeper named, whose successor has another id."""
    for target in targets:
        named = _OF_KEEPER.fullmatch(target)
        if named is None:
            continue
        service, place = named[1], named[2]
        lasting = f"{service}/{place}" if place != service else service
        yield f"{target} is one process, and the route ends with it: {lasting} names every process that comes in its place"


def _tell(routes: Iterable[pb.Route], answer: Any, *, as_json: bool) -> None:
    if as_json:
        show.as_json(show.message_dict(answer))
        return
    told = list(routes)
    if not told:
        show.out.print("there is no route: the calls of every contract go to all its instances in turn")
        return
    show.out.print(routes_shown(told, show.out.width), soft_wrap=False)
    earlier = [row for route in told for row in _earlier_rows(route)]
    if earlier:
        show.out.print()
        show.out.print(show.table(("CONTRACT", "REV", "WHEN", "WHO", "ROUTE", "WHY"), earlier, right=("REV",)))


def routes_shown(routes: Sequence[pb.Route], width: int) -> RenderableType:
    """Routes as a table; what `width` has no room for stands below it, a line for each note and each list of instances."""
    columns = ("CONTRACT", "REV", "ROUTE", "INSTANCES", "NOTE")
    rows: list[tuple[str, ...]] = [row for route in routes for row in rows_of(route)]
    if narrow.natural_width(columns, rows) > width:
        rows = [(row[0].rpartition(".")[2], *row[1:]) for row in rows]
    names, lines = narrow.fitting(columns, rows, width, ("NOTE", "INSTANCES"))
    table = show.table(names, lines, right=("REV",))
    below, contract = list[Text](), ""
    for name, _revision, text, instances, note in rows:
        contract = name or contract
        if instances and "INSTANCES" not in names:
            below.append(Text(f"{contract}, {text}: {instances}"))
        if note and "NOTE" not in names:
            below.append(Text(f"{contract}: {note}"))
    return Group(table, Text(), *below) if below else table


def rows_of(route: pb.Route) -> list[tuple[str, str, str, str, str]]:
    """A route as lines of a table: one for each part of it, the first with the name."""
    revision = str(route.current.revision) if route.HasField("current") else "-"
    if not route.current.HasField("rule"):
        return [(route.contract, revision, "all instances in turn", "", "")]
    states = {str(state.selector): state for state in route.selectors}
    rule = route.current.rule
    parts = [
        (f"{_condition(each)} -> {who(each.selector)}", _instances(states, each.selector)) for each in rule.headers
    ]
    shares = [target for target in rule.targets if target.percent or not rule.headers]
    parts += [(f"{each.percent} % -> {who(each.selector)}", _instances(states, each.selector)) for each in shares]
    left = 100 - sum(target.percent for target in rule.targets)
    if left:
        parts.append((f"{left} % -> all others", ""))
    notes = [*route.notes, *(["strict"] if rule.strict else [])]
    rows = []
    for number in range(max(len(parts), len(notes))):
        text, instances = parts[number] if number < len(parts) else ("", "")
        note = notes[number] if number < len(notes) else ""
        rows.append((route.contract if number == 0 else "", revision if number == 0 else "", text, instances, note))
    return rows


def who(selector: pb.InstanceSelector) -> str:
    """A selector for people."""
    kind = selector.WhichOneof("selector") or ""
    return f"{kind} {getattr(selector, kind)}"


def rule_text(rule: pb.RouteRule) -> str:
    """A whole route in one line."""
    parts = [f"{_condition(header)} -> {who(header.selector)}" for header in rule.headers]
    parts += [f"{target.percent} % -> {who(target.selector)}" for target in rule.targets]
    return ", ".join(parts) + (" (strict)" if rule.strict else "")


def _condition(header: pb.HeaderRoute) -> str:
    return f"{header.header}={header.exact}" if header.HasField("exact") else header.header


def _instances(states: dict[str, pb.SelectorState], selector: pb.InstanceSelector) -> str:
    state = states.get(str(selector))
    if state is None or not state.instances:
        return "none"
    serving = set(state.serving)
    return ", ".join(name if name in serving else f"{name} (does not serve)" for name in state.instances)


def _earlier_rows(route: pb.Route) -> list[tuple[str, str, str, str, str, str]]:
    return [
        (
            route.contract,
            str(each.revision),
            f"{show.when(each.change_time):%Y-%m-%d %H:%M:%S}",
            each.actor,
            rule_text(each.rule) if each.HasField("rule") else "all instances in turn",
            f"back to {each.restored_revision}; {each.reason}" if each.HasField("restored_revision") else each.reason,
        )
        for each in route.earlier
    ]
