"""Decides where asynchronous work of a command runs: on one event loop for the life of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_RUNNER: Final = asyncio.Runner()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end. The loop is left open: gRPC still answers to the loop of a call that was interrupted."""
    return _RUNNER.run(work)
