"""Decides how everything that is derived from the contracts is made, and whether what is committed is up to date."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import validate_proto
import xds_descriptors

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_DOC = '"""Made from proto/ by scripts/generate. Never edited by hand."""\n'
ROOTS = ("minhos_api", "minhos_dataclasses", "buf")


def prepare(root: Path) -> None:
    """Puts buf/validate/validate.proto where buf.yaml looks for it."""
    validate_proto.write(root / "build" / "proto")


def buf(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the pinned buf in the project's root with this environment's tools first on PATH."""
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [str(tools / "buf"), *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def must(done: subprocess.CompletedProcess[str]) -> None:
    """Ends the program with what the tool said when it failed."""
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{done.stderr}".strip() or f"{done.args[0]} failed with {done.returncode}")


def write_image(root: Path, image: Path) -> None:
    """Writes the descriptor image of all contracts with what they import."""
    must(buf(root, "build", "-o", str(image)))


def generate_into(root: Path, image: Path, out: Path) -> None:
    """Makes the whole content of `generated/` in the folder `out`."""
    must(buf(root, "generate", str(image), "-o", str(out)))
    generated = out / "generated"
    for stub in generated.rglob("*_pb2_grpc.pyi"):
        if not stub.with_suffix(".py").exists():
            stub.unlink()  # a file of messages alone has no grpcio module
    for top in ROOTS:
        folders = [generated / top, *(path for path in (generated / top).rglob("*") if path.is_dir())]
        for folder in folders:
            init = folder / "__init__.py"
            if not init.exists():
                folder.mkdir(parents=True, exist_ok=True)
                init.write_text(PACKAGE_DOC, encoding="utf-8")
        (generated / top / "py.typed").write_text("", encoding="utf-8")


def files_of(folder: Path) -> dict[str, bytes]:
    """Returns relative path -> content of every file below `folder` that Python did not make itself."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def differences(fresh: Path, committed: Path) -> list[str]:
    """Returns one line for each file that is missing, left over or of other content."""
    new, old = files_of(fresh), files_of(committed) if committed.is_dir() else {}
    lines = [f"missing: {committed.name}/{name}" for name in sorted(new.keys() - old.keys())]
    lines += [f"left over: {committed.name}/{name}" for name in sorted(old.keys() - new.keys())]
    lines += [
        f"out of date: {committed.name}/{name}" for name in sorted(new.keys() & old.keys()) if new[name] != old[name]
    ]
    return lines


def settle(fresh: Path, committed: Path) -> int:
    """Makes `committed` equal to `fresh`, touching only what differs; returns how many files changed."""
    new, old = files_of(fresh), files_of(committed) if committed.is_dir() else {}
    changed = 0
    for name, content in new.items():
        if old.get(name) != content:
            target = committed / name
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.new")
            beside.write_bytes(content)
            beside.replace(target)
            changed += 1
    for name in old.keys() - new.keys():
        (committed / name).unlink()
        changed += 1
    for folder in sorted((path for path in committed.rglob("*") if path.is_dir()), reverse=True):
        if {each.name for each in folder.iterdir()} <= {"__pycache__"}:
            shutil.rmtree(folder)
    return changed


def _timed(text: str, step: Callable[[], None]) -> None:
    started = time.monotonic()
    step()
    print(f"{text:<58} {time.monotonic() - started:5.1f} s", flush=True)


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/generate",
        description="Makes generated/ and the registry's xDS descriptor set from proto/ and the pinned tools.",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="change nothing; exit 1 when what is committed is stale")
    choice.add_argument(
        "--prepare", action="store_true", help="only put buf/validate/validate.proto where buf looks for it"
    )
    choice.add_argument(
        "--baseline", action="store_true", help="also renew proto/contracts.binpb, which buf breaking compares with"
    )
    chosen = parser.parse_args()
    _timed("buf/validate/validate.proto in build/proto", lambda: prepare(ROOT))
    if chosen.prepare:
        return 0
    with tempfile.TemporaryDirectory(prefix="minhos-generate-") as name:
        work = Path(name)
        image = work / "contracts.binpb"
        _timed("descriptor image", lambda: write_image(ROOT, image))
        _timed("stubs and dataclasses", lambda: generate_into(ROOT, image, work))
        if chosen.check:
            stale = differences(work / "generated", ROOT / "generated") + xds_descriptors.differences(ROOT)
            for line in stale:
                print(line)
            print("run scripts/generate and commit the result" if stale else "generated code is up to date")
            return 1 if stale else 0
        changed = settle(work / "generated", ROOT / "generated")
        if chosen.baseline:
            shutil.copyfile(image, ROOT / "proto" / "contracts.binpb")
            print("proto/contracts.binpb renewed: say so in CHANGELOG.md")
    if xds_descriptors.differences(ROOT):
        _timed(f"{xds_descriptors.SET} from {xds_descriptors.REQUIREMENT}", lambda: xds_descriptors.write(ROOT))
    print(f"generated/: {changed} files changed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
