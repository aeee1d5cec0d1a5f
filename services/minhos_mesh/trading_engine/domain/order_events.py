"""Decides what can happen to an order: each event that its history is made of, and its form on disk."""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass
from typing import Any

from minhos_mesh.trading_engine.domain.orders import (
    Fill,
    Order,
    OrderState,
    OrderTerms,
    OrderType,
    Origin,
    Provenance,
    Reason,
    RiskCheck,
    Side,
    TimeInForce,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCreated:
    """An order was asked for and written down."""

    at_ns: int
    order_id: str
    terms: OrderTerms
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskApproved:
    """The risk manager said yes (or an emergency order needed no answer, then without an approval)."""

    at_ns: int
    approval_id: str | None
    checks: tuple[RiskCheck, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The order will not be sent."""

    at_ns: int
    reason: Reason
    message: str
    checks: tuple[RiskCheck, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeUnknown:
    """A request to the venue ended without an answer."""

    at_ns: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAtVenue:
    """The venue says that it has never had this order, and it has had time enough."""

    at_ns: int
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """Somebody wants the order gone."""

    at_ns: int
    reason: Reason
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRefused:
    """The venue did not accept the cancel."""

    at_ns: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRequested:
    """Somebody wants other terms; None leaves a term as it is."""

    at_ns: int
    request_id: str
    quantity: int | None
    limit_price_e9: int | None
    stop_price_e9: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRefused:
    """The venue did not accept the new terms."""

    at_ns: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueReported:
    """The venue stated how the order stands. Reports may be repeated and may come out of order."""

    at_ns: int
    state: OrderState
    """WORKING, FILLED, CANCELED, REJECTED or EXPIRED; UNKNOWN when the venue does not know it, SUBMITTING while nobody has answered it."""
    revision: int
    """Order of the reports at the venue; 0 when the venue gives none."""
    filled_quantity: int
    reason: Reason = Reason.NONE
    message: str = ""
    venue_order_id: str | None = None
    quantity: int | None = None
    limit_price_e9: int | None = None
    stop_price_e9: int | None = None
    settlement_dispute: str = ""
    """What a person has settled and what the venue heard of it later, where these differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FillReported:
    """A part of the order was executed."""

    at_ns: int
    fill: Fill


OrderEvent = (
    OrderCreated
    | RiskApproved
    | Denied
    | OutcomeUnknown
    | NotAtVenue
    | CancelRequested
    | CancelRefused
    | ReplaceRequested
    | ReplaceRefused
    | VenueReported
    | FillReported
)

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        OrderCreated,
        RiskApproved,
        Denied,
        OutcomeUnknown,
        NotAtVenue,
        CancelRequested,
        CancelRefused,
        ReplaceRequested,
        ReplaceRefused,
        VenueReported,
        FillReported,
    )
}


def encode_event(event: OrderEvent) -> tuple[str, str]:
    """Give the kind of an event and its JSON body. Integers stay integers, enums are their names."""
    return type(event).__name__, _encode(event)


def decode_event(kind: str, body: str) -> OrderEvent:
    """Give back the event that `encode_event` wrote. Raises KeyError for a kind that this version does not know."""
    values = json.loads(body)
    if kind == OrderCreated.__name__:
        values["terms"] = terms_from_json(values["terms"])
        values["origin"] = origin_from_json(values["origin"])
    elif kind == FillReported.__name__:
        values["fill"] = fill_from_json(values["fill"])
    if "reason" in values:
        values["reason"] = Reason(values["reason"])
    if "checks" in values:
        values["checks"] = tuple(RiskCheck(**check) for check in values["checks"])
    if "state" in values:
        values["state"] = OrderState(values["state"])
    event: OrderEvent = _KINDS[kind](**values)
    return event


def encode_order(order: Order) -> str:
    """Give the JSON body of an order as it stands."""
    return _encode(order)


def decode_order(body: str) -> Order:
    """Give back the order that `encode_order` wrote."""
    values = json.loads(body)
    return Order(
        **{
            **values,
            "terms": terms_from_json(values["terms"]),
            "first_terms": None if (first := values.get("first_terms")) is None else terms_from_json(first),
            "origin": origin_from_json(values["origin"]),
            "state": OrderState(values["state"]),
            "reason": Reason(values["reason"]),
            "fill_ids": tuple(values["fill_ids"]),
            "replace_request_ids": tuple(values["replace_request_ids"]),
            "checks": tuple(RiskCheck(**check) for check in values["checks"]),
        }
    )


def encode_fill(fill: Fill) -> str:
    """Give the JSON body of a fill."""
    return _encode(fill)


def decode_fill(body: str) -> Fill:
    """Give back the fill that `encode_fill` wrote."""
    return fill_from_json(json.loads(body))


def terms_from_json(values: dict[str, Any]) -> OrderTerms:
    """Give back terms from their JSON object."""
    return OrderTerms(
        **{
            **values,
            "side": Side(values["side"]),
            "order_type": OrderType(values["order_type"]),
            "time_in_force": TimeInForce(values["time_in_force"]),
        }
    )


def origin_from_json(values: dict[str, Any]) -> Origin:
    """Give back an origin from its JSON object."""
    return Origin(**{**values, "provenance": Provenance(values["provenance"])})


def fill_from_json(values: dict[str, Any]) -> Fill:
    """Give back a fill from its JSON object."""
    return Fill(**{**values, "side": Side(values["side"]), "provenance": Provenance(values["provenance"])})


def _encode(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    """Turn what JSON does not know: a dataclass into its fields, an enum into its value."""
    if isinstance(value, enum.Enum):
        return value.value
    return {name: getattr(value, name) for name in _FIELDS[type(value)]}


_FIELDS: dict[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind))
    for kind in (Order, OrderTerms, Origin, Fill, RiskCheck, *_KINDS.values())
}
