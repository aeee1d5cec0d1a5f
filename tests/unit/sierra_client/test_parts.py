from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from minhos_mesh.sierra_client.domain import (
    Identity,
    Provenance,
    ProvenanceRefused,
    backoff_s,
    check_provenance,
    continues,
    ingest_pause_s,
    next_epoch,
)
from minhos_mesh.sierra_client.inotify import FolderWatch, WatchUnavailable
from minhos_mesh.sierra_client.listing import list_files
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_client.wakeups import FolderWakeups, Wake
from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.marker import Marker, write_marker
from minhos_mesh.sierra_files.writer import ScidWriter

Made = Callable[..., Records]
Eventually = Callable[..., Awaitable[None]]
EMPTY, FULL, OTHER = Identity(1, 2, None), Identity(1, 2, b"a"), Identity(1, 2, b"b")


def test_file_is_the_same_while_inode_and_first_record_are() -> None:
    assert continues(FULL, FULL)
    assert continues(EMPTY, FULL)
    assert not continues(FULL, OTHER)
    assert not continues(FULL, EMPTY)
    assert not continues(FULL, Identity(1, 3, b"a"))


def test_epochs_rise_even_when_the_clock_goes_back() -> None:
    assert next_epoch(None, 100) == 100
    assert next_epoch(100, 50) == 101
    assert next_epoch(100, 500) == 500


@pytest.mark.parametrize("provenance", [Provenance.LIVE, Provenance.DELAYED])
def test_real_provenance_is_refused_beside_a_marker(provenance: Provenance) -> None:
    check_provenance(provenance, None)
    check_provenance(Provenance.SIMULATED, "MARK")
    check_provenance(Provenance.REPLAY, "MARK")
    with pytest.raises(ProvenanceRefused, match=f"provenance {provenance.value} is declared, and MARK"):
        check_provenance(provenance, "MARK")


def test_backoff_grows_with_jitter_up_to_its_limit() -> None:
    randomness = random.Random(3)
    for attempt in range(1, 200):
        whole = min(5.0, 0.05 * 2 ** (attempt - 1))
        assert whole / 2 <= backoff_s(attempt, randomness) <= whole


def test_market_data_that_is_away_is_tried_again_soon_and_one_that_refuses_slowly() -> None:
    randomness = random.Random(3)
    away = [ingest_pause_s(failures, randomness, refused=False) for failures in range(1, 200)]
    assert away[0] <= 0.05
    assert max(away) <= 0.4
    assert min(ingest_pause_s(failures, randomness, refused=True) for failures in range(1, 200)) >= 2.5


async def test_generation_is_kept_and_its_base_is_asked_once(store: SourceStore, tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    first = await store.resolve(path, EMPTY, lambda: 7, 1000)
    assert (first.epoch, first.base_index) == (1000, 7)
    again = await store.resolve(path, FULL, lambda: pytest.fail("asked again"), 2000)
    assert (again.epoch, again.base_index, again.identity) == (1000, 7, FULL)
    other = await store.resolve(path, OTHER, lambda: 3, 3000)
    assert (other.epoch, other.base_index) == (3000, 3)
    renewed = await store.resolve(path, OTHER, lambda: 0, 3000, renew=True)
    assert (renewed.epoch, renewed.base_index) == (3001, 0)


def test_watch_names_what_changed(tmp_path: Path) -> None:
    watch = FolderWatch(tmp_path)
    (tmp_path / "a.scid").write_bytes(b"1")
    (tmp_path / "b.scid").write_bytes(b"1")
    (tmp_path / "b.scid").rename(tmp_path / "c.scid")
    assert watch.changed() == {"a.scid", "b.scid", "c.scid"}
    assert watch.changed() == set()
    watch.close()
    watch.close()


def test_watch_of_a_removed_folder_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    watch = FolderWatch(folder)
    folder.rmdir()
    assert watch.changed() is None
    assert watch.lost
    watch.close()
    with pytest.raises(WatchUnavailable, match="cannot be watched: No such file"):
        FolderWatch(folder)


async def test_wakeup_tells_announcement_from_poke_and_silence(tmp_path: Path) -> None:
    wakeups = FolderWakeups(tmp_path, poll_s=0.01, safety_poll_s=0.01)
    wakeups.start()
    waiter = wakeups.wakeup("a.scid")
    while await waiter.wait() is not Wake.TIMEOUT:
        pass
    (tmp_path / "a.scid").write_bytes(b"1")
    assert await waiter.wait() is Wake.ANNOUNCED
    waiter.poke()
    assert await waiter.wait() is Wake.POKED
    (tmp_path / "other.scid").write_bytes(b"1")
    assert await waiter.wait() is Wake.TIMEOUT
    waiter.close()
    wakeups.close()


async def test_mount_that_announces_nothing_is_polled_fast(tmp_path: Path) -> None:
    wakeups = FolderWakeups(tmp_path, poll_s=0.01, safety_poll_s=1.0)
    wakeups.start()
    waiter = wakeups.wakeup("a.scid")
    assert waiter.interval_s == 1.0
    waiter.note_growth(Wake.TIMEOUT)
    assert waiter.interval_s == 0.01
    waiter.note_growth(Wake.ANNOUNCED)
    assert waiter.interval_s == 1.0
    wakeups.close()
    assert waiter.interval_s == 1.0 if wakeups.watching else waiter.interval_s == 0.01


async def test_folder_that_appears_and_disappears_is_watched_again(tmp_path: Path, eventually: Eventually) -> None:
    folder = tmp_path / "sierra"
    wakeups = FolderWakeups(folder, poll_s=0.005)
    wakeups.start()
    assert "cannot be watched" in wakeups.reason
    waiter = wakeups.wakeup()
    for _ in range(2):
        folder.mkdir()
        while not wakeups.watching:
            await waiter.wait()
        folder.rmdir()
        await eventually(lambda: not wakeups.watching)
        assert "removed" in wakeups.reason
    wakeups.close()


def test_files_are_listed_in_pages_with_what_they_hold(tmp_path: Path, made: Made) -> None:
    assert list_files(tmp_path / "none", 0, "") == ([], "")
    ScidWriter.create(tmp_path / "NQZ26-CME.scid", made(3)).close()
    ScidWriter.create(tmp_path / "ESZ26-CME.scid").close()
    (tmp_path / "odd name.scid").write_bytes(b"PK\x03\x04")
    (tmp_path / "notes.txt").write_text("no data")
    write_marker(tmp_path, Marker())
    first, token = list_files(tmp_path, 2, "")
    rest, end = list_files(tmp_path, 2, token)
    assert [file.name for file in (*first, *rest)] == ["ESZ26-CME.scid", "NQZ26-CME.scid", "odd name.scid"]
    assert (token, end) == ("NQZ26-CME.scid", "")
    empty, full = first
    (odd,) = rest
    assert (empty.records, empty.first_time_ns, empty.error) == (0, None, "")
    assert (full.symbol, full.records, full.size_bytes) == ("NQZ26-CME", 3, 56 + 120)
    assert full.first_time_ns == 1_790_000_000_000_000_000
    assert full.last_time_ns == 1_790_000_000_002_000_000
    assert (odd.symbol, odd.records) == ("", None)
    assert "is not a .scid file" in odd.error
    assert all(file.simulated for file in (*first, *rest))
