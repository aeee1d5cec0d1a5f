"""Decides how a process logs: one line of JSON per event into the file of its service, colour on a terminal."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Final

import structlog

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# A process that configures nothing, as a command does, must keep its standard output for its answers.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr), cache_logger_on_first_use=False)

Logger = structlog.stdlib.BoundLogger
"""What the rest of the program logs with: `log.info("order.sent", order_id=...)`."""


def configure(
    service: str, instance_id: str, path: Path | None, *, level: str = "info", terminal: bool = False
) -> None:
    """Sends all logs of this process to `path`, and to standard error when `terminal`. Call once, before anything logs."""
    handlers: list[logging.Handler] = []
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Who(service, instance_id),
    ]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_handler(logging.FileHandler(path, encoding="utf-8"), shared, _json()))
    if terminal:
        colour = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        handlers.append(_handler(logging.StreamHandler(sys.stderr), shared, [colour]))
    logging.basicConfig(handlers=handlers or [logging.NullHandler()], level=logging.WARNING, force=True)
    logging.getLogger("minhos").setLevel(_LEVELS[level])
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Logger:
    """A logger of one part of the program, for example `trading_engine.orders`."""
    logger: Logger = structlog.get_logger(f"minhos.{name}")
    return logger


class _Who:
    """Puts service and instance into every line."""

    def __init__(self, service: str, instance_id: str) -> None:
        self._who = {"service": service, "instance": instance_id}

    def __call__(self, _logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        return {**self._who, **event}


def _json() -> list[Any]:
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str),
    ]


def _handler(handler: logging.Handler, shared: list[Any], render: list[Any]) -> logging.Handler:
    if not any(p is structlog.stdlib.ProcessorFormatter.remove_processors_meta for p in render):
        render = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=render))
    return handler
