"""Decides how what a file system refuses is told: by the path, and as the kind of trouble that callers act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minhos_mesh.sierra_files.header import ScidError, ScidForbidden, ScidMissing


@contextmanager
def told_errors(path: Path, done: str) -> Iterator[None]:
    """Turns errors of the file system into ScidMissing, ScidForbidden or ScidError; `done` is what was to be, as in "opened"."""
    try:
        yield
    except FileNotFoundError:
        raise ScidMissing(f"{path} does not exist") from None
    except PermissionError:
        raise ScidForbidden(f"{path} may not be read: permission denied") from None
    except OSError as error:
        raise ScidError(f"{path} cannot be {done}: {error.strerror}") from error
