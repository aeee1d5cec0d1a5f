"""Decides what is said of an offer that breaks a contract, and which release of the contracts is older than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from minhos_mesh.compatibility.violation import Violation


@dataclass(frozen=True, slots=True)
class MethodShape:
    """What a method looks like on the wire."""

    request: str
    """Full name of the request message."""
    response: str
    client_streaming: bool = False
    server_streaming: bool = False

    def __str__(self) -> str:
        request = f"stream {self.request}" if self.client_streaming else self.request
        response = f"stream {self.response}" if self.server_streaming else self.response
        return f"({request}) returns ({response})"


@dataclass(frozen=True, slots=True)
class ContractShape:
    """One contract: its methods, and which of them are safe to repeat."""

    name: str
    methods: Mapping[str, MethodShape]
    retry_methods: tuple[str, ...] = ()
    """Methods whose contract says NO_SIDE_EFFECTS or IDEMPOTENT."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise that an offer breaks, and who relies on it now."""

    violation: Violation
    contracts: tuple[str, ...]
    """Full names of the contracts through which it matters."""
    consumers: tuple[str, ...] = ()
    """Live instances that were built with it, `service/instance`; empty when only the mesh's own contracts promise it."""

    def __str__(self) -> str:
        harmed = f" (harms {', '.join(self.consumers)})" if self.consumers else ""
        return f"{self.violation}{harmed}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a contract set would break."""

    findings: tuple[Finding, ...]
    contracts: tuple[str, ...] = ()
    """The contracts that were compared."""
    new_contracts: tuple[str, ...] = ()
    """Contracts of the offer that the mesh does not know."""
    dependents: tuple[str, ...] = ()
    """Instances whose built-in contracts were compared, `service/instance`."""

    @property
    def admitted(self) -> bool:
        """Whether nothing is broken."""
        return not self.findings


class ContractViolation(Exception):
    """Expected: an instance offers contracts that break what others rely on."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        contracts = sorted({name for finding in findings for name in finding.contracts})
        gone = [f.violation.element.rpartition(".")[2] for f in findings if f.violation.rule == "RPC_NO_DELETE"]
        consumers = sorted({name for finding in findings for name in finding.consumers})
        self.findings = tuple(findings)
        self.contract = _some(contracts, _NAMED)
        self.missing = _some(gone, _NAMED) or None
        self.violations = len(findings)
        self.consumers = _some(consumers, _NAMED) or None
        super().__init__(self._text())

    def _text(self) -> str:
        parts = [f"it does not serve {self.missing}"] if self.missing else []
        others = [_other(finding) for finding in self.findings if finding.violation.rule != "RPC_NO_DELETE"]
        parts += others[:_TOLD]
        if len(others) > _TOLD:
            parts.append(f"and {len(others) - _TOLD} more, which `minhos contract check` lists")
        harmed = f"; harmed: {self.consumers}" if self.missing and self.consumers else ""
        return f"{self.contract} is claimed but not served whole: {'; '.join(parts)}{harmed}"


def _other(finding: Finding) -> str:
    missing = finding.violation.rule == "PACKAGE_SERVICE_NO_DELETE"
    return f"{finding.violation.element} is not in the offer" if missing else str(finding)


_TOLD: Final = 4
"""Violations that stand in the message of a refusal; all of them stand in its details."""
_NAMED: Final = 12


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def is_older(offered: str, mesh: str) -> bool:
    """Whether one release of the contracts is before another; not when either is no row of numbers."""
    before, after = _numbers(offered), _numbers(mesh)
    return before is not None and after is not None and before < after


def _numbers(release: str) -> tuple[int, ...] | None:
    parts = release.split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return None
    return tuple(int(part) for part in parts)
