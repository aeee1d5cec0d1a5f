"""Decides how the bridge is spoken to: reading only, with deadlines and bounds on all that it may send.

Nothing but GET is ever sent; there is no way through here by which an order could leave.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import aiohttp

OPEN_S: Final = 5.0
"""Within this a connection must stand and a question be answered."""
PING_S: Final = 10.0
"""How often an open stream is asked whether its other end lives."""
LARGEST_MESSAGE: Final = 256 * 1024
"""Bytes of one message of a stream; a larger one ends the connection."""
LARGEST_ANSWER: Final = 1024 * 1024
"""Bytes of one answer over HTTP."""
WAITING: Final = 1000
"""Messages that may wait to be read; the sender is held back beyond."""


class BridgeLost(Exception):
    """Expected: the bridge cannot be reached, or has stopped speaking as one; it is tried again."""


class WayClosed(Exception):
    """Expected: the bridge does not offer this stream; another way is taken."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP."""

    status: int
    body: bytes


class BridgeHttp:
    """Open connections to one bridge."""

    def __init__(self, session: aiohttp.ClientSession, address: str, open_s: float) -> None:
        self._session = session
        self._address = address
        self._open_s = open_s

    async def get(self, path: str) -> Answer:
        """Asks one question. Raises BridgeLost."""
        import aiohttp

        try:
            async with (
                asyncio.timeout(self._open_s),
                self._session.get(f"http://{self._address}{path}", allow_redirects=False) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > LARGEST_ANSWER:
                        raise BridgeLost(f"{path} of {self._address} answers with more than {LARGEST_ANSWER} bytes")
                return Answer(response.status, bytes(body))
        except TimeoutError:
            raise BridgeLost(f"{self._address} did not answer {path} within {self._open_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BridgeLost(f"{self._address} cannot be reached: {_words(error)}") from None

    @asynccontextmanager
    async def streams(self, paths: Sequence[str]) -> AsyncIterator[asyncio.Queue[str | BridgeLost]]:
        """Opens WebSockets and gives the messages of all, in the order in which they come; a BridgeLost is the last.

        Raises WayClosed when one of them is not offered, BridgeLost when the bridge cannot be reached.
        """
        sockets: list[aiohttp.ClientWebSocketResponse] = []
        readers: list[asyncio.Task[None]] = []
        queue: asyncio.Queue[str | BridgeLost] = asyncio.Queue(WAITING)
        try:
            for path in paths:
                socket = await self._open(path)
                sockets.append(socket)
                readers.append(asyncio.create_task(self._read(socket, queue), name="bridge stream"))
            yield queue
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            for socket in sockets:
                await self._close(socket)

    async def _open(self, path: str) -> aiohttp.ClientWebSocketResponse:
        import aiohttp

        try:
            async with asyncio.timeout(self._open_s):
                return await self._session.ws_connect(
                    f"ws://{self._address}{path}", heartbeat=PING_S, max_msg_size=LARGEST_MESSAGE, autoclose=True
                )
        except TimeoutError:
            raise BridgeLost(f"{path} of {self._address} did not open within {self._open_s:g} s") from None
        except aiohttp.WSServerHandshakeError as error:
            raise WayClosed(f"{path} is not offered (HTTP {error.status})") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BridgeLost(f"{self._address} cannot be reached: {_words(error)}") from None

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, queue: asyncio.Queue[str | BridgeLost]) -> None:
        import aiohttp

        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    await queue.put(message.data)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            await queue.put(BridgeLost(f"a stream of {self._address} broke: {_words(error)}"))
            return
        code = f" with code {socket.close_code}" if socket.close_code else ""
        await queue.put(BridgeLost(f"{self._address} closed a stream{code}"))

    async def _close(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async with asyncio.timeout(1.0):
                await socket.close()
        except (TimeoutError, OSError):
            return


@asynccontextmanager
async def open_bridge(address: str, open_s: float = OPEN_S) -> AsyncIterator[BridgeHttp]:
    """A way to a bridge; the library behind it is loaded now and not before."""
    import aiohttp

    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=open_s),
        connector=aiohttp.TCPConnector(limit=64, force_close=False),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    async with session:
        yield BridgeHttp(session, address, open_s)


def _words(error: BaseException) -> str:
    number = getattr(getattr(error, "os_error", None), "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else str(error)[:200] or type(error).__name__
