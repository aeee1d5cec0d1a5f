"""Decides which static checks a change must pass, and runs them all before it answers."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import generate

ROOT = generate.ROOT
BASELINE = "proto/contracts.binpb"
TYPED = ("services", "tests", "scripts/tooling")


@dataclass(frozen=True)
class Step:
    """One check: what it is called, and the command whose exit status decides."""

    name: str
    command: Sequence[str]


def steps(image: Path) -> list[Step]:
    """Returns the checks in the order in which they are run, given a freshly built descriptor image."""
    python = sys.executable
    tool = Path(python).parent
    typed = [folder for folder in TYPED if any((ROOT / folder).rglob("*.py"))]
    return [
        Step("buf lint", [f"{tool}/buf", "lint"]),
        Step("buf format", [f"{tool}/buf", "format", "-d", "--exit-code", "proto"]),
        Step("buf breaking", [f"{tool}/buf", "breaking", str(image), "--against", BASELINE]),
        Step("ruff check", [f"{tool}/ruff", "check", "--quiet"]),
        Step("ruff format", [f"{tool}/ruff", "format", "--check", "--quiet", "--diff"]),
        Step("mypy --strict", [python, "-m", "mypy", "--strict", "--no-error-summary", *typed]),
        Step("import-linter", [f"{tool}/lint-imports", "--no-logo"]),
        Step("generated code", [python, str(ROOT / "scripts/tooling/generate.py"), "--check"]),
    ]


def run(step: Step) -> str | None:
    """Prints the step's line; returns what the tool said when it failed, and None when it passed."""
    print(f"  {step.name:<16}", end=" ", flush=True)
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": "", "NO_COLOR": "1"}
    done = subprocess.run(
        step.command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    passed = done.returncode == 0
    print(f"{'ok' if passed else 'FAILED':<7}{time.monotonic() - started:6.1f} s", flush=True)
    return None if passed else done.stdout.strip() or f"exit status {done.returncode}"


def main() -> int:
    """Runs the command line; returns 1 when any check failed."""
    parser = argparse.ArgumentParser(prog="scripts/check", description="Runs all static checks.", allow_abbrev=False)
    parser.add_argument("only", nargs="*", metavar="NAME", help="run only the checks whose name contains NAME")
    chosen = parser.parse_args().only
    generate.prepare(ROOT)
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="minhos-check-") as folder:
        image = Path(folder, "contracts.binpb")
        built = generate.buf(ROOT, "build", "-o", str(image))
        if built.returncode != 0:
            print(f"The contracts do not compile:\n{built.stderr.strip()}")
            return 1
        wanted = [step for step in steps(image) if not chosen or any(name in step.name for name in chosen)]
        if not wanted:
            print(f"no check is called {' or '.join(chosen)}; there are: {', '.join(s.name for s in steps(image))}")
            return 2
        for step in wanted:
            said = run(step)
            if said is not None:
                failed[step.name] = said
    for name, said in failed.items():
        print(f"\n--- {name}\n{said}")
    if failed:
        print(f"\n{len(failed)} of {len(wanted)} checks failed: {', '.join(failed)}")
        return 1
    print(f"all {len(wanted)} checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
