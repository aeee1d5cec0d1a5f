"""Decides how a command fails: one clear message and exit code 1."""

from __future__ import annotations

from typing import NoReturn

import typer


class CommandFailed(Exception):
    """Expected: a command cannot do what it was asked for; the text is for the person who typed it."""


def fail(message: str) -> NoReturn:
    """Ends the command with exit code 1."""
    typer.echo(f"minhos: {message}", err=True)
    raise typer.Exit(1)
