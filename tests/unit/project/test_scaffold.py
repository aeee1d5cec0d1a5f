"""The lock holds what the project asks for, and the scripts explain themselves from any folder."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import generate
import validate_proto

ROOT = generate.ROOT
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def _entries() -> Iterator[tuple[Requirement, int]]:
    for block in re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", LOCK, re.MULTILINE | re.DOTALL):
        line = block.split("\\\n")[0].strip()
        yield Requirement(line), block.count("--hash=sha256:")


def _wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    return [Requirement(each) for each in (*listed, *project["build-system"]["requires"])]


def test_every_dependency_is_locked_within_its_bounds() -> None:
    pinned = {each.name: next(iter(each.specifier)).version for each, _ in _entries()}
    missing = [
        str(each) for each in _wanted() if not each.specifier.contains(pinned.get(each.name, "0"), prereleases=True)
    ]
    assert missing == []


def test_every_locked_package_is_one_version_with_hashes_and_no_address() -> None:
    entries = list(_entries())
    assert len(entries) > 50
    assert [str(each) for each, hashes in entries if hashes == 0 or len(each.specifier) != 1] == []
    assert re.findall(r"https?://|file://|--index|--find-links|@ ", LOCK) == []


@pytest.mark.parametrize("name", ["check", "generate", "test"])
def test_a_script_explains_itself_from_any_folder(name: str, tmp_path: Path) -> None:
    done = subprocess.run([ROOT / "scripts" / name, "-h"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"usage: scripts/", done.stdout, re.IGNORECASE)


def test_an_unknown_check_is_named_with_those_there_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "check", "rust"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no check is called rust; there are: buf lint" in done.stdout


def test_preparing_writes_validate_proto_once(tmp_path: Path) -> None:
    path = validate_proto.write(tmp_path)
    before = path.stat().st_mtime_ns
    assert "extend .google.protobuf.FieldOptions {" in path.read_text(encoding="utf-8")
    assert validate_proto.write(tmp_path) == path
    assert path.stat().st_mtime_ns == before
