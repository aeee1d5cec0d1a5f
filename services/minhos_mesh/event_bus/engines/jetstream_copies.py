"""How the log stays short: now and then a whole copy of the journal goes into a stream of its own, and what it covers leaves the log.

A copy counts once its last message, the manifest, is stored; only then is the log cut, and then older copies. A bus whose own
copy is missing, or ends before the log begins, fetches the newest one and goes on from there.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from minhos_mesh.event_bus.engines.jetstream_log import Extent, LogUnreachable, StreamLog, TailLost
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.storage import StorageCorrupt, StorageError

_LOG: Final = logging.getLogger(__name__)

PIECE_BYTES: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """One whole copy: how far it goes, and which messages of the stream of copies it is."""

    position: int
    newest: int
    first: int
    pieces: int
    bytes: int
    digest: str


class CopyStore:
    """The stream of copies beside a log. Call `open` once before anything else."""

    def __init__(self, log: StreamLog) -> None:
        self._log = log
        self._stream = f"{log.settings.stream}_COPIES"
        self._subject = f"minhos.copies.{log.settings.stream}"
        self._manifest_at = 0

    async def open(self) -> None:
        """Creates the stream or checks the one there. Raises StorageError."""
        await self._log.prepare(self._stream, [f"{self._subject}.*"])

    async def newest(self) -> Manifest | None:
        """The newest whole copy."""
        question = {"last_by_subj": f"{self._subject}.manifest"}
        answer = await self._log.ask(f"STREAM.MSG.GET.{self._stream}", question)
        if "error" in answer:
            if answer["error"].get("code") == 404:
                return None
            raise LogUnreachable(f"{self._log.title}: {answer['error'].get('description')}")
        self._manifest_at = answer["message"]["seq"]
        return Manifest(**json.loads(_bytes_of(answer)))

    async def fetch(self, manifest: Manifest, path: Path) -> None:
        """Writes a copy to a file, whole and on disk, or not at all. Raises StorageCorrupt, LogUnreachable."""
        partial = path.with_name(f"{path.name}.partial")
        digest = hashlib.blake2b(digest_size=16)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                for sequence in range(manifest.first, manifest.first + manifest.pieces):
                    answer = await self._log.ask(f"STREAM.MSG.GET.{self._stream}", {"seq": sequence})
                    if "error" in answer:
                        raise StorageCorrupt(f"{self._log.title}: piece {sequence} of the newest copy is missing")
                    piece = _bytes_of(answer)
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != manifest.digest:
                raise StorageCorrupt(f"{self._log.title}: the newest copy does not have the bytes that were stored")
            for beside in ("", "-wal", "-shm"):
                path.with_name(path.name + beside).unlink(missing_ok=True)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    async def store(self, path: Path, position: int, newest: int) -> None:
        """Stores a file as the newest copy, then cuts the log and forgets older copies.

        Raises StorageError when another bus stored one meanwhile.
        """
        digest, first, pieces, size = hashlib.blake2b(digest_size=16), 0, 0, 0
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                sequence = await self._log.put(f"{self._subject}.piece", piece)
                if pieces and sequence != first + pieces:
                    raise StorageError(f"{self._log.title}: another bus stores a copy at the same time")
                first = first or sequence
                pieces += 1
                size += len(piece)
                digest.update(piece)
        manifest = Manifest(position, newest, first, pieces, size, digest.hexdigest())
        only_behind = {"Nats-Expected-Last-Subject-Sequence": str(self._manifest_at)}
        body = json.dumps(asdict(manifest)).encode()
        self._manifest_at = await self._log.put(f"{self._subject}.manifest", body, only_behind)
        reached("stream.before_cut")
        await self._log.ask(f"STREAM.PURGE.{self._log.settings.stream}", {"seq": position})
        await self._log.ask(f"STREAM.PURGE.{self._stream}", {"seq": first})
        _LOG.info(
            "%s: a copy up to message %d, %d bytes, is stored; the log begins there", self._log.title, position, size
        )


def _bytes_of(answer: dict[str, Any]) -> bytes:
    return base64.b64decode(answer["message"].get("data", ""))


def place_of(path: Path) -> tuple[int, int]:
    """Position and newest event of a copy in a file that nobody has open; zeros when there is none."""
    if not path.exists():
        return 0, 0
    connection = sqlite3.connect(path)
    try:
        (position,) = connection.execute("SELECT position FROM stream_place").fetchone() or (0,)
        (newest,) = connection.execute("SELECT sequence FROM head").fetchone() or (0,)
    except sqlite3.Error:
        return 0, 0
    finally:
        connection.close()
    return int(position), int(newest)


async def fetch_if_needed(log: StreamLog, copies: CopyStore, path: Path) -> Extent:
    """Brings the newest stored copy to this machine when its own is missing or too old for what the log still holds.

    Raises TailLost when the log ends before the newest stored copy does, StorageCorrupt when records are missing between.
    """
    extent = await log.extent()
    manifest = await copies.newest()
    if manifest is not None and manifest.position > extent.last:
        raise TailLost(
            f"{log.title}: ends at message {extent.last}, a stored copy of it goes to {manifest.position} (event"
            f" {manifest.newest}): the servers lost what they acknowledged; give them their data back, or begin another stream"
        )
    position, _ = place_of(path)
    if extent.first <= max(position, 1):
        return extent
    if manifest is None or manifest.position < extent.first:
        raise StorageCorrupt(
            f"{log.title}: begins with message {extent.first}, this bus's copy ends at {position}, and there is no stored"
            " copy in between"
        )
    _LOG.info("%s: fetches the copy up to message %d", log.title, manifest.position)
    await copies.fetch(manifest, path)
    return extent


class LogCutter:
    """Stores a copy whenever the log has grown by as much as the copy is large, at least by `after_bytes`."""

    def __init__(
        self, copies: CopyStore, path: Path, after_bytes: int, grown: int, backup: Callable[[Path], Awaitable[Any]]
    ) -> None:
        """`grown` is how large the log is by now."""
        self._copies, self._path, self._after_bytes, self._backup = copies, path, after_bytes, backup
        self._grown = grown
        self._task: asyncio.Task[None] | None = None

    def note(self, grown: int) -> None:
        """Counts what was written to the log."""
        self._grown += grown
        if self._grown >= self._after_bytes and (self._task is None or self._task.done()):
            self._grown = 0
            self._task = asyncio.create_task(self._cut(), name="event_bus-copy")

    async def close(self) -> None:
        """Ends what is under way; a copy without its manifest counts for nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _cut(self) -> None:
        file = self._path.with_name(f"{self._path.name}.outgoing")
        try:
            file.unlink(missing_ok=True)
            await self._backup(file)
            await self._copies.store(file, *place_of(file))
        except (StorageError, OSError) as error:
            _LOG.warning("the log could not be cut, it is tried again when it has grown more: %s", error)
        finally:
            self._after_bytes = max(self._after_bytes, file.stat().st_size if file.exists() else 0)
            file.unlink(missing_ok=True)
