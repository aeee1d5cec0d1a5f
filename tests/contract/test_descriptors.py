"""What every contract promises beyond what buf lint can see: deadlines, access, events, dependencies, values, streams."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import protovalidate
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import generate
from buf.validate import validate_pb2
from minhos_api.mesh.v1 import contract_options_pb2 as options_pb2

Field = descriptor_pb2.FieldDescriptorProto
IDEMPOTENT = descriptor_pb2.MethodOptions.IDEMPOTENT
NO_SIDE_EFFECTS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
READING = ("Get", "List", "Watch", "Describe", "Resolve", "Stream", "Analyze", "Calculate")
MONEY = re.compile(r"(price|pnl|cash|equity|commission|cost|margin|notional|exposure|drawdown)(_e9)?$")
CODES = {
    "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNAVAILABLE", "ABORTED",
    "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "INTERNAL", "DATA_LOSS", "UNIMPLEMENTED",
    "UNKNOWN",
}  # fmt: skip


@dataclass(frozen=True)
class Rpc:
    """One method with where it stands and what is said of it."""

    name: str
    comment: str
    proto: descriptor_pb2.MethodDescriptorProto
    contract: options_pb2.MethodContract


@dataclass
class Contracts:
    """All contracts, by full name."""

    services: dict[str, descriptor_pb2.ServiceDescriptorProto] = field(default_factory=dict)
    rpcs: list[Rpc] = field(default_factory=list)
    messages: dict[str, descriptor_pb2.DescriptorProto] = field(default_factory=dict)
    enums: dict[str, descriptor_pb2.EnumDescriptorProto] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    trailing: list[str] = field(default_factory=list)

    def contract(self, service: str) -> options_pb2.ServiceContract:
        """Returns the option that stands on a service."""
        return self.services[service].options.Extensions[options_pb2.contract]

    def fields(self, roots: Iterator[str]) -> Iterator[tuple[str, Field]]:
        """Yields every field that can be reached from the given messages, once, with its full name."""
        waiting, seen = list(roots), set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.messages:
                continue
            seen.add(name)
            for each in self.messages[name].field:
                yield f"{name}.{each.name}", each
                waiting.append(each.type_name.removeprefix("."))


@dataclass
class _File:
    """Reads one file of the image into what was found so far."""

    proto: descriptor_pb2.FileDescriptorProto
    found: Contracts

    def __post_init__(self) -> None:
        self.said = {tuple(each.path): each for each in self.proto.source_code_info.location}

    def read(self) -> None:
        package = self.proto.package
        for index, message in enumerate(self.proto.message_type):
            self._message(message, (4, index), f"{package}.{message.name}")
        for index, enum in enumerate(self.proto.enum_type):
            self._enum(enum, (5, index), f"{package}.{enum.name}")
        for index, service in enumerate(self.proto.service):
            self._service(service, (6, index), f"{package}.{service.name}")

    def _note(self, path: tuple[int, ...], name: str) -> None:
        location = self.said.get(path)
        self.found.comments[name] = location.leading_comments.strip() if location else ""
        if location and location.trailing_comments:
            self.found.trailing.append(name)

    def _enum(self, enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...], name: str) -> None:
        self.found.enums[name] = enum
        self._note(path, name)
        for index, value in enumerate(enum.value):
            self._note((*path, 2, index), f"{name}.{value.name}")

    def _message(self, message: descriptor_pb2.DescriptorProto, path: tuple[int, ...], name: str) -> None:
        self.found.messages[name] = message
        if message.options.map_entry:
            return
        self._note(path, name)
        for index, each in enumerate(message.field):
            self._note((*path, 2, index), f"{name}.{each.name}")
        for index, nested in enumerate(message.nested_type):
            self._message(nested, (*path, 3, index), f"{name}.{nested.name}")
        for index, enum in enumerate(message.enum_type):
            self._enum(enum, (*path, 4, index), f"{name}.{enum.name}")

    def _service(self, service: descriptor_pb2.ServiceDescriptorProto, path: tuple[int, ...], name: str) -> None:
        self.found.services[name] = service
        self._note(path, name)
        for index, method in enumerate(service.method):
            full = f"{name}.{method.name}"
            self._note((*path, 2, index), full)
            contract = method.options.Extensions[options_pb2.method]
            self.found.rpcs.append(Rpc(full, self.found.comments[full], method, contract))


def _read(image: Path) -> Contracts:
    found = Contracts()
    for file in descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file:
        if file.package.startswith("minhos_api."):
            _File(file, found).read()
    return found


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory) -> Contracts:
    generate.prepare(generate.ROOT)
    image = tmp_path_factory.mktemp("image") / "contracts.binpb"
    generate.write_image(generate.ROOT, image)
    return _read(image)


def _requests(contracts: Contracts) -> Iterator[str]:
    return (rpc.proto.input_type.removeprefix(".") for rpc in contracts.rpcs)


def test_there_are_contracts(contracts: Contracts) -> None:
    assert len(contracts.services) >= 16
    assert len(contracts.rpcs) >= 70


def test_every_rpc_says_who_may_call_it(contracts: Contracts) -> None:
    assert [rpc.name for rpc in contracts.rpcs if rpc.contract.access == options_pb2.ACCESS_UNSPECIFIED] == []


def test_every_call_is_bounded_in_time(contracts: Contracts) -> None:
    wrong = []
    for rpc in contracts.rpcs:
        kind = rpc.contract.WhichOneof("deadline")
        bound = rpc.contract.default_timeout if kind == "default_timeout" else rpc.contract.heartbeat_interval
        seconds = bound.seconds + bound.nanos / 1e9
        streams = rpc.proto.client_streaming or rpc.proto.server_streaming
        if kind is None or not 0 < seconds <= 300 or (kind == "heartbeat_interval" and not rpc.proto.server_streaming):
            wrong.append(f"{rpc.name}: {kind} {seconds}")
        if not streams and kind != "default_timeout":
            wrong.append(f"{rpc.name}: a unary call needs a default_timeout")
    assert wrong == []


def test_reading_has_no_side_effects_and_the_rest_is_safe_to_retry_when_it_carries_a_request_id(
    contracts: Contracts,
) -> None:
    wrong = []
    for rpc in contracts.rpcs:
        level = rpc.proto.options.idempotency_level
        request = contracts.messages[rpc.proto.input_type.removeprefix(".")]
        is_plain = not rpc.proto.client_streaming  # a reader that talks back is remembered, which is no reading alone
        if rpc.contract.access == options_pb2.ACCESS_READ and is_plain and level != NO_SIDE_EFFECTS:
            wrong.append(f"{rpc.name}: reads and does not say NO_SIDE_EFFECTS")
        if level == NO_SIDE_EFFECTS and rpc.contract.access not in {options_pb2.ACCESS_READ, options_pb2.ACCESS_MESH}:
            wrong.append(f"{rpc.name}: says NO_SIDE_EFFECTS and asks for more than READ")
        if rpc.proto.name.startswith(READING) and level != NO_SIDE_EFFECTS:
            wrong.append(f"{rpc.name}: its name promises NO_SIDE_EFFECTS")
        top_level = {each.name for each in request.field if not each.HasField("oneof_index")}
        if "request_id" in top_level and level != IDEMPOTENT:
            wrong.append(f"{rpc.name}: carries a request_id and is not IDEMPOTENT")
    assert wrong == []


def test_every_open_stream_shows_that_it_is_alive(contracts: Contracts) -> None:
    wrong = []
    for rpc in contracts.rpcs:
        if rpc.contract.WhichOneof("deadline") != "heartbeat_interval":
            continue
        name = rpc.proto.output_type.removeprefix(".")
        fields = contracts.messages[name].field
        words = [f"{each.name} {contracts.comments[f'{name}.{each.name}']}" for each in fields]
        if "heartbeat" not in " ".join([rpc.comment, *words]).lower():
            wrong.append(f"{rpc.name}: neither it nor {name} says what a heartbeat looks like")
    assert wrong == []


def test_every_stream_documents_how_it_goes(contracts: Contracts) -> None:
    wrong = []
    for rpc in contracts.rpcs:
        service = rpc.name.rpartition(".")[0]
        text = f"{rpc.comment} {contracts.comments[service]}"
        if rpc.proto.client_streaming and not re.search(r"first|in the order|answered", text):
            wrong.append(f"{rpc.name}: what is sent first, or in which order?")
        if rpc.proto.name.startswith("Watch") and not re.search(r"resume|snapshot|then again|from now", text):
            wrong.append(f"{rpc.name}: a watch says what comes first and how it is resumed")
        resumable = "after_" in str(contracts.messages[rpc.proto.input_type.removeprefix(".")])
        if resumable and rpc.proto.server_streaming and "OUT_OF_RANGE" not in text:
            wrong.append(f"{rpc.name}: can be resumed and does not say what happens when the position is gone")
    assert wrong == []


def test_everything_has_a_leading_comment_and_nothing_a_trailing_one(contracts: Contracts) -> None:
    assert [name for name, comment in contracts.comments.items() if not comment] == []
    assert contracts.trailing == []


def test_comments_are_sentences(contracts: Contracts) -> None:
    assert [name for name, text in contracts.comments.items() if text and text[-1] not in ".}"] == []
    assert [name for name, text in contracts.comments.items() if re.search(r"\b(TODO|FIXME|used to)\b", text)] == []


def test_every_enum_begins_with_its_own_zero(contracts: Contracts) -> None:
    wrong = []
    for name, enum in contracts.enums.items():
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper()
        if enum.value[0].number != 0 or enum.value[0].name != f"{prefix}_UNSPECIFIED":
            wrong.append(name)
    assert wrong == []


def test_requests_refuse_the_zero_of_an_enum_or_say_how_it_is_read(contracts: Contracts) -> None:
    wrong = []
    for name, each in contracts.fields(_requests(contracts)):
        if each.type != Field.TYPE_ENUM or name.startswith("minhos_api.market.v1.Tick."):
            continue  # Ticks are checked as arrays by the ingest: a rule on each would cost more than the tick.
        rules = each.options.Extensions[validate_pb2.field]
        enum_rules = rules.repeated.items.enum if each.label == Field.LABEL_REPEATED else rules.enum
        enum = each.type_name.removeprefix(".")
        zero = contracts.comments[f"{enum}.{contracts.enums[enum].value[0].name}"]
        documented = re.search(r"[Rr]ead as|when unset|not read unless the mask", f"{zero} {contracts.comments[name]}")
        if 0 not in enum_rules.not_in and not (documented and enum_rules.defined_only):
            wrong.append(name)
    assert wrong == []


def test_rpcs_share_neither_requests_nor_responses(contracts: Contracts) -> None:
    types = [kind for rpc in contracts.rpcs for kind in (rpc.proto.input_type, rpc.proto.output_type)]
    assert sorted({kind for kind in types if types.count(kind) > 1}) == []
    assert [kind for kind in types if not kind.startswith(".minhos_api.")] == []


def test_every_dependency_is_a_contract_and_the_graph_has_no_cycle(contracts: Contracts) -> None:
    graph = {name: {each.contract for each in contracts.contract(name).depends_on} for name in contracts.services}
    missing = {f"{name} -> {each}" for name, needs in graph.items() for each in needs - contracts.services.keys()}
    assert missing == set()
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(contracts.services)


def test_every_service_says_what_it_is_for_and_carries_the_contract_option(contracts: Contracts) -> None:
    extension = options_pb2.contract
    bare = [name for name, each in contracts.services.items() if not each.options.HasExtension(extension)]
    assert bare == []
    interfaces = [contracts.contract(name).interface for name in contracts.services]
    named = [name for name in interfaces if name]
    assert len(named) == len(set(named))


def test_every_event_has_one_message_and_everything_published_or_consumed_is_an_event(contracts: Contracts) -> None:
    events: dict[str, list[str]] = {}
    for name, message in contracts.messages.items():
        if message.options.HasExtension(options_pb2.event):
            event = message.options.Extensions[options_pb2.event]
            assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", event.type), name
            assert event.version >= 1, name
            events.setdefault(event.type, []).append(name)
    assert {kind: names for kind, names in events.items() if len(names) > 1} == {}
    published = {kind for name in contracts.services for kind in contracts.contract(name).publishes}
    consumed = {kind for name in contracts.services for kind in contracts.contract(name).consumes}
    assert (published | consumed) - events.keys() == set()
    assert events.keys() - published == set(), "an event that nobody publishes"
    assert consumed - published == set(), "consumed and never published"


def test_money_is_whole_and_says_its_scale(contracts: Contracts) -> None:
    floating = {Field.TYPE_DOUBLE, Field.TYPE_FLOAT}
    whole = {Field.TYPE_INT64, Field.TYPE_SFIXED64}
    wrong = []
    for name, message in contracts.messages.items():
        for each in message.field:
            money = MONEY.search(each.name) and each.type not in {Field.TYPE_MESSAGE, Field.TYPE_ENUM, Field.TYPE_BOOL}
            if money and (each.type in floating or not each.name.endswith("_e9")):
                wrong.append(f"{name}.{each.name}")
            if each.name.endswith("_e9") and each.type not in whole:
                wrong.append(f"{name}.{each.name}")
    assert wrong == []


def test_times_and_spans_are_named_for_what_they_are(contracts: Contracts) -> None:
    wrong = [
        f"{name}.{each.name}"
        for name, message in contracts.messages.items()
        for each in message.field
        if (each.type_name == ".google.protobuf.Timestamp" and not re.fullmatch(r"(.*_)?(time|times)", each.name))
        or (each.name.endswith("_time") and each.type_name != ".google.protobuf.Timestamp")
    ]
    assert wrong == []


def test_lists_that_can_grow_are_paged(contracts: Contracts) -> None:
    wrong = []
    for rpc in contracts.rpcs:
        request = contracts.messages[rpc.proto.input_type.removeprefix(".")]
        response = contracts.messages[rpc.proto.output_type.removeprefix(".")]
        asks = {each.name for each in request.field} & {"page_size", "page_token"}
        answers = "next_page_token" in {each.name for each in response.field}
        if len(asks) == 1 or bool(asks) != answers:
            wrong.append(rpc.name)
        for each in request.field:
            rules = each.options.Extensions[validate_pb2.field]
            if each.name == "page_size" and not (rules.int32.HasField("gte") and rules.int32.gte == 0):
                wrong.append(f"{rpc.name}: a negative page_size is not refused")
    assert wrong == []


def test_every_error_reason_says_when_with_which_code_and_shows_an_example(contracts: Contracts) -> None:
    enum = "minhos_api.mesh.v1.ErrorReason"
    wrong = []
    for value in contracts.enums[enum].value[1:]:
        text = contracts.comments[f"{enum}.{value.name}"]
        example = re.search(r'Example: \{reason: "(\w+)", metadata: \{("\w+": ".*")?\}\}$', text)
        if example is None or example[1] != value.name or not CODES & set(re.findall(r"[A-Z_]{5,}", text)):
            wrong.append(value.name)
    assert wrong == []


def test_reasons_named_in_comments_exist(contracts: Contracts) -> None:
    prefix = "ERROR_REASON_"
    reasons = {v.name.removeprefix(prefix) for v in contracts.enums["minhos_api.mesh.v1.ErrorReason"].value}
    named = {
        f"{name}: {code}/{reason}"
        for name, text in contracts.comments.items()
        for code, reason in re.findall(r"\b([A-Z]+(?:_[A-Z]+)*)/([A-Z]+(?:_[A-Z]+)*)\b", text)
        if code in CODES and reason not in reasons
    }
    assert named == set()


def test_every_validation_rule_compiles(contracts: Contracts) -> None:
    validator = protovalidate.Validator()
    pool = descriptor_pool.Default()
    for path in (generate.ROOT / "generated" / "minhos_api").rglob("*_pb2.py"):
        import_module(".".join(path.relative_to(generate.ROOT / "generated").with_suffix("").parts))
    for name, proto in contracts.messages.items():
        if not proto.options.map_entry:
            message = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
            validator.collect_violations(message)


def test_stable_contracts_import_only_stable_ones_and_the_well_known(contracts: Contracts) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (generate.ROOT / "proto").rglob("*.proto"))
    imports = set(re.findall(r'^import "([^"]+)";', text, re.MULTILINE))
    allowed = r"minhos_api/[a-z]+/v1/[a-z_]+\.proto|google/protobuf/[a-z_]+\.proto|buf/validate/validate\.proto"
    assert [name for name in sorted(imports) if not re.fullmatch(allowed, name)] == []
