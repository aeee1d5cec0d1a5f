"""Decides how a command fails: one clear message and exit code 1."""

from __future__ import annotations

from typing import NoReturn

import typer


class CommandFailed(Exception):
    """Expected: a command cannot do what it was asked for; the text is for the person who typed it."""


class Failed(typer.Exit):
    """A command that ends with exit code 1 and has said why."""

    def __init__(self, message: str) -> None:
        super().__init__(1)
        self.message = message


def fail(message: str) -> NoReturn:
    """Ends the command with exit code 1."""
    typer.echo(f"minhos: {message}", err=True)
    raise Failed(message)
