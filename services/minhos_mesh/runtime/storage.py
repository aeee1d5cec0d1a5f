"""How a service keeps its facts: one SQLite file, one writer thread that commits in groups, a few reader threads."""

from __future__ import annotations

import asyncio
import enum
import functools
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

Connection = sqlite3.Connection
T = TypeVar("T")

FULL_CHECK_LIMIT_BYTES: Final = 256 * 1024 * 1024
"""Files up to this size are checked page by page when opened (0.15 s for 240 MB here)."""

_BUSY_TIMEOUT_S: Final = 5.0
_SWITCH_INTERVAL_S: Final = 0.0005
"""How long a busy event loop may keep the interpreter from the writer thread, which asks for it once per statement;
with Python's default of 5 ms one write takes above 10 ms beside a busy loop."""
_CORRUPT_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_FULL_CODES: Final = frozenset({sqlite3.SQLITE_FULL})
_BUSY_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class StorageError(Exception):
    """The store cannot do what was asked; nothing of the refused write is on disk."""


class StorageCorrupt(StorageError):
    """Unexpected: the file is not a healthy SQLite database. It is left as it is, never repaired silently."""


class StorageBusy(StorageError):
    """Expected: another process holds the file's write lock for longer than the busy timeout."""


class StorageFull(StorageError):
    """Expected: the disk has no room, or this process may use no more of it."""


class StorageClosed(StorageError):
    """Expected while stopping: the store was closed, or never opened."""


class StorageTooNew(StorageError):
    """Expected after a downgrade: a newer version of this program wrote the file."""


class Guard(Protocol):
    """Decides whether this process may write to the file; `runtime.fencing.Fence` is one."""

    def take(self, connection: Connection) -> None:
        """Called once before anything is written. Raises StorageError when another process owns it."""
        ...

    def check(self, connection: Connection) -> None:
        """Called in each write transaction. Raises StorageError when another process owns the file by now."""
        ...


class Durability(enum.Enum):
    """What survives. Both survive the death of the process; only FULL survives the loss of power."""

    FULL = "FULL"
    NORMAL = "NORMAL"


@dataclass(slots=True)
class StorageCounters:
    """What the writer has done since it was opened."""

    writes: int = 0
    failed_writes: int = 0
    commits: int = 0
    largest_group: int = 0


Told = Callable[[Any, Exception | None], None]
"""Is given the result of a write, or its error."""


@dataclass(slots=True, frozen=True)
class _Job:
    run: Callable[[Connection], Any]
    future: asyncio.Future[Any] | None
    """None for one that nobody waits for; then there is `told`."""
    then: Callable[[Any], None] | None
    told: Told | None = None


@dataclass(slots=True, frozen=True)
class _Outcome:
    job: _Job
    value: Any = None
    error: Exception | None = None


class Database:
    """One SQLite file in WAL mode. Use as `async with Database(path, migrations=[...]) as db`.

    `migrations` are SQL scripts; script number n (from 1) brings the file to version n and is run once, in a
    transaction of its own. Scripts are only ever appended. Opening raises StorageCorrupt, StorageBusy,
    StorageTooNew, or StorageError with the path and the reason.
    """

    def __init__(
        self,
        path: Path,
        *,
        migrations: Sequence[str],
        durability: Durability = Durability.FULL,
        queue_limit: int = 4096,
        group_limit: int = 512,
        readers: int = 2,
        close_deadline_s: float = 5.0,
        guard: Guard | None = None,
    ) -> None:
        self.path = path
        self.counters = StorageCounters()
        self._migrations = tuple(migrations)
        self._durability = durability
        self._guard = guard
        self._group_limit = group_limit
        self._close_deadline_s = close_deadline_s
        self._room = asyncio.Semaphore(queue_limit)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._open = False
        self._local = threading.local()
        self._reading: list[Connection] = []
        self._readers = readers
        self._writer_connection: Connection | None = None

    async def __aenter__(self) -> Self:
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL_S))
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._writer, name=f"store-{self.path.stem}", daemon=True)
        self._thread.start()
        await self._started
        self._pool = ThreadPoolExecutor(self._readers, thread_name_prefix=f"read-{self.path.stem}")
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Commits everything that was accepted, then closes. Raises StorageError if that exceeds its deadline."""
        if not self._open:
            return
        self._open = False
        self._jobs.put(None)
        try:
            await asyncio.wait_for(asyncio.shield(self._stopped), self._close_deadline_s)
        except TimeoutError:
            if self._writer_connection is not None:
                self._writer_connection.interrupt()
            raise StorageError(f"{self.path}: not closed within {self._close_deadline_s:g} s") from None
        finally:
            await self._close_readers()

    async def _close_readers(self) -> None:
        """Ends reading, what is being read too, and gives back the files."""
        for connection in self._reading:
            connection.interrupt()
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._pool.shutdown)
        while self._reading:
            self._reading.pop().close()

    async def write(self, fn: Callable[[Connection], T], *, then: Callable[[T], None] | None = None) -> T:
        """Runs `fn` in the writer thread inside the current group's transaction; returns its result once on disk.

        What `fn` raises is raised here, and only its own changes are undone. `fn` must not begin, commit or roll
        back. `then` is called with the result on the event loop, in commit order, before the caller resumes and
        even when the caller was cancelled: a cancelled caller's write may be on disk. Waits while the queue is full.
        """
        self._require_open()
        await self._room.acquire()
        if not self._open:
            self._room.release()
            self._require_open()
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(fn, future, then))
        return await future

    def write_soon(self, fn: Callable[[Connection], T], told: Told) -> None:
        """As `write` for one who has a few writes under way at the most, without a task that waits: `told` is called on the
        event loop, in commit order, with the result once it is on disk, or with the error. Raises StorageClosed.
        """
        self._require_open()
        self._jobs.put(_Job(fn, None, None, told))

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Runs `fn` in a reader thread on one consistent snapshot of what is committed."""
        self._require_open()
        return await self._loop.run_in_executor(self._pool, functools.partial(self._run_read, fn))

    def glance(self, fn: Callable[[Connection], T]) -> T:
        """As `read`, at once on the event loop: for look-ups by key that take microseconds, where two changes of thread
        would cost ten times as much. Never for a scan.
        """
        self._require_open()
        return self._run_read(fn)

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Calls `listener` on the event loop after every commit, once per group, behind the callers who waited for it."""
        self._listeners.append(listener)

    def _require_open(self) -> None:
        if not self._open:
            raise StorageClosed(f"{self.path}: the store is closed")

    # The writer thread.

    def _writer(self) -> None:
        try:
            connection = _open_writer(self.path, self._migrations, self._durability, self._guard)
        except Exception as error:  # noqa: BLE001 - handed to the one who opens the store
            self._post(_fail_future, self._started, _explain(self.path, error))
            return
        self._writer_connection = connection
        self._post(_finish_future, self._started)
        while (jobs := self._next_group()) is not None:
            self._post(self._deliver, self._run_group(connection, jobs))
        _close_writer(connection)
        self._writer_connection = None
        self._post(_finish_future, self._stopped)

    def _next_group(self) -> list[_Job] | None:
        first = self._jobs.get()
        if first is None:
            return None
        group = [first]
        while len(group) < self._group_limit:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            group.append(job)
        return group

    def _run_group(self, connection: Connection, jobs: list[_Job]) -> list[_Outcome]:
        try:
            connection.execute("BEGIN IMMEDIATE")
            if self._guard is not None:
                self._guard.check(connection)
            outcomes = [self._run_job(connection, job, alone=len(jobs) == 1) for job in jobs]
            if len(jobs) == 1 and outcomes[0].error is not None:
                return outcomes
            if not connection.in_transaction:
                raise StorageError(f"{self.path}: the transaction ended before its commit")
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to every caller of the group
            _roll_back(connection)
            explained = _explain(self.path, error)
            return [_Outcome(job, error=of_ones_own(explained)) for job in jobs]
        self.counters.commits += 1
        self.counters.largest_group = max(self.counters.largest_group, len(jobs))
        return outcomes

    def _run_job(self, connection: Connection, job: _Job, *, alone: bool) -> _Outcome:
        if not alone:
            connection.execute("SAVEPOINT job")
        try:
            value = job.run(connection)
        except Exception as error:  # noqa: BLE001 - handed to the caller of this write
            if alone:
                _roll_back(connection)
            elif connection.in_transaction:
                connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
            return _Outcome(job, error=_explain_own(self.path, error))
        if not alone:
            connection.execute("RELEASE job")
        return _Outcome(job, value)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            # The event loop is gone, and everyone who waited for this with it.
            return

    # On the event loop.

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        for outcome in outcomes:
            job = outcome.job
            self.counters.writes += 1
            self.counters.failed_writes += outcome.error is not None
            if job.told is not None:
                self._loop.call_soon(job.told, outcome.value, outcome.error)
                continue
            self._room.release()
            if job.then is not None and outcome.error is None:
                self._loop.call_soon(job.then, outcome.value)
        for outcome in outcomes:
            _settle(outcome)
        for listener in self._listeners:
            self._loop.call_soon(listener)

    # The reader threads.

    def _run_read(self, fn: Callable[[Connection], T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _connect(self.path)
            connection.execute("PRAGMA query_only = ON")
            self._local.connection = connection
            self._reading.append(connection)
        connection.execute("BEGIN")
        try:
            return fn(connection)
        except sqlite3.Error as error:
            raise _explain_own(self.path, error) from error
        finally:
            _roll_back(connection)


def _connect(path: Path) -> Connection:
    return sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def _open_writer(path: Path, migrations: Sequence[str], durability: Durability, guard: Guard | None) -> Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {durability.value}")
        connection.execute("PRAGMA foreign_keys = ON")
        _check_integrity(path, connection)
        if guard is not None:
            guard.take(connection)
        _migrate(path, connection, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_integrity(path: Path, connection: Connection) -> None:
    if path.stat().st_size > FULL_CHECK_LIMIT_BYTES:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StorageCorrupt(f"{path}: the database file is damaged: {verdict}; restore it from a backup")


def _migrate(path: Path, connection: Connection, migrations: Sequence[str]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise StorageTooNew(f"{path}: has version {version}, this program knows up to {len(migrations)}")
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error as error:
            _roll_back(connection)
            raise StorageError(f"{path}: migration {number} failed: {error}") from error


def _roll_back(connection: Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        # Nothing of it was committed, and the next BEGIN reports the state of the connection.
        return


def _close_writer(connection: Connection) -> None:
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error:
        # The facts are in the WAL file; the next opening folds them in.
        return
    finally:
        connection.close()


def _explain(path: Path, error: Exception) -> Exception:
    """Turns what SQLite or the file system says into an error that names the file."""
    if isinstance(error, StorageError):
        return error
    explained: StorageError
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int) and code & 0xFF in _CORRUPT_CODES:
        explained = StorageCorrupt(f"{path}: not a healthy SQLite database: {error}; restore it from a backup")
    elif isinstance(code, int) and code & 0xFF in _BUSY_CODES:
        explained = StorageBusy(f"{path}: another process holds the write lock")
    elif isinstance(code, int) and code & 0xFF in _FULL_CODES:
        explained = StorageFull(f"{path}: the disk is full: {error}")
    elif isinstance(error, sqlite3.Error | OSError):
        explained = StorageError(f"{path}: {error}")
    else:
        return error
    explained.__cause__ = error
    return explained


def _explain_own(path: Path, error: Exception) -> Exception:
    """As `_explain`, but leaves constraint errors to the caller, who knows what they mean."""
    return error if isinstance(error, sqlite3.IntegrityError) else _explain(path, error)


def of_ones_own(error: Exception) -> Exception:
    """The same error once more, for one of several who are to be told of it: where an error was raised is kept with it, and
    whoever raises one that others raise too shows, keeps and empties what was called by them.
    """
    made = type(error).__new__(type(error), *error.args)
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    return made


def _settle(outcome: _Outcome) -> None:
    future = outcome.job.future
    if future is None:
        return
    if outcome.error is not None:
        _fail_future(future, outcome.error)
    elif not future.done():
        future.set_result(outcome.value)


def _finish_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail_future(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
