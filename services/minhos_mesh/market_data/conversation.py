"""Decides how a two-way stream is held: what the other side says is heard in the background, one writer says what is due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager


class MessageRefused(ValueError):
    """Expected: a message of a stream came where another one was due, or does not belong to it."""

    def __init__(self, field: str, seen: object, allowed: str) -> None:
        self.field, self.seen, self.allowed = field, str(seen), allowed
        super().__init__(f"{field} is {seen}: allowed is {allowed}")


class Conversation:
    """The writer's side of one stream: it waits here, and here it learns that hearing failed or came to its end."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None
        """Of the writer, which alone waits: an Event would cost more than all else that is done for one tick here."""
        self._failure: Exception | None = None
        self._spoken = True
        self._beat_due = False
        self.heard_all = False
        """Whether the other side has said everything."""

    def wake(self) -> None:
        """Lets the writer look again."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def fail(self, failure: Exception) -> None:
        """Ends the stream with an error."""
        self._failure = failure
        self.wake()

    async def until(self, due: Callable[[], list[bytes]]) -> list[bytes]:
        """What is due as soon as something is; empty when nothing is and the other side has said everything.

        Raises what `fail` was told. No timer runs here: whoever has news wakes the writer.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            if messages := due():
                self._spoken = True
                return messages
            if self.heard_all and self._ends_when_heard():
                return []
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def second_passed(self) -> None:
        """Called once a second: a stream on which nothing was said since the last time gets a sign of life."""
        self._beat_due = not self._spoken
        self._spoken = False
        if self._beat_due:
            self.wake()

    def _ends_when_heard(self) -> bool:
        return False


@asynccontextmanager
async def hearing(conversation: Conversation, listen: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs `listen` beside the writer; its failure becomes the stream's, and it ends with the stream."""

    async def heard() -> None:
        try:
            await listen
        except Exception as failure:  # noqa: BLE001 - whatever it is, the writer raises it
            conversation.fail(failure)
        else:
            conversation.heard_all = True
            conversation.wake()

    task = asyncio.create_task(heard(), name="market data requests")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
