"""Decides what a discovery client may cost: streams, silence, bytes, requests and refusals, so that one bad one starves nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

MAX_STREAMS: Final = 2_048
"""Discovery streams at once."""
MAX_ON_CONNECTION: Final = 64
"""Of these, streams on one connection: gRPC opens one for each name that a process calls, all on the same connection."""
MAX_UNPROVEN: Final = 128
"""Of these, streams on which nothing was answered yet; when there are more, one of them ends: on the connection that has the
most of them, the oldest that has not asked for anything, or else the oldest.
"""
PROOF_SECONDS: Final = 10.0
"""A working client answers within milliseconds; a stream without any answer ends after this."""
MAX_REQUEST_BYTES: Final = 1024 * 1024
"""Size of one discovery request."""
MAX_CLIENT_NAME: Final = 128
"""Characters of a client's node id that are kept."""
BURST: Final = 1_000
"""Requests that one stream may send at once."""
REQUESTS_PER_SECOND: Final = 500.0
"""And then go on with; who sends more is read no faster."""
LOGGED_REFUSALS: Final = 10
"""Refusals of one stream that are logged one by one; after these the 20th, 40th, 80th and so on."""
LOGGED_AT_ONCE: Final = 100
"""Lines about bad clients, all together, that are logged at once."""
LOGGED_PER_SECOND: Final = 5.0
"""And then go on with; the next line tells how many were left out."""
MAX_REFUSALS: Final = 100
"""Refusals of one stream within REFUSAL_SECONDS after which it ends."""
REFUSAL_SECONDS: Final = 10.0


class TooManyRefusals(Exception):
    """Expected of broken or hostile clients: a stream that refuses again and again, whatever it is sent."""


class Pace:
    """Reads one stream no faster than is fair: a bucket that fills while time passes."""

    def __init__(self) -> None:
        self._filled_at = asyncio.get_running_loop().time()
        self._left = float(BURST)

    async def keep(self) -> None:
        """Waits until the next request may be read."""
        now = asyncio.get_running_loop().time()
        self._left = min(float(BURST), self._left + (now - self._filled_at) * REQUESTS_PER_SECOND) - 1
        self._filled_at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / REQUESTS_PER_SECOND)


class RefusalLog:
    """Counts the refusals of one stream, says which of them are worth a line, and when it is enough."""

    def __init__(self) -> None:
        self.count = 0
        self._window_began = 0.0
        self._in_window = 0

    def note(self, now: float) -> bool:
        """Counts one; says whether to log it. Raises TooManyRefusals."""
        self.count += 1
        if now - self._window_began > REFUSAL_SECONDS:
            self._window_began, self._in_window = now, 0
        self._in_window += 1
        if self._in_window > MAX_REFUSALS:
            raise TooManyRefusals(
                f"{self._in_window} refusals within {REFUSAL_SECONDS:g} s, allowed are {MAX_REFUSALS}"
            )
        if self.count <= LOGGED_REFUSALS:
            return True
        doublings = self.count // LOGGED_REFUSALS
        return self.count % LOGGED_REFUSALS == 0 and doublings & (doublings - 1) == 0


class LogPace:
    """Keeps bad clients that come again and again from filling the disk."""

    def __init__(self) -> None:
        self._filled_at = 0.0
        self._left = float(LOGGED_AT_ONCE)
        self._left_out = 0

    def left_out(self, now: float) -> int | None:
        """How many lines were left out before this one; None when this one is to be left out as well."""
        self._left = min(float(LOGGED_AT_ONCE), self._left + (now - self._filled_at) * LOGGED_PER_SECOND)
        self._filled_at = now
        if self._left < 1:
            self._left_out += 1
            return None
        self._left -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out


class Provable(Protocol):
    """A stream that may be asked to make room."""

    connection: str
    opened_at: float
    asked: bool

    @property
    def ending(self) -> object | None:
        """Why it is being ended; None when it is not."""
        ...

    @property
    def stream(self) -> HasAnswered:
        """What was said on it."""
        ...


class HasAnswered(Protocol):
    """The conversation on a stream."""

    @property
    def proven(self) -> bool:
        """Whether anything was answered."""
        ...


C = TypeVar("C", bound=Provable)


def least_promising(clients: Iterable[C]) -> C | None:
    """The stream to end for the sake of others; None when all have answered or are ending.

    On the connection that has the most streams without an answer, so that one client's many do not cost another its only one,
    it is the one open the longest, those first that did not even ask.
    """
    unproven = [client for client in clients if client.ending is None and not client.stream.proven]
    crowd = Counter(client.connection for client in unproven)
    return min(unproven, key=lambda client: (-crowd[client.connection], client.asked, client.opened_at), default=None)
