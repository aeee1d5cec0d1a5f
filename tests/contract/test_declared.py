"""No service publishes, consumes or calls what its contracts do not declare, and declares nothing that it does not do: read from the sources."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

import minhos_mesh
from minhos_mesh.registry.mesh_services import planned_services, specs_of
from minhos_mesh.registry.plan import make_plan
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.contracts import Contract, all_contracts, event_catalogue
from minhos_mesh.runtime.roles import contracts_of, running

SOURCES = Path(minhos_mesh.__path__[0])
BUS = "minhos_api.events.v1.EventBusService"
REGISTRY = "minhos_api.registry.v1.RegistryService"
SERVICES = service_names()
VENUE = "minhos_api.venue.v1.VenueService"
SECOND = {"sierra_client": {VENUE}}
"""Contracts that a service serves instead of the one that they are written for: it need not use all that they allow."""


@dataclass(frozen=True)
class Done:
    """What the sources of one service do."""

    serves: frozenset[str]
    calls: frozenset[str]
    publishes: frozenset[str]
    consumes: frozenset[str]


def modules_of(folder: Path) -> Iterator[list[ast.AST]]:
    for path in sorted(folder.rglob("*.py")):
        yield list(ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))))


def name_of(node: ast.AST | None) -> str:
    """`Stub` of `Stub` and of `module.Stub`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@functools.cache
def contracts_by_short_name() -> Mapping[str, str]:
    found = {contract.short_name: contract.name for contract in all_contracts().values()}
    assert len(found) == len(all_contracts())
    return found


@functools.cache
def events_by_payload() -> Mapping[str, str]:
    found = {str(event.payload.name): event.type for event in event_catalogue().values()}
    assert len(found) == len(event_catalogue())
    return found


def called(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Contracts whose generated stub is named, or whose full name stands alone in a text, which is how a channel is asked for."""
    names = (name_of(node) for node in nodes)
    stubs = (contracts_by_short_name().get(name.removesuffix("Stub")) for name in names if name.endswith("Stub"))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return frozenset(filter(None, stubs)) | (set(texts) & set(all_contracts()))


@functools.cache
def runtime_clients() -> Mapping[str, frozenset[str]]:
    """Contracts that are called by a service that makes one of the clients of the runtime."""
    found: dict[str, frozenset[str]] = {}
    for nodes in modules_of(SOURCES / "runtime"):
        for node in nodes:
            if isinstance(node, ast.ClassDef) and called(list(ast.walk(node))):
                found[node.name] = called(list(ast.walk(node)))
    return found


@functools.cache
def shared_servicers() -> Mapping[str, str]:
    """Contracts by the servicers that services share: whoever imports one serves its contract."""
    contracts, found = contracts_by_short_name(), dict[str, str]()
    for nodes in modules_of(SOURCES / "venue"):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                bases = (name_of(base).removesuffix("Servicer") for base in node.bases)
                served = [contracts[base] for base in bases if base in contracts]
                if served:
                    found[node.name] = served[0]
    return found


def imported_from(package: str, nodes: Iterable[ast.AST]) -> set[str]:
    imports = (node for node in nodes if isinstance(node, ast.ImportFrom))
    return {alias.name for node in imports if (node.module or "").startswith(package) for alias in node.names}


@functools.cache
def done(service: str) -> Done:
    serves, calls, publishes, consumes = set[str](), set[str](), set[str](), set[str]()
    events, contracts = events_by_payload(), contracts_by_short_name()
    for nodes in modules_of(SOURCES / service):
        calls |= called(nodes)
        for name in imported_from("minhos_mesh.runtime", nodes):
            calls |= runtime_clients().get(name, frozenset())
        serves.update(shared_servicers().get(name, "") for name in imported_from("minhos_mesh.venue", nodes))
        serves.discard("")
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                bases = (name_of(base).removesuffix("Servicer") for base in node.bases)
                serves.update(contracts[base] for base in bases if base in contracts)
            elif isinstance(node, ast.Call) and (node.args or node.keywords):  # an empty one only warms the validation
                publishes.update({events[name] for name in [name_of(node.func)] if name in events})
            elif isinstance(node, ast.Dict):
                consumes.update(events[name_of(key)] for key in node.keys if name_of(key) in events)
    return Done(frozenset(serves), frozenset(calls), frozenset(publishes), frozenset(consumes))


def declared(service: str) -> list[Contract]:
    return [all_contracts()[name] for name in sorted(done(service).serves - SECOND.get(service, set()))]


def needs(service: str) -> set[str]:
    return {need.contract for contract in declared(service) for need in contract.needs}


def test_a_venue_is_served_by_one_of_two_services_as_configured() -> None:
    for venue, other in (("paper_venue", "sierra_client"), ("sierra_client", "paper_venue")):
        overrides = {"engine": {"venue": venue}, "feed": {"dtc_port": 11_099}}
        config = load(None, environment={}, overrides=overrides).resolved(datetime(2026, 11, 20, tzinfo=UTC))
        serving = [name for name in running(config) if VENUE.partition(".")[2] in contracts_of(name, config)]
        assert serving == [venue]
        assert VENUE.partition(".")[2] not in contracts_of(other, config) or other not in running(config)
        plan = make_plan(specs_of(planned_services(config), config))
        assert venue in plan.required("trading_engine")


def test_the_sources_are_read_right() -> None:
    assert runtime_clients()["EventClient"] == {BUS}
    assert "minhos_api.market.v1.MarketDataProviderService" in runtime_clients()["MarketClient"]
    engine = done("trading_engine")
    assert "minhos_api.venue.v1.VenueService" in engine.calls
    assert "trade.executed" in engine.publishes
    assert "ai.signal_generated" in engine.consumes


def test_every_contract_is_served_by_one_service() -> None:
    served = [name for service in SERVICES for name in done(service).serves - SECOND.get(service, set())]
    assert all(names <= done(service).serves for service, names in SECOND.items())
    assert sorted([*served, "minhos_api.mesh.v1.ServiceControlService"]) == sorted(all_contracts())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_calls_only_what_it_depends_on(service: str) -> None:
    tells = any(contract.publishes or contract.consumes for contract in declared(service))
    allowed = needs(service) | done(service).serves | ({BUS} if tells else set())
    assert done(service).calls <= allowed


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_depends_only_on_what_it_calls_or_listens_to(service: str) -> None:
    did = done(service)
    heard = {contract.name for contract in all_contracts().values() if did.consumes & set(contract.publishes)}
    assert needs(service) <= did.calls | heard | {REGISTRY}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_publishes_what_its_contracts_declare_and_nothing_else(service: str) -> None:
    assert done(service).publishes == {event for contract in declared(service) for event in contract.publishes}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_consumes_what_its_contracts_declare_and_nothing_else(service: str) -> None:
    assert done(service).consumes == {event for contract in declared(service) for event in contract.consumes}


def test_every_event_has_one_publisher_and_what_is_consumed_is_published() -> None:
    told = [event for service in SERVICES for event in sorted(done(service).publishes)]
    assert sorted(told) == sorted(event_catalogue())
    assert {event for service in SERVICES for event in done(service).consumes} <= set(told)
