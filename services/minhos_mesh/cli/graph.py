"""Decides how the graph of dependencies is drawn: lanes in a terminal, Graphviz and Mermaid for documents.

In the terminal each service has a row, in the order of the start, and a lane that runs down from its row to the last
service that needs it. A row reaches left to the lanes of what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from minhos_api.mesh.v1.contract_options_pb2 import DEPENDENCY_KIND_OPTIONAL
from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_mesh.cli import show

_OWN, _NEEDS, _OPTIONAL = "●", "◆", "◇"
_LEGEND: Final = f"{_OWN} a service  {_NEEDS} needs  {_OPTIONAL} can do without; each lane in the colour of its service"
_FILLS: Final = {
    "HEALTHY": "#c6efce",
    "DEGRADED": "#ffeb9c",
    "UNHEALTHY": "#ffc7ce",
    "STARTING": "#cfe8fc",
    "STOPPING": "#ead1f5",
    "STOPPED": "#e5e5e5",
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """One service of the drawing."""

    name: str
    state: str
    level: int
    needs: Mapping[str, bool]
    """What it needs, and whether it can do without (True); what it cannot do without stands first."""


def services_of(found: registry.GetDependencyGraphResponse) -> tuple[Drawn, ...]:
    """All services in the order of the start; a need for the sake of several contracts counts once, as the strongest."""
    needs: dict[str, dict[str, bool]] = {node.name: {} for node in found.nodes}
    for edge in found.edges:
        optional = edge.kind == DEPENDENCY_KIND_OPTIONAL
        mine = needs.setdefault(edge.from_service, {})
        mine[edge.to_service] = mine.get(edge.to_service, True) and optional
    nodes = sorted(found.nodes, key=lambda node: (node.level, node.name))
    return tuple(
        Drawn(node.name, show.state_name(node.state), node.level, _required_first(needs[node.name])) for node in nodes
    )


def _required_first(needs: Mapping[str, bool]) -> Mapping[str, bool]:
    return dict(sorted(needs.items(), key=lambda need: (need[1], need[0])))


def terminal(services: Sequence[Drawn], width: int) -> Text:
    """The drawing as lines; names of what is needed beside it where they fit, and instead of the lanes where these do not."""
    names = max((len(service.name) for service in services), default=0)
    before = names + len("UNHEALTHY") + 5
    lanes = 2 * len(services)
    with_lanes = before + lanes <= width
    longest = max((len(_needs_text(service).plain) for service in services), default=0)
    with_names = not with_lanes or before + lanes + 2 + longest <= width
    lines, level = [], -1
    for row, service in enumerate(services):
        line = Text(f"{service.level} " if service.level != level else "  ", style="dim")
        level = service.level
        line.append(service.name.ljust(names + 1), show.COLOURS.get(service.state, ""))
        line.append(service.state.ljust(len("UNHEALTHY") + 1), show.COLOURS.get(service.state, ""))
        if with_lanes:
            line.append_text(_lanes(services, row))
        if with_names:
            line.append(" " * (lanes - 2 * row + 1 if with_lanes else 0))
            line.append_text(_needs_text(service))
        line.rstrip()
        lines.append(line)
    if with_lanes:
        lines.append(Text(_LEGEND, style="dim"))
    return Text("\n").join(lines)


def _lanes(services: Sequence[Drawn], row: int) -> Text:
    service = services[row]
    places = {other.name: place for place, other in enumerate(services)}
    needed = {places[name]: optional for name, optional in service.needs.items() if name in places}
    reach = min(needed, default=row)
    drawn = Text()
    for place in range(row):
        colour = show.COLOURS.get(services[place].state, "")
        goes_on = any(services[place].name in later.needs for later in services[row + 1 :])
        if place in needed:
            drawn.append(_OPTIONAL if needed[place] else _NEEDS, colour)
        elif goes_on:
            drawn.append("┼" if place > reach else "│", colour)
        else:
            drawn.append("─" if place > reach else " ", "dim")
        drawn.append("─" if place >= reach else " ", "dim")
    return drawn.append(_OWN, show.COLOURS.get(service.state, ""))


def _needs_text(service: Drawn) -> Text:
    if not service.needs:
        return Text()
    named = (f"{name} (optional)" if optional else name for name, optional in service.needs.items())
    return Text(f"needs {', '.join(named)}", style="dim")


def dot(services: Sequence[Drawn]) -> str:
    """The graph for Graphviz; what can be done without is dashed."""
    lines = ["digraph mesh {", "  rankdir=BT;", '  node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    for service in services:
        label = f"{service.name}\\n{service.state}"
        lines.append(f'  "{service.name}" [label="{label}", fillcolor="{_FILLS.get(service.state, "white")}"];')
    for service in services:
        for name, optional in service.needs.items():
            lines.append(f'  "{service.name}" -> "{name}"{" [style=dashed]" if optional else ""};')
    for level in sorted({service.level for service in services}):
        names = " ".join(f'"{service.name}";' for service in services if service.level == level)
        lines.append(f"  {{ rank=same; {names} }}")
    return "\n".join([*lines, "}"])


def mermaid(services: Sequence[Drawn]) -> str:
    """The graph for Mermaid; what can be done without is dotted."""
    lines = ["flowchart BT"]
    lines += [f'  {service.name}["{service.name}<br/>{service.state}"]:::{service.state}' for service in services]
    for service in services:
        lines += [
            f"  {service.name} {'-.->' if optional else '-->'} {name}" for name, optional in service.needs.items()
        ]
    states = sorted({service.state for service in services})
    lines += [f"  classDef {state} fill:{_FILLS.get(state, '#ffffff')},stroke:#555,color:#000" for state in states]
    return "\n".join(lines)
