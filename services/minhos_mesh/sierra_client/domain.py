"""Decides what a source is: when a file is still the same generation, where its ticks begin, and when LIVE is refused."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from typing import Final

_REFUSED_ATTEMPT: Final = 8
_AWAY_S: Final = 0.4


class Provenance(enum.Enum):
    """Where ticks come from, as declared in the configuration."""

    LIVE = "LIVE"
    DELAYED = "DELAYED"
    REPLAY = "REPLAY"
    SIMULATED = "SIMULATED"


class FeedState(enum.Enum):
    """What the feed of one file is doing."""

    DISCONNECTED = "DISCONNECTED"
    WAITING_FOR_FILE = "WAITING_FOR_FILE"
    READING = "READING"
    TAILING = "TAILING"
    ENDED = "ENDED"
    ERROR = "ERROR"


class ProvenanceRefused(Exception):
    """Expected: the declared provenance contradicts what lies in the folder. `final` when waiting does not end it."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a file this file and no other of the same name."""

    device: int
    inode: int
    first_record: bytes | None
    """The 40 bytes of the first record; None while there is none."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One life of a file, from its creation to its replacement or truncation."""

    epoch: int
    """Id of the generation; a later one is larger."""
    base_index: int
    """Index of the record that is position 0 of the source."""
    identity: Identity
    instead: str = ""
    """Why it was begun in the place of an earlier one, where that was not noticed while the file was read; not kept."""


def continues(kept: Identity, seen: Identity) -> bool:
    """True when the file that is seen now is the one that was kept, perhaps grown since."""
    if (kept.device, kept.inode) != (seen.device, seen.inode):
        return False
    return kept.first_record is None or kept.first_record == seen.first_record


def why_another(kept: Identity, seen: Identity) -> str:
    """Why the file that is seen now is not the one that was kept, as the end of a sentence about it."""
    if (kept.device, kept.inode) != (seen.device, seen.inode):
        return "was replaced by another file while it was not read"
    return "was rewritten from its first record on while it was not read"


def next_epoch(previous: int | None, now_ns: int) -> int:
    """Id of a new generation: the time of its discovery in ns, and always larger than the previous one."""
    return now_ns if previous is None else max(now_ns, previous + 1)


def history_begins_ns(now_ns: int, newest_ns: int | None, history_ns: int) -> int:
    """Time from which on a file is read that is seen first: `history_ns` before its newest record, or before now.

    Whichever is earlier, so that a file that has not been written for days gives the prices that it ends with. Without
    any history nothing older than now is read. `newest_ns` is None for a file without records.
    """
    if newest_ns is None or history_ns == 0:
        return now_ns - history_ns
    return min(now_ns, newest_ns) - history_ns


def reads_whole_file(provenance: Provenance) -> bool:
    """True where all records count (a replay or a simulation); else only recent history is read."""
    return provenance in (Provenance.REPLAY, Provenance.SIMULATED)


def may_be_rewritten(provenance: Provenance) -> bool:
    """True where Sierra Chart itself writes, which rewrites a bar in place until the next one begins."""
    return provenance in (Provenance.LIVE, Provenance.DELAYED)


def check_provenance(declared: Provenance, marker: str | None) -> None:
    """Refuses real provenance for a folder in which the simulator's marker lies. Raises ProvenanceRefused."""
    if marker is not None and declared in (Provenance.LIVE, Provenance.DELAYED):
        raise ProvenanceRefused(
            f"provenance {declared.value} is declared, and {marker} marks the folder's data as simulated: "
            "declare SIMULATED or REPLAY, or read another folder",
            final=True,
        )


def check_live(declared: Provenance, refused: str, *, final: bool) -> None:
    """Refuses LIVE for a reason that the connection to the DTC server gives. Raises ProvenanceRefused."""
    if refused and declared is Provenance.LIVE:
        raise ProvenanceRefused(f"provenance LIVE is declared, and cannot be believed: {refused}", final=final)


def ingest_pause_s(failures: int, randomness: random.Random, *, refused: bool) -> float:
    """Seconds until market data is tried again: soon where it is away, for mostly it is being replaced and orders wait for its
    prices; slowly where it refuses.
    """
    if refused:
        return backoff_s(_REFUSED_ATTEMPT, randomness)
    return backoff_s(failures, randomness, longest_s=_AWAY_S)


def backoff_s(attempt: int, randomness: random.Random, *, first_s: float = 0.05, longest_s: float = 5.0) -> float:
    """Seconds to wait before attempt number `attempt` (from 1): doubling with full jitter between half and whole."""
    whole = min(longest_s, first_s * 2.0 ** min(attempt - 1, 16))
    return whole * (0.5 + 0.5 * randomness.random())
