"""Decides how a campaign of random cases is run, counted and told: what was accepted, why the rest was refused, and what went wrong."""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

SEED: Final = 20_261_123
MOST_GROWTH_MB: Final = 40.0
"""Largest memory of the process above what it was after a tenth of the cases."""
SHOWN: Final = 10


class WrongPrice(AssertionError):
    """A price came out that is not in what went in."""


class Wrong(AssertionError):
    """Something else came out that is not in what went in, or a bound was passed."""


@dataclass(slots=True)
class Report:
    """What became of the cases of one kind."""

    kind: str
    seed: int
    cases: int = 0
    accepted: int = 0
    """Messages, or quotes, that were read; each was compared with what went in."""
    prices: int = 0
    """Prices among them that were looked for in what went in, without the code that read them."""
    refused: Counter[str] = field(default_factory=Counter)
    """What was refused or left out, by reason."""
    crashes: int = 0
    """Errors that have no name of ours."""
    wrong_prices: int = 0
    wrong: int = 0
    """What broke another promise: it differed by how it was cut, or a bound was passed."""
    memory_grew_mb: float = 0.0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    """The first of them, each with its case."""

    def note(self, case: int, failure: str) -> None:
        """Keeps what went wrong, of the first cases in which something did."""
        if len(self.failures) < SHOWN:
            self.failures.append(f"case {case}: {failure}")

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.crashes or self.wrong_prices or self.wrong or self.memory_grew_mb > MOST_GROWTH_MB)

    def text(self) -> str:
        """The report for people."""
        told = ", ".join(f"{reason} {count:,}" for reason, count in self.refused.most_common()) or "none"
        memory = f"memory +{self.memory_grew_mb:g} MB (allowed {MOST_GROWTH_MB:g})"
        lines = [
            f"{self.kind}: {self.cases:,} cases (seed {self.seed}) in {self.seconds:g} s",
            f"  accepted {self.accepted:,}, of them {self.prices:,} prices that were looked for in the bytes",
            f"  refused {sum(self.refused.values()):,}: {told}",
            f"  crashes {self.crashes}, wrong prices {self.wrong_prices}, other wrong answers {self.wrong}, {memory}",
        ]
        return "\n".join([*lines, *(f"  {failure}" for failure in self.failures)])


Case = Callable[[random.Random, Report], None]
"""Makes and tries one case, and counts into the report. Raises WrongPrice or Wrong."""


def run(kind: str, case: Case, cases: int, seed: int = SEED) -> Report:
    """Tries so many cases; the same seed gives the same ones, whatever went before in the process."""
    report, begun, first_mb = Report(kind, seed), time.perf_counter(), _memory_mb()
    for number in range(cases):
        source = random.Random(f"{kind}:{seed}:{number}")
        if number == cases // 10:
            first_mb = _memory_mb()
        report.cases += 1
        try:
            case(source, report)
        except WrongPrice as wrong:
            report.wrong_prices += 1
            report.note(number, str(wrong))
        except Wrong as wrong:
            report.wrong += 1
            report.note(number, str(wrong))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for here
            report.crashes += 1
            report.note(number, f"{type(error).__name__}: {error}")
    report.memory_grew_mb = round(_memory_mb() - first_mb, 1)
    report.seconds = round(time.perf_counter() - begun, 1)
    return report


def damaged(valid: bytes, source: random.Random) -> bytes:
    """Random bytes in place of some, cut ends, bytes taken out and put in, doubled pieces, or nothing but noise."""
    if source.random() < 0.05 or not valid:
        return source.randbytes(source.randrange(600))
    data = bytearray(valid)
    for _ in range(source.randrange(0, 4)):
        data[source.randrange(len(data))] = source.choice((0, 1, 0x7B, 0x7F, 0x80, 0xFF, source.randrange(256)))
    way, at = source.randrange(7), source.randrange(len(data))
    if way == 0:
        del data[at:]
    elif way == 1:
        del data[at : at + source.randrange(1, 40)]
    elif way == 2:
        data[at:at] = source.randbytes(source.randrange(1, 40))
    elif way == 3:
        data += data[at : at + source.randrange(1, 200)]
    return bytes(data)


def pieces(data: bytes, source: random.Random) -> list[bytes]:
    """The same bytes cut anywhere, also into single ones."""
    found, at = [], 0
    longest = source.choice((1, 7, 64, 4_096))
    while at < len(data):
        length = source.randrange(1, longest + 1)
        found.append(data[at : at + length])
        at += length
    return found


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000


def command(program: str, kinds: Mapping[str, Case], arguments: Sequence[str], *, cases: int) -> int:
    """The command of a campaign: runs the kinds that are asked for and prints their reports; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--cases", type=int, default=cases, help="of each kind")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kind", choices=sorted(kinds), action="append")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    reports = [run(kind, kinds[kind], asked.cases, asked.seed) for kind in asked.kind or kinds]
    print("\n".join(report.text() for report in reports))
    if asked.json is not None:
        kept = [{each.name: getattr(report, each.name) for each in fields(report)} for report in reports]
        asked.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 1 if any(report.failed for report in reports) else 0
