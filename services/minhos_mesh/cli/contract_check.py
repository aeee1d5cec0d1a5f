"""Decides what `minhos contract check` and `minhos contract diff` ask, whom, and how the answer looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, NoReturn

import grpc
import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_api.registry.v1.contract_service_pb2_grpc import ContractServiceStub
from minhos_mesh.cli import contract_source, narrow, show
from minhos_mesh.cli.contract_source import Source
from minhos_mesh.cli.mesh import Link
from minhos_mesh.compatibility.additions import Addition, additions, total
from minhos_mesh.compatibility.compare import compare
from minhos_mesh.compatibility.descriptors import DescriptorsInvalid
from minhos_mesh.compatibility.offer import (
    broken_promises,
    check_known,
    is_import,
    looks_whole,
    shared_types,
    touched,
)
from minhos_mesh.compatibility.violation import Violation
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.paths import MeshPaths

UNKNOWN: Final = 2
"""Exit code of `contract check` when nothing of the set is known, so that nothing can be said of it."""


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
            try:
                name, report = known.name, _compared(known, offered, whole=whole)
            except DescriptorsInvalid as error:
                _unknown(offered, str(error))
        else:
            name = f"the mesh in {paths.data_dir}"
            report = await _asked(link, offered, question.release, whole=whole)
    if as_json:
        told = show.message_dict(report)
        show.as_json(
            {"candidate": offered.name, "against": name, "mesh_runs": link is not None, "whole": whole, **told}
        )
    else:
        _show(report, offered.name, name, whole=whole, running=link is not None or question.against is not None)
    return bool(report.admitted)


async def _asked(link: Link, offered: Source, release: str, *, whole: bool) -> pb.CheckContractResponse:
    request = pb.CheckContractRequest(
        descriptor_set=offered.set.part(offered.set.files), whole=whole, contracts_version=release
    )
    try:
        return await link.clients.stub(ContractServiceStub).CheckContract(request)
    except grpc.aio.AioRpcError as error:
        told = errors.read(error)
        if told.reason == "ERROR_REASON_DESCRIPTORS_INVALID":
            _unknown(offered, told.message)
        raise


def _unknown(offered: Source, why: str) -> NoReturn:
    """Ends the command: nothing can be said of this set."""
    typer.echo(f"minhos: {offered.name}: {why}", err=True)
    raise typer.Exit(UNKNOWN)


def _compared(known: Source, offered: Source, *, whole: bool) -> pb.CheckContractResponse:
    where = dict.fromkeys(known.set.services, known.set)
    names = touched(offered.set, where)
    new = [name for name in offered.set.services if name not in where]
    check_known(names, new, shared_types(known.set, offered.set))
    found = broken_promises(known.set, offered.set, names, whole=whole)
    return pb.CheckContractResponse(
        admitted=not found,
        violations=[_message(violation) for violation in found],
        contracts=names,
        new_contracts=new,
    )


def _message(violation: Violation) -> pb.ContractViolation:
    return pb.ContractViolation(
        rule=violation.rule, file=violation.file, element=violation.element, old=violation.old, new=violation.new
    )


def _show(report: pb.CheckContractResponse, candidate: str, against: str, *, whole: bool, running: bool) -> None:
    if not running:
        show.out.print(f"no mesh runs here: compared with {against}, without anybody who depends on it now")
    contracts = _count(len(report.contracts), "contract") if report.contracts else "messages and events"
    compared = f"{contracts} of {candidate} compared with {against}"
    dependents = (
        f" and what {_count(len(report.dependents), 'live dependent')} were built with" if report.dependents else ""
    )
    kind = ", as a whole contract set" if whole else ""
    show.out.print(f"{compared}{dependents}{kind}")
    if report.new_contracts:
        show.out.print(f"new here, nothing is promised of them yet: {', '.join(report.new_contracts)}")
    if report.admitted:
        show.out.print("admitted: it breaks nothing")
        return
    _print_violations(report.violations)
    show.out.print(f"refused: it breaks {_count(len(report.violations), 'promise')}")


def _print_violations(violations: Iterable[pb.ContractViolation]) -> None:
    show.out.print(violations_shown(violations, show.out.width), soft_wrap=False)


def violations_shown(violations: Iterable[pb.ContractViolation], width: int) -> RenderableType:
    """Broken promises as a table, or each as a few lines where `width` characters are not enough for one."""
    rows = [(v.rule, v.element, v.old, v.new, ", ".join(v.consumers) or "-", v.file) for v in violations]
    columns = ("RULE", "ELEMENT", "OLD", "NEW", "HARMS", "FILE")
    if narrow.natural_width(columns, rows) <= width:
        return show.table(columns, rows)
    blocks: list[RenderableType] = []
    for rule, element, old, new, harms, file in rows:
        blocks.append(Text(element, style="bold"))
        lines = (rule, f"{old} -> {new}", f"harms {harms}" if harms != "-" else "harms nobody now", file)
        blocks.extend(Padding(Text(line), (0, 0, 0, 2), expand=False) for line in lines)
    return Group(*blocks)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


async def diff(paths: MeshPaths, first: str, second: str | None, *, as_json: bool) -> None:
    """Shows what differs between two contract sets, or between what is known here and one."""
    if second is None:
        old, new = await _known(paths), await contract_source.read(first)
    else:
        old, new = await contract_source.read(first), await contract_source.read(second)
    breaks = [each for each in compare(old.set, new.set) if not is_import(each.file)]
    added = [each for each in additions(old.set, new.set) if not is_import(each.file)]
    if as_json:
        show.as_json({"old": old.name, "new": new.name, "breaks": _dicts(breaks), "adds": _dicts(added)})
        return
    show.out.print(f"from {old.name} to {new.name}")
    if breaks:
        _print_violations(_message(violation) for violation in breaks)
    if added:
        rows = [(a.kind, a.element, a.text, a.file) for a in added]
        columns, lines = narrow.fitting(("ADDED", "ELEMENT", "WHAT", "FILE"), rows, show.out.width, ("FILE",))
        show.out.print(show.table(columns, lines))
    show.out.print(f"{_count(len(breaks), 'broken promise')}; added: {total(added)}")


async def _known(paths: MeshPaths) -> Source:
    """The contracts of the running mesh, else those of this checkout or program."""
    async with AsyncExitStack() as stack:
        link = await contract_source.link_or_none(paths, stack)
        return contract_source.own() if link is None else await contract_source.of_mesh(link)


def _dicts(found: Iterable[Violation | Addition]) -> list[Mapping[str, str]]:
    return [{name: getattr(each, name) for name in each.__dataclass_fields__} for each in found]
