"""A DTC server that will never serve what is configured: which setting is wrong is told at once, and who waits is told so."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.sierra.dtc_server import REAL, Server, reaches, write_file
from tests.contract.sierra.sierra_mesh import SYMBOL, Mesh, config
from tests.waiting import eventually

from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_mesh.cli.start import HOPELESS
from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.registry.domain.actions import ACTIONS
from minhos_mesh.sierra_client.dtc_view import PROBLEMS
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings


def trading(server: Server, **sections: Any) -> Any:
    return config(
        **{
            "engine": {"venue": "sierra_client"},
            **sections,
            "dtc": {"port": server.dtc.port, **sections.get("dtc", {})},
        }
    )


OTHER_NAME: dict[str, Any] = {"symbol": "{contract}X-{exchange}"}


@pytest.mark.parametrize(
    ("session", "sections", "code", "says"),
    [
        (ServerSettings(), {"dtc": OTHER_NAME}, "DTC_SYMBOL_UNKNOWN", f"{SYMBOL}, asked for as NQZ26X-CME"),
        (ServerSettings(), {"dtc": {"trade_account": "Sim9"}}, "DTC_NOT_LET_IN", "'Sim9' is not at the server: it has ['Sim1']"),
        (ServerSettings(username="me", password="x"), {}, "DTC_NOT_LET_IN", "Username or password is not right"),
        (ServerSettings(trading=False), {}, "DTC_TRADING_REFUSED", "Allow Trading"),
    ],
)  # fmt: skip
async def test_server_that_never_serves_what_is_configured_is_told_at_once_and_ends_the_waiting(
    mesh: Mesh, server: Server, session: ServerSettings, sections: dict[str, Any], code: str, says: str
) -> None:
    await server.start(DtcServerSettings(session=session))
    write_file(mesh)
    await mesh.start_client(trading(server, **sections))
    told = await eventually(lambda: mesh.context.conditions.held().get(code), f"{code} is told")
    assert says in told
    assert f"127.0.0.1:{server.dtc.port}" in told
    assert code in HOPELESS
    assert {code, *PROBLEMS} <= set(ACTIONS)


async def test_unknown_symbol_is_a_fault_only_where_something_is_wanted_of_it(mesh: Mesh, server: Server) -> None:
    await server.start(DtcServerSettings(session=REAL))
    write_file(mesh)
    await mesh.start_client(server.config(data=False, **OTHER_NAME))
    dtc = await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
    assert list(dtc.unknown_symbols) == [SYMBOL]
    assert "DTC_SYMBOL_UNKNOWN" not in mesh.context.conditions.held(), (
        "its prices come from the file, orders go elsewhere"
    )
    await mesh.stop_client()
    await mesh.start_client(server.config(data=False, client={"provenance": "LIVE"}, **OTHER_NAME))
    await eventually(
        lambda: "DTC_SYMBOL_UNKNOWN" in mesh.context.conditions.held(), "LIVE needs the server's word on it"
    )
    await mesh.stop_client()
    await mesh.start_client(server.config(**OTHER_NAME))
    await eventually(lambda: "DTC_SYMBOL_UNKNOWN" in mesh.context.conditions.held(), "its ticks are asked for")


async def test_refusal_ends_when_the_server_lets_us_in(mesh: Mesh, server: Server) -> None:
    await server.start(DtcServerSettings(accounts=("Sim2",)))
    port = server.dtc.port
    write_file(mesh)
    await mesh.start_client(trading(server, dtc={"trade_account": "Sim9"}))
    await eventually(lambda: "DTC_NOT_LET_IN" in mesh.context.conditions.held(), "the refusal")
    await server.dtc.close()
    await server.start(DtcServerSettings(accounts=("Sim9",)), port)
    await eventually(lambda: not mesh.context.conditions.held(), "we are let in", 20.0)
