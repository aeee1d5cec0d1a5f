"""Decides how the messages of ContractService and the registry's own values are turned into each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_mesh.compatibility.described import entry_of
from minhos_mesh.registry.contract_directory import Consumer, Entry, Server
from minhos_mesh.registry.domain.contract_gate import ContractViolation, Finding, Report
from minhos_mesh.registry.offered_events import Offer
from minhos_mesh.registry.translate import kind_to

DETAIL_BYTES: Final = 3_000
"""Size of the violations in the details of an error: trailing metadata is refused by many clients above 8 KB, and travels
as base64 beside the message itself.
"""


def report_to(report: Report) -> pb.CheckContractResponse:
    """What a contract set would break."""
    return pb.CheckContractResponse(
        admitted=report.admitted,
        violations=[violation_to(finding) for finding in report.findings],
        contracts=report.contracts,
        new_contracts=report.new_contracts,
        dependents=report.dependents,
    )


def violation_to(finding: Finding) -> pb.ContractViolation:
    """One promise that is broken."""
    violation = finding.violation
    return pb.ContractViolation(
        rule=violation.rule,
        file=violation.file,
        element=violation.element,
        old=violation.old,
        new=violation.new,
        consumers=finding.consumers,
    )


def details_of(error: ContractViolation) -> list[pb.ContractViolations]:
    """As many violations as an error has room for."""
    told = pb.ContractViolations(violations_count=len(error.findings))
    size = 0
    for finding in error.findings:
        violation = violation_to(finding)
        size += violation.ByteSize()
        if size > DETAIL_BYTES:
            break
        told.violations.append(violation)
    return [told]


def offer_to(offer: Offer) -> pb.OfferedEvents:
    """The event types of one build."""
    events = [pb.OfferedEvent(type=each.type, version=each.version, payload=each.payload) for each in offer.events]
    return pb.OfferedEvents(build=offer.build, instances=offer.instances, events=events, descriptor_set=offer.files)


def entry_to(entry: Entry) -> pb.ContractEntry:
    """One contract with who is at its two ends."""
    told = entry_of(entry.set, entry.name)
    told.servers.extend(_servers_to(entry.servers))
    told.consumers.extend(_consumers_to(entry.consumers))
    return told


def _servers_to(servers: Iterable[Server]) -> list[pb.ContractServer]:
    return [
        pb.ContractServer(
            service=each.present.key.service,
            instance_id=each.present.key.instance_id,
            address=each.present.address,
            version=each.present.version,
            versions=each.present.versions,
            build=each.build,
        )
        for each in servers
    ]


def _consumers_to(consumers: Iterable[Consumer]) -> list[pb.ContractConsumer]:
    return [
        pb.ContractConsumer(
            service=each.key.service,
            instance_id=each.key.instance_id,
            kind=kind_to(optional=each.need.optional),
            build=each.build,
        )
        for each in consumers
    ]
