"""Decides what `minhos contract check` and `minhos contract diff` ask, whom, and how the answer looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_api.registry.v1.contract_service_pb2_grpc import ContractServiceStub
from minhos_mesh.cli import contract_source, show
from minhos_mesh.cli.contract_source import Source
from minhos_mesh.compatibility.additions import Addition, additions, total
from minhos_mesh.compatibility.compare import compare
from minhos_mesh.compatibility.offer import broken_promises, looks_whole, touched
from minhos_mesh.compatibility.violation import Violation
from minhos_mesh.runtime.paths import MeshPaths


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks to have checked."""

    candidate: str
    against: str | None
    whole: bool | None
    release: str


async def check(paths: MeshPaths, question: Question, *, as_json: bool) -> bool:
    """Shows what a contract set would break; says whether it would be admitted."""
    async with AsyncExitStack() as stack:
        offered = await contract_source.read(question.candidate)
        link = None if question.against is not None else await contract_source.link_or_none(paths, stack)
        known = await contract_source.read(question.against) if question.against is not None else contract_source.own()
        whole = looks_whole(offered.set, known.set) if question.whole is None else question.whole
        if ":" in question.candidate and contract_source.ADDRESS.match(question.candidate) and question.whole is None:
            whole = False  # a server serves a part of the contracts by nature
        if link is None:
            name, report = known.name, _compared(known, offered, whole=whole)
        else:
            name = f"the mesh in {paths.data_dir}"
            report = await link.clients.stub(ContractServiceStub).CheckContract(
                pb.CheckContractRequest(
                    descriptor_set=offered.set.part(offered.set.files), whole=whole, contracts_version=question.release
                )
            )
    if as_json:
        told = show.message_dict(report)
        show.as_json(
            {"candidate": offered.name, "against": name, "mesh_runs": link is not None, "whole": whole, **told}
        )
    else:
        _show(report, offered.name, name, whole=whole, running=link is not None or question.against is not None)
    return bool(report.admitted)


def _compared(known: Source, offered: Source, *, whole: bool) -> pb.CheckContractResponse:
    where = dict.fromkeys(known.set.services, known.set)
    names = touched(offered.set, where)
    found = broken_promises(known.set, offered.set, names, whole=whole)
    return pb.CheckContractResponse(
        admitted=not found,
        violations=[_message(violation) for violation in found],
        contracts=names,
        new_contracts=[name for name in offered.set.services if name not in where],
    )


def _message(violation: Violation) -> pb.ContractViolation:
    return pb.ContractViolation(
        rule=violation.rule, file=violation.file, element=violation.element, old=violation.old, new=violation.new
    )


def _show(report: pb.CheckContractResponse, candidate: str, against: str, *, whole: bool, running: bool) -> None:
    if not running:
        show.out.print(f"no mesh runs here: compared with {against}, without anybody who depends on it now")
    compared = f"{_count(len(report.contracts), 'contract')} of {candidate} compared with {against}"
    dependents = (
        f" and what {_count(len(report.dependents), 'live dependent')} were built with" if report.dependents else ""
    )
    kind = ", as a whole contract set" if whole else ""
    show.out.print(f"{compared}{dependents}{kind}")
    if report.new_contracts:
        show.out.print(f"new here, nothing is promised of them yet: {', '.join(report.new_contracts)}")
    if not report.contracts and not report.violations:
        show.out.print("none of its contracts is known here, so it breaks nothing")
    if report.admitted:
        show.out.print("admitted: it breaks nothing")
        return
    show.out.print(violations_table(report.violations))
    show.out.print(f"refused: it breaks {_count(len(report.violations), 'promise')}")


def violations_table(violations: Iterable[pb.ContractViolation]) -> Any:
    """Broken promises as a table; who is harmed last but one, since it is what people ask for first."""
    rows = [(v.rule, v.element, v.old, v.new, ", ".join(v.consumers) or "-", v.file) for v in violations]
    return show.table(("RULE", "ELEMENT", "OLD", "NEW", "HARMS", "FILE"), rows)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


async def diff(paths: MeshPaths, first: str, second: str | None, *, as_json: bool) -> None:
    """Shows what differs between two contract sets, or between what is known here and one."""
    if second is None:
        old, new = await _known(paths), await contract_source.read(first)
    else:
        old, new = await contract_source.read(first), await contract_source.read(second)
    breaks, added = compare(old.set, new.set), additions(old.set, new.set)
    if as_json:
        show.as_json({"old": old.name, "new": new.name, "breaks": _dicts(breaks), "adds": _dicts(added)})
        return
    show.out.print(f"from {old.name} to {new.name}")
    if breaks:
        show.out.print(violations_table(_message(violation) for violation in breaks))
    if added:
        show.out.print(
            show.table(("ADDED", "ELEMENT", "WHAT", "FILE"), [(a.kind, a.element, a.text, a.file) for a in added])
        )
    show.out.print(f"{_count(len(breaks), 'broken promise')}; added: {total(added)}")


async def _known(paths: MeshPaths) -> Source:
    """The contracts of the running mesh, else those of this checkout or program."""
    async with AsyncExitStack() as stack:
        link = await contract_source.link_or_none(paths, stack)
        return contract_source.own() if link is None else await contract_source.of_mesh(link)


def _dicts(found: Iterable[Violation | Addition]) -> list[Mapping[str, str]]:
    return [{name: getattr(each, name) for name in each.__dataclass_fields__} for each in found]
