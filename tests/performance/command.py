"""Decides how a benchmark is chosen, run and told: a table for people, JSON for programs."""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from rich.console import Console
from rich.table import Table
from tests.performance.mesh_run import MeshFailed
from tests.performance.results import Benchmark, Metric, Settings

NAMES: Final = ("startup", "path", "orders", "registry", "bus", "scid", "market")
"""One module of this folder each."""
_VERSIONS: Final = ("minhos-mesh", "grpcio", "protobuf", "numpy", "uvloop")


def load(name: str) -> Benchmark:
    """The benchmark of a name."""
    found: Benchmark = importlib.import_module(f"tests.performance.{name}").BENCHMARK
    return found


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}}


def table(benchmark: Benchmark, metrics: Sequence[Metric]) -> Table:
    """The results for people."""
    made = Table(title=f"{benchmark.name}: {benchmark.about}", title_justify="left", box=None, pad_edge=False)
    made.add_column("METRIC")
    for name in ("MEDIAN", "SPREAD"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("REFERENCE")
    for name in ("MEDIAN", "RATIO", "REACH"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("MET")
    for metric in metrics:
        met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[metric.met]
        made.add_row(
            metric.name,
            f"{metric.value:.4g} {metric.unit}",
            f"{min(metric.values):.4g} - {max(metric.values):.4g}",
            metric.reference or "",
            "" if metric.reference_value is None else f"{metric.reference_value:.4g} {metric.unit}",
            "" if metric.ratio is None else f"{metric.ratio:.2f}",
            "" if metric.reach is None else metric.reach.text(metric.unit),
            met,
        )
    return made


def main(arguments: Sequence[str]) -> int:
    """Runs what the command line asks for; 0 when it ran, whether or not everything reaches what it should."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures one thing beside its reference.")
    parser.add_argument("name", nargs="?", choices=NAMES, metavar="NAME", help=f"one of: {', '.join(NAMES)}")
    parser.add_argument("--list", action="store_true", help="show the names with what they measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE as JSON too")
    parser.add_argument("--rounds", type=_rounds, help="interleaved rounds; each benchmark has its own number")
    parser.add_argument(
        "--section", action="append", default=[], metavar="SECTION", help="only this part of NAME; may be given again"
    )
    parser.add_argument("--long", action="store_true", help="with what takes many minutes")
    asked = parser.parse_args(arguments)
    out = Console(width=None if sys.stdout.isatty() else 160)
    if asked.list:
        for name in NAMES:
            benchmark = load(name)
            parts = f" (sections: {', '.join(benchmark.sections)})" if benchmark.sections else ""
            out.print(f"  {name:<10} {benchmark.about}{parts}", highlight=False, soft_wrap=True)
        return 0
    if asked.name is None:
        parser.error("NAME is missing: --list shows the names")
    benchmark = load(asked.name)
    for section in asked.section:
        if section not in benchmark.sections:
            known = ", ".join(benchmark.sections) or "none"
            parser.error(f"--section is {section!r}: {asked.name} has {known}")
    try:
        _run(benchmark, asked, out)
    except MeshFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except grpc.aio.AioRpcError as error:
        print(f"bench: a call failed: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


def _rounds(text: str) -> int:
    rounds = int(text) if text.isdigit() else 0
    if not 1 <= rounds <= 1_000:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number from 1 to 1000")
    return rounds


def _run(benchmark: Benchmark, asked: argparse.Namespace, out: Console) -> None:
    json_file: Path | None = asked.json
    told: dict[str, Any] = {"bench": benchmark.name, "machine": machine(), "versions": versions()}
    say = Console(stderr=True, highlight=False, style="dim")
    with tempfile.TemporaryDirectory(prefix="minhos-bench-") as folder:
        line = functools.partial(say.print, soft_wrap=True)
        rounds = asked.rounds or benchmark.rounds
        settings = Settings(rounds, Path(folder), line, asked.section, asked.long)
        metrics = asyncio.run(_awaited(benchmark, settings))
    told["results"] = [metric.as_json() for metric in metrics]
    out.print(table(benchmark, metrics))
    facts = {**told["machine"], **told["versions"]}
    out.print("  ".join(f"{name} {value}" for name, value in facts.items()), style="dim", highlight=False)
    if json_file is not None:
        json_file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


async def _awaited(benchmark: Benchmark, settings: Settings) -> Sequence[Metric]:
    return await benchmark.run(settings)
