from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.registry.plan import (
    DependencyCycle,
    DuplicateService,
    MissingContract,
    Need,
    ServiceSpec,
    UnknownService,
    make_plan,
)


def spec(name: str, *needs: Need | str, serves: tuple[str, ...] = ()) -> ServiceSpec:
    return ServiceSpec(
        name,
        frozenset(serves or (f"{name}.v1",)),
        tuple(Need(f"{item}.v1") if isinstance(item, str) else item for item in needs),
    )


@st.composite
def graphs(draw: st.DrawFn) -> list[ServiceSpec]:
    """Services that need only earlier ones, in a shuffled list."""
    count = draw(st.integers(1, 12))
    specs = []
    for number in range(count):
        chosen = draw(st.sets(st.integers(0, number - 1), max_size=4)) if number else set()
        needs = [Need(f"s{item}.v1", optional=draw(st.booleans())) for item in sorted(chosen)]
        specs.append(spec(f"s{number}", *needs))
    return draw(st.permutations(specs))


@given(graphs())
def test_nothing_comes_before_what_it_depends_on(specs: list[ServiceSpec]) -> None:
    plan = make_plan(specs)
    level = {name: number for number, names in enumerate(plan.levels) for name in names}
    assert sorted(plan.services) == sorted(item.name for item in specs)
    for item in specs:
        for need in item.needs:
            assert level[need.contract.removesuffix(".v1")] < level[item.name]


@given(graphs())
def test_the_plan_does_not_depend_on_the_order_of_description(specs: list[ServiceSpec]) -> None:
    assert make_plan(specs) == make_plan(list(reversed(specs)))


def test_levels_of_a_small_mesh() -> None:
    plan = make_plan([spec("engine", "bus", "market"), spec("market", "bus"), spec("bus"), spec("simulator")])
    assert plan.levels == (("bus", "simulator"), ("market",), ("engine",))
    assert plan.stop_levels == (("engine",), ("market",), ("bus", "simulator"))


def test_of_one_level_the_most_needed_comes_first() -> None:
    plan = make_plan([spec("a"), spec("z"), spec("b", "z"), spec("c", "z"), spec("y")])
    assert plan.levels == (("z", "a", "y"), ("b", "c"))


def test_a_cycle_is_refused_with_its_path_and_contracts() -> None:
    with pytest.raises(DependencyCycle) as caught:
        make_plan([spec("a", "b"), spec("b", "c"), spec("c", "a"), spec("d", "a")])
    path = caught.value.path
    assert path[0] == path[-1]
    assert set(path) == {"a", "b", "c"}
    needs = {"a": "b", "b": "c", "c": "a"}
    assert all(needs[dependent] == dependency for dependent, dependency in itertools.pairwise(path))
    assert f"{path[0]} -> {path[1]} (for {path[1]}.v1)" in str(caught.value)


def test_an_optional_need_may_not_close_a_circle_either() -> None:
    with pytest.raises(DependencyCycle, match="optionally"):
        make_plan([spec("a", "b"), spec("b", Need("a.v1", optional=True))])


def test_a_missing_contract_is_refused_with_the_path_to_it() -> None:
    with pytest.raises(MissingContract) as caught:
        make_plan([spec("dashboard", "engine"), spec("engine", "risk"), spec("risk", "ledger")])
    assert caught.value.path == ("dashboard", "engine", "risk", "ledger.v1")
    assert "no service serves ledger.v1, which risk needs" in str(caught.value)
    assert "dashboard -> engine -> risk -> ledger.v1" in str(caught.value)


def test_a_missing_contract_above_a_circle_still_ends() -> None:
    with pytest.raises(MissingContract):
        make_plan([spec("a", "b", "gone"), spec("b", "a")])


def test_a_missing_optional_contract_is_told_and_not_refused() -> None:
    plan = make_plan([spec("engine", Need("brain.v1", optional=True))])
    assert plan.unserved == (("engine", "brain.v1"),)


def test_a_need_that_names_its_provider_means_only_that_one() -> None:
    paper, sierra = (spec(name, serves=("venue.v1",)) for name in ("paper", "sierra"))
    plan = make_plan([paper, sierra, spec("engine", Need("venue.v1", provider="paper"))])
    assert plan.required("engine") == {"paper"}
    with pytest.raises(MissingContract, match="live does not serve"):
        make_plan([paper, spec("engine", Need("venue.v1", provider="live"))])


def test_a_need_without_provider_means_all_who_serve_it() -> None:
    plan = make_plan([spec(name, serves=("venue.v1",)) for name in ("paper", "sierra")] + [spec("engine", "venue")])
    assert plan.required("engine") == {"paper", "sierra"}


def test_a_service_meets_its_own_need() -> None:
    assert make_plan([spec("registry", "registry")]).levels == (("registry",),)


def test_required_wins_where_a_service_is_needed_both_ways() -> None:
    both = spec("a", "b", Need("b2.v1", optional=True))
    plan = make_plan([both, spec("b", serves=("b.v1", "b2.v1"))])
    assert plan.required("a") == {"b"}
    assert plan.optional("a") == frozenset()


def test_required_closure_leaves_optional_needs_out() -> None:
    plan = make_plan([spec("a", "b", Need("x.v1", optional=True)), spec("b", "c"), spec("c"), spec("x")])
    assert plan.with_required("a") == {"a", "b", "c"}
    assert plan.dependents("x") == {"a"}


def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(DuplicateService, match="two services are called 'a'"):
        make_plan([spec("a"), spec("a")])


def test_an_unknown_service_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownService, match="there is no service 'b'; known: a"):
        make_plan([spec("a")]).required("b")
