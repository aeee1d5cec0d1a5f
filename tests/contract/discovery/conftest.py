"""A control plane and backends in this process, and stock xDS clients in their own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.waiting import eventually

from minhos_mesh.registry.ads import AggregatedDiscovery
from minhos_mesh.registry.ads_stream import Withheld
from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import Known, Present
from minhos_mesh.registry.domain.health import Serving
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.routes import RouteRule
from minhos_mesh.registry.domain.routing import TrafficPolicy, routing_view
from minhos_mesh.registry.envoy import ADS_METHOD, ADS_SERVICE, EnvoyMessages
from minhos_mesh.registry.xds_resources import ResourceBuilder, Resources
from minhos_mesh.runtime import channel_options

HERE = Path(__file__).parent
CONTRACT = "test.v1.EchoService"
GET, PUT, SLOW = (f"/{CONTRACT}/{name}" for name in ("Get", "Put", "Slow"))
"""Safe to repeat; not safe; answered when the backend is let go."""
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class Backend:
    """Serves every method of every contract with its own name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.failure: grpc.StatusCode | None = None
        """What every call ends with; None when they succeed."""
        self.pause_s = 0.0
        self.let_go = asyncio.Event()
        self.entered = asyncio.Event()

    async def start(self) -> None:
        self.server = grpc.aio.server(options=channel_options.SERVER)
        self.server.add_generic_rpc_handlers((_Everything(self),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()

    async def answer(self, path: str, context: Any) -> bytes:
        self.calls += 1
        if self.failure is not None:
            await context.abort(self.failure, f"{self.name} fails")
        if path == SLOW:
            self.entered.set()
            await self.let_go.wait()
        elif self.pause_s:
            await asyncio.sleep(self.pause_s)
        # In the trailer: headers that go ahead of the answer would commit the call and end its right to a retry.
        context.set_trailing_metadata((("served-by", self.name),))
        return b""


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def behaviour(_request: bytes, context: Any) -> bytes:
            return await self._backend.answer(str(details.method), context)

        return grpc.unary_unary_rpc_method_handler(behaviour, None, None)


class Plane:
    """A control plane over backends that a test describes."""

    def __init__(self, policy: TrafficPolicy | None = None) -> None:
        self.messages = EnvoyMessages.from_file()
        self.withheld: Mapping[str, tuple[Withheld, ...]] = {}
        self.discovery = AggregatedDiscovery(self.messages, generation="g", on_withheld=self._note_withheld)
        self.policy = policy or TrafficPolicy()
        self.backends: dict[str, Backend] = {}
        self.instances: dict[str, Present] = {}
        self.rules: dict[str, RouteRule] = {}
        self.twist: Callable[[Resources], Resources] = lambda resources: resources
        """Puts something else into what is told."""
        self._callers: list[subprocess.Popen[str]] = []

    def _note_withheld(self, withheld: Mapping[str, tuple[Withheld, ...]]) -> None:
        self.withheld = withheld

    async def start(self) -> None:
        self.server = grpc.aio.server(options=channel_options.SERVER)
        self.server.add_generic_rpc_handlers((self.discovery.handler(),))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()
        self.publish()
        self.discovery.open()

    async def stop(self) -> None:
        for process in self._callers:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        self.discovery.close()
        for backend in self.backends.values():
            backend.let_go.set()
            await backend.server.stop(0)
        await self.server.stop(0)

    async def add(self, name: str, version: str = "v1", *, publish: bool = True, **changes: Any) -> Backend:
        """A backend that serves, as instance `echo/name`."""
        backend = self.backends[name] = Backend(name)
        await backend.start()
        self.instances[name] = Present(
            key=InstanceKey("echo", name),
            host="127.0.0.1",
            port=backend.port,
            contracts=(CONTRACT,),
            lease_id="l",
            token=1,
            version=version,
            attached_ns=0,
            serving=Serving.SERVING,
            ever_ready=True,
            **changes,
        )
        if publish:
            self.publish()
        return backend

    def change(self, name: str, **changes: Any) -> None:
        self.instances[name] = replace(self.instances[name], **changes)
        self.publish()

    def remove(self, name: str) -> None:
        del self.instances[name]
        self.publish()

    def route(self, rule: RouteRule | None) -> None:
        self.rules = {} if rule is None else {CONTRACT: rule}
        self.publish()

    def publish(self) -> None:
        shape = ContractShape(CONTRACT, {}, ("Get",))
        known = [Known("echo", (CONTRACT,), wanted=bool(self.instances))]
        view = routing_view({CONTRACT: shape}, known, self.instances.values(), 0.0, self.rules)
        builder = ResourceBuilder(self.messages, self.policy)
        self.discovery.publish(lambda zone: self.twist(builder.build(view, zone)), view.zones())

    async def caller(self, zone: str = "local") -> Caller:
        process = _caller_process(self.address, zone)
        self._callers.append(process)
        client = Caller(process)
        await client.read()
        return client


def _caller_process(address: str, zone: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "caller.py"), address, zone],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )


class Caller:
    """A stock client in its own process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    async def read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(await asyncio.to_thread(self.process.stdout.readline))

    async def ask(self, op: str, **given: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **given}) + "\n")
        self.process.stdin.flush()
        return await self.read()

    async def count(self, n: int, path: str = GET, **given: Any) -> dict[str, int]:
        found = await self.ask("count", path=path, n=n, **given)
        assert isinstance(found, dict)
        return found


class Stream:
    """A discovery stream written by hand."""

    def __init__(self, plane: Plane) -> None:
        self._messages = plane.messages
        self._channel = grpc.aio.insecure_channel(plane.address, options=OWN_CONNECTION)
        self.call: Any = self._channel.stream_stream(
            f"/{ADS_SERVICE}/{ADS_METHOD}", None, plane.messages.discovery_response.FromString
        )()

    async def ask(
        self,
        type_url: str,
        *names: str,
        to: Any = None,
        error: str | None = None,
        node: str = "by-hand",
        zone: str = "",
    ) -> None:
        fields: dict[str, Any] = {
            "type_url": type_url,
            "resource_names": names,
            "node": {"id": node, "locality": {"zone": zone}},
        }
        if to is not None:
            fields.update(response_nonce=to.nonce, version_info="" if error else to.version_info)
        if error is not None:
            fields["error_detail"] = {"code": 3, "message": error}
        await self.call.write(self._messages.discovery_request(**fields).SerializeToString())

    async def heard(self, within_s: float = 5.0) -> Any:
        async with asyncio.timeout(within_s):
            return await self.call.read()

    async def ended(self, within_s: float = 5.0) -> grpc.aio.AioRpcError:
        """How the other side ends it, whatever it says before."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(within_s):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
        return caught.value

    async def close(self) -> None:
        self.call.cancel()
        await self._channel.close()


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    made = Plane()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def plane_with() -> AsyncIterator[Callable[..., Any]]:
    made: list[Plane] = []

    async def start(**policy: Any) -> Plane:
        made.append(Plane(TrafficPolicy(**policy)))
        await made[-1].start()
        return made[-1]

    yield start
    for each in made:
        await each.stop()


@pytest.fixture
async def new_stream(plane: Plane) -> AsyncIterator[Callable[[], Stream]]:
    streams: list[Stream] = []

    def new() -> Stream:
        streams.append(Stream(plane))
        return streams[-1]

    yield new
    for stream in streams:
        await stream.close()


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return eventually
