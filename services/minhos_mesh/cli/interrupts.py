"""Decides when Ctrl-C and a request to terminate take effect where they must not come in the middle of something."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Meanwhile Ctrl-C is noted only, and what is yielded raises KeyboardInterrupt for it; a second one is obeyed at once.

    Raised in the middle of a library it could be lost there, or told as an error of that library.
    """
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, signal.default_int_handler)

    def obeyed() -> None:
        if noted:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield obeyed
    finally:
        signal.signal(signal.SIGINT, before)


def _note(number: int, _frame: FrameType | None) -> None:
    _held.append(number)
