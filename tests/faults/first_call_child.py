"""A client that makes its stub at once and its first call only when it is told to.

Usage: first_call_child.py REGISTRY. It writes a line when it is connected to the bus; for each line on standard input it then
calls once and writes how the call ended. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys

import grpc

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_mesh.runtime.clients import Clients, bootstrap_xds
from minhos_mesh.runtime.log import configure


async def main(registry: str) -> None:
    configure("first_call", "first_call", None)  # standard output is for the answers
    bootstrap_xds(registry, "first-call")
    clients = Clients(registry=registry)
    stub = clients.stub(EventBusServiceStub)
    channel = clients.channel("minhos_api.events.v1.EventBusService")
    async with asyncio.timeout(20):
        while (state := channel.get_state()) is not grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)
    print("connected", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        try:
            await stub.ListEvents(pb.ListEventsRequest(page_size=1))
            print("answered", flush=True)
        except grpc.aio.AioRpcError as error:
            print(f"{error.code().name}: {error.details()}", flush=True)
    await clients.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
