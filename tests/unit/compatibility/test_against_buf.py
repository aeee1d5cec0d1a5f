"""Our rules against `buf breaking` itself, on changes of our own contracts that nobody thought of beforehand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.compatibility.image import Files, base
from tests.unit.compatibility.mutations import MUTATIONS

from minhos_mesh.compatibility.compare import compare
from minhos_mesh.compatibility.descriptors import ContractSet, DescriptorsInvalid, resolve
from minhos_mesh.compatibility.violation import Violation

pytestmark = pytest.mark.timeout(120)  # buf is started some seventy times
BUF = Path(sys.executable).with_name("buf")
ONCE = {**os.environ, "GOGC": "off"}
"""For a process of a fifth of a second, of which half would go into looking for garbage."""
RULES = {"version": "v2", "breaking": {"use": ["WIRE_JSON", "RPC_NO_DELETE", "PACKAGE_SERVICE_NO_DELETE"]}}

DIFFERENCES = {
    "PACKAGE_SERVICE_NO_DELETE": "buf says nothing when the last file of a package is gone; a contract that is gone is gone",
}
"""Where we say more than buf, and why; everywhere else both say the same of the same element."""

Key = tuple[str, str, str, str]
"""Rule, file, short name of the type or service, number or name of what is in it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("buf")
    (made / "old.binpb").write_bytes(base())
    (made / "buf.json").write_text(json.dumps(RULES))
    return made


def buf_says(folder: Path, new: bytes) -> set[Key] | None:
    """What buf finds; None when it cannot read the new image."""
    (folder / "new.binpb").write_bytes(new)
    command = [str(BUF), "breaking", "new.binpb", "--against", "old.binpb", "--config", "buf.json"]
    done = subprocess.run(
        [*command, "--error-format", "json"], cwd=folder, env=ONCE, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 100):
        return None
    return {key_of(json.loads(line)) for line in done.stdout.splitlines()}


PATTERNS = (
    r'(?:[Ff]ield|Extension) "(?P<item>\d+)".* on message "(?P<place>[^"]+)"',
    r'Message "(?P<place>[^"]+)" had required field "(?P<item>\d+)"',
    r'[Ee]num value "(?P<item>-?\d+)" on enum "(?P<place>[^"]+)"',
    r'RPC "(?P<item>\w+)" on service "(?P<place>\w+)"',
    r'(?:Message|Enum|on message|on enum) "(?P<place>[^"]+)"',
    r'service "(?P<place>[^"]+)" was deleted',
)


def key_of(said: dict[str, str]) -> Key:
    text, rule = said["message"], said["type"]
    for pattern in PATTERNS:
        if found := re.search(pattern, text):
            groups = found.groupdict()
            return rule, said.get("path", ""), groups["place"].rpartition(".")[2], groups.get("item") or ""
    assert rule == "FILE_SAME_PACKAGE", said
    return rule, said["path"], "", ""


def our_key(violation: Violation, old: ContractSet, new: ContractSet) -> Key:
    rule, element = violation.rule, violation.element
    if rule == "FILE_SAME_PACKAGE":
        return rule, violation.file, "", ""
    if rule.startswith("RESERVED_") or rule.endswith("_JSON_FORMAT"):
        return rule, violation.file, element.rpartition(".")[2], ""
    if rule == "PACKAGE_SERVICE_NO_DELETE":
        return rule, violation.file if violation.file in new.files else "", element.rpartition(".")[2], ""
    place, _, name = element.rpartition(".")
    if rule.startswith("RPC_"):
        return rule, violation.file, place.rpartition(".")[2], name
    if rule.startswith("ENUM_VALUE_"):
        (number,) = {v.number for v in old.symbols.enums[place].proto.value if v.name == name}
        return rule, violation.file, place.rpartition(".")[2], str(number)
    sides = (new.symbols, old.symbols) if "NO_DELETE" not in rule else (old.symbols,)
    for symbols in sides:
        for key, extension in symbols.extensions.items():
            if extension.name == element:
                return rule, violation.file, key[0].rpartition(".")[2], str(key[1])
        fields = symbols.messages[place].proto.field if place in symbols.messages else []
        for field in fields:
            if field.name == name:
                return rule, violation.file, place.rpartition(".")[2], str(field.number)
    raise AssertionError(violation)


def changed(steps: Iterable[tuple[str, int, int]]) -> tuple[bytes, list[str]]:
    """The base with all changes that leave it a set that can be built."""
    data, done = base(), list[str]()
    for name, a, b in steps:
        files = Files.FromString(data)
        try:
            MUTATIONS[name](files, a, b)
            resolve(files.SerializeToString())
        except (DescriptorsInvalid, StopIteration):
            continue
        data = files.SerializeToString()
        done.append(name)
    return data, done


def explained(only_ours: set[Key], old: ContractSet, new: ContractSet) -> set[Key]:
    """Those of the differences that are listed, and are what is written there."""
    packages = {file.package for file in new.files.values()}
    gone = {name.rpartition(".")[2] for name in old.services if name.rpartition(".")[0] not in packages}
    return {key for key in only_ours if key[0] in DIFFERENCES and key[2] in gone}


def agree(folder: Path, data: bytes) -> set[Key] | None:
    theirs = buf_says(folder, data)
    if theirs is None:
        return None
    old, new = resolve((folder / "old.binpb").read_bytes()), resolve(data)
    mine = {our_key(violation, old, new) for violation in compare(old, new, stricter=False)}
    assert theirs - mine == set(), "buf finds what we do not"
    assert mine - theirs - explained(mine - theirs, old, new) == set(), "we find what buf does not"
    return theirs


STEP = st.tuples(st.sampled_from(sorted(MUTATIONS)), st.integers(0, 10_000), st.integers(0, 1_000))


@settings(max_examples=20, derandomize=True, database=None)
@given(steps=st.lists(STEP, min_size=1, max_size=12))
def test_both_find_the_same(folder: Path, steps: list[tuple[str, int, int]]) -> None:
    data, _done = changed(steps)
    assume(agree(folder, data) is not None)


def test_each_kind_of_change_alone(folder: Path) -> None:
    """Each by itself at several places, all places in one set: what one hides of another is left to the test above."""
    unread, seen = [], set[str]()
    for name in sorted(MUTATIONS):
        places = [(name, 37 * place + 11, 13 * place + 5) for place in range(60)]
        data, done = changed(places[:6])
        if not done:  # what is used elsewhere cannot be taken away alone
            data, done = changed(places)
        assert done, f"{name} was never applied"
        found = agree(folder, data)
        if found is None:
            unread.append(name)
        else:
            seen |= {key[0] for key in found}
    assert unread == []
    assert seen == listed_rules(folder), "a rule that buf has and no change here breaks, or the other way round"


def listed_rules(folder: Path) -> set[str]:
    """The rules that buf itself says it applies; one that is new in a later buf is missed here and not overlooked."""
    command = [str(BUF), "config", "ls-breaking-rules", "--configured-only", "--format", "json", "--config", "buf.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return {json.loads(line)["id"] for line in done.stdout.splitlines()}
