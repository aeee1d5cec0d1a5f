"""Descriptor sets from outside: garbage, too much, circles, doubles; always one clear sentence, never more work than allowed."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from buf.validate import validate_pb2
from minhos_mesh.compatibility import limits
from minhos_mesh.compatibility.compare import compare
from minhos_mesh.compatibility.descriptors import DescriptorsInvalid, DescriptorsTooLarge, resolve
from minhos_mesh.runtime.contracts import whole_set

Files = descriptor_pb2.FileDescriptorSet
Field = descriptor_pb2.FieldDescriptorProto
REACH_S = 10.0
"""No set may take longer than this, whatever it holds; most take milliseconds."""


def file(files: Files, name: str = "a.proto", *imports: str) -> descriptor_pb2.FileDescriptorProto:
    return files.file.add(name=name, package="a", syntax="proto3", dependency=imports)


def made(build: Callable[[Files], object]) -> bytes:
    files = Files()
    build(files)
    return files.SerializeToString()


def circle(files: Files) -> None:
    file(files, "a.proto", "b.proto")
    file(files, "b.proto", "c.proto")
    file(files, "c.proto", "a.proto")


def same_symbol(files: Files) -> None:
    file(files, "a.proto").message_type.add(name="M")
    file(files, "b.proto").message_type.add(name="M")


def same_file(files: Files) -> None:
    file(files)
    file(files)


def same_number(files: Files) -> None:
    message = file(files).message_type.add(name="M")
    for name in ("a", "b"):
        message.field.add(name=name, number=1, type=Field.TYPE_INT32, label=1)


def nowhere(files: Files) -> None:
    message = file(files).message_type.add(name="M")
    message.field.add(name="a", number=1, type=Field.TYPE_MESSAGE, label=1, type_name=".a.Nowhere")


def deep(files: Files) -> None:
    message = file(files).message_type.add(name="M")
    for _level in range(200):
        message = message.nested_type.add(name="M")


def bad_oneof(files: Files) -> None:
    message = file(files).message_type.add(name="M")
    message.field.add(name="a", number=1, type=Field.TYPE_INT32, label=1, oneof_index=7)


def bad_rules() -> bytes:
    """Validation rules of a field whose bytes are none."""
    rules = validate_pb2.FieldRules(string=validate_pb2.StringRules(pattern="something long"))

    def build(files: Files) -> None:
        message = file(files).message_type.add(name="M")
        field = message.field.add(name="a", number=1, type=Field.TYPE_STRING, label=1)
        field.options.Extensions[validate_pb2.field].CopyFrom(rules)

    good = rules.SerializeToString()
    return made(build).replace(good, b"\xff" * len(good))


HOSTILE = [
    ("garbage", lambda: b"\xff\xfe garbage", "that are no google.protobuf.FileDescriptorSet"),
    ("another message", lambda: b"\x08\x01" * 100, "hold no file"),
    ("nothing", lambda: b"", "hold no file"),
    ("noise", lambda: random.Random(7).randbytes(300_000), "that are no google.protobuf.FileDescriptorSet"),
    ("10 MB", lambda: b"\x0a\x00" * 5_000_000, "10000000 bytes: allowed are 1048576"),
    ("half a million files", lambda: b"\x0a\x00" * 500_000, "500000 files: allowed are 512"),
    ("a missing import", lambda: made(lambda f: file(f, "a.proto", "b.proto")), "a.proto imports b.proto, which is not"),
    ("a circle", lambda: made(circle), "its files import each other in a circle: "),
    ("a file that imports itself", lambda: made(lambda f: file(f, "a.proto", "a.proto")), "in a circle"),
    ("one file twice", lambda: made(same_file), "the file a.proto is in it twice"),
    ("one name twice", lambda: made(same_symbol), "cannot be built: duplicate symbol 'a.M'"),
    ("one number twice", lambda: made(same_number), "cannot be built"),
    ("a type that is nowhere", lambda: made(nowhere), "cannot be built"),
    ("200 levels", lambda: made(deep), "that are no google.protobuf.FileDescriptorSet"),
    ("a oneof that is not there", lambda: made(bad_oneof), "cannot be built"),
    ("rules that are none", bad_rules, "no google.protobuf.FileDescriptorSet"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "text"), HOSTILE, ids=[row[0] for row in HOSTILE])
def test_a_hostile_set_is_refused_in_one_sentence(name: str, data: Callable[[], bytes], text: str) -> None:
    given_bytes, began = data(), time.perf_counter()
    with pytest.raises(DescriptorsInvalid) as caught:
        resolve(given_bytes)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - began < REACH_S


def many(files: Files) -> None:
    names = (f"M{n}" for n in range(limits.MAX_ELEMENTS + 1))
    file(files).message_type.extend(descriptor_pb2.DescriptorProto(name=name) for name in names)


def many_values(files: Files) -> None:
    enum = file(files).enum_type.add(name="E")
    enum.value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=f"V{n}", number=n) for n in range(limits.MAX_ELEMENTS)
    )


def many_ranges(files: Files) -> None:
    message = file(files).message_type.add(name="M")
    message.reserved_range.extend(
        descriptor_pb2.DescriptorProto.ReservedRange(start=2 * n + 1, end=2 * n + 2) for n in range(limits.MAX_ELEMENTS)
    )


@pytest.mark.parametrize("build", [many, many_values, many_ranges])
def test_more_elements_than_allowed_are_counted_no_further(build: Callable[[Files], None]) -> None:
    with pytest.raises(DescriptorsTooLarge, match=f"more than {limits.MAX_ELEMENTS} elements"):
        resolve(made(build))


def test_the_largest_set_that_is_allowed_is_compared_in_time() -> None:
    def nearly(files: Files) -> None:
        names = (f"M{n}" for n in range(limits.MAX_ELEMENTS - 10))
        file(files).message_type.extend(descriptor_pb2.DescriptorProto(name=name) for name in names)

    began = time.perf_counter()
    old, new = resolve(made(nearly)), resolve(made(lambda files: file(files).message_type.add(name="M1")))
    assert compare(old, new) == ()
    assert time.perf_counter() - began < REACH_S


def test_a_hostile_name_does_not_fill_a_report() -> None:
    def with_name(name: str) -> bytes:
        def build(files: Files) -> None:
            message = file(files).message_type.add(name="M")
            message.field.add(name=name, number=1, type=Field.TYPE_INT32, label=1)

        return made(build)

    found = compare(resolve(with_name("a" * 100_000)), resolve(with_name("b" * 100_000)))
    assert found
    assert all(len(str(violation)) < 1_000 for violation in found)


@settings(max_examples=300, derandomize=True)
@given(seed=st.integers(0, 10**9), cuts=st.integers(1, 20))
def test_a_damaged_set_is_refused_or_read_but_never_crashes(seed: int, cuts: int) -> None:
    chance, data = random.Random(seed), bytearray(whole_set()[:40_000])
    for _cut in range(cuts):
        data[chance.randrange(len(data))] = chance.randrange(256)
    own = resolve(whole_set())
    try:
        damaged = resolve(bytes(data))
    except DescriptorsInvalid:
        return
    compare(own, damaged)
    compare(damaged, own)


def test_equal_bytes_are_one_object_as_long_as_somebody_holds_it() -> None:
    data = made(lambda files: file(files, "held.proto").message_type.add(name="Held"))
    held = resolve(data)
    assert resolve(bytes(data)) is held
    digest = held.digest
    del held
    gc.collect()
    from minhos_mesh.compatibility import descriptors

    assert digest not in descriptors._KNOWN


def test_builds_are_equal_however_the_files_are_ordered() -> None:
    own = resolve(whole_set())
    turned = Files(file=reversed(list(own.files.values()))).SerializeToString()
    assert resolve(turned).build_of(own.services[0]) == own.build_of(own.services[0])
