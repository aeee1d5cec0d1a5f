"""What a person finds in the log and in GetStatus when the DTC server or a data file comes, goes or becomes another."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs
from tests.contract.sierra.dtc_server import Server, reaches, write_file
from tests.contract.sierra.sierra_mesh import SYMBOL, Mesh, made
from tests.waiting import eventually

from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings


def of(logs: list[Any], event: str) -> list[str]:
    return [line["reason"] for line in logs if line["event"] == event]


async def test_connection_that_is_cut_stays_away_and_comes_back_has_one_line_for_each_change(
    mesh: Mesh, server: Server
) -> None:
    await server.start()
    port = server.dtc.port
    configuration = server.config(data=False)
    write_file(mesh)
    with capture_logs() as logs:
        await mesh.start_client(configuration)
        await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
        server.dtc.cut_all()
        await eventually(lambda: len(of(logs, "dtc.lost")) == 1, "the cut is told")
        await eventually(lambda: sum(line["event"] == "dtc.connected" for line in logs) == 2, "and the reconnect")
        await server.dtc.close()
        await eventually(lambda: len(of(logs, "dtc.away")) == 1, "the server is away")
        await server.start(port=port)
        await eventually(lambda: sum(line["event"] == "dtc.connected" for line in logs) == 3, "it is back")
    assert of(logs, "dtc.lost")[1:] == ["the simulator stops"]
    assert all(f"127.0.0.1:{port} cannot be reached" in reason for reason in of(logs, "dtc.away"))
    assert len(of(logs, "dtc.away")) == 1
    connected = [line for line in logs if line["event"] == "dtc.connected"]
    assert [line["connects"] for line in connected] == sorted({line["connects"] for line in connected})
    assert {(line["account"], line["encoding"]) for line in connected} == {("Sim1", "JSON")}


async def test_data_that_the_server_refuses_is_logged_once(mesh: Mesh, server: Server) -> None:
    await server.start(DtcServerSettings(refused_exchanges=frozenset({"CME"})))
    write_file(mesh)
    with capture_logs() as logs:
        await mesh.start_client(server.config())
        await eventually(lambda: len(of(logs, "dtc.data_refused")) == 1, "the refusal is told")
        server.dtc.cut_all()
        await eventually(lambda: sum(line["event"] == "dtc.connected" for line in logs) == 2, "it is asked again")
        await eventually(lambda: len(mesh.market.newest) == 3, "the file is read")
    assert of(logs, "dtc.data_refused") == ["Data of this exchange is not permitted over DTC"]
    assert [line["symbol"] for line in logs if line["event"] == "dtc.data_refused"] == [SYMBOL]


async def test_file_that_another_takes_the_place_of_is_told_in_the_status(mesh: Mesh) -> None:
    ScidWriter.create(mesh.file, made(5)).close()
    await mesh.start_client()
    await eventually(lambda: len(mesh.market.newest) == 5, "the first file")
    assert (await mesh.feed()).generation_reason == ""
    other = mesh.file.with_suffix(".new")
    ScidWriter.create(other, made(3, 50)).close()
    other.replace(mesh.file)
    await eventually(lambda: len(mesh.market.newest) == 3, "the other one")
    assert (await mesh.feed()).generation_reason == f"{mesh.file} was replaced by another file"
