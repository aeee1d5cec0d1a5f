"""The commands of `minhos events` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from minhos_mesh.cli.failure import fail
from minhos_mesh.cli.options import DataDir, Json, paths_of
from minhos_mesh.runtime.paths import DEFAULT_DATA_DIR

events_app: Final = typer.Typer(
    help="Look into the event bus, and put right what failed: events, dead letters, consumers.", no_args_is_help=True
)

Types = Annotated[
    list[str] | None, typer.Argument(help="Patterns on the type: trade.executed, trade.*, market.>; all if not given.")
]
Subject = Annotated[str | None, typer.Option(help="Only of this subject, for example a symbol.")]
Source = Annotated[str | None, typer.Option(help="Only of this service.")]
Correlation = Annotated[str | None, typer.Option(help="Only with this correlation id.")]
After = Annotated[int | None, typer.Option(min=0, help="Only behind this sequence.")]
Since = Annotated[
    str | None, typer.Option(help="Only stored since: 10m, 2h, 3d, or a time in UTC like 2026-11-22T14:30.")
]
Until = Annotated[str | None, typer.Option(help="Only stored before; as --since.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the log of the bus.")]
Numbers = Annotated[list[int] | None, typer.Argument(min=1, help="Numbers as `minhos events dead` shows them.")]
All = Annotated[bool, typer.Option("--all", help="All that match the filters.")]
OfConsumer = Annotated[str, typer.Option("--consumer", help="Only of this consumer.")]
OfTypes = Annotated[list[str] | None, typer.Option("--type", help="Only of types that match; may be repeated.")]


@events_app.command("list")
def list_events(
    types: Types = None,
    subject: Subject = None,
    source: Source = None,
    correlation: Correlation = None,
    after: After = None,
    since: Since = None,
    until: Until = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Only the event with this id; may be repeated.")] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="The oldest first.")] = False,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=100_000, help="How many at the most.")] = 20,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """List stored events, the newest first."""
    from minhos_mesh.cli import event_reading as commands
    from minhos_mesh.cli.mesh import execute

    wanted = commands.Wanted(tuple(types or ()), subject, source, correlation, after, since, until, tuple(ids or ()))
    execute(commands.list_events(paths_of(data_dir), wanted, count, oldest_first=oldest_first, as_json=json))


@events_app.command("show")
def show(
    event: Annotated[str, typer.Argument(help="Sequence as `minhos events list` shows it, or the id of the event.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Show one event with its payload."""
    from minhos_mesh.cli import event_reading as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.show_event(paths_of(data_dir), event, as_json=json))


@events_app.command("tail")
def tail(
    types: Types = None,
    subject: Subject = None,
    start: Annotated[
        str, typer.Option("--from", help="now, beginning, latest (newest per subject), a sequence, or as --since.")
    ] = "now",
    latest: Annotated[
        bool, typer.Option("--latest", help="Only the newest per subject when events come faster than they are read.")
    ] = False,
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="Stop after so many events.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Follow events as they come; what is passed over is said."""
    from minhos_mesh.cli import event_reading as commands
    from minhos_mesh.cli.mesh import execute

    following = commands.Following(tuple(types or ()), subject, start, latest, count)
    execute(commands.tail(paths_of(data_dir), following, as_json=json))


@events_app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; the terminal if not given. It must not exist.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Pattern on the type; may be repeated.")] = None,
    subject: Subject = None,
    source: Source = None,
    correlation: Correlation = None,
    after: After = None,
    since: Since = None,
    until: Until = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write stored events as JSON lines, the oldest first, payloads decoded."""
    from minhos_mesh.cli import event_reading as commands
    from minhos_mesh.cli.mesh import execute

    wanted = commands.Wanted(tuple(types or ()), subject, source, correlation, after, since, until)
    execute(commands.export(paths_of(data_dir), wanted, file))


@events_app.command("types")
def types(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """List the event types with how many are held."""
    from minhos_mesh.cli import event_reading as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.types(paths_of(data_dir), as_json=json))


@events_app.command("stats")
def stats(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Show what was published, delivered, failed and removed, and who is behind."""
    from minhos_mesh.cli import event_care as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.stats(paths_of(data_dir), as_json=json))


@events_app.command("consumers")
def consumers(
    name: Annotated[str, typer.Argument(help="Only this one, or the one to change.")] = "",
    pause: Annotated[bool, typer.Option("--pause", help="Deliver nothing more to it.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Deliver to it again.")] = False,
    reset: Annotated[
        str | None, typer.Option(help="Go on from: beginning, now, behind a sequence, or from a time as --since.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Forget it; its dead letters stay.")] = False,
    reason: Reason = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Show durable consumers and how far they are, or change one of them."""
    from minhos_mesh.cli import event_care as commands
    from minhos_mesh.cli.mesh import execute

    if pause + resume + delete + (reset is not None) > 1:
        fail("--pause, --resume, --reset and --delete do not go together")
    paths = paths_of(data_dir)
    if not (pause or resume or delete or reset is not None):
        execute(commands.consumers(paths, name, as_json=json))
        return
    if not name:
        fail("the name of a consumer is missing: `minhos events consumers` shows them")
    change = commands.ConsumerChange(name, "pause" if pause else "resume" if resume else "delete", reset, reason)
    execute(commands.change_consumer(paths, change, as_json=json))


@events_app.command("dead")
def dead(
    number: Annotated[int | None, typer.Argument(min=1, help="Show this one with payload and all attempts.")] = None,
    consumer: OfConsumer = "",
    types: OfTypes = None,
    subject: Subject = None,
    requeued: Annotated[bool, typer.Option("--requeued", help="Also those that are being delivered again.")] = False,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=100_000, help="How many at the most.")] = 50,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """List dead letters: what a consumer could not handle in any attempt."""
    from minhos_mesh.cli import event_care as commands
    from minhos_mesh.cli.mesh import execute

    letters = commands.Letters((number,) if number else (), False, consumer, tuple(types or ()), subject)
    execute(commands.dead(paths_of(data_dir), letters, count, requeued=requeued, as_json=json))


@events_app.command("requeue")
def requeue(
    numbers: Numbers = None,
    everything: All = False,
    consumer: OfConsumer = "",
    types: OfTypes = None,
    subject: Subject = None,
    to: Annotated[str, typer.Option(help="Consumer that gets them instead of the one that gave them up.")] = "",
    payload: Annotated[
        str | None, typer.Option(help="New payload of one letter as JSON, or @FILE; fields as `dead` shows them.")
    ] = None,
    reason: Reason = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Deliver dead letters again."""
    from minhos_mesh.cli import event_care as commands
    from minhos_mesh.cli.mesh import execute

    letters = commands.Letters(tuple(numbers or ()), everything, consumer, tuple(types or ()), subject)
    execute(commands.requeue(paths_of(data_dir), letters, to, payload, reason, as_json=json))


@events_app.command("discard")
def discard(
    numbers: Numbers = None,
    everything: All = False,
    consumer: OfConsumer = "",
    types: OfTypes = None,
    subject: Subject = None,
    reason: Reason = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Remove dead letters for good."""
    from minhos_mesh.cli import event_care as commands
    from minhos_mesh.cli.mesh import execute

    letters = commands.Letters(tuple(numbers or ()), everything, consumer, tuple(types or ()), subject)
    execute(commands.discard(paths_of(data_dir), letters, reason, as_json=json))


@events_app.command("backup")
def backup(
    name: Annotated[str, typer.Argument(help="Name of the file; made from the time if not given.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Copy the journal into the folder `backup` of the mesh while it runs."""
    from minhos_mesh.cli import event_care as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.backup(paths_of(data_dir), name, as_json=json))
