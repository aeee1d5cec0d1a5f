"""ContractService over the wire: what a change would break, who serves and needs what, and contracts for other languages."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2

from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_api.registry.v1 import contract_service_pb2_grpc as rpc
from minhos_mesh.compatibility.descriptors import resolve
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.contracts import all_contracts, built_with, whole_set
from minhos_mesh.runtime.errors import CallError
from minhos_mesh.runtime.server import MeshServer

RISK = "minhos_api.risk.v1.RiskManagerService"
ENGINE = "minhos_api.trading.v1.TradingEngineService"
BUS = "minhos_api.events.v1.EventBusService"
CHECK = "minhos_api.risk.v1.CheckTradeRequest"


@pytest.fixture
def contracts(mesh: Any) -> rpc.ContractServiceAsyncStub:
    channel: grpc.aio.Channel = mesh.channel
    return rpc.ContractServiceStub(channel)


def without_first_field(data: bytes, name: str = CHECK) -> bytes:
    files = descriptor_pb2.FileDescriptorSet.FromString(data)
    for file in files.file:
        for message in file.message_type:
            if f"{file.package}.{message.name}" == name:
                del message.field[0]
    return files.SerializeToString()


async def refused(call: Any) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return errors.read(caught.value)


async def test_the_mesh_own_contracts_break_nothing(contracts: rpc.ContractServiceAsyncStub) -> None:
    answer = await contracts.CheckContract(pb.CheckContractRequest(descriptor_set=whole_set(), whole=True))
    assert answer.admitted
    assert list(answer.violations) == []
    assert set(answer.contracts) == set(all_contracts())


async def test_a_break_is_told_as_data_with_who_is_harmed(
    mesh: Any, attach: Any, contracts: rpc.ContractServiceAsyncStub
) -> None:
    await attach("trading_engine", "engine-1", ENGINE, descriptor_set=built_with([ENGINE]))
    answer = await contracts.CheckContract(
        pb.CheckContractRequest(descriptor_set=without_first_field(built_with([RISK])))
    )
    assert not answer.admitted
    assert [v.rule for v in answer.violations] == [
        "FIELD_NO_DELETE_UNLESS_NAME_RESERVED",
        "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED",
    ]
    (_name, number) = answer.violations
    assert (number.file, number.element) == (
        "minhos_api/risk/v1/risk_manager_service.proto",
        f"{CHECK}.request_id",
    )
    assert (number.old, number.new) == ("request_id = 1", "gone, number 1 not reserved")
    assert list(number.consumers) == ["trading_engine/engine-1"]
    assert list(answer.dependents) == ["trading_engine/engine-1"]


async def test_the_check_and_attach_say_the_same(
    mesh: Any, attach: Any, contracts: rpc.ContractServiceAsyncStub
) -> None:
    await attach("trading_engine", "engine-1", ENGINE, descriptor_set=built_with([ENGINE]))
    offer = without_first_field(built_with([RISK]))
    checked = await contracts.CheckContract(pb.CheckContractRequest(descriptor_set=offer, contracts=["RiskManager"]))
    stream = mesh.stream()
    await stream.say(hello=mesh.hello("risk_manager", "risk-1", RISK, descriptor_set=offer))
    told = await refused(stream.heard())
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_CONTRACT_VIOLATION")
    details = pb.ContractViolations()
    assert any(detail.Unpack(details) for detail in told.details)
    assert list(details.violations) == list(checked.violations)
    assert details.violations_count == 2
    assert told.metadata == {"contract": RISK, "violations": "2", "consumers": "trading_engine/engine-1"}


async def test_a_removed_contract_counts_when_the_set_is_a_whole_one(contracts: rpc.ContractServiceAsyncStub) -> None:
    part = built_with([RISK])
    assert (await contracts.CheckContract(pb.CheckContractRequest(descriptor_set=part))).admitted
    answer = await contracts.CheckContract(pb.CheckContractRequest(descriptor_set=part, whole=True))
    gone = {v.element for v in answer.violations if v.rule == "PACKAGE_SERVICE_NO_DELETE"}
    assert ENGINE in gone
    assert RISK not in gone


async def test_an_older_release_is_not_blamed_for_what_was_added_since(contracts: rpc.ContractServiceAsyncStub) -> None:
    offer = without_first_field(built_with([RISK]), "minhos_api.risk.v1.CheckTradeResponse")
    given = pb.CheckContractRequest(descriptor_set=offer, contracts=[RISK], contracts_version="0.0.1")
    assert (await contracts.CheckContract(given)).admitted
    given.contracts_version = ""
    assert not (await contracts.CheckContract(given)).admitted


async def test_a_running_server_is_asked_by_reflection(mesh: Any, contracts: rpc.ContractServiceAsyncStub) -> None:
    answer = await contracts.CheckContract(pb.CheckContractRequest(address=mesh.address))
    assert answer.admitted
    assert "minhos_api.registry.v1.ContractService" in answer.contracts


async def test_a_server_without_any_contract_of_the_mesh_breaks_nothing(
    contracts: rpc.ContractServiceAsyncStub,
) -> None:
    async with MeshServer([]) as other:
        told = await refused(contracts.CheckContract(pb.CheckContractRequest(address=other.address)))
    assert told.reason == "ERROR_REASON_DESCRIPTORS_INVALID"


BAD = [
    (pb.CheckContractRequest(), "INVALID_ARGUMENT", "INVALID_FIELD", "candidate"),
    (pb.CheckContractRequest(descriptor_set=b"\xff garbage"), "INVALID_ARGUMENT", "DESCRIPTORS_INVALID", "that are no"),
    (pb.CheckContractRequest(descriptor_set=b"x" * 10_000_000), "INVALID_ARGUMENT", "INVALID_FIELD", "descriptor_set"),
    (pb.CheckContractRequest(address="127.0.0.1:1"), "UNAVAILABLE", "DEPENDENCY_UNAVAILABLE", "cannot be asked"),
    (pb.CheckContractRequest(address="10.0.0.1:80"), "INVALID_ARGUMENT", "INVALID_FIELD", "loopback"),
    (pb.CheckContractRequest(address="nowhere"), "INVALID_ARGUMENT", "INVALID_FIELD", "address"),
    (
        pb.CheckContractRequest(descriptor_set=whole_set(), contracts=["RiskManger"]),
        "NOT_FOUND",
        "CONTRACT_UNKNOWN",
        "was RiskManager meant?",
    ),
]


@pytest.mark.parametrize(("request_", "code", "reason", "text"), BAD)
async def test_a_bad_question_gets_a_clear_answer(
    request_: pb.CheckContractRequest, code: str, reason: str, text: str, contracts: rpc.ContractServiceAsyncStub
) -> None:
    told = await refused(contracts.CheckContract(request_))
    assert (told.code.name, told.reason) == (code, f"ERROR_REASON_{reason}")
    assert text in told.message


async def test_all_contracts_are_listed_with_both_ends(
    mesh: Any, attach: Any, contracts: rpc.ContractServiceAsyncStub
) -> None:
    versions = {"python": "3.11", "generator": "grpcio-tools 1.85.1"}
    await attach("risk_manager", "risk-1", RISK, descriptor_set=built_with([RISK]), versions=versions)
    await attach("trading_engine", "engine-1", ENGINE, descriptor_set=built_with([ENGINE]))
    listed = {each.name: each for each in (await contracts.ListContracts(pb.ListContractsRequest())).contracts}
    assert set(listed) == set(all_contracts())
    risk = listed[RISK]
    assert risk.interface == "IRiskManager"
    assert risk.methods_count == len(all_contracts()[RISK].methods)
    assert options.ACCESS_READ in risk.access
    (server,) = risk.servers
    assert (server.service, server.instance_id, server.version) == ("risk_manager", "risk-1", "1")
    assert dict(server.versions) == versions
    assert server.build == risk.build
    (consumer,) = risk.consumers
    assert (consumer.service, consumer.instance_id, consumer.build) == ("trading_engine", "engine-1", risk.build)
    assert consumer.kind == options.DEPENDENCY_KIND_REQUIRED


@pytest.mark.parametrize("name", [ENGINE, "TradingEngineService", "TradingEngine", "ITradingEngine"])
async def test_a_contract_is_found_by_each_of_its_names(name: str, contracts: rpc.ContractServiceAsyncStub) -> None:
    found = await contracts.GetContract(pb.GetContractRequest(name=name))
    assert found.contract.name == ENGINE
    contracts_set = resolve(found.descriptor_set)
    assert ENGINE in contracts_set.services
    assert {"order.updated", "ai.signal_generated"} <= contracts_set.symbols.events.keys()
    assert "minhos_api.mesh.v1.ErrorReason" in contracts_set.symbols.enums


async def test_all_contracts_together_are_all_that_the_mesh_knows(contracts: rpc.ContractServiceAsyncStub) -> None:
    found = set[str]()
    for entry in (await contracts.ListContracts(pb.ListContractsRequest())).contracts:
        found |= resolve(
            (await contracts.GetContract(pb.GetContractRequest(name=entry.name))).descriptor_set
        ).files.keys()
    assert found == resolve(whole_set()).files.keys()


async def test_a_file_of_events_is_checked_alone_and_one_of_nothing_known_is_no_candidate(
    contracts: rpc.ContractServiceAsyncStub,
) -> None:
    changed = resolve(without_first_field(whole_set(), "minhos_api.trading.v1.OrderUpdated"))
    events = changed.part(["minhos_api/trading/v1/trading_events.proto"])
    answer = await contracts.CheckContract(pb.CheckContractRequest(descriptor_set=events))
    assert not answer.admitted
    assert "minhos_api.trading.v1.OrderUpdated.order" in {v.element for v in answer.violations}
    files = descriptor_pb2.FileDescriptorSet()
    files.file.add(name="strange.proto", package="strange").message_type.add(name="M")
    told = await refused(contracts.CheckContract(pb.CheckContractRequest(descriptor_set=files.SerializeToString())))
    assert told.reason == "ERROR_REASON_DESCRIPTORS_INVALID"
    assert "nothing in it is known here" in told.message


async def test_an_unknown_contract_names_the_nearest(contracts: rpc.ContractServiceAsyncStub) -> None:
    told = await refused(contracts.GetContract(pb.GetContractRequest(name="TradingEngin")))
    assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_CONTRACT_UNKNOWN")
    assert told.metadata["nearest"] == "TradingEngine"


async def test_a_contract_of_a_foreign_instance_is_listed_and_handed_out(
    mesh: Any, attach: Any, contracts: rpc.ContractServiceAsyncStub
) -> None:
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="acme.proto", package="acme.v1")
    file.message_type.add(name="M")
    file.service.add(name="AcmeService").method.add(name="Do", input_type=".acme.v1.M", output_type=".acme.v1.M")
    await attach("acme", "acme-1", contracts=["acme.v1.AcmeService"], descriptor_set=files.SerializeToString())
    found = await contracts.GetContract(pb.GetContractRequest(name="Acme"))
    assert found.contract.servers[0].instance_id == "acme-1"
    assert resolve(found.descriptor_set).services == ("acme.v1.AcmeService",)
