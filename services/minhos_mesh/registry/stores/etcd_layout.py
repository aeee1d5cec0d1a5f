"""Decides which keys the registries of a mesh share in etcd, and what stands under each.

Below the prefix: `floor` (what is added to a revision to make a fencing token), `members/NAME` (goes with its
registry's lease), `tokens/SERVICE/INSTANCE` (written at each grant, so that the revision of that write is the token),
`instances/SERVICE/INSTANCE`, `services/NAME`, and `documents/KIND/NAME`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.store import Departure, HeldElsewhere, InstanceRecord, InstanceReport, Member
from minhos_mesh.registry.stores.records import needs_text, read_needs, read_report, report_value

MEMBERS: Final = "members"
TOKENS: Final = "tokens"
INSTANCES: Final = "instances"
SERVICES: Final = "services"
DOCUMENTS: Final = "documents"


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one mesh."""

    prefix: bytes
    """Ends in a slash."""

    @property
    def floor(self) -> bytes:
        """Key of the floor."""
        return self.prefix + b"floor"

    def member(self, name: str) -> bytes:
        """Key of a registry."""
        return self._key(MEMBERS, name)

    def token(self, key: InstanceKey) -> bytes:
        """Key of the last token of an instance."""
        return self._key(TOKENS, key.service, key.instance_id)

    def instance(self, key: InstanceKey) -> bytes:
        """Key of an attached instance."""
        return self._key(INSTANCES, key.service, key.instance_id)

    def instances_of(self, service: str) -> bytes:
        """What the keys of all attached instances of a service begin with."""
        return self._key(INSTANCES, service, "")

    def service(self, name: str) -> bytes:
        """Key of what a service serves and needs."""
        return self._key(SERVICES, name)

    def document(self, kind: str, name: str) -> bytes:
        """Key of a document."""
        return self._key(DOCUMENTS, kind, name)

    def parts(self, key: bytes) -> tuple[str, ...]:
        """The parts of a key below the prefix; the last one may itself hold slashes."""
        kind, _, rest = key[len(self.prefix) :].decode().partition("/")
        if kind in (TOKENS, INSTANCES, DOCUMENTS):
            first, _, last = rest.partition("/")
            return (kind, first, last)
        return (kind, rest) if rest else (kind,)

    def _key(self, *parts: str) -> bytes:
        return self.prefix + "/".join(parts).encode()


def member_value(address: str) -> bytes:
    """What stands under a registry."""
    return json.dumps({"address": address}).encode()


def read_member(name: str, value: bytes) -> Member:
    """What `member_value` wrote."""
    return Member(name, str(json.loads(value)["address"]))


def granted_value(floor: int) -> bytes:
    """What stands under a token when it is granted: the token is this floor and the revision of the write."""
    return json.dumps({"floor": floor}).encode()


def departed_value(token: int, departure: Departure) -> bytes:
    """What stands under the token of an instance that is gone."""
    return json.dumps({"token": token, "in_order": departure.in_order, "how": departure.how}).encode()


def read_token(value: bytes, revision: int) -> tuple[int, Departure]:
    """The token, and how its instance went if it did."""
    told = json.loads(value)
    token = int(told["token"]) if "token" in told else int(told["floor"]) + revision
    return token, Departure(bool(told.get("in_order", True)), str(told.get("how", "")))


def service_value(contracts: tuple[str, ...], needs: tuple[Need, ...]) -> bytes:
    """What stands under a service."""
    return json.dumps({"contracts": contracts, "needs": needs_text(needs)}).encode()


def read_service(value: bytes) -> tuple[tuple[str, ...], tuple[Need, ...]]:
    """What `service_value` wrote."""
    told = json.loads(value)
    return tuple(told["contracts"]), read_needs(told["needs"])


def instance_value(held: HeldElsewhere, *, floor: int | None) -> bytes:
    """What stands under an instance; with a floor its token is made by this write, as `granted_value` says."""
    record = held.record
    told: dict[str, Any] = {
        "holder": held.holder,
        "lease": record.lease_id,
        "host": record.host,
        "port": record.port,
        "contracts": record.contracts,
        "version": record.version,
        "attached_ns": record.attached_ns,
        "needs": needs_text(record.needs),
        "pid": record.pid,
        "started": record.process_started,
        "ready": record.ever_ready,
        "zone": record.zone,
        "priority": record.priority,
        "versions": dict(record.versions),
        "built": record.built,
        "report": report_value(held.report),
    }
    told |= {"token": record.token} if floor is None else {"floor": floor}
    return json.dumps(told).encode()


def read_instance(key: InstanceKey, value: bytes, revision: int) -> HeldElsewhere:
    """What `instance_value` wrote."""
    told = json.loads(value)
    record = InstanceRecord(
        key=key,
        lease_id=str(told["lease"]),
        token=int(told["token"]) if "token" in told else int(told["floor"]) + revision,
        host=str(told["host"]),
        port=int(told["port"]),
        contracts=tuple(told["contracts"]),
        version=str(told["version"]),
        attached_ns=int(told["attached_ns"]),
        needs=read_needs(told["needs"]),
        pid=told["pid"],
        process_started=told["started"],
        ever_ready=bool(told["ready"]),
        zone=str(told["zone"]),
        priority=int(told["priority"]),
        versions=told["versions"],
        built=str(told.get("built", "")),
    )
    return HeldElsewhere(record, str(told["holder"]), read_report(told["report"]))


def with_token(held: HeldElsewhere, token: int) -> HeldElsewhere:
    """The same under a token."""
    return replace(held, record=replace(held.record, token=token))


def unreported(record: InstanceRecord, holder: str) -> HeldElsewhere:
    """An instance that has said nothing yet."""
    return HeldElsewhere(record, holder, InstanceReport())
