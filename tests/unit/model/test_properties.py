"""What an image says of itself: written, read, and claimed by others."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Base, Composite, System
from splitimage_driver.model.part import Part
from splitimage_driver.model.properties import Link, Links

IMAGE, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
DIGEST = "ab" * 32

#: Custom properties that Glance allows by default, and characters of a value.
QUOTA, WIDTH = 128, 255

#: The machine that runs this may be a busy one.
few = settings(max_examples=40, deadline=None)

ids = st.uuids().map(str)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
links = st.builds(Link, ids, digests)
seconds = st.floats(0, 2**33)
images = st.builds(
    Image, id=ids, name=st.text(max_size=9), composite=ids,
    parts=st.lists(names, max_size=64, unique=True).map(tuple),
    filesets=st.lists(digests, max_size=20, unique=True).map(tuple), recipe=digests,
    disk=digests, disk_size=st.integers(0, 2**50), virtual_size=st.integers(0, 2**50),
    manifest=digests, mounts=st.just(()), owner=names, public=st.booleans(), created=seconds,
    last_used=seconds, booted=st.booleans())


LAMP = Composite(name="lamp", id=IMAGE, owner="alpha", created=1.0, parts={}, restore="",
                 system=System("debian", "12", "Debian 12", "x86_64"),
                 base=Base(DIGEST, 1, 1, DIGEST, ()))


def shown(image: Image, said: dict[str, str]) -> dict[str, Any]:
    """As Glance shows it."""
    return said | {"id": image.id, "name": image.name, "owner": image.owner,
                   "size": image.disk_size,
                   "visibility": "public" if image.public else "shared"}


def of_composite(**said: str) -> dict[str, Any]:
    link = Link(OTHER, DIGEST)
    return properties.of_composite(LAMP, OTHER, Links({"apache": link}, link)) | {
        "id": IMAGE} | said


def of_completed(**said: str) -> dict[str, Any]:
    image = Image(id=IMAGE, name="lamp+apache", composite=OTHER, parts=("apache",), recipe=DIGEST,
                  disk=DIGEST, disk_size=1, virtual_size=1, manifest=DIGEST, mounts=(),
                  owner="alpha", created=0, last_used=0)
    return shown(image, properties.of_completed(image, OTHER, DIGEST)) | said


# -- what is written can be read ---------------------------------------------------


@few
@given(st.dictionaries(names, links, max_size=64), links, ids)
def test_the_parts_of_a_composite_come_back(parts: dict[str, Link], restore: Link,
                                            held: str) -> None:
    said = properties.of_composite(LAMP, held, Links(parts, restore))
    assert properties.links(said) == Links(parts, restore)
    assert properties.manifest(said) == held
    assert properties.role(said) == properties.COMPOSITE
    assert len(said) <= QUOTA
    assert all(len(value) <= WIDTH for value in said.values())


@few
@given(images)
def test_a_completed_image_comes_back(image: Image) -> None:
    said = properties.of_completed(image, OTHER, DIGEST)
    found = properties.completed(shown(image, said), image.created)
    assert abs(found.last_used - image.last_used) < 0.001  # a time is kept that well
    assert msgspec.structs.replace(found, last_used=image.last_used) == image
    assert len(said) <= QUOTA
    assert all(len(value) <= WIDTH for value in said.values())


@few
@given(st.lists(names, max_size=64))
def test_a_long_list_goes_on_in_further_properties(words: list[str]) -> None:
    said = properties._pieces("splitimage_parts", words)
    assert properties.words(said, "splitimage_parts") == tuple(words)
    assert all(len(piece) <= WIDTH for piece in said.values())


def test_the_longest_list_of_parts_fits() -> None:
    words = tuple(f"{number:02}".ljust(63, "x") for number in range(64))
    said = properties._pieces("splitimage_parts", words)
    assert properties.words(said, "splitimage_parts") == words


@pytest.mark.parametrize("blob", [DIGEST, ""])
def test_a_part_comes_back(blob: str) -> None:
    part = Part(id=DIGEST, name="apache", kind="software", blob=blob, blob_size=1, size=1, files=1,
                owner="alpha", created=1.0)
    said = properties.of_part(part, OTHER, "cd" * 32)
    assert (properties.digest(said), properties.blob(said)) == (DIGEST, blob)
    assert properties.manifest(said) == OTHER
    assert said["splitimage_os"] == "cd" * 32
    assert "splitimage_os" not in properties.of_part(part, OTHER)


def test_a_manifest_names_its_holder() -> None:
    said = properties.of_manifest(OTHER)
    assert (said["splitimage_for"], properties.role(said)) == (OTHER, properties.MANIFEST)


# -- what is claimed ---------------------------------------------------------------


@pytest.mark.parametrize("said", [
    {}, {"splitimage_role": ""}, {"splitimage_role": "Composite"}, {"splitimage_role": "base"},
    {"splitimage_role": ["composite"]}, {"splitimage_schema": "1"}])
def test_any_other_image_has_no_role(said: dict[str, Any]) -> None:
    assert properties.role(said) == ""


@pytest.mark.parametrize("schema", [None, "", "2", "01", "1\n", "9" * 4096])
def test_another_schema_is_refused_by_name(schema: str | None) -> None:
    with pytest.raises(exceptions.BadImage, match="its schema is") as raised:
        properties.role({"splitimage_role": "part", "splitimage_schema": schema})
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("value", [
    "", " ", IMAGE, DIGEST, f"{IMAGE}  {DIGEST}", f"{IMAGE} {DIGEST} ", f" {IMAGE} {DIGEST}",
    f"{IMAGE} {DIGEST}\n", f"{IMAGE}\n{DIGEST}", f"{IMAGE} {DIGEST[:-1]}", f"{IMAGE} {DIGEST}0",
    f"{IMAGE} {DIGEST.upper()}", f"{IMAGE.replace('-', '')} {DIGEST}", f"../{IMAGE} {DIGEST}",
    f"{IMAGE}/file {DIGEST}", f"{IMAGE} {DIGEST} {IMAGE}", f"{IMAGE} " + "a" * 2**20])
def test_a_link_is_an_id_and_a_digest(value: str) -> None:
    for name in ("splitimage_part_apache", "splitimage_restore"):
        with pytest.raises(exceptions.BadImage, match=name) as raised:
            properties.links(of_composite(**{name: value}))
        assert len(str(raised.value)) < 300


@pytest.mark.parametrize("name", [
    "", "../apache", "apache/x", "Apache", "apache\n", "apache mysql", ".hidden", "-f", "a" * 64,
    "apache\0", "a" * 2**20])
def test_a_part_has_a_plain_name(name: str) -> None:
    with pytest.raises(exceptions.BadImage, match="names no part") as raised:
        properties.links(of_composite(**{f"splitimage_part_{name}": f"{OTHER} {DIGEST}"}))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("number", [65, 10_000])
def test_there_are_64_parts_at_most(number: int) -> None:
    more = {f"splitimage_part_p{n}": f"{OTHER} {DIGEST}" for n in range(number - 1)}
    with pytest.raises(exceptions.BadImage, match=f"it has {number} parts, at most 64"):
        properties.links(of_composite(**more))


def test_a_composite_without_restore_part_is_none() -> None:
    image = of_composite()
    del image["splitimage_restore"]
    with pytest.raises(exceptions.BadImage, match="splitimage_restore"):
        properties.links(image)


@pytest.mark.parametrize("value", ["", "none", f"{OTHER}\n", f"../{OTHER}", OTHER.upper() + "G"])
def test_a_manifest_is_an_id(value: str) -> None:
    with pytest.raises(exceptions.BadImage, match="splitimage_manifest"):
        properties.manifest(of_composite(splitimage_manifest=value))


@pytest.mark.parametrize("value", ["", "none", f"{DIGEST}\n", DIGEST.upper(), "../" + DIGEST])
def test_a_digest_is_a_sha256(value: str) -> None:
    with pytest.raises(exceptions.BadImage, match="splitimage_digest is no sha256"):
        properties.digest({"splitimage_digest": value})


@pytest.mark.parametrize("said", [
    {"splitimage_parts": "apache,../x"}, {"splitimage_parts": "apache,,mysql"},
    {"splitimage_parts": "apache\n"}, {"splitimage_parts_1": "Q"},
    {"splitimage_filesets": "apache"}, {"splitimage_filesets": DIGEST.upper()},
    {"splitimage_composite": "lamp"}, {"splitimage_composite": f"{OTHER}\n"},
    {"splitimage_recipe": ""}, {"splitimage_disk": "none"}, {"splitimage_tree": "../" + DIGEST},
    {"splitimage_size": "big"}, {"splitimage_size": "9" * 5000}, {"splitimage_size": "1e3"},
    {"splitimage_size": "-1"}, {"splitimage_size": ""}, {"splitimage_used": "yesterday"},
    {"splitimage_used": "nan"}, {"splitimage_used": "inf"}, {"splitimage_role": "composite"},
    {"splitimage_schema": "2"}])
def test_a_completed_image_is_refused_for_any_odd_value(said: dict[str, str]) -> None:
    with pytest.raises(exceptions.BadImage):
        properties.completed(of_completed(**said), 0.0)


@pytest.mark.parametrize("name", [
    "splitimage_composite", "splitimage_recipe", "splitimage_disk", "splitimage_tree",
    "splitimage_size", "splitimage_used", "splitimage_role"])
def test_a_completed_image_says_all_of_it(name: str) -> None:
    image = of_completed()
    del image[name]
    with pytest.raises(exceptions.BadImage):
        properties.completed(image, 0.0)


def test_a_list_does_not_go_on_for_ever() -> None:
    image = of_completed(**{f"splitimage_parts_{n}": "x" for n in range(1, 100)})
    assert len(properties.completed(image, 0.0).parts) <= properties._PIECES


def test_pieces_after_a_gap_do_not_count() -> None:
    image = of_completed(splitimage_parts_2="mysql")
    assert properties.completed(image, 0.0).parts == ("apache",)


def test_booted_is_said_in_one_word() -> None:
    assert properties.completed(of_completed(splitimage_booted="True"), 0.0).booted
    assert not properties.completed(of_completed(splitimage_booted="true"), 0.0).booted
