"""Which requests a keeper takes: each field is checked, and what is wrong is named with what is allowed."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from minhos_mesh.runtime.keeper_protocol import MAX_SILENCE_S, SpawnRequest

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_INSTANCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_DEADLINE_S: Final = 600.0


class BadRequest(Exception):
    """Expected: a client sent something that a keeper does not take."""


def only(request: Mapping[str, Any], *allowed: str) -> None:
    """Raises BadRequest when the request has a field that its operation does not know."""
    unknown = sorted(set(request) - {"op", *allowed})
    if unknown:
        raise BadRequest(
            f"{request['op']} knows no field {', '.join(unknown)}; it takes {', '.join(allowed) or 'none'}"
        )


def spawn(request: Mapping[str, Any]) -> SpawnRequest:
    """Raises BadRequest."""
    only(request, "service", "instance_id", "argv", "environment", "log_path")
    service, instance_id = request.get("service"), request.get("instance_id")
    if not isinstance(service, str) or not _NAME.fullmatch(service):
        raise BadRequest(f"service: {service!r}; a name of lower-case letters, digits and _ is needed")
    return SpawnRequest(
        service=service,
        instance_id=instance(instance_id),
        argv=_argv(request.get("argv")),
        environment=_environment(request.get("environment")),
        log_path=_log_path(request.get("log_path")),
    )


def instance(value: object) -> str:
    """Raises BadRequest."""
    if not isinstance(value, str) or not _INSTANCE.fullmatch(value):
        raise BadRequest(f"instance_id: {value!r}; up to 128 letters, digits, '.', '_' and '-' are needed")
    return value


def signal_number(value: object) -> int:
    """Raises BadRequest."""
    if isinstance(value, int) and value in {int(item) for item in signal.Signals}:
        return value
    raise BadRequest(f"signal: {value!r}; the number of a signal is needed, for example {int(signal.SIGTERM)}")


def follower(value: object) -> str:
    """The name under which exits are remembered; empty for none. Raises BadRequest."""
    if value is None:
        return ""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadRequest(f"name: {value!r}; a name of lower-case letters, digits and _ is needed, or none")
    return value


def deadline(value: object, default: float) -> float:
    """Seconds. Raises BadRequest."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_DEADLINE_S:
        raise BadRequest(f"deadline_s: {value!r}; seconds from 0 to {_MAX_DEADLINE_S:g} are allowed")
    return float(value)


def silence(value: object) -> float:
    """Seconds. Raises BadRequest."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_SILENCE_S:
        raise BadRequest(f"silence_s: {value!r}; seconds from 1 to {MAX_SILENCE_S:g} are allowed")
    return float(value)


def _argv(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(_text(item) for item in value):
        raise BadRequest(f"argv: {value!r}; a list of texts that begins with the program is needed")
    return tuple(value)


def _environment(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(_text(key) and key and "=" not in key for key in value):
        raise BadRequest("environment: an object from names to texts is needed")
    for key, text in value.items():
        if not _text(text):
            raise BadRequest(f"environment.{key}: {text!r}; a text is needed")
    return dict(value)


def _log_path(value: object) -> str | None:
    if value is None:
        return None
    if not _text(value) or not isinstance(value, str) or not Path(value).is_absolute():
        raise BadRequest(f"log_path: {value!r}; an absolute path is needed")
    return value


def _text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value
