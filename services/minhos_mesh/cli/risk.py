"""Decides the commands of `minhos risk`: the limits with their use, their change, and the reset of the breaker."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from minhos_mesh.cli.options import DataDir, Json, paths_of
from minhos_mesh.runtime.paths import DEFAULT_DATA_DIR

risk_app: Final = typer.Typer(
    help="Show the limits with their use, change them, or reset the breaker.", invoke_without_command=True
)


@risk_app.callback()
def risk(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Show the limits with their use, and what stops orders now; reset the breaker."""
    if context.invoked_subcommand is not None:
        return
    from minhos_mesh.cli import risk_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.show_risk(paths_of(data_dir), as_json=json))


@risk_app.command("reset")
def risk_reset(
    reason: Annotated[str, typer.Option("--reason", help="Why it is safe to go on; kept with the reset.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Reset the tripped breaker, so that not only reductions pass."""
    from minhos_mesh.cli import risk_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.reset(paths_of(data_dir), reason, as_json=json))


@risk_app.command("limits")
def risk_limits(
    max_order_quantity: Annotated[int | None, typer.Option(help="Contracts of one order.")] = None,
    max_position: Annotated[int | None, typer.Option(help="Contracts held of one symbol.")] = None,
    max_open_positions: Annotated[int | None, typer.Option(help="Symbols with an open position.")] = None,
    max_exposure: Annotated[str | None, typer.Option(help="Value of all positions, with multiplier.")] = None,
    max_daily_loss: Annotated[str | None, typer.Option(help="Loss of one day.")] = None,
    max_drawdown: Annotated[str | None, typer.Option(help="Fall from the highest profit of the day.")] = None,
    price_collar_ticks: Annotated[int | None, typer.Option(help="How far a price may be from the last one.")] = None,
    max_price_age: Annotated[float | None, typer.Option(help="Seconds that the newest price may be old.")] = None,
    max_orders_per_minute: Annotated[int | None, typer.Option(help="Orders within any 60 seconds.")] = None,
    trading_enabled: Annotated[
        bool | None,
        typer.Option("--trading-enabled/--no-trading-enabled", help="Whether more than reductions may pass."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the change.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Change limits while the mesh runs; what is not named stays. Without an option, show them."""
    from minhos_mesh.cli import risk_limits as work
    from minhos_mesh.cli.mesh import execute

    wanted = work.Wanted(
        max_order_quantity=max_order_quantity,
        max_position=max_position,
        max_open_positions=max_open_positions,
        max_exposure=max_exposure,
        max_daily_loss=max_daily_loss,
        max_drawdown=max_drawdown,
        price_collar_ticks=price_collar_ticks,
        max_price_age=max_price_age,
        max_orders_per_minute=max_orders_per_minute,
        trading_enabled=trading_enabled,
    )
    execute(work.change(paths_of(data_dir), wanted, reason, as_json=json))
