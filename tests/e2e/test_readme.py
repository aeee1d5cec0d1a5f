"""What README.md and docs say is so: programs, commands, options, paths, links and configuration."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.e2e.running_mesh import Mesh, environment

from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_mesh.cli.main import app
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.config import ConfigError, load

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
MADE = ("build/", "buf/validate/", "run/", "store/", "backup/")
ROOTS = (ROOT, ROOT / "services" / "minhos_mesh", ROOT / "proto")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(language, text) for language, text in found]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    return [span.replace("\\|", "|") for span in re.findall(r"`([^`\n]+)`", text)]


# --- programs -------------------------------------------------------------------------------------------------------

EXAMPLES = ["price_grpcio.py", "price_betterproto.py"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_of_the_readme_is_the_example_beside_it(name: str) -> None:
    shown = [block.text for block in blocks(README) if block.language == "python"]
    docstring, _, body = (ROOT / "examples" / name).read_text(encoding="utf-8").partition("\n\n")
    assert docstring.startswith('"""')
    assert f"(examples/{name})" in README.read_text(encoding="utf-8")
    assert body == shown[EXAMPLES.index(name)]
    assert len(shown) == len(EXAMPLES)


def run(mesh: Mesh, command: str) -> str:
    """A command as the README writes it, in a shell of a newcomer who has activated the environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env=environment({**mesh.settings, "MINHOS_DATA_DIR": str(mesh.data_dir), "PATH": path}),
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def test_the_programs_of_the_readme_print_the_price_of_a_running_mesh(mesh: Mesh) -> None:
    grpcio, betterproto = (run(mesh, f"python examples/{name} $(minhos ports market_data)") for name in EXAMPLES)
    assert re.fullmatch(r"NQ[HMUZ]\d\d-CME \d+\.\d+ PROVENANCE_SIMULATED\n", grpcio)
    assert re.fullmatch(r"NQ[HMUZ]\d\d-CME \d+\.\d+ SIMULATED\n", betterproto)


def shown_calls() -> list[tuple[str, str]]:
    """Commands that the README shows behind a `$`, each with what it shows beneath."""
    shown = (block.text for block in blocks(README) if block.text.startswith("$ "))
    return [(text.partition("\n")[0].removeprefix("$ "), text.partition("\n")[2]) for text in shown]


def test_a_call_of_the_readme_answers_as_it_shows(mesh: Mesh) -> None:
    (grpcurl, positions), (example, price) = shown_calls()
    assert re.fullmatch(r"\S+ \d+\.\d+ PROVENANCE_SIMULATED\n", price)
    assert example == "python examples/price_grpcio.py $(minhos ports market_data)"
    known = {field.json_name for field in engine_pb.GetPositionsResponse.DESCRIPTOR.fields}
    told = json.loads(run(mesh, grpcurl))
    shown = json.loads(positions)
    assert set(told) | set(shown) <= known
    of_position = engine_pb.GetPositionsResponse.DESCRIPTOR.fields_by_name["positions"].message_type
    assert of_position is not None
    assert set(shown["positions"][0]) <= {field.json_name for field in of_position.fields}


# --- commands -------------------------------------------------------------------------------------------------------


def command_lines(page: Path) -> Iterator[list[str]]:
    """Everything that is written as a `minhos` command; in a cell of a table the word is left out from the second on."""
    for block in blocks(page):
        for inner in re.findall(r"(?:^|\$\()minhos (?:[^\n$)]*)", block.text, re.MULTILINE):
            yield shlex.split(inner.removeprefix("$("), comments=True)
    for line in prose(page).splitlines():
        for cell in re.split(r"(?<!\\)\|", line) if line.startswith("|") else [line]:
            written = spans(cell)
            if line.startswith("|") and written and written[0].startswith("minhos "):
                written = [span if span.startswith("minhos ") else f"minhos {span}" for span in written]
            for span in written:
                for inner in re.findall(r"minhos (?:[^$)]*)", span if " " in span else ""):
                    yield shlex.split(inner)


def alternatives(words: list[str]) -> Iterator[list[str]]:
    """`tail events|orders` is two commands."""
    return (list(each) for each in itertools.product(*(word.split("|") for word in words)))


@functools.cache
def root_command() -> Any:
    return typer.main.get_command(app)


def resolved(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name, and what is left of them."""
    command, rest = root_command(), words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def options_of(command: Any) -> set[str]:
    return {"-h", "--help"} | {
        name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
    }


def leaves(command: Any, name: str = "minhos") -> Iterator[tuple[str, Any]]:
    nested = getattr(command, "commands", {})
    if not nested:
        yield name, command
    for word, inner in nested.items():
        yield from leaves(inner, f"{name} {word}")


WRITTEN = [(page.name, words) for page in PAGES for line in command_lines(page) for words in alternatives(line)]


def test_the_pages_are_read_right() -> None:
    seen = {" ".join(words) for _page, words in WRITTEN}
    assert {"minhos tail orders", "minhos down", "minhos order cancel ORDER", "minhos ports trading_engine"} <= seen
    assert len(seen) > 30


@pytest.mark.parametrize(("page", "words"), WRITTEN, ids=[f"{page}: {' '.join(words)}" for page, words in WRITTEN])
def test_a_command_in_the_text_exists_with_its_options(page: str, words: list[str]) -> None:
    command, rest = resolved(words)
    assert command is not root_command() or not rest or rest[0].startswith("-"), f"no command {words}"
    options = {word for word in rest if word.startswith("-")}
    assert options <= options_of(command)
    if command is root_command().commands.get("ports") and rest:
        assert rest[0] in service_names()


def test_every_command_is_in_the_table_of_the_operator() -> None:
    told = {id(resolved(words)[0]) for page, words in WRITTEN if page == "operating.md"}
    assert [name for name, command in leaves(root_command()) if id(command) not in told] == []


def test_every_command_takes_a_data_folder_and_every_listing_json() -> None:
    without = [name for name, command in leaves(root_command()) if "--data-dir" not in options_of(command)]
    assert without == []
    for name in ("status", "ports", "graph", "tail", "positions", "orders", "logs", "mode"):
        assert "--json" in options_of(root_command().commands[name]), name


# --- paths, links, configuration ------------------------------------------------------------------------------------


def test_every_link_leads_somewhere() -> None:
    links = [
        (page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 10
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def mentioned_paths(page: Path) -> Iterator[str]:
    for span in spans(prose(page)):
        yield from (word for word in span.split() if re.fullmatch(r"\.{0,2}[\w.-]*(/[\w.-]+)+/?", word))
    for block in blocks(page):
        yield from re.findall(r"(?<![\w/.])(?:scripts|docs|proto|examples|tests)/[\w./-]+", block.text)


def test_every_path_in_the_text_exists() -> None:
    found = [(page, path) for page in PAGES for path in mentioned_paths(page) if not path.startswith(MADE)]
    assert {"scripts/run", "proto/contracts.binpb"} <= {path for _page, path in found}
    there = ((page, path, (*ROOTS, page.parent, ROOT / "docs" / "typescript")) for page, path in found)
    ours = (entry for entry in there if "minhos_api." not in entry[1] and not entry[1].startswith("/"))
    assert [f"{page.name}: {path}" for page, path, roots in ours if not any((r / path).exists() for r in roots)] == []


def test_every_place_on_the_map_exists() -> None:
    (shown,) = [block.text for block in blocks(README) if block.text.startswith("proto/minhos_api")]
    for line in shown.splitlines():
        inner = ROOT / "services" / "minhos_mesh" if line.startswith(" ") else ROOT
        places = re.match(r"\s*((?:[\w/]+, )*[\w/]+)", line)
        assert places is not None
        assert [place for place in places.group(1).split(", ") if not (inner / place).exists()] == [], line


def test_every_script_of_the_text_explains_itself() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = {ROOT / "scripts" / name for name in re.findall(r"scripts/([a-z]+)\b(?!/)", text)}
    assert len(named) >= 4
    assert [script.name for script in named if not os.access(script, os.X_OK)] == []


def test_the_configuration_of_the_docs_is_accepted_and_a_wrong_key_is_not(tmp_path: Path) -> None:
    shown, *others = [block.text for block in blocks(ROOT / "docs" / "operating.md") if block.language == "toml"]
    file = tmp_path / "minhos.toml"
    for other in others:
        file.write_text(other, encoding="utf-8")
        load(file, environment={})
    file.write_text(shown, encoding="utf-8")
    config = load(file, environment={})
    told = tomllib.loads(shown)
    assert (config.feed.root, config.engine.auto_threshold) == (told["feed"]["root"], told["engine"]["auto_threshold"])
    laid_over = load(file, environment={"MINHOS_RISK__MAX_POSITION": "3"})
    assert (config.risk.max_position, laid_over.risk.max_position) == (told["risk"]["max_position"], 3)
    file.write_text("[risk]\nmax_positon = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="max_position"):
        load(file, environment={})


def test_where_the_docs_say_things_are_they_are(mesh: Mesh) -> None:
    shown = (block.text for block in blocks(ROOT / "docs" / "operating.md") if block.text.startswith("<data>"))
    folders = re.findall(r"^<data>/(\w+)", next(shown), re.MULTILINE)
    assert sorted(folders) == sorted(path.name for path in mesh.data_dir.iterdir())
    assert mesh.paths.mesh_file.exists()
    assert mesh.paths.config_file.exists()
    assert all(mesh.paths.log_file(service).exists() for service in service_names())
