"""How the keeper talks to its clients: non-blocking Unix sockets, one JSON line per message, bounded buffers."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from minhos_mesh.runtime.keeper_protocol import MAX_LINE_BYTES, KeeperPaths, encode

_MAX_UNSENT_BYTES: Final = 4 * MAX_LINE_BYTES
_PRIVATE_PREFIX: Final = "minhos-"
_PEER: Final = struct.Struct("3i")

Handler = Callable[["Connection", Mapping[str, Any]], None]


class Connection:
    """One client. What it sends goes to the handler line by line; what it is sent is buffered while it does not read."""

    def __init__(self, channel: socket.socket, selector: selectors.BaseSelector, handler: Handler) -> None:
        self._channel = channel
        self._selector = selector
        self._handler = handler
        self._received = bytearray()
        self._unsent = bytearray()
        self.closed = False
        self.follows: str | None = None
        """Name under which this client follows exits; empty for a follower without memory."""
        self.awaits_end = False
        """Whether this client waits for the end of the keeper."""
        channel.setblocking(False)
        selector.register(channel, selectors.EVENT_READ, self.ready)

    def ready(self, events: int) -> None:
        """Called by the keeper's loop when the socket can be read or written."""
        if events & selectors.EVENT_WRITE and not self.closed:
            self.flush()
        if events & selectors.EVENT_READ and not self.closed:
            self._read()

    def send(self, message: Mapping[str, Any]) -> bool:
        """Sends a message, now or when the client reads on; False when the client is gone or reads nothing."""
        if self.closed:
            return False
        self._unsent += encode(message)
        self.flush()
        if len(self._unsent) > _MAX_UNSENT_BYTES:
            self.close()
        return not self.closed

    def refuse(self, code: str, error: str) -> None:
        """Answers a request with an error."""
        self.send({"ok": False, "code": code, "error": error})

    def flush(self) -> None:
        """Sends what is buffered, as far as the client takes it."""
        try:
            while self._unsent:
                del self._unsent[: self._channel.send(self._unsent)]
        except BlockingIOError:
            self._selector.modify(self._channel, selectors.EVENT_READ | selectors.EVENT_WRITE, self.ready)
            return
        except OSError:
            self.close()
            return
        self._selector.modify(self._channel, selectors.EVENT_READ, self.ready)

    def close(self) -> None:
        """Ends the connection."""
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._channel)
            self._channel.close()

    def abandon(self) -> None:
        """Closes the socket in a forked child, without touching the selector that the parent uses."""
        self.closed = True
        self._channel.close()

    def _read(self) -> None:
        try:
            data = self._channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._received += data
        while not self.closed and (end := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[:end])
            del self._received[: end + 1]
            self._dispatch(line)
        if len(self._received) > MAX_LINE_BYTES:
            self.refuse("BAD_REQUEST", f"a request may have {MAX_LINE_BYTES} bytes")
            self.close()

    def _dispatch(self, line: bytes) -> None:
        try:
            request = json.loads(line)
        except ValueError as error:
            self.refuse("BAD_REQUEST", f"not a line of JSON: {error}")
            return
        if not isinstance(request, dict):
            self.refuse("BAD_REQUEST", f"a request is an object, not {type(request).__name__}")
            return
        self._handler(self, request)


class Listener:
    """The socket of one keeper, open to its own user only. A data folder with a long path gets a short one elsewhere."""

    def __init__(self, paths: KeeperPaths, selector: selectors.BaseSelector, handler: Handler) -> None:
        self._private_dir: Path | None = None
        self.path = paths.socket
        if not paths.socket_fits():
            self._private_dir = Path(tempfile.mkdtemp(prefix=_PRIVATE_PREFIX, dir=_short_dir()))
            self.path = self._private_dir / "keeper.sock"
        self._selector = selector
        self._handler = handler
        self._connections: list[Connection] = []
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self.path))
        finally:
            os.umask(before)
        self._socket.setblocking(False)
        self._socket.listen(64)
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def connections(self) -> list[Connection]:
        """The clients that are there."""
        self._connections = [connection for connection in self._connections if not connection.closed]
        return list(self._connections)

    def close(self) -> None:
        """Sends what is left to say, as far as that goes without waiting, and removes the socket."""
        for connection in self.connections():
            connection.close()
        self._selector.unregister(self._socket)
        self._socket.close()
        self.path.unlink(missing_ok=True)
        if self._private_dir is not None:
            self._private_dir.rmdir()

    def abandon(self) -> None:
        """Closes everything in a forked child; the socket's file stays, it is the parent's."""
        for connection in self._connections:
            connection.abandon()
        self._socket.close()

    def _accept(self, _events: int) -> None:
        try:
            channel, _ = self._socket.accept()
        except OSError:
            # The client went away before it was let in, or no descriptor is free: the next readiness tries again.
            return
        _pid, uid, _gid = _PEER.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in (os.getuid(), 0):
            channel.close()
            return
        self._connections = self.connections()
        self._connections.append(Connection(channel, self._selector, self._handler))


def remove_stale(noted: str, paths: KeeperPaths) -> None:
    """Removes the short-path socket of a keeper that died, with its private folder."""
    path = Path(noted)
    if noted and path != paths.socket and path.parent.name.startswith(_PRIVATE_PREFIX):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def _short_dir() -> str:
    """A folder with a short path: the user's runtime folder when there is one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return runtime if runtime and len(runtime.encode()) < 60 and os.access(runtime, os.W_OK) else "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it
