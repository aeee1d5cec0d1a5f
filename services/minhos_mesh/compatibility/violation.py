"""Decides what one broken promise looks like as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST: Final = 240
"""Characters of a name or value that are shown; a hostile name is no reason for a message of megabytes."""


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One promise of the old contract that the new one breaks."""

    file: str
    """Path of the file that holds the element; the old one when the new set has none."""
    element: str
    """Full name of what changed: a field, a method, an enum value."""
    rule: str
    """Name of the rule; buf's own name where buf has the rule."""
    old: str
    """What was promised."""
    new: str
    """What is offered instead; `gone` when nothing is."""

    def __str__(self) -> str:
        return f"{self.rule} {self.element}: {self.old} -> {self.new}"


GONE: Final = "gone"
"""The new side of something that was removed."""


def shown(value: object) -> str:
    """A name or value as a report shows it, cut when it is too long to read."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def broken(rule: str, file: str, element: str, old: object, new: object = GONE) -> Violation:
    """Puts a violation together."""
    return Violation(shown(file), shown(element), rule, shown(old), shown(new))
