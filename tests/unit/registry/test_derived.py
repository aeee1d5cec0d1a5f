"""What is derived one service at a time is what the domain derives of all services together."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.registry.derived import Derived, Routes
from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import Known, Present, Rotation, requirements, service_facts
from minhos_mesh.registry.domain.health import Serving, Silence, assess_mesh
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.routing import RoutingView, routing_view
from minhos_mesh.registry.plan import Need

SERVICES = ("a", "b", "c")
CONTRACTS = ("x.X", "x.Y", "x.Z")
step = st.tuples(
    st.sampled_from(["come", "serve", "say", "late", "leave", "lose", "forget", "known", "drop", "shape", "wait"]),
    st.sampled_from(SERVICES),
    st.integers(0, 3),
    st.sampled_from(CONTRACTS),
)


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.present: dict[InstanceKey, Present] = {}
        self.known: dict[str, Known] = {}
        self.contracts: dict[str, ContractShape] = {}
        self.touched: set[str] = set()

    def of_service(self, service: str) -> tuple[Present, ...]:
        return tuple(p for key, p in sorted(self.present.items()) if key.service == service)

    def change(self, what: str, service: str, number: int, contract: str) -> None:
        key = InstanceKey(service, str(number))
        there = self.present.get(key)
        if what == "wait":
            self.now += 4.0
        elif what == "shape":
            self.contracts = {**self.contracts, contract: ContractShape(contract, {})}
        elif what == "known":
            known = self.known.get(service, Known(service))
            wanted = (None, True, False, None)[number]
            needs = (Need(CONTRACTS[number % 3]),) if number else ()
            self.known[service] = replace(known, contracts=(contract,), wanted=wanted, needs=needs)
        elif what == "drop":
            self.known.pop(service, None)
            for gone in [k for k in self.present if k.service == service]:
                del self.present[gone]
        elif what == "come":
            self.known.setdefault(service, Known(service, (contract,)))
            self.put(Present(key, "127.0.0.1", 4000 + number, (contract,), "l", number, "1", 0))
        elif there is not None and what == "forget":
            del self.present[key]
            self.touched.add(service)
        elif there is not None:
            self.put(self.changed(there, what))

    def changed(self, there: Present, what: str) -> Present:
        if what == "serve":
            return replace(there, serving=Serving.SERVING, ever_ready=True)
        if what == "say":
            return replace(there, serving=Serving.NOT_SERVING)
        if what == "late":
            return replace(there, silence=Silence.LATE)
        if what == "leave":
            return replace(there, leaving=True)
        known = self.known[there.key.service]
        self.known[there.key.service] = replace(known, lost_at=self.now)
        return replace(there, silence=Silence.LOST, gone_at=self.now)

    def put(self, present: Present) -> None:
        self.present[present.key] = present
        self.touched.add(present.key.service)


@settings(max_examples=150)
@given(st.lists(st.lists(step, max_size=4), max_size=12))
def test_what_is_derived_by_service_is_what_is_derived_of_all(rounds: list[list[tuple[str, str, int, str]]]) -> None:
    world = World()
    derived, routes, told = Derived(world.of_service), Routes(), RoutingView()
    for steps in rounds:
        for what, service, number, contract in steps:
            world.change(what, service, number, contract)
        touched, world.touched = world.touched, set()
        derived.look(world.known, touched, world.now)
        facts = {n: service_facts(k, world.of_service(n), world.now) for n, k in world.known.items()}
        needs = requirements(world.known)
        assert derived.needs == needs
        assert derived.assess() == assess_mesh(facts, needs)
        assert {n: ids for n, ids in derived.serving.items() if ids} == {
            n: ids
            for n in world.known
            if (ids := frozenset(p.key.instance_id for p in world.of_service(n) if p.rotation() is Rotation.IN))
        }
        told = routes.look(derived, world.contracts, world.known, MappingProxyType({}), world.now) or told
        everybody = [p for p in world.present.values() if p.key.service in world.known]
        assert told == routing_view(world.contracts, list(world.known.values()), everybody, world.now)
