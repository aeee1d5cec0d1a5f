"""Decides how what a server tells of an order that a person has settled compares with their word; executions only, no orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from minhos_mesh.dtc.reports import FillReport
from minhos_mesh.runtime.money import format_e9

CUT: Final = "|part:"
"""Stands between the id of an execution and the number of a later part of it, where it was booked in parts."""


def whole(execution_id: str) -> str:
    """The id of the execution that a booked one is, or is a part of."""
    return execution_id.partition(CUT)[0]


def totals(fills: Collection[FillReport]) -> Counter[int]:
    """Contracts by price."""
    found: Counter[int] = Counter()
    for fill in fills:
        found[fill.price_e9] += fill.quantity
    return found


def contracts(fills: Collection[FillReport]) -> int:
    """Contracts of executions together."""
    return sum(fill.quantity for fill in fills)


def beyond(
    settled: Collection[FillReport], heard: Sequence[FillReport], booked: Collection[FillReport]
) -> tuple[FillReport, ...]:
    """What is to be booked beside the word of a person: contracts beyond theirs in number, at prices that they did not tell.

    `heard` is what the server tells, `booked` what of it was booked before. An execution is cut where only a part is beyond.
    """
    room = contracts(heard) - contracts(settled) - contracts(booked)
    free = totals(heard) - totals(settled) - totals(booked)
    found: list[FillReport] = []
    for fill in heard:
        parts = [part for part in booked if whole(part.execution_id) == fill.execution_id]
        quantity = min(room, fill.quantity - contracts(parts), free[fill.price_e9])
        if quantity > 0:
            name = f"{fill.execution_id}{CUT}{len(parts)}" if parts else fill.execution_id
            found.append(replace(fill, execution_id=name, quantity=quantity))
            room, free[fill.price_e9] = room - quantity, free[fill.price_e9] - quantity
    return tuple(found)


def disagreement(
    settled: Collection[FillReport], heard: Collection[FillReport], final: int | None, booked: Collection[FillReport]
) -> str:
    """What a person and the server have told where these differ, for people; empty where they agree, or may yet.

    `final` is how many contracts the server says there were in the end, None while it has not said. How a quantity is cut
    into executions makes no difference.
    """
    few = final is not None and final < contracts(settled)
    if not few and not totals(heard) - totals(settled):
        return ""
    theirs = said(heard) if heard or not final else f"{final} contracts"
    beside = f"; booked is the word of the person, and beside it {said(booked)}" if booked else ""
    return f"a person has told {said(settled)}, and the server tells {theirs}{beside}"


def said(fills: Collection[FillReport]) -> str:
    """Executions in words, those of one price together."""
    told = [f"{quantity} @ {format_e9(price_e9)}" for price_e9, quantity in sorted(totals(fills).items())]
    return ", ".join(told) or "no fill"
