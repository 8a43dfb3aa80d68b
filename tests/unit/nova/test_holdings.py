"""What a host tells of what it holds."""

from __future__ import annotations

import base64
import hashlib
import random
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import PartRef
from splitimage_driver.model.part import DEPENDENCY, FILESET
from splitimage_driver.nova import holdings
from splitimage_driver.nova.holdings import (
    KEY,
    LIMIT,
    HeldComposite,
    HeldFileset,
    HeldImage,
    HeldPart,
    Holdings,
    mark,
)
from splitimage_driver.store.glance.used import Kept, UsedComposite, UsedFileset, UsedPart
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance
from tests.unit.store.glance.gold import Gold

LAMP = HeldComposite("c1", 400, True, False, (
    HeldPart("apache", 30, True, (1,)), HeldPart("apr", 5, True), HeldPart("php", 20, False)), (2,))
MADE = HeldImage("i1", "p1", "c1", (0, 1), ("f1",), 440, True, True)


def read(found: dict[str, str]) -> Holdings:
    return holdings.unpack(found[KEY])


# -- as text -----------------------------------------------------------------------------


def test_the_text_is_read_as_it_was_written() -> None:
    found = Holdings((LAMP,), (MADE,), (HeldFileset("f1", "n1", 3),))
    text = holdings.pack(found)
    assert holdings.unpack(text) == found
    assert text.isascii() and '"' not in text


@pytest.mark.parametrize("text", [
    "", "1:", "1:?", "1:AAAA", "0:" + holdings.pack(Holdings())[2:],
    holdings.pack(Holdings())[:-4], "1:" + "A" * LIMIT,
    "1:" + base64.b64encode(zlib.compress(b'[["c"]]')).decode(),
    "1:" + base64.b64encode(zlib.compress(b"[]" + b" " * 2**22)).decode(),
    "1:" + base64.b64encode(zlib.compress(
        msgspec.json.encode([[["c", 1, True, True, [["a", 1, True, [7]]]]]]))).decode()],
    ids=lambda text: text[:20])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        holdings.unpack(text)


def test_a_mark_is_short_and_says_nothing_of_the_word() -> None:
    assert len(mark("alpha", "site")) == 12
    assert mark("alpha", "site") != mark("beta", "site")
    assert mark("alpha", "site") != mark("alphas", "ite")


# -- what a request means ----------------------------------------------------------------


def test_the_closure_is_the_composites() -> None:
    assert LAMP.closure(["apache"]) == {0, 1}
    assert LAMP.closure([]) == frozenset()
    rest = HeldComposite("c", 1, True, False, (
        HeldPart("a", 1, True), HeldPart("b", 1, True), HeldPart("rest", 1, True, (), (0, 1))))
    assert rest.closure(["a"]) == {0} and rest.closure(["a", "b"]) == {0, 1, 2}
    with pytest.raises(exceptions.UnknownPart):
        LAMP.closure(["nginx"])


# -- of this host ------------------------------------------------------------------------


def test_a_host_without_a_store_tells_nothing(tmp_path: Path) -> None:
    assert holdings.stats(tmp_path / "none") == {}


def test_a_damaged_store_is_no_reason_to_fail(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "splitimage.db").write_bytes(b"no database")
    assert holdings.stats(tmp_path) == {}
    assert "cannot tell the scheduler" in caplog.text


def test_what_of_a_composite_is_here(alpha: Records, stores: Stores, tmp_path: Path) -> None:
    gold = Gold(stores(alpha.images))
    apache = gold.part("apache", content=b"a" * 5000)
    php = gold.part("php", content=b"p" * 9000)
    apr = gold.part("apr", kind=DEPENDENCY)
    lamp = gold.saved("lamp", apache, php, apr)
    lamp = gold.store.save_composite(msgspec.structs.replace(lamp, parts={
        **lamp.parts, "apache": PartRef(id=apache.id, kind=apache.kind, requires=("apr",))}),
        replace=True)
    alpha.images.update(lamp.id, {"splitimage_default_parts": "php,unknown"})
    host = stores(alpha.images, host="host")
    assert holdings.stats(tmp_path / "host") == {}
    host.composite("lamp")
    assert holdings.stats(tmp_path / "host") == {}, "nothing of it is here"
    host.path(apache.blob)
    assert read(holdings.stats(tmp_path / "host")) == Holdings((HeldComposite(
        mark(lamp.id), 1, False, False,
        (HeldPart("apache", 5, True, (1,)), HeldPart("apr", 1, False), HeldPart("php", 9, False)),
        (2,)),))
    host.path(lamp.base.disk)
    [found] = read(holdings.stats(tmp_path / "host")).composites
    assert found.here and not found.boots


def cached(folder: Path, image: str) -> None:
    """Nova has it."""
    folder.mkdir(exist_ok=True)
    (folder / hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()).touch()


def test_the_images_that_nova_has(alpha: Records, stores: Stores, tmp_path: Path) -> None:
    lamp = alpha.composite("lamp", apache=alpha.part("apache"), php=alpha.part("php"))
    images = [alpha.completed(lamp, "apache"), alpha.completed(lamp, "apache", "php")]
    host = stores(alpha.images, host="host")
    host.composite("lamp")
    for image in images:
        host.touch_image(image["id"])
    host.cache.path(images[1])
    cached(tmp_path / "base", images[0]["id"])
    found = read(holdings.stats(tmp_path / "host", tmp_path / "base"))
    assert {image.mark: (image.parts, image.here, image.boots) for image in found.images} == {
        mark(images[0]["id"]): ((0,), False, True), mark(images[1]["id"]): ((0, 1), True, False)}
    assert {image.project for image in found.images} == {mark("alpha")}
    assert {image.composite for image in found.images} == {mark(lamp["id"])}
    cached(tmp_path / "base", lamp["id"])
    [composite] = read(holdings.stats(tmp_path / "host", tmp_path / "base")).composites
    assert composite.boots and not composite.here


def test_a_public_image_is_everybodys_if_it_is_the_composites_owners(
        glance: FakeGlance, alpha: Records, beta: Records, stores: Stores,
        tmp_path: Path) -> None:
    lamp = alpha.composite("lamp", apache=alpha.part("apache"))
    one, other = alpha.completed(lamp, "apache"), beta.completed(lamp, "apache")
    for name in alpha.made + beta.made:
        glance.images[name]["visibility"] = "public"
    host = stores(beta.images, host="host")
    host.composite("lamp")
    host.touch_image(one["id"])
    host.touch_image(other["id"])
    for image in (one, other):
        cached(tmp_path / "base", image["id"])
    found = read(holdings.stats(tmp_path / "host", tmp_path / "base"))
    assert {image.mark: image.project for image in found.images} == {
        mark(one["id"]): "", mark(other["id"]): mark("beta")}


def test_file_sets_are_told_by_marks_of_their_project(
        alpha: Records, stores: Stores, tmp_path: Path) -> None:
    gold = Gold(stores(alpha.images))
    site = gold.part("site", kind=FILESET, pending=False, content=b"s" * 3000)
    gold.saved("lamp", apache := gold.part("apache"))
    host = stores(alpha.images, host="host")
    host.composite("lamp")
    host.path(apache.blob)
    host.part("site")
    assert read(holdings.stats(tmp_path / "host")).filesets == ()
    host.path(site.blob)
    found = holdings.stats(tmp_path / "host")
    assert read(found).filesets == (
        HeldFileset(mark("alpha", site.id), mark("alpha", "site"), 3),)


# -- its bounds --------------------------------------------------------------------------


class Full(Kept):
    """A host that has had a great deal, with names as long as they may be."""

    def __init__(self, composites: int, images: int) -> None:
        self._random = random.Random(1)
        self._lists: dict[type, list[Any]] = {UsedComposite: [], Image: [], UsedFileset: []}
        self._ids: set[str] = set()
        for _ in range(composites):
            owner, parts = self._id(), sorted(self._id()[:31] * 2 for _ in range(64))
            self._lists[UsedComposite].append(UsedComposite(
                id=(name := self._id()), owner=owner, base=self._random.getrandbits(32),
                parts={part: UsedPart(PartRef(id="0" * 64, kind="software",
                                              requires=tuple(self._random.sample(parts, 5))),
                                      self._id(), self._random.getrandbits(30))
                       for part in parts}))
            for _ in range(images):
                self._lists[Image].append(Image(
                    id=self._id(), name="", composite=name, owner=owner,
                    parts=tuple(self._random.sample(parts, 20)), recipe="", disk="",
                    disk_size=self._random.getrandbits(33), virtual_size=0, manifest="",
                    mounts=(), created=0, last_used=0))

    def _id(self) -> str:
        name = f"{self._random.getrandbits(128):032x}"
        self._ids.add(name)
        return name

    def images(self) -> set[str]:
        return self._ids

    def used(self, model: type, limit: int = 256) -> list[Any]:
        return self._lists[model][:limit]


def test_however_much_is_here_the_text_is_short() -> None:
    full = Full(256, 4)
    text = holdings.told(full, None)
    assert 0 < len(text) <= LIMIT
    found = holdings.unpack(text)
    last = {mark(one.id) for one in full.used(UsedComposite, len(found.composites))}
    assert {one.mark for one in found.composites} == last, "the last used are told"
    assert found.images


def test_ten_ordinary_composites_are_told_whole() -> None:
    """Eight parts each, and eight completed images of each."""
    full = Full(10, 8)
    composites = [msgspec.structs.replace(one, parts={
        f"software-{number}": part for number, part in enumerate(list(one.parts.values())[:8])})
        for one in full._lists[UsedComposite]]
    full._lists[UsedComposite] = composites
    full._lists[Image] = [msgspec.structs.replace(one, parts=("software-1", "software-4"))
                          for one in full._lists[Image]]
    found = holdings.unpack(holdings.told(full, None))
    assert (len(found.composites), len(found.images)) == (10, 80)


def test_the_text_changes_only_with_what_is_here(
        alpha: Records, stores: Stores, tmp_path: Path) -> None:
    """Nova writes it into its database whenever it is another one."""
    gold = Gold(stores(alpha.images))
    for name in ("one", "two"):
        gold.saved(name, gold.part("apache"))
    host = stores(alpha.images, host="host")
    for name in ("one", "two"):
        host.path(host.composite(name).base.disk)
    before = holdings.stats(tmp_path / "host")
    with host._database.writing() as connection:
        connection.execute("UPDATE used SET time = -time")
    assert holdings.stats(tmp_path / "host") == before != {}
