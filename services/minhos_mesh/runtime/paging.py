"""Decides what a page token is: opaque, bound to the list and the filters it was made for, and refused anywhere else."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

import grpc
from google.protobuf.message import Message

from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.runtime.errors import FieldViolation, MeshError

_FREE = ("page_size", "page_token")
"""Fields that may differ from page to page."""

Position = list[int | str]
"""Where the next page begins, as its maker understands it."""


def page_size(request: Message, *, default: int, largest: int) -> int:
    """How many rows a page has: the default for 0, never more than the largest."""
    asked = int(getattr(request, "page_size"))  # noqa: B009 - a field that every list request has, and no base class
    return min(asked, largest) if asked > 0 else default


def make_token(request: Message, position: Position) -> str:
    """The token of the page that begins at `position` of the list that `request` asks for."""
    raw = json.dumps([_mark(request), position], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_token(request: Message) -> Position | None:
    """Where the asked page begins; None for the first. Raises MeshError PAGE_TOKEN_INVALID for a token of another list."""
    token = str(getattr(request, "page_token"))  # noqa: B009 - see above
    if not token:
        return None
    try:
        mark, position = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error, TypeError):
        raise _refused(request, "was not made by this service") from None
    if mark != _mark(request) or not isinstance(position, list):
        raise _refused(request, "was made for another list or with other filters")
    return [part for part in position if isinstance(part, int | str)]


def _mark(request: Message) -> str:
    """What the token is bound to: the kind of the list and its filters."""
    bound = type(request)()
    bound.CopyFrom(request)
    for name in _FREE:
        bound.ClearField(name)
    told = request.DESCRIPTOR.full_name.encode() + bound.SerializeToString(deterministic=True)
    return hashlib.blake2s(told, digest_size=6).hexdigest()


def _refused(request: Message, why: str) -> MeshError:
    text = f"page_token {why}: begin again without one"
    return MeshError(
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_PAGE_TOKEN_INVALID,
        text,
        metadata={"field": "page_token", "list": request.DESCRIPTOR.name.removesuffix("Request")},
        violations=(FieldViolation("page_token", text),),
    )
