"""`minhos data` without a mesh: what it says, as text and as JSON, and what it refuses."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.one_service import path_of_code
from tests.unit.history.making import FIRST_NS, NS
from tests.unit.history.test_import import scid
from tests.waiting import until
from typer.testing import CliRunner, Result

from minhos_mesh.cli.main import app
from minhos_mesh.history.domain.series import Series
from minhos_mesh.history.places import HistoryPlaces, locked
from minhos_mesh.sierra_files.marker import Marker, write_marker


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return scid(tmp_path / "files" / "NQZ24-CME.scid", [FIRST_NS + n * 3_600 * NS for n in range(30)])


def minhos(tmp_path: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments), "--data-dir", str(tmp_path / "mesh")])


def told(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    rows: list[dict[str, object]] = json.loads(result.stdout)
    return rows


def test_import_list_verify_and_export_go_together(tmp_path: Path, file: Path) -> None:
    (done,) = told(minhos(tmp_path, "import", file, "--json"))
    assert (done["symbol"], done["provenance"], done["read"], done["accepted"]) == ("NQZ24-CME", "DELAYED", 30, 30)
    (again,) = told(minhos(tmp_path, "import", file, "--json"))
    assert again["written"] == {"days": 2, "added": 0, "known": 30, "contradicting": 0, "broken": []}
    assert minhos(tmp_path, "import", file).stdout.split()[-7:] == [
        "NQZ24-CME.scid", "NQZ24-CME", "DELAYED", "30", "0", "30", "none",
    ]  # fmt: skip
    days = told(minhos(tmp_path, "list", "--json"))
    assert [(day["day"], day["ticks"]) for day in days] == [("2024-10-04", 24), ("2024-10-05", 6)]
    assert "2024-10-04 00:00:00  2024-10-05 05:00:00" in minhos(tmp_path, "list").stdout
    (verified,) = told(minhos(tmp_path, "verify", "--json"))
    assert (verified["files"], verified["problems"], verified["gaps"]) == (2, [], [])
    out = tmp_path / "bars.csv"
    assert (
        "2 bars of 1d" in minhos(tmp_path, "export", "NQZ24-CME", "--out", out, "--bars", "1d", "--always-open").stdout
    )
    with out.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["trading_day"], row["open"], row["volume"]) for row in rows] == [
        ("2024-10-04", "20000.000000000", "24"), ("2024-10-05", "20000.000000000", "6"),
    ]  # fmt: skip
    result = minhos(tmp_path, "export", "NQZ24-CME", "--out", tmp_path / "t.parquet", "--to", "2024-10-05", "--json")
    assert json.loads(result.stdout)["rows"] == 24


def test_daily_bars_are_imported_listed_verified_and_exported(tmp_path: Path) -> None:
    file = tmp_path / "NQZ24-CME.dly"
    file.write_text("Date,Open,High,Low,Close,Volume\n2024/10/03,1,2,1,1.5,7\n2024/10/04,2,3,1,2.5,9\n2024/10/05,x\n")
    shown = minhos(tmp_path, "import", file)
    assert " ".join(shown.stdout.split("\n")[1].split()) == "NQZ24-CME.dly NQZ24-CME DELAYED 3 2 0 1 NO_BAR"
    assert "NQZ24-CME.dly: line 4: has 2 columns" in shown.stdout
    (again,) = told(minhos(tmp_path, "import", file, "--json"))
    assert (again["added"], again["known"], again["refused"]) == (0, 2, 1)
    (held,) = told(minhos(tmp_path, "list", "--json"))
    assert (held["daily_bars"], held["first_day"], held["last_day"]) == (2, "2024-10-03", "2024-10-04")
    assert "2024-10-03  2024-10-04" in minhos(tmp_path, "list").stdout
    (verified,) = told(minhos(tmp_path, "verify", "--json"))
    assert (verified["files"], verified["problems"]) == (1, [])
    out = tmp_path / "bars.csv"
    assert "2 bars of 1d" in minhos(tmp_path, "export", "NQZ24-CME", "--out", out, "--bars", "1d").stdout
    with out.open() as lines:
        assert [row["close"] for row in csv.DictReader(lines)] == ["1.500000000", "2.500000000"]


def test_an_import_that_is_interrupted_says_so_and_leaves_no_half_file(tmp_path: Path) -> None:
    file = scid(tmp_path / "NQZ24-CME.scid", [FIRST_NS + n * 100_000_000 for n in range(600_000)])
    entry = "from minhos_mesh.cli.main import app_entry; app_entry()"
    command = [sys.executable, "-c", entry, "data", "import", file, "--data-dir", tmp_path / "mesh"]
    child = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=path_of_code())
    until(lambda: any((tmp_path / "mesh").rglob("*.new")), "a file that is being written")
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert (child.returncode, said.count("\n")) == (130, 1)
    assert said.startswith("minhos: interrupted: every file is whole")
    assert [path for path in (tmp_path / "mesh").rglob("*.*") if path.is_file() and path.suffix != ".parquet"] == []
    (verified,) = told(minhos(tmp_path, "verify", "--json")) or [{"problems": []}]
    assert verified["problems"] == []


def test_verify_removes_and_names_what_a_dead_process_left_and_nothing_of_a_living_one(
    tmp_path: Path, file: Path
) -> None:
    minhos(tmp_path, "import", file)
    history = tmp_path / "mesh" / "history"
    left = history / "ticks" / "provenance=DELAYED" / "symbol=NQZ24-CME" / "day=2024-10-04" / ".ticks.parquet.71.new"
    left.write_bytes(b"PAR1")
    alone = history / "writing" / "provenance=DELAYED" / "symbol=ESZ24-CME" / ".ticks.parquet.72.new"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(b"PAR1")
    with locked(HistoryPlaces(history), Series("DELAYED", "ESZ24-CME")):
        alone.write_bytes(b"PAR1")
        shown = minhos(tmp_path, "verify")
        assert (shown.exit_code, left.exists(), alone.exists()) == (0, False, True)
        assert f"{left} was left by a process that ended while it wrote: removed" in shown.stdout
    assert [each["removed"] for each in told(minhos(tmp_path, "verify", "--json"))] == [[str(alone)], []]
    (verified,) = told(minhos(tmp_path, "verify", "--json"))
    assert (verified["series"], verified["removed"]) == ({"provenance": "DELAYED", "symbol": "NQZ24-CME"}, [])


def test_an_export_of_bars_says_how_many_trades_are_in_none_of_them(tmp_path: Path) -> None:
    # From Friday 2024-10-04 to Tuesday: 48 hours lie between two sessions.
    hours = [FIRST_NS + n * 3_600 * NS for n in range(100)]
    minhos(tmp_path, "import", scid(tmp_path / "NQZ24-CME.scid", hours))

    def export(*more: str) -> Result:
        return minhos(tmp_path, "export", "NQZ24-CME", "--out", tmp_path / "bars.csv", "--bars", "1h", *more)

    def outside(*more: str) -> tuple[object, object, object]:
        about = json.loads(export(*more, "--json").stdout)
        return about["rule"], about["trades_outside_sessions"], about["rows"]

    said = "48 trades were made outside of the sessions of CME and count in no bar; with --always-open they do"
    assert said in export().stdout
    assert outside() == ("EXCHANGE", 48, 52)
    assert outside("--to", "2024-10-05") == ("EXCHANGE", 2, 22)
    assert outside("--from", "2024-10-05", "--to", "2024-10-06") == ("EXCHANGE", 24, 0)
    assert outside("--always-open") == ("ALWAYS_OPEN", 0, 100)
    assert "outside" not in export("--always-open").stdout
    ticks = minhos(tmp_path, "export", "NQZ24-CME", "--out", tmp_path / "ticks.csv", "--json")
    assert "trades_outside_sessions" not in json.loads(ticks.stdout)


def test_a_broken_file_is_named_and_ends_with_1(tmp_path: Path, file: Path) -> None:
    minhos(tmp_path, "import", file)
    (broken, *_) = sorted((tmp_path / "mesh" / "history").rglob("*.parquet"))
    broken.write_bytes(broken.read_bytes()[:-50])
    result = minhos(tmp_path, "verify")
    assert result.exit_code == 1
    assert str(broken) in result.stdout.replace("\n", "")
    assert "1 problem found" in result.stderr


@pytest.mark.parametrize("place", [60, -50], ids=["a page", "the end of the file"])
def test_importing_again_moves_a_broken_file_aside_and_writes_its_day(tmp_path: Path, file: Path, place: int) -> None:
    minhos(tmp_path, "import", file)
    (broken, _) = sorted((tmp_path / "mesh" / "history").rglob("*.parquet"))
    data = bytearray(broken.read_bytes())
    data[place : place + 4] = b"\xff\xfe\xfd\xfc"
    broken.write_bytes(data)
    found = minhos(tmp_path, "verify")
    assert (found.exit_code, "`minhos data import` of the file" in found.stderr) == (1, True)
    assert "recorded" not in found.stdout
    (again,) = json.loads(minhos(tmp_path, "import", file, "--json").stdout)
    assert (again["written"], len(again["set_aside"])) == (
        {"days": 2, "added": 24, "known": 6, "contradicting": 0, "broken": []}, 1,
    )  # fmt: skip
    aside = tmp_path / "mesh" / "history" / "broken" / broken.relative_to(tmp_path / "mesh" / "history")
    assert aside.with_name("ticks.parquet.1").read_bytes() == bytes(data)
    (verified,) = told(minhos(tmp_path, "verify", "--json"))
    assert (verified["files"], verified["ticks"], verified["problems"], verified["gaps"]) == (2, 30, [], [])


def test_sequences_of_a_broken_file_are_not_told_as_never_recorded(tmp_path: Path) -> None:
    file = scid(tmp_path / "NQZ24-CME.scid", [FIRST_NS + n * 3_600 * NS for n in range(70)])
    minhos(tmp_path, "import", file)
    days = sorted((tmp_path / "mesh" / "history").rglob("*.parquet"))
    whole = days[1].read_bytes()
    days[1].write_bytes(whole[:60] + b"\xff\xfe\xfd\xfc" + whole[64:])
    (verified,) = json.loads(minhos(tmp_path, "verify", "--json").stdout)
    assert (len(verified["problems"]), verified["gaps"]) == (1, [])
    days[1].write_bytes(whole[:-50])
    assert "sequences 25 to 48" in (shown := minhos(tmp_path, "verify").stdout)
    assert "are not held, unless by a file that is broken" in shown
    assert "1 problem" in minhos(tmp_path, "verify").stderr
    days[1].unlink()
    assert minhos(tmp_path, "verify").stdout.strip().endswith("are not held")


def test_broken_daily_bars_are_moved_aside_and_written_again(tmp_path: Path) -> None:
    file = tmp_path / "NQZ24-CME.dly"
    file.write_text("Date,Open,High,Low,Close,Volume\n2024/10/03,1,2,1,1.5,7\n2024/10/04,2,3,1,2.6,9\n")
    assert "1 days have prices between two price steps" in minhos(tmp_path, "import", file).stdout
    held = tmp_path / "mesh" / "history" / "daily" / "provenance=DELAYED" / "symbol=NQZ24-CME" / "daily.parquet"
    held.write_bytes(held.read_bytes()[:-20])
    shown = minhos(tmp_path, "import", file)
    assert f"{held} was broken and is now " in shown.stdout
    assert minhos(tmp_path, "verify").exit_code == 0


def test_a_daily_bar_of_a_file_says_neither_sides_nor_trades_and_is_no_bar_of_an_hour(tmp_path: Path) -> None:
    file, out = tmp_path / "NQZ24-CME.dly", tmp_path / "bars.csv"
    file.write_text("Date,Open,High,Low,Close,Volume\n2024/10/03,1,2,1,1.5,7\n")
    minhos(tmp_path, "import", file)
    assert minhos(tmp_path, "export", "NQZ24-CME", "--out", out, "--bars", "1d").stderr == ""
    with out.open() as lines:
        (row,) = csv.DictReader(lines)
    assert [row[name] for name in ("volume", "bid_volume", "ask_volume", "trades", "of_daily_file")] == [
        "7", "", "", "", "true",
    ]  # fmt: skip
    result = minhos(tmp_path, "export", "NQZ24-CME", "--out", out, "--bars", "1h")
    assert (result.exit_code, "has daily bars only and no ticks: --bars 1d" in result.stderr) == (0, True)


def test_what_lies_beside_a_marker_is_simulated(tmp_path: Path, file: Path) -> None:
    write_marker(file.parent, Marker())
    refused = minhos(tmp_path, "import", file, "--provenance", "delayed")
    assert (refused.exit_code, "it is simulated" in refused.stderr) == (1, True)
    (done,) = told(minhos(tmp_path, "import", file, "--json"))
    assert done["provenance"] == "SIMULATED"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "{file}", "--provenance", "live"], "allowed are delayed, replay, simulated"),
        (["import", "{file}", "{file}", "--symbol", "ESZ24-CME"], "--symbol goes with one file"),
        (["import", "nowhere/NQZ24-CME.scid"], "does not exist"),
        (["import", "{file}.txt"], "is neither a .scid file"),
        (["import", "{file}", "--symbol", "QQZ24-CME"], "'QQ' is unknown"),
        (["list", "--provenance", "true"], "allowed are live, delayed, replay, simulated"),
        (["export", "ESZ24-CME", "--out", "x.csv"], "no history of ESZ24-CME is held"),
        (["export", "NQZ24-CME", "--out", "x.xls"], "end in .csv or .parquet"),
        (["export", "NQZ24-CME", "--out", "nowhere/x.csv"], "there is no folder"),
        (["export", "NQZ24-CME", "--out", "x.csv", "--bars", "5x"], "write 1s, 5m"),
        (["export", "NQZ24-CME", "--out", "x.csv", "--bars", "1M"], "'1M' are not understood: M is a month"),
        (["export", "NQZ24-CME", "--out", "x.csv", "--from", "yesterday"], "such as 2026-11-20"),
        (["export", "NQZ24-CME", "--out", "x.csv", "--from", "2024-10-05", "--to", "2024-10-04"], "behind --from"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    minhos(tmp_path, "import", file)
    result = minhos(tmp_path, *[argument.format(file=file) for argument in arguments])
    assert result.exit_code == 1
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x.csv").exists()


def test_nothing_held_is_no_error(tmp_path: Path) -> None:
    assert "Nothing is held" in minhos(tmp_path, "list").stdout
    assert "nothing to verify" in minhos(tmp_path, "verify").stdout
    assert told(minhos(tmp_path, "list", "--json")) == told(minhos(tmp_path, "verify", "--json")) == []
