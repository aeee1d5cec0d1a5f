"""Decides how much of what a process frees it keeps for its next messages, and when it gives all of it back.

By itself the C library gives the memory of a large message back as soon as it is read, and the kernel clears as many pages for
the next one: a quarter of the CPU that a tick costs. All of this is for the GNU one; another keeps its own way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

READER_BYTES: Final = 8_000_000
"""Enough for who reads or sends ticks: a few messages of the largest size."""
SERVER_BYTES: Final = 32_000_000
"""Enough for who hands them to several readers, each of which may be at another message."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Numbers of glibc's malloc.h."""


def keep_freed_memory(most_bytes: int) -> bool:
    """Lets this process keep up to so many freed bytes at the end of its heap; whether its C library knows how.

    Blocks of more than half of that come from the kernel and go back to it as before.
    """
    return _tune(_M_TRIM_THRESHOLD, most_bytes) and _tune(_M_MMAP_THRESHOLD, most_bytes // 2)


def share_heaps(count: int) -> bool:
    """Lets all threads of this process, and of those forked from it, share so many heaps; whether its C library knows how."""
    return _tune(_M_ARENA_MAX, count)


def trimmer() -> Callable[[], object] | None:
    """What returns freed memory to the system; None where the C library is not the GNU one."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)


def give_back() -> None:
    """Returns freed memory to the system, which the GNU C library keeps by itself: 1 to 4 MB after reading history."""
    if (trim := trimmer()) is not None:
        trim()


def _tune(parameter: int, value: int) -> bool:
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    return tune is not None and bool(tune(parameter, value))
