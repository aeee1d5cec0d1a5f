"""Decides how the registry's messages and its own values are turned into each other."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from google.protobuf import descriptor_pb2, duration_pb2
from google.protobuf.message import Message

from minhos_api.health.v1 import health_events_pb2, resource_use_pb2, service_health_pb2
from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_api.registry.v1 import registry_events_pb2
from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_mesh.compatibility.descriptors import ContractSet, DescriptorsInvalid, resolve
from minhos_mesh.registry.attach_limits import MAX_BEAT_BYTES, MAX_NEEDS, TooMuch
from minhos_mesh.registry.attach_session import MessageOutOfPlace
from minhos_mesh.registry.attachment import Answer, Beat, Claim, DrainCommand, Goodbye, Granted, Said
from minhos_mesh.registry.domain.contract_gate import ContractShape, MethodShape
from minhos_mesh.registry.domain.directory import Present, Rotation, provider_names
from minhos_mesh.registry.domain.graph import Graph
from minhos_mesh.registry.domain.health import (
    Assessment,
    Condition,
    Reason,
    State,
    assess_instance,
    suggested_action,
)
from minhos_mesh.registry.domain.history import HealthChange
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.resources import ResourceUse
from minhos_mesh.registry.outbox import Fact
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.views import ServiceView
from minhos_mesh.runtime.wire_time import timestamp

_SAFE: Final = (descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS, descriptor_pb2.MethodOptions.IDEMPOTENT)
MAX_CONDITIONS: Final = 32
"""Conditions of one instance that are told on; further ones are cut."""
MAX_CODE: Final = 64
MAX_SENTENCE: Final = 500
"""Characters of a condition's code and sentence that are told on."""


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a message."""
    whole = round(seconds * 1e9)
    return duration_pb2.Duration(seconds=whole // 10**9, nanos=whole % 10**9)


# What instances say.


def said_from(request: pb.AttachRequest) -> Said:
    """One message of an attach stream. Raises MessageOutOfPlace when a field of the hello cannot be used."""
    match request.WhichOneof("message"):
        case "hello":
            return claim_from(request.hello)
        case "heartbeat":
            beat = request.heartbeat
            if request.ByteSize() > MAX_BEAT_BYTES:
                raise TooMuch("bytes of a heartbeat", request.ByteSize(), MAX_BEAT_BYTES)
            told = sorted(beat.conditions.items())[:MAX_CONDITIONS]
            conditions = tuple(Condition(code[:MAX_CODE], text[:MAX_SENTENCE]) for code, text in told)
            return Beat(beat.serving, conditions, beat.internal_errors, beat.calls_in_flight)
        case "goodbye":
            return Goodbye(request.goodbye.reason[:MAX_SENTENCE])
        case _:
            raise MessageOutOfPlace("message", "unset", "hello, heartbeat or goodbye")


def claim_from(hello: pb.AttachHello) -> Claim:
    """The claim of an instance. Raises MessageOutOfPlace naming the field that cannot be used."""
    host, port = _address(hello.address)
    if len(hello.depends_on) > MAX_NEEDS:
        raise TooMuch("contracts that a hello needs", len(hello.depends_on), MAX_NEEDS)
    if not hello.contracts:
        raise MessageOutOfPlace("hello.contracts", "empty", "at least one contract")
    built = _built(hello.descriptor_set)
    needs = [_need(dependency) for dependency in hello.depends_on] or _default_needs(built, set(hello.contracts))
    return Claim(
        key=InstanceKey(hello.service, hello.instance_id),
        host=host,
        port=port,
        contracts=tuple(sorted(hello.contracts)),
        offered=shapes_of(built),
        needs=tuple(needs),
        version=hello.version,
        versions=_versions(hello.versions),
        zone=hello.zone,
        priority=hello.priority,
        pid=hello.pid or None,
        presented=hello.fencing_token if hello.HasField("fencing_token") else None,
        single_owner=hello.single_owner,
        store_token=hello.store_token,
        built=built,
    )


def _versions(told: Mapping[str, str]) -> dict[str, str]:
    """What is shown of the versions that an instance tells; a hostile one may tell a lot."""
    return {name[:MAX_CODE]: text[:MAX_CODE] for name, text in sorted(told.items())[:MAX_CONDITIONS]}


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    allowed = "an address of the loopback with a port, for example 127.0.0.1:40112"
    try:
        address, number = ip_address(host.strip("[]")), int(port)
    except ValueError:
        raise MessageOutOfPlace("hello.address", text, allowed) from None
    if not address.is_loopback or not 0 < number < 65536:
        raise MessageOutOfPlace("hello.address", text, allowed)
    return str(address), number


def _built(descriptor_set: bytes) -> ContractSet:
    try:
        built = resolve(descriptor_set)
    except DescriptorsInvalid as error:
        raise MessageOutOfPlace("hello.descriptor_set", error.seen, error.allowed) from None
    if not built.services:
        allowed = "the contracts that are claimed with their imports"
        raise MessageOutOfPlace("hello.descriptor_set", f"{len(descriptor_set)} bytes without a service", allowed)
    return built


def shapes_of(built: ContractSet) -> Mapping[str, ContractShape]:
    """The contracts of a descriptor set by full name."""
    return {
        name: ContractShape(
            name,
            {method.name: _method_shape(method) for method in service.proto.method},
            tuple(sorted(m.name for m in service.proto.method if m.options.idempotency_level in _SAFE)),
        )
        for name, service in built.symbols.services.items()
    }


def _method_shape(method: descriptor_pb2.MethodDescriptorProto) -> MethodShape:
    request, response = method.input_type.lstrip("."), method.output_type.lstrip(".")
    return MethodShape(request, response, method.client_streaming, method.server_streaming)


def _default_needs(built: ContractSet, claimed: set[str]) -> list[Need]:
    found: dict[str, Need] = {}
    for name, service in built.symbols.services.items():
        if name not in claimed:
            continue
        for dependency in service.proto.options.Extensions[options.contract].depends_on:
            need = _need(dependency)
            if need.contract not in found or found[need.contract].optional:
                found[need.contract] = need
    return list(found.values())


def _need(dependency: options.Dependency) -> Need:
    return Need(dependency.contract, dependency.kind == options.DEPENDENCY_KIND_OPTIONAL)


def answer_to(answer: Answer) -> pb.AttachResponse:
    """One message to an instance."""
    if isinstance(answer, Granted):
        granted = pb.AttachGranted(
            lease_id=answer.lease_id,
            fencing_token=answer.token,
            time_to_live=duration(answer.time_to_live),
            heartbeat_interval=duration(answer.heartbeat_seconds),
        )
        return pb.AttachResponse(granted=granted)
    if isinstance(answer, DrainCommand):
        command = pb.AttachCommand(action=pb.AttachCommand.ACTION_DRAIN, reason=answer.reason)
        return pb.AttachResponse(command=command)
    return pb.AttachResponse(beat=pb.AttachBeat(expire_time=timestamp(answer.expires_ns)))


# What readers are told.


def state_to(state: State) -> service_health_pb2.ServiceState.ValueType:
    """The contract's value of a state."""
    return service_health_pb2.ServiceState.Value(f"SERVICE_STATE_{state.value}")


def service_to(view: ServiceView) -> pb.Service:
    """One service."""
    known, instances = view.known, [p for p in view.instances if not p.gone]
    service = pb.Service(
        name=known.name,
        state=state_to(view.assessment.state),
        reasons=[reason.text for reason in _told_reasons(view.assessment)],
        instances=[instance_to(present, view.uses) for present in instances],
        contracts=known.contracts,
        depends_on=[dependency_to(need) for need in known.needs if need.provider is None],
        depends_on_services=provider_names(view.requirements),
        errors=view.errors,
        restarts=known.restarts,
    )
    if instances:
        service.start_time.CopyFrom(timestamp(min(present.since_ns for present in instances)))
    return service


def instance_to(present: Present, uses: Mapping[int, ResourceUse]) -> pb.Instance:
    """One instance, with what its process uses where that is known."""
    use = _use_of(present, uses)
    instance = pb.Instance(
        instance_id=present.key.instance_id,
        service=present.key.service,
        address=present.address,
        pid=present.pid,
        in_rotation=present.rotation() is Rotation.IN,
        version=present.version,
        fencing_token=present.token,
        attach_time=timestamp(present.attached_ns),
        versions=present.versions,
        memory_bytes=None if use is None else use.pss_bytes,
        cpu_seconds=None if use is None else use.cpu_seconds,
        use=None if use is None else use_to(use),
        start_time=timestamp(present.since_ns),
    )
    if present.heartbeat_ns is not None:
        instance.heartbeat_time.CopyFrom(timestamp(present.heartbeat_ns))
    return instance


def use_to(use: ResourceUse) -> resource_use_pb2.ResourceUse:
    """What a process uses."""
    return resource_use_pb2.ResourceUse(
        cpu_percent=use.cpu_percent,
        cpu_seconds=use.cpu_seconds,
        pss_bytes=use.pss_bytes,
        rss_bytes=use.rss_bytes,
        open_files=use.open_files,
        threads=use.threads,
        sample_time=timestamp(use.sampled_ns),
    )


def _use_of(present: Present, uses: Mapping[int, ResourceUse]) -> ResourceUse | None:
    return None if present.pid is None or present.gone else uses.get(present.pid)


def dependency_to(need: Need) -> options.Dependency:
    """One need."""
    return options.Dependency(contract=need.contract, kind=kind_to(optional=need.optional))


def kind_to(*, optional: bool) -> options.DependencyKind.ValueType:
    """The contract's value of how much something is needed."""
    return options.DEPENDENCY_KIND_OPTIONAL if optional else options.DEPENDENCY_KIND_REQUIRED


def health_to(view: ServiceView) -> service_health_pb2.ServiceHealth:
    """The health of one service."""
    beats = [present.heartbeat_ns for present in view.instances if present.heartbeat_ns is not None]
    began = [present.since_ns for present in view.instances if not present.gone]
    name, told = view.known.name, _told_reasons(view.assessment)
    health = service_health_pb2.ServiceHealth(
        service=name,
        state=state_to(view.assessment.state),
        reasons=_reasons_to(view.assessment, name),
        dependencies={name: state_to(state) for name, state in view.states.items()},
        errors=view.errors,
        restarts=view.known.restarts,
        suggested_action=suggested_action(told[0], name) if told else "",
        wanted_instances=view.known.wanted_instances,
        instances=[instance_health_to(present, view) for present in view.instances],
    )
    if began:
        health.start_time.CopyFrom(timestamp(min(began)))
    if beats:
        health.heartbeat_time.CopyFrom(timestamp(max(beats)))
    if view.state_since_ns is not None:
        health.state_time.CopyFrom(timestamp(view.state_since_ns))
    return health


def instance_health_to(present: Present, view: ServiceView) -> service_health_pb2.InstanceHealth:
    """The health of one instance of a view."""
    assessment, use = assess_instance(present.facts(view.now)), _use_of(present, view.uses)
    health = service_health_pb2.InstanceHealth(
        instance_id=present.key.instance_id,
        state=state_to(assessment.state),
        reasons=_reasons_to(assessment, present.key.service),
        in_rotation=present.rotation() is Rotation.IN,
        start_time=timestamp(present.since_ns),
        calls_in_flight=present.calls_in_flight,
        internal_errors=present.internal_errors,
        use=None if use is None else use_to(use),
    )
    if present.heartbeat_ns is not None:
        health.heartbeat_time.CopyFrom(timestamp(present.heartbeat_ns))
    return health


def change_to(change: HealthChange) -> service_health_pb2.HealthChange:
    """One change of health."""
    return service_health_pb2.HealthChange(
        service=change.service,
        old_state=state_to(change.before),
        new_state=state_to(change.after.state),
        reasons=_reasons_to(change.after, change.service),
        change_time=timestamp(change.time_ns),
        revision=change.revision,
    )


def _reasons_to(assessment: Assessment, service: str) -> list[service_health_pb2.HealthReason]:
    return [
        service_health_pb2.HealthReason(code=reason.code, message=reason.text, action=suggested_action(reason, service))
        for reason in _told_reasons(assessment)
    ]


def _told_reasons(assessment: Assessment) -> tuple[Reason, ...]:
    return assessment.reasons if assessment.state is not State.HEALTHY else ()


def graph_to(views: Mapping[str, ServiceView], graph: Graph) -> pb.GetDependencyGraphResponse:
    """Who needs whom."""
    nodes = [
        pb.ServiceNode(
            name=name,
            state=state_to(view.assessment.state),
            level=graph.levels.get(name, 0),
            contracts=view.known.contracts,
        )
        for name, view in views.items()
    ]
    edges = [
        pb.DependencyEdge(
            from_service=edge.dependent,
            to_service=edge.dependency,
            contract=edge.contract,
            kind=kind_to(optional=edge.optional),
        )
        for edge in graph.edges
    ]
    return pb.GetDependencyGraphResponse(nodes=nodes, edges=edges)


# What is published.


def health_facts(change: HealthChange) -> list[Fact]:
    """The events of one change: always that it changed, and that a service is UNHEALTHY when it has become so."""
    message = health_events_pb2.ServiceHealthChanged(change=change_to(change))
    facts = [_fact("service.health_changed", change.service, message, change.time_ns)]
    if change.after.state is State.UNHEALTHY and change.before is not State.UNHEALTHY:
        unhealthy = health_events_pb2.ServiceUnhealthy(
            service=change.service, reasons=_reasons_to(change.after, change.service)
        )
        facts.append(_fact("service.unhealthy", change.service, unhealthy, change.time_ns))
    return facts


def started_fact(present: Present, time_ns: int) -> Fact:
    """An instance began to serve."""
    message = registry_events_pb2.ServiceStarted(
        service=present.key.service,
        instance_id=present.key.instance_id,
        address=present.address,
        fencing_token=present.token,
    )
    return _fact("service.started", present.key.service, message, time_ns)


def stopped_fact(present: Present, in_order: bool, reason: str, time_ns: int) -> Fact:
    """An instance is gone."""
    message = registry_events_pb2.ServiceStopped(
        service=present.key.service, instance_id=present.key.instance_id, in_order=in_order, reason=reason
    )
    return _fact("service.stopped", present.key.service, message, time_ns)


def _fact(kind: str, subject: str, message: Message, time_ns: int) -> Fact:
    return Fact(kind, subject, message.SerializeToString(), time_ns)
