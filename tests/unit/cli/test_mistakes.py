"""What the command line says to a mistake, where no mesh is needed to see it."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_mesh.cli import ignition, launch, logs, mesh, recording, trading
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.launch import FeedChoice
from minhos_mesh.cli.main import app
from minhos_mesh.node.identity import start_ticks
from minhos_mesh.runtime import config
from minhos_mesh.runtime.config import ConfigError
from minhos_mesh.runtime.last_listing import LastListing, Listed
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.sierra_files.writer import ScidWriter


@pytest.fixture
def paths(tmp_path: Path) -> MeshPaths:
    made = MeshPaths(tmp_path)
    made.create()
    return made


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("MINHOS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def with_config(paths: MeshPaths) -> MeshPaths:
    config.save(config.load(None, environment={}).resolved(datetime(2026, 11, 22, tzinfo=UTC)), paths.config_file)
    return paths


def terms(
    paths: MeshPaths,
    *,
    side: str = "buy",
    limit: str | None = None,
    stop: str | None = None,
    time_in_force: str = "day",
    symbol: str | None = None,
) -> terms_pb.OrderTerms:
    return trading._terms(with_config(paths), side, 2, symbol, limit, stop, time_in_force)


@pytest.mark.parametrize(
    ("limit", "stop", "kind"),
    [
        (None, None, terms_pb.ORDER_TYPE_MARKET),
        ("23500.25", None, terms_pb.ORDER_TYPE_LIMIT),
        (None, "23500.25", terms_pb.ORDER_TYPE_STOP),
        ("23500.25", "23501", terms_pb.ORDER_TYPE_STOP_LIMIT),
    ],
)
def test_the_kind_of_an_order_follows_from_its_prices(
    paths: MeshPaths, limit: str | None, stop: str | None, kind: terms_pb.OrderType.ValueType
) -> None:
    made = terms(paths, limit=limit, stop=stop)
    assert made.type == kind
    assert made.HasField("limit_price_e9") == (limit is not None)
    assert made.HasField("stop_price_e9") == (stop is not None)
    assert (made.symbol, made.quantity, made.side) == ("NQZ26-CME", 2, terms_pb.SIDE_BUY)


def test_prices_are_typed_as_decimals_and_sent_exactly(paths: MeshPaths) -> None:
    assert terms(paths, limit="23500.25").limit_price_e9 == 23_500_250_000_000


def test_a_symbol_that_is_given_is_taken(paths: MeshPaths) -> None:
    assert terms(paths, symbol="ESZ26-CME").symbol == "ESZ26-CME"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"side": "hold"}, ("side", "hold", "BUY, SELL")),
        ({"side": "unspecified"}, ("side", "BUY, SELL")),
        ({"time_in_force": "week"}, ("--time-in-force", "week", "DAY, GTC, IOC, FOK")),
        ({"limit": "cheap"}, ("--limit", "cheap", "23500.25")),
        ({"stop": "1e5"}, ("--stop", "1e5")),
        ({"limit": "23768250000000"}, ("--limit", "probably meant 23768.25")),
    ],
)
def test_a_mistake_in_an_order_names_option_value_and_what_is_allowed(
    paths: MeshPaths, given: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(CommandFailed) as caught:
        terms(paths, **given)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_file_alone_means_a_replay(tmp_path: Path) -> None:
    found = launch.resolve(None, FeedChoice(file=tmp_path / "MNQU21-CME.scid", speed="max"))
    assert found.feed.kind == "replay"
    assert found.feed.speed == "max"
    assert found.symbols() == ("MNQU21-CME",)
    assert found.replay()


def test_nothing_given_is_the_simulated_feed() -> None:
    found = launch.resolve(None, FeedChoice())
    assert found.feed.kind == "simulated"
    assert not found.replay()


def test_minhos_toml_beside_the_person_is_read_and_options_win_over_it(tmp_path: Path) -> None:
    tmp_path.joinpath("minhos.toml").write_text('[feed]\nroot = "ES"\nspeed = 2.0\n', encoding="utf-8")
    assert launch.resolve(None, FeedChoice()).feed.root == "ES"
    assert launch.resolve(None, FeedChoice(speed="7")).feed.speed == 7.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[risk]\nmax_positon = 3\n", ("minhos.toml", "risk.max_positon is no key", "was max_position meant?")),
        ("[risc]\nmax_position = 3\n", ("minhos.toml", "risc is no key", "was risk meant?")),
        ('[mesh]\nbind = "::"\n', ("mesh.bind", "only loopback is allowed", "'::'")),
        ('[mesh]\nbind = "localhost"\n', ("mesh.bind", "localhost")),
        ("[engine]\nauto_threshold = 2\n", ("engine.auto_threshold", "2")),
        ('[market_data]\nsymbols = ["NOPE"]\n', ("NOPE",)),
        ('[mesh]\nbind = "192.168.1.10"\n', ("mesh.bind", "only loopback is allowed", "192.168.1.10")),
        ("[mesh]\nport = 70000\n", ("mesh.port", "70000")),
        ('[risk]\nmax_position = "many"\n', ("risk.max_position", "many")),
        ('[instruments.ZZ]\ntick = "0.5"\n', ("instruments.ZZ", "multiplier")),
        ("[risk\n", ("minhos.toml", "is not TOML")),
    ],
)
def test_a_wrong_configuration_names_file_key_and_what_was_meant(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    tmp_path.joinpath("minhos.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        launch.resolve(None, FeedChoice())
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MINHOS_RISK__MAX_POSITON", "3", ("risk.max_positon", "was max_position meant?")),
        ("MINHOS_RISC__MAX_POSITION", "3", ("MINHOS_RISC__MAX_POSITION", "was risk meant?")),
        ("MINHOS_RISK__MAX_POSITION", "0", ("risk.max_position", "0")),
        ("MINHOS_MESH__BIND", "0.0.0.0", ("mesh.bind", "0.0.0.0")),
    ],
)
def test_a_wrong_setting_in_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        launch.resolve(None, FeedChoice())
    assert all(word in str(caught.value) for word in words), caught.value


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    tmp_path.joinpath("minhos.toml").write_text("[risk]\nmax_positon = 3\nmax_position = 0\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        launch.resolve(None, FeedChoice())
    assert len(str(caught.value).splitlines()) == 2


def test_a_port_of_another_program_is_refused_and_a_free_one_is_not(paths: MeshPaths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chosen = config.load(None, environment={"MINHOS_MESH__PORT": str(port)})
        with pytest.raises(CommandFailed, match=f"127.0.0.1:{port} is taken by another program"):
            launch._check_port(paths, chosen)
    launch._check_port(paths, chosen)


def test_a_mesh_keeps_the_port_of_its_first_start(paths: MeshPaths) -> None:
    paths.mesh_file.write_text(json.dumps({"address": "127.0.0.1:5"}), encoding="utf-8")
    with pytest.raises(CommandFailed, match="has had 5 since its first start"):
        launch._check_port(paths, config.load(None, environment={"MINHOS_MESH__PORT": "6"}))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"processes": [{"pid": 999999999}]}', '{"processes": [5]}'])
def test_a_record_that_names_no_living_process_leaves_no_orphans(paths: MeshPaths, content: str) -> None:
    paths.run_dir.joinpath("keeper.json").write_text(content, encoding="utf-8")
    assert not ignition.orphans(paths)


@pytest.mark.parametrize(("later", "lives"), [(0, True), (1, False)], ids=["itself", "another with its number"])
def test_a_recorded_process_is_an_orphan_while_that_very_process_lives(
    paths: MeshPaths, later: int, lives: bool
) -> None:
    stat = Path("/proc/self/stat").read_text(encoding="utf-8")
    ticks = int(stat[stat.rindex(")") + 2 :].split()[19])
    process = {"pid": os.getpid(), "start_ticks": ticks + later}
    paths.run_dir.joinpath("keeper.json").write_text(json.dumps({"processes": [process]}), encoding="utf-8")
    assert ignition.orphans(paths) is lives


def test_a_folder_without_a_mesh_says_how_to_start_one(paths: MeshPaths) -> None:
    with pytest.raises(mesh.NotRunning, match="no mesh runs in .*: `minhos up` starts one"):
        mesh.running_registry(paths)


def test_a_recording_without_a_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "MNQZ26-CME.scid"
    ScidWriter.create(file).close()
    with pytest.raises(CommandFailed, match="holds no record"):
        recording.check(file)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "56"), (b"SCID" + bytes(20), "24"), (b"Date,Open,High,Low,Close\n" * 20, "SCID")],
    ids=["empty", "cut off in its header", "no scid file"],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "MNQZ26-CME.scid"
    file.write_bytes(content)
    with pytest.raises(CommandFailed) as caught:
        recording.check(file)
    assert str(file) in str(caught.value)
    assert told in str(caught.value)


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=str(tmp_path)):
        recording.check(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_recording_without_permission_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "MNQZ26-CME.scid"
    ScidWriter.create(file).close()
    file.chmod(0)
    with pytest.raises(CommandFailed, match="Permission denied"):
        recording.check(file)


def test_a_recording_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="does not exist"):
        recording.check(tmp_path / "MNQZ26-CME.scid")


async def test_logs_of_an_unknown_service_name_the_known(paths: MeshPaths) -> None:
    with pytest.raises(CommandFailed, match="there is no service 'brain': known are keeper, registry"):
        await logs.logs(paths, "brain", 5, follow=False, as_json=False)


async def test_logs_before_the_first_start_say_so(paths: MeshPaths) -> None:
    with pytest.raises(CommandFailed, match="has not logged anything"):
        await logs.logs(paths, "ai_brain", 5, follow=False, as_json=False)


@pytest.mark.parametrize(("lines", "shown"), [(0, []), (2, ["b", "c"]), (9, ["a", "b", "c"])])
async def test_logs_show_the_last_lines(
    paths: MeshPaths, lines: int, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths.log_file("ai_brain").write_text("a\nb\nc\n", encoding="utf-8")
    await logs.logs(paths, "ai_brain", lines, follow=False, as_json=False)
    assert capsys.readouterr().out.splitlines() == shown


def test_a_log_that_is_followed_gives_whole_lines_only(paths: MeshPaths) -> None:
    log = paths.log_file("ai_brain")
    log.write_text("one\ntwo\nthr", encoding="utf-8")
    lines, position = logs._since(log, 0)
    assert lines == ["one", "two"]
    with log.open("a", encoding="utf-8") as file:
        file.write("ee\n")
    assert logs._since(log, position)[0] == ["three"]
    log.write_text("new\n", encoding="utf-8")
    assert logs._since(log, 1_000) == (["new"], 4)


def test_a_failed_call_without_a_reason_is_told_by_its_code() -> None:
    error = grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata(), "late")
    assert mesh.describe(error) == "DEADLINE_EXCEEDED: late"
    away = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "refused")
    assert mesh.describe(away) == "the service cannot be reached: refused"


def test_a_call_to_a_service_that_nobody_serves_points_to_status() -> None:
    told = "No matching route found in xDS route config"
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), told)
    assert mesh.describe(error) == "the service does not run at the moment: `minhos status` says why"


@pytest.mark.parametrize("command", ["wait", "up"])
@pytest.mark.parametrize("seconds", ["-3", "-0.1", "nan"])
def test_a_time_that_cannot_be_waited_is_refused(tmp_path: Path, command: str, seconds: str) -> None:
    done = CliRunner().invoke(app, [command, "--timeout", seconds, "--data-dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "allowed is a number of seconds from 0" in " ".join(done.output.replace("\u2502", " ").split())
    assert not list(tmp_path.iterdir())


def test_what_listens_last_is_trusted_while_that_very_process_runs(paths: MeshPaths) -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    here = Listed("trading_engine", "trading_engine-1", "127.0.0.1:40001", ("a.B",), os.getpid(), ticks)
    listing = LastListing(paths)
    assert listing.find("trading_engine") is None
    listing.put(here)
    listing.put(replace(here, service="risk_manager", start_ticks=ticks + 1))
    assert listing.find("trading_engine") == here
    assert listing.find("risk_manager") is None, "another process has its number by now"
    listing.put(replace(here, instance_id="trading_engine-2"))
    assert [found.instance_id for found in [listing.find("trading_engine")] if found] == ["trading_engine-2"]
    (paths.run_dir / "services.json").write_text("{", encoding="utf-8")
    assert listing.find("trading_engine") is None
