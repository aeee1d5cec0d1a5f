"""Decides how records are written as JSON text, the same in every engine."""

from __future__ import annotations

import json
from collections.abc import Sequence

from minhos_mesh.registry.domain.health import Condition, Serving
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.store import InstanceReport


def needs_text(needs: Sequence[Need]) -> str:
    """Needs as JSON."""
    return json.dumps([[need.contract, need.optional, need.provider] for need in needs])


def read_needs(text: str) -> tuple[Need, ...]:
    """What `needs_text` wrote."""
    return tuple(Need(contract, optional, provider) for contract, optional, provider in json.loads(text))


def report_value(report: InstanceReport) -> list[object]:
    """A report as a JSON value."""
    conditions = [[c.code, c.text] for c in report.conditions]
    return [report.serving.value, report.late, report.leaving, report.check_failures, conditions]


def read_report(value: Sequence[object]) -> InstanceReport:
    """What `report_value` wrote."""
    serving, late, leaving, failures, conditions = value
    read = tuple(Condition(code, text) for code, text in conditions)  # type: ignore[attr-defined] # JSON has no types
    return InstanceReport(Serving(serving), bool(late), bool(leaving), int(str(failures)), read)
