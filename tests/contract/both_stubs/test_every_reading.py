"""Every call that reads, on every contract, gives the same to both stubs."""

from __future__ import annotations

import pytest
from tests.contract.both_stubs.conftest import Both

from minhos_mesh.runtime.contracts import Method, all_contracts

READING = [
    (contract.name, method)
    for contract in all_contracts().values()
    for method in contract.methods.values()
    if method.access == "READ" and not method.request_streaming
]
UNARY = [(name, method.name) for name, method in READING if not method.response_streaming]
STREAMS = [(name, method.name) for name, method in READING if method.response_streaming]


@pytest.mark.parametrize(("contract", "method"), UNARY, indirect=["contract"])
def test_x(both: Both, method: str) -> None:
    o = both.same(method)
    print(both.contract, method, o)

@pytest.mark.parametrize(("contract", "method"), STREAMS, indirect=["contract"])
def test_y(both: Both, method: str) -> None:
    o = both.same(method)
    print(both.contract, method, o)
