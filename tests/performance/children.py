"""Decides how a benchmark speaks to a process of its own: one line of JSON asks, one line answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.performance.mesh_run import MeshFailed

OPEN_S: Final = 60.0
ANSWER_S: Final = 120.0
_MOST: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class Child:
    """A running process that has said that it is ready."""

    process: asyncio.subprocess.Process
    opened: dict[str, Any]
    """What it said when it was ready."""

    @classmethod
    async def started(cls, script: Path, *arguments: str) -> Child:
        """Returns once it is ready. Raises MeshFailed."""
        pipe = asyncio.subprocess.PIPE
        environment = {**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = (sys.executable, str(script), *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment, limit=_MOST)
        made = cls(process, {})
        try:
            made.opened = await made._answer(OPEN_S)
        except BaseException:
            await made.end()
            raise
        return made

    async def ask(self, within_s: float = ANSWER_S, **question: Any) -> dict[str, Any]:
        """Its answer. Raises MeshFailed when it ended, or does not answer in time."""
        assert self.process.stdin is not None, "stdin is a pipe"
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        return await self._answer(within_s)

    async def _answer(self, within_s: float) -> dict[str, Any]:
        assert self.process.stdout is not None, "stdout is a pipe"
        try:
            async with asyncio.timeout(within_s):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise MeshFailed(f"process {self.process.pid} of the benchmark did not answer in {within_s:g} s") from None
        if not line:
            raise MeshFailed(f"process {self.process.pid} of the benchmark ended with {await self.process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told

    async def end(self) -> None:
        """Ends it, also when it is stopped."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def children(script: Path, *arguments: str, count: int = 1) -> AsyncIterator[list[Child]]:
    """So many processes of the same script; they are killed at the end."""
    starting = [asyncio.create_task(Child.started(script, *arguments)) for _ in range(count)]
    try:
        yield list(await asyncio.gather(*starting))
    finally:
        for task in await asyncio.gather(*starting, return_exceptions=True):
            if isinstance(task, Child):
                await task.end()


async def questions() -> AsyncIterator[dict[str, Any]]:
    """In the process: the questions, until whoever asks is gone."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        yield json.loads(line)


def say(**answer: Any) -> None:
    """In the process: answers."""
    print(json.dumps(answer), flush=True)
