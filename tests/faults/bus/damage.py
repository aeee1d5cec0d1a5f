"""Journals with a bit flipped or their end cut off: whatever is read of them is what was stored, or the damage is told.

Each trial takes the files of a bus that was killed, harms one of them, and asks everything of what is left: all events, what the
consumers remember, the dead letters, and the ids of all events once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from minhos_mesh.event_bus.domain.patterns import ALL
from minhos_mesh.event_bus.domain.records import (
    Change,
    ConsumerState,
    DeadLetter,
    DeadLetterQuery,
    EventQuery,
    Failure,
    NewEvent,
)
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.event_bus.engines.sqlite_mark import TailMark
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.storage import Database, StorageError

EVENTS: Final = 900
NAME: Final = "event_bus.db"
FILES: Final = (NAME, f"{NAME}-wal", f"{NAME}-mark")
WEIGHTS: Final = (5, 4, 1)


@dataclass(frozen=True, slots=True)
class Held:
    """Everything that a journal says of itself."""

    events: tuple[tuple[Any, ...], ...]
    consumers: tuple[ConsumerState, ...]
    letters: tuple[tuple[int, DeadLetter], ...]
    again: tuple[int, ...]
    """Where the ids of all events are, as publishing them once more tells."""
    newest_after: int


def events() -> list[NewEvent]:
    """What is stored, always the same."""
    chance = random.Random(7)
    return [
        NewEvent(
            uuid.UUID(int=chance.getrandbits(128)).bytes,
            chance.choice(("a.b", "c.d")),
            f"S{n % 7}",
            "source",
            "",
            chance.randbytes(chance.randint(50, 400)),
        )
        for n in range(EVENTS)
    ]


@contextlib.asynccontextmanager
async def opened(folder: Path) -> Any:
    """The engine on the journal of a folder, opened as the bus opens it. Raises StorageError."""
    mark = TailMark(folder / NAME)
    mark.verify()
    async with Database(folder / NAME, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, SystemClock(), mark=mark)
        with contextlib.closing(mark):
            await engine.start()
            yield engine


async def fill(folder: Path) -> None:
    """Stores everything; the larger part ends in the database file, the rest stays in the write-ahead log."""
    made = events()
    async with opened(folder) as engine:
        for start in range(0, EVENTS, 9):
            await engine.append(made[start : start + 9])
            if start % 90 == 0:
                await engine.save(change(start + 1, await engine.fetch([start + 1])))
            if start == EVENTS * 2 // 3 // 9 * 9:
                _fold_in(folder / NAME)
        os.kill(os.getpid(), signal.SIGKILL)


def _fold_in(path: Path) -> None:
    """Brings the write-ahead log into the database file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def change(position: int, found: list[Any]) -> Change:
    """What two consumers remember at a position, and a dead letter of one of them."""
    failures = (Failure(position, "m", "it failed"),)
    states = [
        ConsumerState(name, ALL, 3, 10**9, position, unsettled=((position, failures),)) for name in ("one", "other")
    ]
    return Change(states, [DeadLetter("one", event, failures, position) for event in found])


async def held(folder: Path) -> Held:
    """Reads everything. Raises StorageError."""
    async with opened(folder) as engine:
        found: list[tuple[Any, ...]] = []
        after = 0
        while True:
            query = EventQuery(after_sequence=after, ascending=True, limit=300)
            page = await engine.list_events(query)
            found += [(e.sequence, e.type, e.subject, e.envelope) for e in page.events]
            if page.through >= engine.bounds.newest:
                break
            after = page.through
        consumers = tuple(await engine.load_consumers())
        letters = await engine.list_dead_letters(DeadLetterQuery(is_requeued=None, limit=1000))
        again: list[int] = []
        made = events()
        for start in range(0, EVENTS, 9):
            again += (await engine.append(made[start : start + 9])).sequences
        return Held(tuple(found), consumers, tuple(letters), tuple(again), engine.bounds.newest)


async def template(folder: Path) -> Held:
    """Makes the journal that is harmed in each trial, and says what it holds."""
    code = "import asyncio, sys; from pathlib import Path; from tests.faults.bus import damage\n"
    code += "asyncio.run(damage.fill(Path(sys.argv[1])))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(folder), env=environment)
    if await process.wait() != -signal.SIGKILL:
        raise RuntimeError("the journal could not be made")
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    return await held(whole)


def harms(count: int, seed: int, sizes: dict[str, int]) -> Iterator[tuple[str, str, int, int]]:
    """Which file, how, where, and which bit."""
    chance = random.Random(seed)
    for _ in range(count):
        (name,) = chance.choices(FILES, WEIGHTS)
        how = chance.choice(("flip", "flip", "flip", "cut"))
        yield name, how, chance.randrange(sizes[name]), chance.randrange(8)


def harm(path: Path, how: str, place: int, bit: int) -> None:
    """Flips a bit, or cuts the file there."""
    if how == "cut":
        os.truncate(path, place)
        return
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


async def trial(made: Path, expected: Held, one: tuple[str, str, int, int]) -> str:
    """`told`, `harmless`, or what was served that was not stored."""
    name, how, place, bit = one
    folder = made.with_name("trial")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)
    (folder / f"{NAME}-shm").unlink(missing_ok=True)
    harm(folder / name, how, place, bit)
    try:
        found = await held(folder)
    except StorageError:
        return "told"
    if found == expected:
        return "harmless"
    wrong = [field for field in Held.__slots__ if getattr(found, field) != getattr(expected, field)]
    return f"{name} {how} at {place} bit {bit}: {', '.join(wrong)}"


async def campaign(folder: Path, trials: int, seed: int) -> dict[str, Any]:
    """So many trials; `violations` are those in which something was served that was not stored, or was missing unsaid."""
    made = folder / "made"
    expected = await template(made)
    sizes = {name: (made / name).stat().st_size for name in FILES}
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for one in harms(trials, seed, sizes):
        came_of = await trial(made, expected, one)
        known = came_of in {"told", "harmless"}
        counts[f"{one[0].removeprefix(NAME) or 'journal'} {one[1]}: {came_of if known else 'WRONG'}"] += 1
        if not known:
            wrong.append(came_of)
    return {
        "events": EVENTS,
        "trials": trials,
        "outcomes": dict(sorted(counts.items())),
        "violations": {"damage_told": wrong} if wrong else {},
    }
