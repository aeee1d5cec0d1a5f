"""Decides what Ctrl-C and a request to terminate do to `minhos up`: held back while it starts a keeper, obeyed once, never twice."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)
_held: Final[list[int]] = []


def hold() -> None:
    """From now on they are only noted: a keeper that nobody watches over yet would be left behind."""
    for number in _NUMBERS:
        signal.signal(number, _note)


def obey() -> None:
    """From now on they raise KeyboardInterrupt, at once if one was held back."""
    for number in _NUMBERS:
        signal.signal(number, signal.default_int_handler)
    if _held:
        raise KeyboardInterrupt


def ignore() -> None:
    """From now on they do nothing: a second one would leave half of the mesh behind."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _note(number: int, _frame: FrameType | None) -> None:
    _held.append(number)
