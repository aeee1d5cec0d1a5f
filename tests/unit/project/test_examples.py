"""What the examples in Python say at an address where no market data is: one sentence and exit code 1, no traceback."""

from __future__ import annotations

import runpy
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """Address of a server that knows nothing of market data."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """Address at which nobody listens, and nobody else begins to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def said(example: Path, *arguments: str) -> str:
    """What an example ends with; a text in place of a code is printed, and is exit code 1."""
    before, sys.argv = sys.argv, [str(example), *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(example), run_name="__main__")
    finally:
        sys.argv = before
    assert isinstance(ended.value.code, str)
    return ended.value.code


def test_both_examples_are_looked_at() -> None:
    assert [path.name for path in EXAMPLES] == ["price_betterproto.py", "price_grpcio.py"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("where", ["nobody", "stranger", "nonsense", ""])
def test_wrong_address_is_one_sentence_that_names_it_and_what_to_do(
    request: pytest.FixtureRequest, example: Path, where: str
) -> None:
    address = request.getfixturevalue(where) if where in {"nobody", "stranger"} else where
    text = said(example, *([address] if address else []))
    assert text.startswith(f"no price from {address or 'nowhere'}, ")
    assert text.endswith(": `minhos ports market_data` prints the address")
    assert "\n" not in text
