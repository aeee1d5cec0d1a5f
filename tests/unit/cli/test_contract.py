"""`minhos contract` where no mesh runs: what it reads, what it compares with, what it says to a mistake."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from rich.console import Console
from typer.testing import CliRunner, Result

from minhos_mesh.cli import contract_show
from minhos_mesh.cli.main import app
from minhos_mesh.runtime.contracts import all_contracts, descriptor_set, whole_set

ROOT = Path(__file__).parents[3]
PROTO = ROOT / "proto"
ENGINE = "minhos_api.trading.v1.TradingEngineService"
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*arguments: str, code: int = 0) -> Result:
        given = ["contract", *arguments, "--data-dir", str(tmp_path / "nothing")]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return invoke


def told(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    def write(change: Callable[[descriptor_pb2.FileDescriptorSet], None] = lambda _files: None) -> str:
        files = descriptor_pb2.FileDescriptorSet.FromString(whole_set())
        change(files)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.binpb"
        path.write_bytes(files.SerializeToString())
        return str(path)

    return write


def rename_order_id(files: descriptor_pb2.FileDescriptorSet) -> None:
    (order,) = [
        m for f in files.file for m in f.message_type if f"{f.package}.{m.name}" == "minhos_api.trading.v1.Order"
    ]
    order.field[0].name = "renamed"


def drop_engine(files: descriptor_pb2.FileDescriptorSet) -> None:
    for file in files.file:
        kept = [each for each in file.service if each.name != "TradingEngineService"]
        del file.service[:]
        file.service.extend(kept)


def add_message(files: descriptor_pb2.FileDescriptorSet) -> None:
    files.file[-1].message_type.add(name="Added")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(PROTO, tmp_path / "proto")
    return tmp_path / "proto"


def test_a_folder_of_proto_files_is_compiled_and_compared_with_the_committed_contracts(run: Run, copy: Path) -> None:
    file = copy / "minhos_api/trading/v1/order.proto"
    file.write_text(file.read_text().replace("string order_id = 1", "string order_key = 1"))
    result = run("check", str(copy), code=1)
    assert "no mesh runs here: compared with the committed contracts" in result.output
    assert "FIELD_SAME_NAME" in result.output
    assert "minhos_api.trading.v1.Order.order_key" in result.output
    assert "refused: it breaks" in result.output


def test_a_removed_rpc_is_found_in_a_folder(run: Run, copy: Path) -> None:
    file = copy / "minhos_api/trading/v1/trading_engine_service.proto"
    text = file.read_text()
    begin = text.index("  rpc ListFills(")
    file.write_text(text[:begin] + text[text.index("\n  }\n", begin) + 5 :])
    found = told(run("check", str(copy), "--json", code=1))
    assert ("RPC_NO_DELETE", f"{ENGINE}.ListFills") in [(v["rule"], v["element"]) for v in found["violations"]]
    assert found["admitted"] is False
    assert found["mesh_runs"] is False


def test_the_installed_contracts_break_nothing_of_themselves(run: Run, written: Callable[..., str]) -> None:
    same = written()
    result = run("check", same, "--against", same)
    assert "admitted: it breaks nothing" in result.output
    assert told(run("check", same, "--against", same, "--json"))["contracts"] == sorted(all_contracts())


def test_a_break_exits_with_1_in_json_too(run: Run, written: Callable[..., str]) -> None:
    found = told(run("check", written(rename_order_id), "--against", written(), "--json", code=1))
    (violation,) = found["violations"]
    assert violation == {
        "rule": "FIELD_SAME_NAME",
        "file": "minhos_api/trading/v1/order.proto",
        "element": "minhos_api.trading.v1.Order.renamed",
        "old": "order_id",
        "new": "renamed",
        "consumers": [],
    }


def test_a_contract_that_is_missing_counts_when_the_set_is_whole_or_holds_its_file(
    run: Run, written: Callable[..., str], tmp_path: Path
) -> None:
    against = ("--against", written())
    assert "PACKAGE_SERVICE_NO_DELETE" in run("check", written(drop_engine), *against, code=1).output
    part = tmp_path / "part.binpb"
    part.write_bytes(descriptor_set([ENGINE]))
    run("check", str(part), *against)
    assert "PACKAGE_SERVICE_NO_DELETE" in run("check", str(part), *against, "--whole", code=1).output


def test_a_single_proto_file_finds_its_neighbours(run: Run) -> None:
    result = run("check", str(PROTO / "minhos_api/trading/v1/order_service.proto"), "--against", str(PROTO))
    assert "1 contract of" in result.output


@pytest.mark.parametrize(
    ("file", "old", "new", "element"),
    [
        ("brain/v1/brain_events.proto", "Signal signal = 1", "Signal signal = 55", "SignalGenerated.signal"),
        ("trading/v1/trading_events.proto", "Order order = 1", "Order order = 77", "OrderUpdated.order"),
    ],
)
def test_a_broken_event_is_found_in_its_file_alone(
    file: str, old: str, new: str, element: str, run: Run, copy: Path
) -> None:
    changed = copy / "minhos_api" / file
    text = changed.read_text()
    assert "admitted" in run("check", str(changed)).output
    assert old in text
    changed.write_text(text.replace(old, new))
    found = told(run("check", str(changed), "--json", code=1))
    assert [v for v in found["violations"] if v["element"].endswith(element)]
    assert "refused" in run("check", str(changed), code=1).output


def test_a_set_of_which_nothing_is_known_is_not_admitted(run: Run, tmp_path: Path) -> None:
    strange = tmp_path / "strange.proto"
    strange.write_text('syntax = "proto3"; package strange.v1; message M { string a = 1; }')
    result = run("check", str(strange), code=2)
    assert "nothing in it is known here; check the folder" in result.output
    assert "admitted" not in result.output


def test_a_contract_that_is_new_is_admitted_and_named(run: Run, tmp_path: Path) -> None:
    new = tmp_path / "new.proto"
    new.write_text('syntax = "proto3"; package acme.v1; message M {} service Acme { rpc Do(M) returns (M); }')
    assert "new here, nothing is promised of them yet: acme.v1.Acme" in run("check", str(new)).output


def test_a_release_that_is_none_is_refused(run: Run, written: Callable[..., str]) -> None:
    assert "is no release" in run("check", written(), "--release", "banana", code=2).output
    run("check", written(), "--against", written(), "--release", "1.0")


def test_an_empty_name_is_not_the_current_folder(run: Run) -> None:
    assert "no contract set is named" in run("check", "", code=1).output


def test_files_that_come_with_the_tools_do_not_count_as_differences(run: Run, written: Callable[..., str]) -> None:
    def older_tools(files: descriptor_pb2.FileDescriptorSet) -> None:
        (file,) = [each for each in files.file if each.name == "google/protobuf/descriptor.proto"]
        del next(m for m in file.message_type if m.name == "FieldOptions").field[-1]

    assert "0 broken promises; added: nothing" in run("diff", written(), written(older_tools)).output


MISTAKES = [
    ("nowhere.binpb", "there is no such file or folder"),
    ("nowhere.proto", "there is no such file"),
    ("127.0.0.1:1", "127.0.0.1:1 cannot be asked for its contracts"),
]


@pytest.mark.parametrize(("what", "text"), MISTAKES)
def test_what_is_not_there_is_said_in_one_line(what: str, text: str, run: Run) -> None:
    result = run("check", what, code=1)
    assert text in result.output
    assert len(result.output.splitlines()) == 1


def test_garbage_is_said_in_one_line(run: Run, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.binpb"
    garbage.write_bytes(b"\xff\xfe" * 1_000_000)
    assert "2000000 bytes that are no descriptor set" in run("check", str(garbage), code=1).output


def test_a_proto_file_that_does_not_compile_shows_where(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.proto"
    bad.write_text('syntax = "proto3"; message M { Nowhere a = 1; }')
    result = run("check", str(bad), code=1)
    assert "does not compile" in result.output
    assert "bad.proto" in result.output
    assert "Nowhere" in result.output


def test_an_empty_folder_is_no_contract_set(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is no .proto file in it" in run("check", str(tmp_path / "empty"), code=1).output


def test_a_diff_shows_what_breaks_and_what_is_added(run: Run, written: Callable[..., str]) -> None:
    def both(files: descriptor_pb2.FileDescriptorSet) -> None:
        rename_order_id(files)
        add_message(files)

    result = run("diff", written(), written(both))
    assert "FIELD_SAME_NAME" in result.output
    assert "1 broken promise; added: 1 message" in result.output
    found = told(run("diff", written(), written(both), "--json"))
    assert [each["kind"] for each in found["adds"]] == ["message"]
    assert [each["rule"] for each in found["breaks"]] == ["FIELD_SAME_NAME"]


def test_a_diff_with_one_set_begins_at_what_is_known_here(run: Run) -> None:
    assert "from the committed contracts in" in run("diff", str(PROTO)).output


def test_all_contracts_are_listed_without_a_mesh(run: Run) -> None:
    listed = told(run("list", "--json"))["contracts"]
    assert ENGINE in [each["name"] for each in listed]
    assert "ITradingEngine" in run("list").output


@pytest.mark.parametrize("name", ["TradingEngine", "ITradingEngine", "TradingEngineService", ENGINE])
def test_a_contract_is_shown_by_each_of_its_names(name: str, run: Run) -> None:
    found = told(run("show", name, "--json"))
    assert found["name"] == ENGINE
    (trade,) = [each for each in found["methods"] if each["name"] == "ExecuteTrade"]
    assert (trade["access"], trade["bound"], trade["idempotency"]) == ("TRADE", "deadline 3 s", "idempotent")
    assert "trade.executed" in found["publishes"]


def test_an_unknown_contract_names_the_nearest(run: Run) -> None:
    assert "was TradingEngine meant?" in run("show", "TradingEngin", code=1).output


@pytest.mark.parametrize("width", [40, 80, 400])
def test_show_cuts_nothing_off_at_any_width(width: int) -> None:
    methods = [
        {
            "name": "GetPerformanceOfEverything",
            "request": "minhos_api.trading.v1.GetPerformanceOfEverythingRequest",
            "response": "stream minhos_api.trading.v1.GetPerformanceOfEverythingResponse",
            "access": "read",
            "bound": "open, heartbeat 5 s",
            "idempotency": "no side effects",
        }
    ]
    out = io.StringIO()
    made = contract_show.methods_shown(methods, "minhos_api.trading.v1.", width)
    Console(file=out, width=width, highlight=False).print(made, soft_wrap=False)
    lines = out.getvalue().splitlines()
    told = "".join(line.strip() for line in lines).replace(" ", "")
    for word in (
        "GetPerformanceOfEverythingRequest",
        "streamGetPerformanceOfEverythingResponse",
        "nosideeffects",
        "heartbeat5s",
    ):
        assert word in told
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "\u2026" not in out.getvalue()
