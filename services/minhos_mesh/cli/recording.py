"""Decides whether a file can be replayed, before anything is started for it."""

from __future__ import annotations

from pathlib import Path

from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.reader import ScidFile


def check(file: Path) -> int:
    """Records in the recording. Raises CommandFailed with what is wrong."""
    try:
        with ScidFile(file) as opened:
            count = opened.count()
    except ScidError as error:
        raise CommandFailed(str(error)) from None
    if count == 0:
        raise CommandFailed(f"{file} holds no record: there is nothing to replay")
    return count
