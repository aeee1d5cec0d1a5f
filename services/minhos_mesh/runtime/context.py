"""What a service is given when it is built, and what it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import Clock, SystemClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.errors import ErrorTable
from minhos_mesh.runtime.fencing import Fence, FencedOut
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.tasks import OwnedTasks

if TYPE_CHECKING:
    import grpc


def nobody(_error: FencedOut) -> None:
    """For those who are told otherwise: each refused write raises the error."""


@dataclass(slots=True)
class ServiceContext:
    """Everything that a `bootstrap.build` may use."""

    service: str
    """Name of the service."""
    instance_id: str
    """Id of this instance."""
    config: MeshConfig
    """The configuration of the mesh, resolved."""
    paths: MeshPaths
    """The data folder."""
    clients: Clients
    """The way to other services."""
    clock: Clock = field(default_factory=SystemClock)
    """Where time comes from."""
    tasks: OwnedTasks = field(default_factory=OwnedTasks)
    """Owner of all background tasks; closed before the build context is left."""
    conditions: Conditions = field(default_factory=Conditions)
    """What makes the service less than healthy."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service begins to end."""
    fencing_token: int | None = None
    """Token of the lease under which this process owns what its service owns alone; None where none was granted."""
    on_fenced_out: Callable[[FencedOut], None] = nobody
    """Told, in any thread, that another process owns the store by now."""

    def fence(self) -> Fence:
        """The right to write to a store, one for each store that is opened."""
        return Fence(self.instance_id, self.fencing_token, self.on_fenced_out)


async def nothing() -> None:
    """Does nothing."""


@dataclass(slots=True, kw_only=True)
class ServiceParts:
    """What `bootstrap.build` yields."""

    servicers: Sequence[object]
    """Servicers of the contracts; each is checked to be whole."""
    errors: ErrorTable = field(default_factory=dict)
    """How its exceptions are told."""
    start: Callable[[], Awaitable[None]] = nothing
    """Called when the port is bound and before the service counts as ready: connect, recover, prime."""
    drain: Callable[[], Awaitable[None]] = nothing
    """Called when no unary call is in flight any more and before the server ends."""
    port: int = 0
    """Port to listen on; 0 for any."""
    handlers: Sequence[grpc.GenericRpcHandler] = ()
    """Handlers that are not of `minhos_api`, for example xDS."""
    attach: bool = True
    """Whether to hold a lease at the registry; the registry itself does not."""
    bound: Callable[[str], None] | None = None
    """Told the address once it is bound."""
