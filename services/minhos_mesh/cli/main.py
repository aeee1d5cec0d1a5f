"""The commands of `minhos` and their options; what they do stands in the modules beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from minhos_mesh.cli.contract import contract_app
from minhos_mesh.cli.data import data_app
from minhos_mesh.cli.events import events_app
from minhos_mesh.cli.failure import CommandFailed, fail
from minhos_mesh.cli.leaving import leave
from minhos_mesh.cli.options import DataDir, Json, paths_of, seconds
from minhos_mesh.cli.risk import risk_app
from minhos_mesh.cli.route import route_app
from minhos_mesh.cli.simulator import simulator_app
from minhos_mesh.runtime.paths import DEFAULT_DATA_DIR

app: Final = typer.Typer(
    name="minhos",
    help="A trading system built as a mesh of gRPC services.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
order_app: Final = typer.Typer(help="Place and cancel orders.", no_args_is_help=True)
app.add_typer(order_app, name="order")
state_app: Final = typer.Typer(help="Show or change the state of the system.", invoke_without_command=True)
app.add_typer(state_app, name="state")
app.add_typer(contract_app, name="contract")
app.add_typer(data_app, name="data")
app.add_typer(events_app, name="events")
app.add_typer(risk_app, name="risk")
app.add_typer(route_app, name="route")
app.add_typer(simulator_app, name="simulator")

Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the change.")]


def app_entry() -> None:
    """Entry of the `minhos` command."""
    try:
        app()
    except SystemExit as end:
        leave(end)


@app.command()
def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    feed: Annotated[str | None, typer.Option(help="simulated, replay or none.")] = None,
    file: Annotated[Path | None, typer.Option(help="A .scid recording to replay.")] = None,
    speed: Annotated[str | None, typer.Option(help="How many times faster than it happened, or max.")] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Run a replay to its end, report, and stop.")] = False,
    report: Annotated[Path | None, typer.Option(help="Where the report of --until-end goes.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is HEALTHY.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration file; ./minhos.toml when there is one.")] = None,
    timeout: Annotated[float, typer.Option(callback=seconds, help="Seconds until everything must be HEALTHY.")] = 60.0,
) -> None:
    """Start the whole mesh."""
    from minhos_mesh.cli.ignition import ignite

    if until_end and detach:
        fail("--until-end and --detach do not go together: a replay to its end is waited for")
    paths = paths_of(data_dir)
    try:
        keeper = ignite(paths)
    except CommandFailed as error:
        fail(str(error))
    # The keeper loads for a while; everything else is loaded and looked at beside it.
    from minhos_mesh.cli import launch
    from minhos_mesh.runtime.config import ConfigError

    try:
        resolved = launch.resolve(config, launch.FeedChoice(feed, file, speed))
        if until_end and resolved.feed.kind != "replay":
            raise CommandFailed("--until-end needs a replay: --feed replay --file FILE")
        if resolved.feed.kind == "replay" and resolved.feed.file is not None:
            from minhos_mesh.cli.recording import check

            check(resolved.feed.file)
        launch.settle(paths, resolved)
    except (ConfigError, CommandFailed) as error:
        keeper.cancel()
        fail(str(error))
    keeper.go()
    from minhos_mesh.cli import run

    run.after_launch(paths, keeper, until_end=until_end, report=report, detach=detach, timeout_s=timeout)


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the whole mesh, dependents before what they need."""
    from minhos_mesh.cli import run

    run.take_down(paths_of(data_dir))


ServiceName = Annotated[str, typer.Argument(help="Name of a service as `minhos status` shows it.")]


@app.command("start")
def start_service(service: ServiceName, data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Start one service of a running mesh with all it requires; what was stopped by hand comes back so."""
    from minhos_mesh.cli import supervise
    from minhos_mesh.cli.mesh import execute

    execute(supervise.start_service(paths_of(data_dir), service, as_json=json))


@app.command("stop")
def stop_service(service: ServiceName, data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Stop one service; it stays stopped until `minhos start`, its dependents go on without it."""
    from minhos_mesh.cli import supervise
    from minhos_mesh.cli.mesh import execute

    execute(supervise.stop_service(paths_of(data_dir), service, as_json=json))


@app.command("restart")
def restart_service(service: ServiceName, data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Put a new process in the place of the present one; callers wait for a moment, no call fails."""
    from minhos_mesh.cli import supervise
    from minhos_mesh.cli.mesh import execute

    execute(supervise.restart_service(paths_of(data_dir), service, as_json=json))


@app.command()
def status(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Show all services with their state."""
    from minhos_mesh.cli import status as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.status(paths_of(data_dir), as_json=json))


@app.command()
def wait(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    timeout: Annotated[float, typer.Option(callback=seconds, help="Seconds.")] = 60.0,
) -> None:
    """Return when every service is HEALTHY."""
    from minhos_mesh.cli import status as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.wait(paths_of(data_dir), timeout))


@app.command()
def ports(
    service: Annotated[str | None, typer.Argument(help="Print the address of this one only.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Show where each service listens."""
    from minhos_mesh.cli import status as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.ports(paths_of(data_dir), service, as_json=json))


@app.command()
def graph(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print it for Graphviz.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print it for Mermaid.")] = False,
) -> None:
    """Show who needs whom and how each is, in the order of the start."""
    from minhos_mesh.cli import status as commands
    from minhos_mesh.cli.mesh import execute

    if json + dot + mermaid > 1:
        fail("--json, --dot and --mermaid do not go together: each is another form of the same")
    form = "json" if json else "dot" if dot else "mermaid" if mermaid else "terminal"
    execute(commands.graph(paths_of(data_dir), commands.GraphForm(form)))


@app.command()
def top(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    sort: Annotated[str, typer.Option(help="name, cpu, memory or calls.")] = "name",
) -> None:
    """Show what each service does and uses, renewed every second; q ends it."""
    from minhos_mesh.cli import top as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.top(paths_of(data_dir), once=once, sort=sort))


@app.command()
def tail(
    what: Annotated[str, typer.Argument(help="events, market, depth (the order book), signals or orders.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
    symbol: Annotated[str | None, typer.Option(help="Of market and depth; depth shows the primary one else.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many lines, or order books.")] = None,
) -> None:
    """Follow what happens."""
    from minhos_mesh.cli import tail as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.tail(paths_of(data_dir), what, symbol, count, as_json=json))


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="Name of a service, or keeper.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 40,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines.")] = False,
) -> None:
    """Show the log of a service."""
    from minhos_mesh.cli import logs as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.logs(paths_of(data_dir), service, lines, follow=follow, as_json=json))


@app.command()
def positions(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Show what is held, with profit and loss."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.positions(paths_of(data_dir), as_json=json))


@app.command()
def orders(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 20,
) -> None:
    """Show the newest orders."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.orders(paths_of(data_dir), count, as_json=json))


@order_app.command("place")
def order_place(
    side: Annotated[str, typer.Argument(help="buy or sell.")],
    quantity: Annotated[int, typer.Argument(help="Contracts.")],
    symbol: Annotated[str | None, typer.Option(help="The primary symbol when not given.")] = None,
    limit: Annotated[str | None, typer.Option(help="Limit price in points, for example 23500.25.")] = None,
    stop: Annotated[str | None, typer.Option(help="Stop price in points.")] = None,
    time_in_force: Annotated[str, typer.Option(help="day, gtc, ioc or fok.")] = "day",
    reduce_only: Annotated[bool, typer.Option("--reduce-only", help="Refuse it unless it reduces a position.")] = False,
    request_id: Annotated[str | None, typer.Option(help="Your own id; the same one is never placed twice.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Place an order: market, or limit, stop and stop-limit by the prices given."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    execute(
        commands.place(
            paths_of(data_dir),
            side,
            quantity,
            symbol=symbol,
            limit=limit,
            stop=stop,
            time_in_force=time_in_force,
            reduce_only=reduce_only,
            request_id=request_id,
            as_json=json,
        )
    )


@order_app.command("cancel")
def order_cancel(
    order_id: Annotated[str, typer.Argument(help="Id as `minhos orders` shows it.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Cancel an order."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.cancel(paths_of(data_dir), order_id, as_json=json))


@order_app.command("replace")
def order_replace(
    order_id: Annotated[str, typer.Argument(help="Id as `minhos orders` shows it.")],
    quantity: Annotated[int | None, typer.Option(help="New total of contracts, with what is filled.")] = None,
    limit: Annotated[str | None, typer.Option(help="New limit price in points.")] = None,
    stop: Annotated[str | None, typer.Option(help="New stop price in points.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Your own id; the same one changes it once.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Change a working order; what is not given stays as it is."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    execute(
        commands.replace(
            paths_of(data_dir),
            order_id,
            quantity=quantity,
            limit=limit,
            stop=stop,
            request_id=request_id,
            as_json=json,
        )
    )


@order_app.command("settle")
def order_settle(
    order_id: Annotated[str, typer.Argument(help="Id as `minhos orders` shows it.")],
    reason: Annotated[str, typer.Option(help="Where you know it from.")],
    filled: Annotated[
        list[str] | None, typer.Option(help="QUANTITY@PRICE of a fill, also QUANTITY@PRICE@TIME; once for each.")
    ] = None,
    canceled: Annotated[bool, typer.Option("--canceled", help="It ended without a fill.")] = False,
    never_arrived: Annotated[bool, typer.Option("--never-arrived", help="Nobody but the venue ever had it.")] = False,
    request_id: Annotated[str | None, typer.Option(help="Your own id; the same one settles it once.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Tell the venue what became of an UNKNOWN order; what is not filled of it ends."""
    from minhos_mesh.cli import settling as commands
    from minhos_mesh.cli.mesh import execute

    execute(
        commands.settle(
            paths_of(data_dir),
            order_id,
            filled=filled or [],
            canceled=canceled,
            never_arrived=never_arrived,
            reason=reason,
            request_id=request_id,
            as_json=json,
        )
    )


@order_app.command("confirm")
def order_confirm(
    order_id: Annotated[str, typer.Argument(help="Id as `minhos orders` shows it.")],
    reason: Annotated[str, typer.Option(help="What you found.")],
    request_id: Annotated[str | None, typer.Option(help="Your own id; the same one confirms it once.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Let a settled order stand as it is booked, although the venue told otherwise of it later."""
    from minhos_mesh.cli import settling as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.confirm(paths_of(data_dir), order_id, reason=reason, request_id=request_id, as_json=json))


@app.command()
def mode(
    new: Annotated[
        str | None, typer.Argument(help="manual, semi_auto or full_auto; shows the mode when not given.")
    ] = None,
    reason: Reason = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Show or change who decides about trades."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    paths = paths_of(data_dir)
    execute(
        commands.trading_state(paths, as_json=json)
        if new is None
        else commands.set_mode(paths, new, reason, as_json=json)
    )


@app.command()
def halt(
    reason: Reason = "halted from the command line",
    reduce: Annotated[bool, typer.Option("--reduce", help="Still let orders through that reduce a position.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Halt trading; cancels always pass."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.halt(paths_of(data_dir), reason, reduce=reduce, as_json=json))


@app.command()
def resume(reason: Reason = "", data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Let trading go on after a halt."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.resume(paths_of(data_dir), reason, as_json=json))


@app.command("emergency-stop")
def emergency_stop(
    reason: Reason = "emergency stop from the command line",
    flatten: Annotated[bool, typer.Option("--flatten", help="Also close all positions at the market.")] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Clear it; trading stays halted until `minhos resume`.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Cancel all orders and stop trading until a person clears it."""
    from minhos_mesh.cli import trading as commands
    from minhos_mesh.cli.mesh import execute

    paths = paths_of(data_dir)
    execute(
        commands.clear_emergency_stop(paths, reason, as_json=json)
        if clear
        else commands.emergency_stop(paths, reason, flatten=flatten, as_json=json)
    )


@state_app.callback()
def state(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Show or change what may change while the mesh runs: whether it trades, by itself, from when on, and how much."""
    if context.invoked_subcommand is not None:
        return
    from minhos_mesh.cli import state as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.show_state(paths_of(data_dir), as_json=json))


@state_app.command("set", context_settings={"ignore_unknown_options": True})
def state_set(
    key: Annotated[
        str,
        typer.Argument(help="trading_enabled, auto_trade_enabled, risk_enabled, auto_threshold or order_quantity."),
    ],
    value: Annotated[str, typer.Argument(help="true or false, a confidence like 0.8, or contracts.")],
    reason: Reason = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Change one key of the state."""
    from minhos_mesh.cli import state as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.set_state(paths_of(data_dir), key, value, reason, as_json=json))
