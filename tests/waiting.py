"""How tests wait: for a condition, with a deadline, and with words for what did not come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_S = 0.01


def until(condition: Callable[[], T | None], what: str, within_s: float = 20.0) -> T:
    """The first truthy answer of a condition; fails with `what` after the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        select.select([], [], [], _POLL_S)


async def eventually(condition: Callable[[], Any], what: str, within_s: float = 10.0) -> Any:
    """The first truthy answer of a condition, which may be a coroutine function; fails with `what` after the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(_POLL_S)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not reaped does not."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return content[content.rindex(")") + 2] not in "ZX"


def freeze(pid: int, within_s: float = 10.0) -> None:
    """SIGSTOP; returns when every thread stands still, which on a busy machine is later than the signal."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: set(_thread_states(pid)) == {"T"}, f"process {pid} stands still", within_s)


def thaw(pid: int) -> None:
    """SIGCONT."""
    os.kill(pid, signal.SIGCONT)


def _thread_states(pid: int) -> list[str]:
    states = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            content = (thread / "stat").read_text(encoding="utf-8")
            states.append(content[content.rindex(")") + 2])
    return states
