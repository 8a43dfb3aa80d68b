"""Manifest images: packed, unpacked, and what others put in their place."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.model.composite import Base, Composite, PartRef, System
from splitimage_driver.model.part import Part
from splitimage_driver.store.glance import records

PART = Part(id="ab" * 32, name="apache", kind="software", blob="", blob_size=0, size=0, files=1,
            owner="alpha", created=1.0, packages=("apache2=2.4",))
COMPOSITE = Composite(
    name="lamp", id="i", owner="alpha", created=1.0, restore="cd" * 32,
    system=System("debian", "12", "Debian 12", "x86_64", "dpkg"), base=Base("d", 1, 1, "m", ()),
    parts={"apache": PartRef(id=PART.id, kind="software", requires=("php",))},
    shared={b"etc/passwd": b"root\xff"}, hardware={"cpus": 2, "disk": [1, None]})


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=2**16), st.sampled_from([(None, ()), (PART, ()), (COMPOSITE, (PART,))]))
def test_a_record_comes_back(manifest: bytes, stored: tuple[Any, tuple[Part, ...]]) -> None:
    record, parts = stored
    found = records.unpack(records.pack(record, manifest, parts), "image")
    assert (found.manifest, found.parts) == (manifest, parts)
    assert found.of(type(record), "image") == record


def test_the_packed_form_never_changes() -> None:
    """Other releases read it: a change of these bytes is a new MAGIC."""
    packed = records.pack(PART, b"manifest")
    assert packed.startswith(b"splitimage-record-1\n\x28\xb5\x2f\xfd")
    plain = zstandard.ZstdDecompressor().decompress(packed[len(records.MAGIC):])
    assert hashlib.sha256(plain).hexdigest() == (
        "9aa5ddb927fd3b05388eee531226f50555581b5d6621d40366492a29e4b6c89d")


def test_none_is_taken_for_a_broken_disk() -> None:
    """As one in 65,536 would be: Glance refuses what has a boot record's mark at
    its place, whatever it is said to be."""
    met = 0
    for number in range(400_000):
        noise = hashlib.shake_128(b"%d" % number).digest(600)
        plain = records.MAGIC + zstandard.ZstdCompressor(level=3).compress(
            msgspec.msgpack.encode([None, noise, []]))
        if plain[510:512] != b"\x55\xaa":
            continue
        met += 1
        packed = records.pack(None, noise)
        assert packed[510:512] != b"\x55\xaa"
        assert packed.startswith(records.MAGIC[:-1] + b" \n")
        assert records.unpack(packed, "image").manifest == noise
        if met == 2:
            break
    assert met == 2


@pytest.mark.parametrize("data", [
    b"", b"splitimage-record-1", b"splitimage-record-2\n", b"QFI\xfb" + bytes(512),
    b"\n" + records.pack(None, b"x"), records.MAGIC.upper() + b"x"])
def test_what_does_not_begin_like_one_is_none(data: bytes) -> None:
    with pytest.raises(exceptions.BadImage, match=r"it is no manifest: wrong first line"):
        records.unpack(data, "image")


def packed(content: bytes) -> bytes:
    return records.MAGIC + zstandard.ZstdCompressor().compress(content)


@pytest.mark.parametrize("content", [
    b"", b"\xc0", b"\x90", b"text", msgspec.msgpack.encode({"a": 1}),
    msgspec.msgpack.encode([None, "text", []]), msgspec.msgpack.encode([None, b"", [1]]),
    msgspec.msgpack.encode([None, b""]) + b"more"])
def test_what_holds_something_else_is_none(content: bytes) -> None:
    with pytest.raises(exceptions.BadImage, match="it is no manifest"):
        records.unpack(packed(content), "image")


#: A few nested lists are nothing; so many end a careless decoder.
DEEP = b"\x91" * 100_000 + b"\xc0"


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(exceptions.BadImage, match="it is no manifest"):
        records.unpack(packed(b"\x92" + DEEP + b"\xc4\x00"), "image")


def test_text_that_is_none_is_refused() -> None:
    record = msgspec.msgpack.encode(msgspec.to_builtins(PART)).replace(b"apache", b"apach\xff")
    bundle = records.unpack(packed(b"\x92" + record + b"\xc4\x00"), "image")
    with pytest.raises(exceptions.BadImage, match="its record"):
        bundle.of(Part, "image")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_one_is_none(keep: float) -> None:
    data = records.pack(COMPOSITE, bytes(range(256)) * 16, (PART,))
    with pytest.raises(exceptions.BadImage, match="it is no manifest"):
        records.unpack(data[:int(len(data) * keep)], "image")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_gives_bad_image_or_another_manifest(data: st.DataObject) -> None:
    """Never another error; that the contents are others' is told by digests."""
    whole = bytearray(records.pack(PART, b"contents", (PART,)))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = records.unpack(bytes(whole), "image")
        found.of(Part, "image")
    except exceptions.BadImage:
        return
    assert isinstance(found.manifest, bytes)


def test_a_frame_that_claims_too_much_is_not_opened() -> None:
    data = records.pack(None, bytes(900))
    assert records.unpack(data, "image", 1000).manifest == bytes(900)
    with pytest.raises(exceptions.BadImage, match=r"it is no manifest: 9\d\d bytes"):
        records.unpack(data, "image", 900)


def test_a_frame_that_states_no_length_is_not_opened() -> None:
    """It could be as large as it likes: a bomb of a gigabyte is 32 kB."""
    maker = zstandard.ZstdCompressor(write_content_size=False)
    stream = maker.compressobj()
    bomb = records.MAGIC + b"".join(stream.compress(bytes(2**20)) for _ in range(8)) + (
        stream.flush())
    assert len(bomb) < 2000
    with pytest.raises(exceptions.BadImage, match="it is no manifest: -1 bytes"):
        records.unpack(bomb, "image")


def test_a_frame_that_lies_about_its_length_is_not_believed() -> None:
    header = zstandard.ZstdCompressor().compress(bytes(10))[:6]
    body = zstandard.ZstdCompressor().compress(bytes(10**6))
    parameters = zstandard.get_frame_parameters(body)
    assert parameters.content_size == 10**6
    # Magic, descriptor and length of the small one, blocks of the large one.
    size = zstandard.frame_header_size(body)
    with pytest.raises(exceptions.BadImage, match="it is no manifest"):
        records.unpack(records.MAGIC + header + body[size:], "image")


def test_a_record_of_another_kind_is_refused() -> None:
    part = records.unpack(records.pack(PART, b""), "image")
    assert part.of(Part, "image") == PART
    with pytest.raises(exceptions.BadImage, match="image image is refused: its record"):
        part.of(Composite, "image")
    with pytest.raises(exceptions.BadImage):
        records.unpack(records.pack(None, b""), "image").of(Part, "image")
