"""Decides how contracts look to people: all in a table, one with its methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Final

from google.protobuf import descriptor_pb2
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_api.registry.v1.contract_service_pb2_grpc import ContractServiceStub
from minhos_mesh.cli import contract_source, narrow, show
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.compatibility import calls
from minhos_mesh.compatibility.described import ContractUnknown, entry_of, full_name
from minhos_mesh.compatibility.descriptors import ContractSet, resolve
from minhos_mesh.runtime.paths import MeshPaths

_MANY: Final = 6
"""Services that are named in a row; JSON has all."""

Idempotency = descriptor_pb2.MethodOptions.IdempotencyLevel


async def list_all(paths: MeshPaths, *, as_json: bool) -> None:
    """All contracts with who serves and who needs them."""
    async with AsyncExitStack() as stack:
        link = await contract_source.link_or_none(paths, stack)
        if link is not None:
            listed = await link.clients.stub(ContractServiceStub).ListContracts(pb.ListContractsRequest())
        else:
            own = contract_source.own()
            listed = pb.ListContractsResponse(contracts=[entry_of(own.set, name) for name in own.set.services])
            show.err.print(f"no mesh runs in {paths.data_dir}: this is {own.name}")
    if as_json:
        show.as_json(show.message_dict(listed))
        return
    show.out.print(contracts_table(listed.contracts, show.out.width))


def contracts_table(entries: Iterable[pb.ContractEntry], width: int) -> Table:
    """All contracts as a table; where it does not fit, with short names and how many services need each, and less of the rest."""
    columns = ("CONTRACT", "INTERFACE", "METHODS", "ACCESS", "SERVED BY", "NEEDED BY", "BUILD")
    told = list(entries)
    rows: list[tuple[str, ...]] = [_row(entry) for entry in told]
    if narrow.natural_width(columns, rows) > width:
        needed = (str(len({consumer.service for consumer in entry.consumers})) for entry in told)
        rows = [(row[0].rpartition(".")[2], *row[1:5], count, row[6]) for row, count in zip(rows, needed, strict=True)]
    names, lines = narrow.fitting(columns, rows, width, ("INTERFACE", "BUILD", "ACCESS", "METHODS"))
    return show.table(names, lines, right=("METHODS",))


async def show_one(paths: MeshPaths, name: str, *, as_json: bool) -> None:
    """One contract with its methods."""
    async with AsyncExitStack() as stack:
        link = await contract_source.link_or_none(paths, stack)
        if link is not None:
            found = await link.clients.stub(ContractServiceStub).GetContract(pb.GetContractRequest(name=name))
            contracts, entry = resolve(found.descriptor_set), found.contract
        else:
            own = contract_source.own()
            contracts = own.set
            try:
                entry = entry_of(contracts, full_name(name, dict.fromkeys(contracts.services, contracts)))
            except ContractUnknown as error:
                raise CommandFailed(str(error)) from None
            show.err.print(f"no mesh runs in {paths.data_dir}: this is {own.name}")
    methods = [_method_dict(method) for method in contracts.symbols.services[entry.name].proto.method]
    if as_json:
        show.as_json({**show.message_dict(entry), "depends_on": _needs(contracts, entry.name), "methods": methods})
        return
    _print(entry, contracts, methods)


def _print(entry: pb.ContractEntry, contracts: ContractSet, methods: list[dict[str, Any]]) -> None:
    known_as = f"  ({entry.interface})" if entry.interface else ""
    show.out.print(f"{entry.name}{known_as}")
    show.out.print(f"{entry.file}  build {entry.build}")
    show.out.print(methods_shown(methods, f"{entry.name.rpartition('.')[0]}.", show.out.width), soft_wrap=False)
    for title, values in (
        ("needs", _needs(contracts, entry.name)),
        ("publishes", entry.publishes),
        ("consumes", entry.consumes),
    ):
        if values:
            show.out.print(f"{title} {', '.join(values)}")
    for server in entry.servers:
        versions = "  ".join(f"{key} {value}" for key, value in sorted(server.versions.items()))
        build = "" if server.build == entry.build else f"  build {server.build or 'not known'}"
        show.out.print(
            f"served by {server.service}/{server.instance_id}  {server.address}  version {server.version}{build}"
        )
        if versions:
            show.out.print(f"  {versions}")
    if entry.consumers:
        show.out.print(f"needed by {', '.join(_consumers(entry.consumers))}")


def methods_shown(methods: Iterable[dict[str, Any]], package: str, width: int) -> RenderableType:
    """All methods as a table; where `width` has no room for it, each in lines of its own that wrap, so that nothing is cut off.

    Names of the contract's own package are shortened.
    """
    columns = ("METHOD", "REQUEST", "RESPONSE", "ACCESS", "BOUND", "REPEAT")
    keys = ("name", "request", "response", "access", "bound", "idempotency")
    rows = [[str(each[key]).replace(package, "") for key in keys] for each in methods]
    if narrow.natural_width(columns, rows) <= width:
        return show.table(columns, rows)
    lines: list[RenderableType] = []
    for name, request, response, access, bound, repeat in rows:
        lines.append(Text.assemble((name, "bold"), f"({request}) -> {response}", overflow="fold"))
        lines.append(Padding(Text(f"{access}, {bound}, repeat: {repeat}", style="dim"), (0, 0, 0, 2), expand=False))
    return Group(*lines)


def _row(entry: pb.ContractEntry) -> tuple[str, ...]:
    builds = {server.build for server in entry.servers if server.build}
    mixed = "" if builds <= {entry.build} else f" and {', '.join(sorted(builds - {entry.build}))}"
    return (
        entry.name,
        entry.interface or "-",
        str(entry.methods_count),
        ", ".join(calls.access_name(access) for access in entry.access),
        _services(server.service for server in entry.servers),
        _services(consumer.service for consumer in entry.consumers),
        f"{entry.build}{mixed}",
    )


def _services(names: Iterable[str]) -> str:
    """Each service once, with how many instances of it there are."""
    counted = Counter(names)
    if len(counted) > _MANY:
        return f"{len(counted)} services"
    return ", ".join(name if number == 1 else f"{name} x{number}" for name, number in sorted(counted.items())) or "-"


def _consumers(consumers: Iterable[pb.ContractConsumer]) -> list[str]:
    optional = options.DEPENDENCY_KIND_OPTIONAL
    return [f"{c.service}/{c.instance_id}{' (optional)' if c.kind == optional else ''}" for c in consumers]


def _needs(contracts: ContractSet, name: str) -> list[str]:
    said = contracts.symbols.services[name].proto.options.Extensions[options.contract]
    return [need.contract.rpartition(".")[2] for need in said.depends_on]


def _method_dict(method: descriptor_pb2.MethodDescriptorProto) -> dict[str, Any]:
    """One method as JSON has it; the cells of its row are the same words."""
    said = method.options.Extensions[options.method]
    streams = ("stream " if method.client_streaming else "", "stream " if method.server_streaming else "")
    return {
        "name": method.name,
        "request": f"{streams[0]}{method.input_type.lstrip('.')}",
        "response": f"{streams[1]}{method.output_type.lstrip('.')}",
        "access": calls.access_name(said.access),
        "bound": _bound(said),
        "idempotency": Idempotency.Name(method.options.idempotency_level).lower().replace("_", " "),
    }


def _bound(said: options.MethodContract) -> str:
    kind = said.WhichOneof("deadline")
    if kind is None:
        return "none"
    seconds = (
        (said.default_timeout if kind == "default_timeout" else said.heartbeat_interval).ToTimedelta().total_seconds()
    )
    return f"deadline {seconds:g} s" if kind == "default_timeout" else f"open, heartbeat {seconds:g} s"
