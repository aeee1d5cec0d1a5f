"""Decides how history is read beside the ticks: by a process of its own, started when it is asked, ended when it rests."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from minhos_mesh.history.worker import DONE, FAILED, FRAME, LENGTH, PLACE, TICKS
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.tick_layout import TICK_BYTES

MOST: Final = 4
"""Questions that are answered at the same time."""
REST_S: Final = 20.0
"""A process that has had nothing to do for so long ends."""
START_S: Final = 20.0
"""Within this the first word of an answer must come, with the time that loading takes."""

_LOG = get_logger("market_data.history")


class TooManyQuestions(Exception):
    """Expected: as many questions about history are being answered as may be at once."""

    def __init__(self) -> None:
        self.limit, self.seen, self.allowed = "questions about history at once", str(MOST + 1), str(MOST)
        super().__init__(f"{MOST} questions about history are being answered: ask again when one of them has ended")


class HistoryUnavailable(Exception):
    """Unexpected: the process that reads history ended or said nothing."""


class HistoryFailed(Exception):
    """Expected: history cannot answer; `kind` is the name of the exception in the process that reads it."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class TicksRead:
    """An unbroken run of ticks as it stands in a batch."""

    __slots__ = ("epoch", "first_sequence", "wire")

    def __init__(self, epoch: int, first_sequence: int, wire: bytes) -> None:
        self.epoch, self.first_sequence, self.wire = epoch, first_sequence, wire

    @property
    def count(self) -> int:
        """Ticks in it."""
        return len(self.wire) // TICK_BYTES


Told = Mapping[str, Any]


class HistoryWorkers:
    """The processes that read and pack history of one mesh; call `close` at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._resting: list[Process] = []
        self._busy: set[Process] = set()
        self._asked = 0
        self._rest: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def asking(self, ask: str, **question: Any) -> AsyncIterator[AsyncIterator[Told | TicksRead]]:
        """The answer to a question, piece by piece. Who leaves early ends the process that was still speaking.

        Raises TooManyQuestions, HistoryFailed, HistoryUnavailable.
        """
        if self._asked >= MOST:
            raise TooManyQuestions
        self._asked += 1
        try:
            self._resting = [process for process in self._resting if process.returncode is None]
            process = self._resting.pop() if self._resting else await self._start()
            self._busy.add(process)
            answer = _Answer(process)
            try:
                await answer.ask({"ask": ask, "root": str(self._root), **question})
                yield answer.pieces()
            finally:
                self._busy.discard(process)
                if answer.complete:
                    self._resting.append(process)
                    self._rest_later()
                else:
                    await _end(process)
        finally:
            self._asked -= 1

    async def _start(self) -> Process:
        command = (sys.executable, "-m", "minhos_mesh.history.worker")
        try:
            return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        except OSError as error:
            raise HistoryUnavailable(f"the process that reads history cannot be started: {error.strerror}") from error

    def _rest_later(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(REST_S, self._dismiss)

    def _dismiss(self) -> None:
        for process in self._resting:
            if process.stdin is not None:
                process.stdin.close()
        self._resting.clear()

    async def close(self) -> None:
        """Ends all processes."""
        if self._rest is not None:
            self._rest.cancel()
        for process in (*self._resting, *self._busy):
            await _end(process)
        self._resting.clear()


class _Answer:
    """What one process says to one question."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.complete = False
        """Whether the process has said everything, so that it can be asked again."""

    async def ask(self, question: Told) -> None:
        body = json.dumps(question).encode()
        assert self._process.stdin is not None, "started with a pipe"
        try:
            self._process.stdin.write(LENGTH.pack(len(body)) + body)
            await self._process.stdin.drain()
        except OSError as error:
            raise HistoryUnavailable("the process that reads history has ended") from error

    async def pieces(self) -> AsyncIterator[Told | TicksRead]:
        while True:
            kind, body = await self._frame()
            if kind == DONE:
                self.complete = True
                return
            if kind == FAILED:
                self.complete = True
                told = json.loads(body)
                raise HistoryFailed(told["kind"], told["text"])
            if kind == TICKS:
                epoch, first_sequence = PLACE.unpack_from(body)
                yield TicksRead(epoch, first_sequence, body[PLACE.size :])
            else:
                yield json.loads(body)

    async def _frame(self) -> tuple[int, bytes]:
        assert self._process.stdout is not None, "started with a pipe"
        try:
            async with asyncio.timeout(START_S):
                kind, size = FRAME.unpack(await self._process.stdout.readexactly(FRAME.size))
                return kind, await self._process.stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            code = await self._process.wait()
            raise HistoryUnavailable(f"the process that reads history ended with {code}: see the log") from None
        except TimeoutError:
            raise HistoryUnavailable(f"the process that reads history said nothing for {START_S:g} s") from None


async def _end(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            _LOG.debug("history.had_ended")
    await process.wait()
