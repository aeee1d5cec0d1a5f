"""Decides whether what an instance offers is the contract it claims: whole, with the types that the mesh knows.

An offer may have more than the contract says (a newer build); it may not have less or something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


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


class ContractViolation(Exception):
    """Expected: an instance claims a contract that it does not serve whole."""

    def __init__(self, contract: str, missing: tuple[str, ...], different: tuple[str, ...]) -> None:
        parts = []
        if missing:
            parts.append(f"it does not serve {', '.join(missing)}")
        if different:
            parts.append(f"it serves otherwise {'; '.join(different)}")
        super().__init__(f"{contract} is claimed but not served whole: {'; '.join(parts) or 'it is not in the offer'}")
        self.contract = contract
        self.missing = ", ".join(missing) or None
        self.different = "; ".join(different) or None


def check_offer(
    mesh: Mapping[str, ContractShape], offered: Mapping[str, ContractShape], claimed: Iterable[str]
) -> None:
    """Compares every claimed contract with the mesh's own. Raises ContractViolation for the first that is not whole."""
    for name in claimed:
        offer = offered.get(name)
        if offer is None:
            expected = mesh.get(name)
            raise ContractViolation(name, tuple(sorted(expected.methods)) if expected is not None else (), ())
        expected = mesh.get(name)
        if expected is None:
            continue  # a contract that only this instance knows; nobody can have been promised anything
        missing = tuple(sorted(set(expected.methods) - set(offer.methods)))
        different = tuple(
            f"{method} {offer.methods[method]} instead of {shape}"
            for method, shape in sorted(expected.methods.items())
            if method in offer.methods and offer.methods[method] != shape
        )
        if missing or different:
            raise ContractViolation(name, missing, different)
