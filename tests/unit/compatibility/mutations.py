"""Changes that people make to contracts, good and bad, each as a function over a descriptor set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2
from tests.unit.compatibility.image import (
    SCALARS,
    Field,
    Files,
    Message,
    Service,
    enums,
    leaf,
    messages,
    nested,
    ours,
    pick,
    services,
    with_fields,
)

Levels = descriptor_pb2.MethodOptions.IdempotencyLevel


def leave_oneof(message: Message, field: Field) -> None:
    """Takes a field out of its oneof, and the oneof away when it was the last."""
    if not field.HasField("oneof_index"):
        return
    index = field.oneof_index
    field.ClearField("oneof_index")
    field.ClearField("proto3_optional")
    if any(f.HasField("oneof_index") and f.oneof_index == index for f in message.field):
        return
    del message.oneof_decl[index]
    for other in message.field:
        if other.HasField("oneof_index") and other.oneof_index > index:
            other.oneof_index -= 1


def regroup(message: Message) -> None:
    """Puts the fields of a oneof side by side, as every compiler writes them."""
    places = {
        f.number: next(
            i for i, o in enumerate(message.field) if o.oneof_index == f.oneof_index and o.HasField("oneof_index")
        )
        if f.HasField("oneof_index")
        else place
        for place, f in enumerate(message.field)
    }
    ordered = sorted(message.field, key=lambda f: places[f.number])
    copies = [Field.FromString(f.SerializeToString()) for f in ordered]
    del message.field[:]
    message.field.extend(copies)


def drop(message: Message, field: Field) -> tuple[str, int]:
    name, number = field.name, field.number
    leave_oneof(message, field)
    kept = [f for f in message.field if f.number != number]
    del message.field[:]
    message.field.extend(kept)
    return name, number


def make_optional(message: Message, field: Field) -> None:
    field.proto3_optional = True
    field.oneof_index = len(message.oneof_decl)
    message.oneof_decl.add(name=f"_{field.name}")


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


# Fields.


def delete_field(files: Files, a: int, b: int, *, number: bool = False, name: bool = False) -> None:
    message, field = with_fields(files, a, b)
    was, had = drop(message, field)
    if number:
        message.reserved_range.add(start=had, end=had + 1)
    if name:
        message.reserved_name.append(was)


def rename_field(files: Files, a: int, b: int, *, json: bool = True) -> None:
    _message, field = with_fields(files, a, b)
    field.name = f"{field.name}_renamed"
    if json:
        field.json_name = camel(field.name)


def change_json_name(files: Files, a: int, b: int) -> None:
    _message, field = with_fields(files, a, b)
    field.json_name = f"{field.json_name}Else"


def change_scalar(files: Files, a: int, b: int) -> None:
    message = pick([m for m in messages(files) if any(f.type in SCALARS for f in m.field)], a)
    field = pick([f for f in message.field if f.type in SCALARS], b)
    field.type = pick(SCALARS, a // 7 + b)
    field.options.Clear()


def to_sibling_type(files: Files, a: int, b: int) -> None:
    """Within the groups that stay compatible, or barely do not."""
    pairs = [(5, 13), (3, 4), (7, 15), (6, 16), (5, 3), (9, 12), (17, 5), (2, 1), (13, 4)]
    both = {one: other for pair in pairs for one, other in (pair, pair[::-1])}
    message = pick([m for m in messages(files) if any(f.type in both for f in m.field)], a)
    field = pick([f for f in message.field if f.type in both], b)
    field.type = both[field.type]
    field.options.Clear()


def scalar_instead_of_type(files: Files, a: int, b: int) -> None:
    typed = {Field.TYPE_MESSAGE, Field.TYPE_ENUM}
    message = pick([m for m in messages(files) if any(f.type in typed for f in m.field)], a)
    field = pick([f for f in message.field if f.type in typed], b)
    field.type = pick(SCALARS, a + b)
    field.ClearField("type_name")


def other_type(files: Files, a: int, b: int) -> None:
    """Another message or enum of the same package."""
    found = [
        (file, m, f)
        for file in ours(files)
        for m in nested(file.message_type)
        for f in m.field
        if f.type == Field.TYPE_MESSAGE and f.type_name.startswith(f".{file.package}.")
    ]
    file, _message, field = pick(found, a)
    field.type_name = f".{file.package}.{pick(file.message_type, b).name}"


def change_map_value(files: Files, a: int, b: int) -> None:
    found = [m for file in ours(files) for m in nested(file.message_type) if m.options.map_entry]
    value = pick([m.field[1] for m in found if m.field[1].type in SCALARS], a)
    value.type = pick(SCALARS, b)


def change_label(files: Files, a: int, b: int) -> None:
    message, field = with_fields(files, a, b)
    leave_oneof(message, field)
    repeated = field.label == Field.LABEL_REPEATED
    field.label = Field.LABEL_OPTIONAL if repeated else Field.LABEL_REPEATED


def toggle_presence(files: Files, a: int, b: int) -> None:
    message, field = with_fields(files, a, b)
    if field.proto3_optional:
        leave_oneof(message, field)
    elif not field.HasField("oneof_index") and field.label == Field.LABEL_OPTIONAL:
        make_optional(message, field)


def renumber_field(files: Files, a: int, b: int) -> None:
    _message, field = with_fields(files, a, b)
    field.number += 300


def swap_numbers(files: Files, a: int, b: int) -> None:
    message = pick([m for m in messages(files) if len(m.field) > 1], a)
    one, other = pick(message.field, b), pick(message.field, b + 1)
    one.number, other.number = other.number, one.number


def in_or_out_of_oneof(files: Files, a: int, b: int) -> None:
    message = pick([m for m in messages(files) if any(not o.name.startswith("_") for o in m.oneof_decl)], a)
    field = pick(message.field, b)
    if field.HasField("oneof_index"):
        leave_oneof(message, field)
        moved = Field.FromString(field.SerializeToString())
        message.field.remove(field)
        message.field.append(moved)
    elif field.label == Field.LABEL_OPTIONAL:
        field.oneof_index = next(i for i, o in enumerate(message.oneof_decl) if not o.name.startswith("_"))
    regroup(message)


def rename_oneof(files: Files, a: int, b: int) -> None:
    message = pick([m for m in messages(files) if m.oneof_decl], a)
    oneof = pick(message.oneof_decl, b)
    oneof.name = f"{oneof.name}_renamed"


def move_enum(files: Files, a: int, b: int) -> None:
    """The same enum, with another value, in another message: buf lets a field change to that."""
    found = [(f, e) for f in ours(files) for e in f.enum_type]
    file, enum = pick(found, a)
    home = file.message_type.add(name=f"HomeOf{enum.name}")
    copy = home.enum_type.add()
    copy.CopyFrom(enum)
    if b % 3:
        copy.value.add(name=f"{enum.value[0].name}_ANOTHER", number=77)
    else:
        del copy.value[-1]
    full = f".{file.package}.{enum.name}"
    for message in nested(file.message_type):
        for field in message.field:
            if field.type_name == full:
                field.type_name = f".{file.package}.{home.name}.{enum.name}"


def add_field(files: Files, a: int, b: int) -> None:
    message = pick(messages(files), a)
    message.field.add(
        name=f"added_{b % 5}", number=700 + b % 5, type=Field.TYPE_STRING, label=1, json_name=f"added{b % 5}"
    )


# Reserved.


def free_range(files: Files, a: int, b: int) -> None:
    found = pick(enums(files) if a % 2 else messages(files), a // 2)
    if found.reserved_range:
        each = pick(found.reserved_range, b)
        if b % 2 and each.end - each.start > 3:
            each.start += 2
        else:
            found.reserved_range.remove(each)


def split_range(files: Files, a: int, b: int) -> None:
    found = pick(enums(files) if a % 2 else messages(files), a // 2)
    wide = [each for each in found.reserved_range if each.end - each.start > 5]
    if wide:
        found.reserved_range.add(start=wide[0].start + 4 + b % 2, end=wide[0].end)
        wide[0].end = wide[0].start + 3


def free_name(files: Files, a: int, b: int) -> None:
    found = pick(enums(files) if a % 2 else messages(files), a // 2)
    if found.reserved_name:
        del found.reserved_name[b % len(found.reserved_name)]


def delete_message(files: Files, a: int, b: int) -> None:
    file = pick([file for file in ours(files) if file.message_type], a)
    del file.message_type[b % len(file.message_type)]


def add_message(files: Files, a: int, b: int) -> None:
    pick(ours(files), a).message_type.add(name=f"Added{b % 9}")


# Enums.


def delete_value(files: Files, a: int, b: int, *, number: bool = False, name: bool = False) -> None:
    enum = pick([e for e in enums(files) if len(e.value) > 1], a)
    value = pick(enum.value[1:], b)
    had = value.number, value.name
    enum.value.remove(value)
    if number:
        enum.reserved_range.add(start=had[0], end=had[0])
    if name:
        enum.reserved_name.append(had[1])


def rename_value(files: Files, a: int, b: int) -> None:
    value = pick(pick(enums(files), a).value, b)
    value.name = f"{value.name}_RENAMED"


def renumber_value(files: Files, a: int, b: int) -> None:
    enum = pick([e for e in enums(files) if len(e.value) > 1], a)
    pick(enum.value[1:], b).number += 60


def add_value(files: Files, a: int, b: int) -> None:
    enum = pick(enums(files), a)
    enum.value.add(name=f"{enum.value[0].name}_ADDED_{b % 4}", number=500 + b % 4)


def add_alias(files: Files, a: int, b: int) -> None:
    enum = pick(enums(files), a)
    enum.options.allow_alias = True
    value = pick(enum.value, b)
    enum.value.add(name=f"{value.name}_ALIAS", number=value.number)


# Calls.


def with_methods(files: Files, a: int, b: int) -> tuple[Service, Any]:
    service = pick([s for s in services(files) if s.method], a)
    return service, pick(service.method, b)


def delete_method(files: Files, a: int, b: int) -> None:
    service, method = with_methods(files, a, b)
    service.method.remove(method)


def rename_method(files: Files, a: int, b: int) -> None:
    method = with_methods(files, a, b)[1]
    method.name = f"{method.name}Renamed"


def toggle_client_stream(files: Files, a: int, b: int) -> None:
    method = with_methods(files, a, b)[1]
    method.client_streaming = not method.client_streaming


def toggle_server_stream(files: Files, a: int, b: int) -> None:
    method = with_methods(files, a, b)[1]
    method.server_streaming = not method.server_streaming


def other_request(files: Files, a: int, b: int) -> None:
    service = with_methods(files, a, b)[0]
    one, other = pick(service.method, b), pick(service.method, b + 1)
    one.input_type = other.input_type


def other_response(files: Files, a: int, b: int) -> None:
    service = with_methods(files, a, b)[0]
    one, other = pick(service.method, b), pick(service.method, b + 1)
    one.output_type = other.output_type


def other_idempotency(files: Files, a: int, b: int) -> None:
    method = with_methods(files, a, b)[1]
    method.options.idempotency_level = pick(Levels.values(), method.options.idempotency_level + 1 + a % 2)


def add_method(files: Files, a: int, b: int) -> None:
    service, method = with_methods(files, a, b)
    service.method.add(name=f"Added{b % 7}", input_type=method.input_type, output_type=method.output_type)


def delete_service(files: Files, a: int, b: int) -> None:
    file = pick([file for file in ours(files) if file.service], a)
    del file.service[b % len(file.service)]


def rename_service(files: Files, a: int, b: int) -> None:
    service = pick(services(files), a)
    service.name = f"{service.name}Renamed"


def add_service(files: Files, a: int, b: int) -> None:
    pick(ours(files), a).service.add(name=f"Added{b % 9}Service")


# Files.


def move_service(files: Files, a: int, b: int) -> None:
    """A service in a file of its own, in the same package."""
    file = pick([file for file in ours(files) if file.service], a)
    service = pick(file.service, b)
    home = files.file.add(name=f"{file.package.replace('.', '/')}/home_of_{service.name.lower()}.proto")
    home.package, home.syntax = file.package, file.syntax
    home.dependency.extend([*file.dependency, file.name])
    home.service.add().CopyFrom(service)
    file.service.remove(service)


def change_package(files: Files, a: int, _b: int) -> None:
    file = leaf(files, a)
    names = {f".{file.package}.{m.name}" for m in file.message_type} | {
        f".{file.package}.{e.name}" for e in file.enum_type
    }
    old, file.package = file.package, f"{file.package}beta1"

    def moved(name: str) -> str:
        mine = any(name == each or name.startswith(f"{each}.") for each in names)
        return name.replace(f".{old}.", f".{file.package}.", 1) if mine else name

    for message in nested(file.message_type):
        for field in message.field:
            if field.type_name:
                field.type_name = moved(field.type_name)
    for service in file.service:
        for method in service.method:
            method.input_type, method.output_type = moved(method.input_type), moved(method.output_type)


def to_proto2(files: Files, a: int, b: int) -> None:
    """Another syntax: JSON is then best effort, fields can be required and have defaults."""
    file = leaf(files, a)
    file.ClearField("syntax")
    found = [m for m in nested(file.message_type) if not m.options.map_entry]
    for message in found:
        for field in list(message.field):
            if field.proto3_optional:
                leave_oneof(message, field)
    plain = [f for m in found for f in m.field if f.label == 1 and not f.HasField("oneof_index")]
    if plain and b % 2:
        pick(plain, b).label = Field.LABEL_REQUIRED
    numbers = [f for f in plain if f.type in {Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_DOUBLE} and f.label == 1]
    if numbers and b % 3:
        pick(numbers, a).default_value = str(b % 4)
    texts = [f for f in plain if f.type == Field.TYPE_STRING and f.label == 1]
    if texts and b % 5:
        pick(texts, a).default_value = "told"


def rename_extension(files: Files, a: int, _b: int) -> None:
    extension = pick([e for file in ours(files) for e in file.extension], a)
    extension.name, extension.json_name = f"{extension.name}_renamed", f"{extension.json_name}Renamed"


def reserving(change: Callable[..., None], **kept: bool) -> Callable[[Files, int, int], None]:
    return lambda files, a, b: change(files, a, b, **kept)


Mutation = Callable[[Files, int, int], None]

MUTATIONS: dict[str, Mutation] = {
    "delete field": delete_field,
    "delete field, reserve number": reserving(delete_field, number=True),
    "delete field, reserve name": reserving(delete_field, name=True),
    "delete field, reserve both": reserving(delete_field, number=True, name=True),
    "rename field": rename_field,
    "rename field, keep json": reserving(rename_field, json=False),
    "change json name": change_json_name,
    "change scalar": change_scalar,
    "to sibling type": to_sibling_type,
    "scalar instead of type": scalar_instead_of_type,
    "other type": other_type,
    "change map value": change_map_value,
    "change label": change_label,
    "toggle presence": toggle_presence,
    "renumber field": renumber_field,
    "swap numbers": swap_numbers,
    "in or out of oneof": in_or_out_of_oneof,
    "rename oneof": rename_oneof,
    "move enum": move_enum,
    "add field": add_field,
    "free range": free_range,
    "split range": split_range,
    "free name": free_name,
    "delete message": delete_message,
    "add message": add_message,
    "delete value": delete_value,
    "delete value, reserve number": reserving(delete_value, number=True),
    "delete value, reserve name": reserving(delete_value, name=True),
    "delete value, reserve both": reserving(delete_value, number=True, name=True),
    "rename value": rename_value,
    "renumber value": renumber_value,
    "add value": add_value,
    "add alias": add_alias,
    "delete method": delete_method,
    "rename method": rename_method,
    "toggle client stream": toggle_client_stream,
    "toggle server stream": toggle_server_stream,
    "other request": other_request,
    "other response": other_response,
    "other idempotency": other_idempotency,
    "add method": add_method,
    "delete service": delete_service,
    "rename service": rename_service,
    "add service": add_service,
    "move service": move_service,
    "change package": change_package,
    "to proto2": to_proto2,
    "rename extension": rename_extension,
}
