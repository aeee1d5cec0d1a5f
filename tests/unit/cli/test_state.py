"""What may be typed for a key of the state, and what is said about the rest."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor

from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.state import KEYS, MEANINGS, parse


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("trading_enabled", "true", True),
        ("auto_trade_enabled", "Off", False),
        ("risk_enabled", "YES", True),
        ("auto_threshold", "0.5", 0.5),
        ("auto_threshold", "1", 1.0),
        ("order_quantity", "1", 1),
        ("order_quantity", "100000", 100_000),
    ],
)
def test_value_is_read_by_its_key(key: str, text: str, value: object) -> None:
    read = parse(key, text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "text", "parts"),
    [
        ("trading_enabled", "maybe", ["trading_enabled is 'maybe'", "true and false"]),
        ("risk_enabled", "1", ["risk_enabled is '1'", "true and false"]),
        ("auto_threshold", "high", ["auto_threshold is 'high'", "0.5 to 1"]),
        ("auto_threshold", "0.49", ["auto_threshold is 0.49", "0.5 to 1"]),
        ("auto_threshold", "1.01", ["0.5 to 1"]),
        ("auto_threshold", "nan", ["auto_threshold is nan", "0.5 to 1"]),
        ("auto_threshold", "inf", ["0.5 to 1"]),
        ("order_quantity", "0", ["order_quantity is '0'", "1 to 100000"]),
        ("order_quantity", "-1", ["order_quantity is '-1'"]),
        ("order_quantity", "1.5", ["order_quantity is '1.5'", "whole number"]),
        ("order_quantity", "100001", ["1 to 100000"]),
        ("order_quantity", "9" * 5000, ["1 to 100000"]),
        ("trading_enable", "true", ["'trading_enable' is no key", "was trading_enabled meant?"]),
        ("system_state", "ONLINE", ["'system_state' is no key", "order_quantity"]),
        ("version", "1", ["'version' is no key"]),
    ],
)
def test_what_cannot_be_set_is_told_with_what_can(key: str, text: str, parts: list[str]) -> None:
    with pytest.raises(CommandFailed) as caught:
        parse(key, text)
    assert all(part in str(caught.value) for part in parts)


def test_every_key_is_a_field_of_the_state_and_has_its_meaning() -> None:
    assert KEYS.keys() == MEANINGS.keys()
    assert KEYS.keys() <= set(pb.State.DESCRIPTOR.fields_by_name)
    switches = [
        name for name, field in pb.State.DESCRIPTOR.fields_by_name.items() if field.type == FieldDescriptor.TYPE_BOOL
    ]
    assert set(switches) <= KEYS.keys()
