"""Decides what can be configured of where prices come from beside Sierra Chart's files: the simulator, and the legacy bridge."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from minhos_mesh.runtime.config_sections import Section, addresses


class GapSection(Section):
    """One table `[[feed.gaps]]`: a time in which nothing is written; what falls into it is left out."""

    after_s: float = Field(ge=0)
    """Seconds from the beginning of a recording, in its own time, or from when a random walk goes live."""
    length_s: float = Field(gt=0, le=86_400)
    """How long it lasts."""
    every_s: float | None = Field(None, gt=0)
    """Seconds from the beginning of one gap to that of the next; unset has it once."""

    @model_validator(mode="after")
    def _leaves_something(self) -> GapSection:
        if self.every_s is not None and self.every_s <= self.length_s:
            raise ValueError(f"every_s is {self.every_s:g}: allowed is more than length_s ({self.length_s:g})")
        return self


class FeedSection(Section):
    """What the simulator writes."""

    kind: Literal["simulated", "replay", "none"] = "simulated"
    """`simulated` is a random walk, `replay` a recording, `none` leaves the folder to a real Sierra Chart."""
    root: str = "NQ"
    """Product of the random walk; its current contract is taken on the day of the start."""
    roots: tuple[str, ...] = ()
    """Several products at once, the first of which is the primary; NQ and MNQ, ES and MES move as one market. Instead of `root`."""
    file: Path | None = None
    """The `.scid` recording of a replay."""
    speed: float | Literal["max"] = 1.0
    """How many times faster than it happened a recording is replayed."""
    loops: int = Field(1, ge=0, le=1_000_000)
    """How often a recording is played; each time whole weeks later than the time before. 0 is for ever."""
    gaps: tuple[GapSection, ...] = ()
    """Scheduled gaps."""
    ticks_per_second: float = Field(10.0, gt=0, le=10_000)
    """Rate of the random walk."""
    seed: int = Field(20_260_101, ge=0)
    """Seed of the random walk; the same seed and start give the same ticks."""
    history_hours: float = Field(24.0, ge=0, le=240)
    """History that a random walk writes before it begins."""
    depth_levels: int = Field(10, ge=0, le=50)
    """Levels of each side of the order book that a random walk writes into `.depth` files; 0 writes none."""
    keep_depth_days: int = Field(2, ge=1, le=365)
    """Older `.depth` files of the symbols that are written are removed; a day at ten ticks a second has some 70 MB."""
    dtc_port: int | None = Field(None, ge=0, le=65_535)
    """Port on loopback on which the simulator serves DTC as Sierra Chart does; 0 takes a free one, unset serves none."""
    dtc_refused_exchanges: tuple[str, ...] = ()
    """Exchanges whose data it refuses over DTC, as the real server refuses that of CME; orders are taken all the same."""

    @model_validator(mode="after")
    def _replay_has_file(self) -> FeedSection:
        if self.kind == "replay" and self.file is None:
            raise ValueError("file is missing: a replay needs the path of a .scid file")
        if isinstance(self.speed, float) and self.speed <= 0:
            raise ValueError(f"speed is {self.speed}: allowed is a number above 0, or max")
        if self.loops != 1 and self.kind != "replay":
            raise ValueError(f'loops is {self.loops}: only a recording is played again, with kind = "replay"')
        if self.loops == 0 and self.speed == "max":
            raise ValueError("loops is 0 and speed is max: a recording that is played for ever needs a speed")
        if len(set(self.roots)) != len(self.roots):
            raise ValueError(f"roots is {', '.join(self.roots)}: each product may stand once")
        return self

    def products(self) -> tuple[str, ...]:
        """Products of the random walk."""
        return self.roots or (self.root,)


class BridgeSection(Section):
    """The legacy bridge: a program beside Sierra Chart that serves prices over HTTP and WebSocket. No order goes through it."""

    address: str | None = None
    """Where it answers, `host:port`, mostly port 8765; unset reads none."""
    symbols: tuple[str, ...] = ()
    """Canonical symbols whose prices come from it instead of from files; all of `market_data.symbols` when empty."""
    provenance: Literal["DELAYED", "SIMULATED"] = "SIMULATED"
    """What its prices are declared to be. Never LIVE: it tells neither when a trade happened nor what it reads."""
    poll_s: float = Field(1.0, ge=0.5, le=60)
    """How often it is asked while its streams are silent; known versions break down under four questions a second."""
    silent_s: float = Field(3.0, ge=0.5, le=60)
    """A stream that tells no price for so long is left for the next way."""

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        return None if value is None else addresses((value,), "192.168.1.20:8765")[0]
