"""Decides that what many readers are told is put into bytes once: a change, and an answer while nothing has changed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import Message

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_mesh.registry.views import ServiceView

M = TypeVar("M", bound=Message)

FRESH_S: Final = 0.1
"""How old heartbeat times and measurements in an answer may be; nothing else in it is ever out of date."""
HELD: Final = 256
"""Changes whose bytes are kept; a slower reader has them made again."""


class ToldOnce:
    """The newest changes of services as encoded messages, by revision."""

    def __init__(self, encode: Callable[[ServiceView], pb.Service]) -> None:
        self._encode = encode
        self._encoded: OrderedDict[int, bytes] = OrderedDict()

    def of(self, revision: int, view: ServiceView) -> Any:
        """The message of one change, as bytes, which a servicer may send in the place of a message."""
        known = self._encoded.get(revision)
        if known is None:
            known = pb.WatchServicesResponse(changed=self._encode(view), revision=revision).SerializeToString()
            self._encoded[revision] = known
            if len(self._encoded) > HELD:
                self._encoded.popitem(last=False)
        return known


class AskedOften:
    """The answers to questions that are asked again and again."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[int, float, bytes]] = OrderedDict()

    def of(self, question: str, edition: int, make: Callable[[], M]) -> M:
        """The answer, as bytes, which a servicer may return in the place of a message; `make` gives it anew when the edition is another one or the last answer is too old."""
        now = time.monotonic()
        known = self._answers.get(question)
        if known is None or known[0] != edition or now - known[1] > FRESH_S:
            known = self._answers[question] = (edition, now, make().SerializeToString())
            if len(self._answers) > HELD:
                self._answers.popitem(last=False)
        return cast("M", known[2])
