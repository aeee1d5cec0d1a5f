"""Every call that reads, on every contract that is served, gives the same to both stubs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.contract.both_stubs.comparing import made, method_of
from tests.contract.both_stubs.conftest import Both
from tests.contract.both_stubs.serving import FILLED, SYMBOL, ServedMesh

from minhos_mesh.runtime.contracts import all_contracts

ROOT = Path(__file__).parents[3]
P = 23_500_000_000_000
READING = [
    (contract.name, method)
    for contract in all_contracts().values()
    for method in contract.methods.values()
    if method.access == "READ" and not method.request_streaming
]
UNARY = [(name, method.name) for name, method in READING if not method.response_streaming]
STREAMS = [(name, method.name) for name, method in READING if method.response_streaming]

NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    ("HealthMonitorService", "GetServiceHealth"): {"service": "trading_engine"},
    ("RegistryService", "Resolve"): {"name": "registry"},
    ("ContractService", "CheckContract"): {"descriptor_set": (ROOT / "proto" / "contracts.binpb").read_bytes()},
    ("ContractService", "GetContract"): {"name": "TradingEngine"},
    ("EventAdminService", "GetEventType"): {"type": "trade.executed"},
    ("RiskManagerService", "CalculatePositionSize"): {
        "symbol": SYMBOL, "entry_price_e9": P, "stop_price_e9": P - 10_000_000_000, "risk_amount_e9": 900_000_000_000,
    },
    ("OrderService", "GetOrder"): {"request_id": FILLED},
    ("HistoryService", "StreamHistory"): {"times": {}},
    ("InstrumentService", "GetInstrument"): {"symbol": "NQ"},
    ("InstrumentService", "ResolveSymbol"): {"symbol": "NQ"},
    ("VenueService", "GetOrder"): {"client_order_id": "{order_id}"},
}  # fmt: skip
"""What a request must hold where an empty one is refused."""


def needed(contract: str, method: str, order_id: str = "") -> dict[str, Any]:
    values = NEEDED.get((contract.rpartition(".")[2], method), {})
    return {name: order_id if value == "{order_id}" else value for name, value in values.items()}


def test_every_contract_is_served(served: ServedMesh) -> None:
    assert set(served.addresses) == set(all_contracts())


@pytest.mark.parametrize(("contract", "method"), UNARY, indirect=["contract"])
def test_an_answer_is_the_same_field_by_field(served: ServedMesh, both: Both, method: str) -> None:
    values = needed(both.contract, method, served.order_id)
    outcome = both.same(method, made(method_of(both.contract, method).input_type, values))
    assert outcome.code == "OK", outcome


@pytest.mark.parametrize(("contract", "method"), [case for case in UNARY if needed(*case)], indirect=["contract"])
def test_an_empty_request_is_refused_in_the_same_words_where_it_is_not_enough(both: Both, method: str) -> None:
    outcome = both.same(method)
    assert (outcome.code, outcome.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_INVALID_FIELD")


@pytest.mark.parametrize(("contract", "method"), STREAMS, indirect=["contract"])
def test_a_stream_begins_the_same(both: Both, method: str) -> None:
    values = needed(both.contract, method)
    outcome = both.same(method, made(method_of(both.contract, method).input_type, values))
    assert outcome.answer, "a stream begins with something"
