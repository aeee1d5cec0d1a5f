"""Decides how values look to people: decimals, times, colours of states, tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from minhos_api.health.v1 import service_health_pb2
from minhos_mesh.runtime.money import format_e9

_PIPED_WIDTH: Final = 1_000
out: Final = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
"""Where answers go; nothing is cut off for a reader that is no terminal, and brackets in a text are brackets."""
err: Final = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
"""Where progress goes, so that answers can be piped."""

COLOURS: Final = {
    "HEALTHY": "green",
    "DEGRADED": "yellow",
    "UNHEALTHY": "bold red",
    "STARTING": "cyan",
    "STOPPING": "magenta",
    "STOPPED": "dim",
}


def state_name(state: service_health_pb2.ServiceState.ValueType) -> str:
    """`HEALTHY` and its like."""
    return service_health_pb2.ServiceState.Name(state).removeprefix("SERVICE_STATE_")


def state_text(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=COLOURS.get(name, ""))


def money(value_e9: int | None) -> str:
    """1e-9 units as a decimal with two places at least; a dash when absent."""
    return "-" if value_e9 is None else format_e9(value_e9)


def optional(message: Message, name: str) -> Any:
    """The value of an optional field, None when it is unset."""
    return getattr(message, name) if message.HasField(name) else None


def clock(stamp: Timestamp) -> str:
    """Time of day in UTC, with milliseconds."""
    return when(stamp).strftime("%H:%M:%S.%f")[:-3]


def when(stamp: Timestamp) -> datetime:
    """The instant."""
    return stamp.ToDatetime(tzinfo=UTC)


def age(seconds: float) -> str:
    """A span in its two largest units."""
    whole = int(max(0.0, seconds))
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part}{smaller}"
    return f"{whole}s"


def percent(value: float | None) -> str:
    """A share of a core; a dash when it is not known."""
    return "-" if value is None else f"{value:.1f}%"


def size(count: int | None) -> str:
    """Bytes in MB or GB of powers of ten; a dash when they are not known."""
    if count is None:
        return "-"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def enum_name(message: Message, field: str) -> str:
    """Name of an enum value without the prefix of its enum."""
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    if descriptor is None:
        raise TypeError(f"{field} is no enum")
    value = descriptor.values_by_number[getattr(message, field)].name
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(value.removeprefix(prefix))


def as_json(value: object) -> None:
    """Prints one JSON document."""
    out.print_json(json.dumps(value), indent=2) if out.is_terminal else print(json.dumps(value, indent=2))


def json_line(message: Message) -> str:
    """A message as one line of JSON."""
    return json.dumps(message_dict(message))


def message_dict(message: Message) -> dict[str, Any]:
    """A message as JSON has it, with the names of the contract; only an absent value is left out, a zero is not."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = (), close: bool = False
) -> Table:
    """A plain table; columns named in `right` are numbers. With `close` a single space stands between columns."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0) if close else (0, 1))
    lines = list(rows)
    for place, column in enumerate(columns):
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in _WRAPPING,
            min_width=max((len(row[place]) for row in lines), default=0) if column in _WHOLE else None,
        )
    for row in lines:
        made.add_row(*row)
    return made


_WRAPPING: Final = ("REASON", "WHY", "CONTRACTS", "NOTE")
_WHOLE: Final = ("ORDER", "ADDRESS", "ID")
"""What a person copies from here into the next command is never cut off, however narrow the terminal is."""
