"""Decides what a source is: when a file is still the same generation, where its ticks begin, and when LIVE is refused."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass


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


def continues(kept: Identity, seen: Identity) -> bool:
    """True when the file that is seen now is the one that was kept, perhaps grown since."""
    if (kept.device, kept.inode) != (seen.device, seen.inode):
        return False
    return kept.first_record is None or kept.first_record == seen.first_record


def next_epoch(previous: int | None, now_ns: int) -> int:
    """Id of a new generation: the time of its discovery in ns, and always larger than the previous one."""
    return now_ns if previous is None else max(now_ns, previous + 1)


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


def backoff_s(attempt: int, randomness: random.Random, *, first_s: float = 0.05, longest_s: float = 5.0) -> float:
    """Seconds to wait before attempt number `attempt` (from 1): doubling with full jitter between half and whole."""
    whole = min(longest_s, first_s * 2.0 ** min(attempt - 1, 16))
    return whole * (0.5 + 0.5 * randomness.random())
