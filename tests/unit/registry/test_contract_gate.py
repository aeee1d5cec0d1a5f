"""Who may join: offers against the mesh's contracts and against what live dependents were built with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from minhos_mesh.compatibility.descriptors import ContractSet, DescriptorsInvalid, resolve
from minhos_mesh.registry import contract_gate
from minhos_mesh.registry.attachment import Claim
from minhos_mesh.registry.contract_gate import ContractGate, NoRoomForDescriptors
from minhos_mesh.registry.domain.contract_gate import ContractViolation, Finding, is_older
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need
from minhos_mesh.runtime.contracts import built_with, contract, load_all, whole_set

RISK = "minhos_api.risk.v1.RiskManagerService"
ENGINE = "minhos_api.trading.v1.TradingEngineService"
BRAIN = "minhos_api.brain.v1.AIBrainService"
CHECK = "minhos_api.risk.v1.CheckTradeRequest"

Files = descriptor_pb2.FileDescriptorSet
Change = Callable[[Files], None]

load_all()


def changed(data: bytes, *changes: Change) -> bytes:
    files = Files.FromString(data)
    for change in changes:
        change(files)
    return files.SerializeToString()


def message(files: Files, name: str) -> descriptor_pb2.DescriptorProto:
    return next(m for f in files.file for m in f.message_type if f"{f.package}.{m.name}" == name)


def service(files: Files, name: str) -> descriptor_pb2.ServiceDescriptorProto:
    return next(s for f in files.file for s in f.service if f"{f.package}.{s.name}" == name)


def adds_field(name: str) -> Change:
    def change(files: Files) -> None:
        kind = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
        message(files, name).field.add(name="added", number=500, type=kind, label=1, json_name="added")

    return change


def drops_field(name: str) -> Change:
    def change(files: Files) -> None:
        fields = message(files, name).field
        del fields[0]

    return change


def renames_field(name: str, number: int = 0) -> Change:
    def change(files: Files) -> None:
        message(files, name).field[number].name = "renamed"

    return change


def adds_method(name: str) -> Change:
    def change(files: Files) -> None:
        methods = service(files, name).method
        methods.add(name="Added", input_type=methods[0].input_type, output_type=methods[0].output_type)

    return change


def drops_method(name: str) -> Change:
    def change(files: Files) -> None:
        del service(files, name).method[0]

    return change


def claim(name: str, contracts: Collection[str], *changes: Change, **more: Any) -> Claim:
    needs = tuple(Need(need.contract) for each in contracts for need in contract(each).needs)
    data = changed(built_with(contracts), *changes)
    key = InstanceKey(name, f"{name}-1")
    return Claim(key, "127.0.0.1", 9, tuple(contracts), {}, more.pop("needs", needs), built=resolve(data), **more)


class Mesh:
    """A gate with some instances that were admitted."""

    def __init__(self, own: ContractSet | None = None, release: str = "2.0") -> None:
        self.gate = ContractGate(own or resolve(whole_set()), release)

    def join(self, given: Claim) -> None:
        self.gate.check(given)
        self.gate.joined(given)

    def refused(self, given: Claim) -> tuple[Finding, ...]:
        with pytest.raises(ContractViolation) as caught:
            self.join(given)
        return caught.value.findings


def rules(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.violation.rule for finding in findings}


def test_an_instance_of_the_mesh_own_contracts_joins() -> None:
    mesh = Mesh()
    mesh.join(claim("risk_manager", [RISK]))
    mesh.join(claim("trading_engine", [ENGINE]))


def test_additions_are_admitted_beside_instances_without_them() -> None:
    mesh = Mesh()
    mesh.join(claim("trading_engine", [ENGINE]))
    mesh.join(claim("risk_manager", [RISK]))
    newer = claim("risk_manager", [RISK], adds_field(CHECK), adds_method(RISK))
    mesh.join(newer)
    mesh.join(claim("risk_manager_b", [RISK]))


def test_what_the_mesh_promises_is_kept_even_when_nobody_needs_it_now() -> None:
    found = Mesh().refused(claim("risk_manager", [RISK], renames_field(CHECK)))
    assert rules(found) == {"FIELD_SAME_NAME"}
    assert found[0].violation.file == "minhos_api/risk/v1/risk_manager_service.proto"
    assert found[0].contracts == (RISK,)
    assert found[0].consumers == ()


def test_a_violation_names_every_live_dependent_that_it_harms() -> None:
    mesh = Mesh()
    mesh.join(claim("trading_engine", [ENGINE]))
    mesh.join(claim("other", [BRAIN], needs=(Need(RISK),)))  # did not bring what it was built with
    found = mesh.refused(claim("risk_manager", [RISK], drops_field(CHECK)))
    assert rules(found) == {"FIELD_NO_DELETE_UNLESS_NAME_RESERVED", "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED"}
    assert {finding.consumers for finding in found} == {("trading_engine/trading_engine-1",)}


def test_only_what_a_dependent_needs_harms_it() -> None:
    mesh = Mesh()
    mesh.join(claim("ai_brain", [BRAIN]))
    found = mesh.refused(claim("risk_manager", [RISK], drops_field(CHECK)))
    assert {finding.consumers for finding in found} == {()}


def test_a_dependent_that_is_gone_is_harmed_by_nothing() -> None:
    mesh = Mesh()
    mesh.join(claim("trading_engine", [ENGINE]))
    mesh.gate.left(InstanceKey("trading_engine", "trading_engine-1"))
    found = mesh.refused(claim("risk_manager", [RISK], drops_field(CHECK)))
    assert {finding.consumers for finding in found} == {()}


def test_a_dependent_is_protected_in_what_it_was_built_with_beyond_the_mesh_own_contracts() -> None:
    mesh = Mesh()
    mesh.join(claim("risk_manager", [RISK], adds_method(RISK), adds_field(CHECK)))
    mesh.join(claim("trading_engine", [ENGINE], adds_method(RISK), adds_field(CHECK)))
    found = mesh.refused(claim("risk_manager_b", [RISK]))
    assert rules(found) >= {"RPC_NO_DELETE", "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED"}
    assert {finding.consumers for finding in found} == {("trading_engine/trading_engine-1",)}


def test_an_older_release_runs_beside_a_newer_one_unless_somebody_calls_what_it_lacks() -> None:
    newer = resolve(changed(whole_set(), adds_field(CHECK), adds_method(RISK)))
    old = {"versions": {"contracts": "1.9"}}
    mesh = Mesh(newer)
    mesh.join(claim("risk_manager", [RISK], **old))
    mesh.join(claim("trading_engine", [ENGINE], adds_field(CHECK)))
    mesh.join(claim("risk_manager_b", [RISK], **old))
    mesh.join(claim("trading_engine", [ENGINE], adds_method(RISK)))
    assert rules(mesh.refused(claim("risk_manager_b", [RISK], **old))) == {"RPC_NO_DELETE"}


def test_an_older_release_that_the_newer_one_breaks_is_refused() -> None:
    newer = resolve(changed(whole_set(), adds_field(CHECK), renames_field(CHECK, 1)))
    assert "FIELD_SAME_NAME" in rules(Mesh(newer).refused(claim("risk_manager", [RISK], versions={"contracts": "1.9"})))


@pytest.mark.parametrize("release", ["2.0", "2.1", "", "one", "1.9-dirty"])
def test_only_a_release_that_is_known_to_be_older_may_lack_something(release: str) -> None:
    newer = resolve(changed(whole_set(), adds_field(CHECK)))
    found = Mesh(newer).refused(claim("risk_manager", [RISK], versions={"contracts": release}))
    assert "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED" in rules(found)


def test_an_instance_that_only_comes_back_is_not_refused_for_what_was_added_meanwhile() -> None:
    newer = resolve(changed(whole_set(), adds_field(CHECK), adds_method(RISK)))
    mesh = Mesh(newer)
    mesh.join(claim("trading_engine", [ENGINE], adds_field(CHECK), adds_method(RISK)))
    mesh.join(claim("risk_manager", [RISK], presented=7))


def test_a_dependent_that_was_built_with_more_than_is_served_joins_and_is_told_of() -> None:
    mesh = Mesh()
    mesh.join(claim("risk_manager", [RISK]))
    mesh.join(claim("trading_engine", [ENGINE]))
    assert mesh.gate.ahead_of(InstanceKey("trading_engine", "trading_engine-1")) == ()
    mesh.join(claim("trading_engine", [ENGINE], adds_method(RISK)))
    (found,) = mesh.gate.ahead_of(InstanceKey("trading_engine", "trading_engine-1"))
    assert (found.violation.rule, found.violation.element) == ("RPC_NO_DELETE", f"{RISK}.Added")
    assert found.consumers == ("risk_manager/risk_manager-1",)


def test_an_event_that_changed_harms_who_consumes_it() -> None:
    mesh = Mesh()
    mesh.join(claim("trading_engine", [ENGINE]))
    found = mesh.refused(claim("ai_brain", [BRAIN], renames_field("minhos_api.brain.v1.SignalGenerated")))
    assert rules(found) == {"FIELD_SAME_NAME"}
    assert {finding.consumers for finding in found} == {("trading_engine/trading_engine-1",)}


ORDERS = "minhos_api.trading.v1.OrderService"
UPDATED = "minhos_api.trading.v1.OrderUpdated"


def test_an_event_that_changed_harms_who_hears_it_through_the_bus_alone() -> None:
    mesh = Mesh()
    mesh.join(claim("risk_manager", [RISK]))
    mesh.join(claim("ai_brain", [BRAIN]))
    found = mesh.refused(claim("trading_engine", [ENGINE, ORDERS], renames_field(UPDATED)))
    assert {finding.consumers for finding in found} == {("risk_manager/risk_manager-1",)}
    offered = resolve(changed(whole_set(), renames_field(UPDATED)))
    report = mesh.gate.report(offered, offered.services, types=True)
    assert {(f.violation.rule, f.consumers) for f in report.findings} == {
        ("FIELD_SAME_NAME", ("risk_manager/risk_manager-1",))
    }


def test_a_file_of_events_alone_is_compared_and_names_who_is_harmed() -> None:
    mesh = Mesh()
    mesh.join(claim("risk_manager", [RISK]))
    files = resolve(changed(whole_set(), renames_field(UPDATED)))
    offered = resolve(files.part(["minhos_api/trading/v1/trading_events.proto"]))
    report = mesh.gate.report(offered, [], types=True)
    assert [f.consumers for f in report.findings] == [("risk_manager/risk_manager-1",)]
    assert "risk_manager/risk_manager-1" in report.dependents


def test_an_offer_of_which_nothing_is_known_is_no_offer() -> None:
    files = Files()
    files.file.add(name="strange.proto", package="strange").message_type.add(name="M")
    with pytest.raises(DescriptorsInvalid, match="nothing in it is known here"):
        Mesh().gate.report(resolve(files.SerializeToString()), [], types=True)


def test_a_contract_that_nobody_knows_is_free_and_then_held_to_its_dependents() -> None:
    def acme(*, whole: bool) -> bytes:
        files = Files()
        file = files.file.add(name="acme.proto", package="acme", syntax="proto3")
        file.message_type.add(name="M")
        made = file.service.add(name="Acme")
        for name in ("A", "B") if whole else ("A",):
            made.method.add(name=name, input_type=".acme.M", output_type=".acme.M")
        return files.SerializeToString()

    def instance(name: str, *, whole: bool = True, needs: tuple[Need, ...] = ()) -> Claim:
        built = resolve(acme(whole=whole))
        contracts = ("acme.Acme",) if not needs else ()
        return Claim(InstanceKey(name, "1"), "127.0.0.1", 9, contracts, {}, needs, built=built)

    mesh = Mesh()
    mesh.join(instance("acme"))
    mesh.join(instance("acme_b", whole=False))
    mesh.join(instance("user", needs=(Need("acme.Acme"),)))
    (found,) = mesh.refused(instance("acme_c", whole=False))
    assert (found.violation.rule, found.violation.element) == ("RPC_NO_DELETE", "acme.Acme.B")
    assert found.consumers == ("user/1",)


def test_a_contract_that_is_claimed_and_not_offered_is_refused() -> None:
    given = claim("risk_manager", [RISK])
    (found,) = Mesh().refused(Claim(given.key, "h", 9, ("acme.Acme",), {}, built=given.built))
    assert found.violation.element == "acme.Acme"
    found_known = Mesh().refused(Claim(given.key, "h", 9, (BRAIN,), {}, built=given.built))
    assert rules(found_known) == {"PACKAGE_SERVICE_NO_DELETE"}


def test_a_refusal_says_what_and_whom_in_one_sentence() -> None:
    mesh = Mesh()
    mesh.join(claim("trading_engine", [ENGINE]))
    with pytest.raises(ContractViolation) as caught:
        mesh.join(claim("risk_manager", [RISK], drops_method(RISK)))
    error = caught.value
    assert (error.contract, error.missing, error.violations) == (RISK, "CheckTrade", 1)
    assert error.consumers == "trading_engine/trading_engine-1"
    assert str(error) == (
        f"{RISK} is claimed but not served whole: it does not serve CheckTrade; harmed: trading_engine/trading_engine-1"
    )


def test_many_violations_are_counted_and_some_are_told() -> None:
    def bend(files: Files) -> None:
        for field in message(files, CHECK).field:
            field.number += 300

    with pytest.raises(ContractViolation, match=r"and \d+ more, which `minhos contract check` lists") as caught:
        Mesh().join(claim("risk_manager", [RISK], bend))
    assert len(str(caught.value)) < 1_500


def test_a_thousand_instances_of_one_build_hold_one_set() -> None:
    mesh = Mesh()
    for number in range(1_000):
        mesh.join(given_again(number))
    assert len(mesh.gate.builds()) == 1


def given_again(number: int) -> Claim:
    built = resolve(built_with([RISK]))
    return Claim(InstanceKey("risk_manager", f"r-{number}"), "127.0.0.1", 9, (RISK,), {}, built=built)


def test_different_sets_are_held_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [claim(f"risk_{n}", [RISK], *[adds_field(CHECK)] * (n > 0), adds_method(RISK)) for n in range(2)]
    assert given[0].built is not None
    monkeypatch.setattr(contract_gate, "MAX_HELD_BYTES", given[0].built.size + 100)
    mesh = Mesh()
    mesh.join(given[0])
    with pytest.raises(NoRoomForDescriptors, match="bytes together"):
        mesh.join(given[1])
    mesh.gate.left(given[0].key)
    mesh.join(given[1])


@pytest.mark.parametrize(
    ("one", "other", "older"),
    [("1.0", "1.1", True), ("1.9", "1.10", True), ("1.1", "1.1", False), ("2", "1.9", False), ("x", "1", False)],
)
def test_releases_are_compared_as_rows_of_numbers(one: str, other: str, older: bool) -> None:
    assert is_older(one, other) is older
