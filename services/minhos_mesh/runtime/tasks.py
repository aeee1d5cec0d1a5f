"""Decides who owns a background task: a group that reports the first failure and leaves none behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from minhos_mesh.runtime.log import get_logger

CLOSE_DEADLINE_S: Final = 5.0
"""How long cancelled tasks may take to end."""


class OwnedTasks:
    """Background tasks of one service.

    A task that fails is a defect of the service: `on_failure` is called once with its name and error, and the host
    ends the process, so that it is started afresh instead of living on by half.
    """

    def __init__(self, on_failure: Callable[[str, BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_failure = on_failure
        self._closing = False

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Runs the coroutine until it returns or the group is closed."""
        if self._closing:
            work.close()
            raise RuntimeError(f"task {name} was started while its group closes")
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Cancels all tasks and waits for them; one that will not end is logged and left."""
        self._closing = True
        pending = list(self._tasks)
        for task in pending:
            task.cancel()
        if pending:
            _, late = await asyncio.wait(pending, timeout=CLOSE_DEADLINE_S)
            for task in late:
                get_logger("runtime.tasks").error("task.will_not_end", task=task.get_name())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if self._closing or task.cancelling():
                return
            error: BaseException | None = RuntimeError(
                f"task {task.get_name()} ended by a cancellation that nobody asked for"
            )
        else:
            error = task.exception()
        if error is None:
            return
        get_logger("runtime.tasks").error("task.failed", task=task.get_name(), exc_info=error)
        if self._on_failure is not None and not self._closing:
            self._on_failure(task.get_name(), error)
