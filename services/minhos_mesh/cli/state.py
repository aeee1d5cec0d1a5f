"""Decides how the state of the system is shown and changed from a terminal, one key at a time."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceStub
from minhos_mesh.cli import show
from minhos_mesh.cli.asking import actor, fresh_id
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import connected
from minhos_mesh.runtime.paths import MeshPaths

Value = bool | float | int

LARGEST_QUANTITY: Final = 100_000
"""The largest order_quantity that the contract lets through."""

_YES: Final = frozenset({"true", "on", "yes"})
_NO: Final = frozenset({"false", "off", "no"})
_UPDATE: Final = "state.update"


def _switch(key: str, text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise CommandFailed(f"{key} is {text!r}: allowed are true and false")
    return text.lower() in _YES


def _confidence(key: str, text: str) -> float:
    allowed = "a confidence from 0.5 to 1, for example 0.8"
    try:
        value = float(text)
    except ValueError:
        raise CommandFailed(f"{key} is {text!r}: allowed is {allowed}") from None
    if not 0.5 <= value <= 1:
        raise CommandFailed(f"{key} is {text}: allowed is {allowed}")
    return value


def _contracts(key: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= LARGEST_QUANTITY:
        raise CommandFailed(f"{key} is {text!r}: allowed is a whole number of contracts from 1 to {LARGEST_QUANTITY}")
    return int(text)


KEYS: Final[Mapping[str, Callable[[str, str], Value]]] = {
    "trading_enabled": _switch,
    "auto_trade_enabled": _switch,
    "risk_enabled": _switch,
    "auto_threshold": _confidence,
    "order_quantity": _contracts,
}
"""What can be set, and how its value is read."""

MEANINGS: Final = {
    "trading_enabled": "whether orders may be made at all; off, only reductions pass",
    "auto_trade_enabled": "whether the machine may make orders by itself",
    "risk_enabled": "whether limits hold; off, only reductions pass",
    "auto_threshold": "confidence from which a signal is acted on without a person",
    "order_quantity": "contracts of an order that a signal leads to",
}


def parse(key: str, text: str) -> Value:
    """The value of a key as it was typed. Raises CommandFailed for a key or a value that does not exist."""
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1)
        hint = f"; was {near[0]} meant?" if near else ""
        raise CommandFailed(f"{key!r} is no key of the state that can be set: allowed are {', '.join(KEYS)}{hint}")
    return KEYS[key](key, text)


async def show_state(paths: MeshPaths, *, as_json: bool) -> None:
    """The state, with who changed it last and why."""
    async with connected(paths) as link:
        stub = link.clients.stub(StateManagerServiceStub)
        state = (await stub.GetState(pb.GetStateRequest())).state
        if as_json:
            show.as_json(show.message_dict(state))
            return
        newest = pb.ListAuditEntriesRequest(action=_UPDATE, page_size=1)
        entries = (await stub.ListAuditEntries(newest)).entries
    _print(state, entries[0] if entries else None)


async def set_state(paths: MeshPaths, key: str, text: str, reason: str, *, as_json: bool) -> None:
    """Changes one key, unless somebody else changes the state meanwhile. Raises CommandFailed."""
    value = parse(key, text)
    async with connected(paths) as link:
        stub = link.clients.stub(StateManagerServiceStub)
        before = (await stub.GetState(pb.GetStateRequest())).state
        request = pb.UpdateStateRequest(
            request_id=fresh_id(),
            state=pb.State(),
            update_mask=FieldMask(paths=[key]),
            expected_version=before.version,
            actor=actor(),
            reason=reason,
        )
        setattr(request.state, key, value)
        after = (await stub.UpdateState(request)).state
    if as_json:
        show.as_json(show.message_dict(after))
    elif after.version == before.version:
        show.out.print(f"{key} is {_text(after, key)} already")
    else:
        show.out.print(f"{key} is {_text(after, key)}, was {_text(before, key)} (version {after.version})")


def _print(state: pb.State, newest: pb.AuditEntry | None) -> None:
    rows = [("system_state", show.enum_name(state, "system_state"), "state of the whole system")]
    rows += [(key, _text(state, key), MEANINGS[key]) for key in KEYS]
    rows += [(f"flags.{name}", value, "") for name, value in sorted(state.flags.items())]
    show.out.print(show.table(("KEY", "VALUE", "NOTE"), rows))
    changed = f"version {state.version}"
    if newest is not None:
        why = f": {newest.reason}" if newest.reason else ""
        changed += f", changed {show.when(newest.entry_time):%Y-%m-%d %H:%M:%S} UTC by {newest.actor}{why}"
    show.out.print(changed)


def _text(state: pb.State, key: str) -> str:
    value: Value = getattr(state, key)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
