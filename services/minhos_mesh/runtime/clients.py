"""Decides how one service calls another: by contract, resolved through xDS, with the deadline that the contract names.

Retries and routes come from the registry with the resolution; only methods whose contract says so are sent again.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import grpc

from minhos_mesh.runtime import channel_options
from minhos_mesh.runtime.contracts import Contract, Method, contract, contract_of
from minhos_mesh.runtime.streams import cancelled_from_outside, cut

AGAIN_S: Final = 0.02
"""Pause before a call is made again that the other side ended with itself, where its contract makes that safe."""
BOOTSTRAP_VARIABLE: Final = "GRPC_XDS_BOOTSTRAP_CONFIG"

S = TypeVar("S")


def bootstrap_xds(registry_address: str, node_id: str, zone: str = "", others: Sequence[str] = ()) -> None:
    """Tells gRPC in this process where the control plane is. Call before the first channel; a later call changes nothing."""
    os.environ[BOOTSTRAP_VARIABLE] = bootstrap_text(registry_address, node_id, zone, others)


def bootstrap_text(registry_address: str, node_id: str, zone: str = "", others: Sequence[str] = ()) -> str:
    """The same as text, for the environment of another process, in any language.

    `others` are asked, in order, for what a client does not know yet while the first registry does not answer.
    """
    return json.dumps(
        {
            "xds_servers": [
                {
                    "server_uri": address,
                    "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3"],
                }
                for address in dict.fromkeys((registry_address, *others))
            ],
            "node": {"id": node_id, "cluster": "minhos", "locality": {"zone": zone or "local"}},
        }
    )


class Clients:
    """Channels to contracts, one per contract, opened with the first stub and closed together in reverse order.

    A channel looks for its service at once and stays connected while nobody calls, so that a first call succeeds also while
    the registry is away.
    """

    def __init__(self, targets: Mapping[str, str] | None = None, *, registry: str | None = None) -> None:
        """`targets` gives contracts fixed addresses instead of xDS; `registry` is the registry's own address."""
        self._targets = dict(targets or {})
        self._registry = registry
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stub(self, kind: Callable[[grpc.aio.Channel], S]) -> S:
        """A stub of a generated class, for example `clients.stub(RiskManagerServiceStub)`.

        Every call has the deadline of its contract unless `timeout` is given, and waits for the service when its contract
        makes retry safe, so that a restart of the other side is a delay and not an error.
        """
        name = _contract_name(kind)
        made = kind(self.channel(name))
        return cast("S", _ContractStub(made, contract(name)))

    def reaches(self, kind: Callable[[grpc.aio.Channel], S]) -> bool:
        """Whether it is known where the contract of this stub, or a registry to ask for it, is."""
        return self._registry is not None or _contract_name(kind) in self._targets

    def channel(self, contract_name: str) -> grpc.aio.Channel:
        """The channel to a contract."""
        target = self._targets.get(contract_name)
        if target is None and self._registry is not None and contract_name.startswith(_REGISTRY_PACKAGES):
            target = self._registry
        target = target or f"xds:///{contract_name}"
        channel = self._channels.get(target)
        if channel is None:
            channel = self._channels[target] = grpc.aio.insecure_channel(target, options=_options(target))
            channel.get_state(try_to_connect=True)
        return channel

    async def close(self) -> None:
        """Closes all channels, the newest first."""
        for target in reversed(list(self._channels)):
            await self._channels.pop(target).close()


def _contract_name(kind: Callable[[grpc.aio.Channel], Any]) -> str:
    module = kind.__module__.removesuffix("_pb2_grpc")
    return f"{module.rpartition('.')[0]}.{getattr(kind, '__name__', '').removesuffix('Stub')}"


_REGISTRY_PACKAGES: Final = ("minhos_api.registry.", "minhos_api.health.")

_DIRECT_CONTRACTS: Final = (
    "minhos_api.registry.v1.registry_service_pb2",
    "minhos_api.health.v1.health_monitor_service_pb2",
)
"""Modules of the contracts that are asked without xDS and hence bring their own retries."""


@functools.cache
def _direct_retry() -> str:
    """Service config that sends again what the contracts of the registry say may be sent again."""
    services = [
        service
        for module in _DIRECT_CONTRACTS
        for service in importlib.import_module(module).DESCRIPTOR.services_by_name.values()
    ]
    safe = [
        {"service": described.name, "method": method.name}
        for described in map(contract_of, services)
        for method in described.methods.values()
        if method.retry_safe and not method.request_streaming and not method.response_streaming
    ]
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": safe, "retryPolicy": policy}]})


def _options(target: str) -> channel_options.Options:
    if target.startswith("xds:"):
        return channel_options.CHANNEL
    return (*channel_options.CHANNEL, ("grpc.service_config", _direct_retry()))


class _ContractStub:
    """A stub whose calls carry the deadlines of their contract."""

    def __init__(self, stub: object, described: Contract) -> None:
        for method in described.methods.values():
            setattr(self, method.name, _call(getattr(stub, method.name), method))


def _call(multicallable: Any, method: Method) -> Any:
    default_s, waits = method.timeout_s, method.retry_safe

    async def answer(request: Any, **options: Any) -> Any:
        end = time.monotonic() + (options["timeout"] or 0.0)
        while True:
            try:
                return await multicallable(request, **options)
            except asyncio.CancelledError:
                if cancelled_from_outside():
                    raise
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    raise
            # The other side has ended and taken the call with it, which gRPC does not send again by itself.
            left = end - time.monotonic()
            if not waits or left <= AGAIN_S:
                raise cut() from None
            await asyncio.sleep(AGAIN_S)
            options["timeout"] = left - AGAIN_S

    start = multicallable if method.response_streaming or method.request_streaming else answer

    def call(
        request: Any = None, *, timeout: float | None = None, wait_for_ready: bool | None = None, **rest: Any
    ) -> Any:
        return start(
            request,
            timeout=default_s if timeout is None else timeout,
            wait_for_ready=waits if wait_for_ready is None else wait_for_ready,
            **rest,
        )

    return call
