"""Data that this host keeps: for an image, as long as there is room."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import os
import threading
from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.store import GlanceStore
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance

SIZE = 1000


class Kept:
    """A cache, and images to keep; each is SIZE bytes unless told."""

    def __init__(self, glance: FakeGlance, store: GlanceStore, records: Records) -> None:
        self.glance, self.store, self.records = glance, store, records
        self.cache = store.cache
        self._clock = 0

    def image(self, data: bytes = b"") -> Description:
        number = len(self.records.made)
        return self.records.image("x", {}, data or str(number).encode() * SIZE)

    def fetch(self, *images: Description) -> None:
        """One after the other, a second apart."""
        for image in images:
            path = self.cache.path(image)
            self._clock += 1
            os.utime(path, (self._clock, self._clock))

    def here(self, *images: Description) -> list[bool]:
        return [bool(self.cache.digest(image["id"])) for image in images]

    @property
    def files(self) -> set[str]:
        return {path.name for path in (Path(self.store._root) / "objects").rglob("*")
                if path.is_file()}

    @property
    def downloads(self) -> int:
        return sum(path.endswith("/file") for method, path in self.glance.requests
                   if method == "GET")


@pytest.fixture
def kept(glance: FakeGlance, alpha: Records, stores: Stores) -> Kept:
    return Kept(glance, stores(alpha.images, cache_bytes=3 * SIZE), alpha)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_data_travel_once(kept: Kept) -> None:
    image = kept.image(b"data")
    assert kept.cache.digest(image["id"]) == ""
    for _ in range(3):
        assert kept.cache.path(image, sha256=digest(b"data")).read_bytes() == b"data"
    assert kept.cache.digest(image["id"]) == digest(b"data")
    assert kept.downloads == 1


def test_several_who_want_the_same_fetch_it_once(kept: Kept) -> None:
    image = kept.image(b"data")
    met = threading.Barrier(4)

    def fetch(_: int) -> bytes:
        met.wait(10)
        return kept.cache.path(image).read_bytes()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetch, range(4))) == {b"data"}
    assert kept.downloads == 1


def test_data_are_kept_for_an_image_and_not_for_their_digest(
        kept: Kept, glance: FakeGlance, beta: Records) -> None:
    """Whoever names an image by a digest that is here has to fetch the image."""
    secret = kept.image(b"secret")
    kept.fetch(secret)
    claimed = beta.image("claimed", {"splitimage_digest": digest(b"secret")}, b"other",
                         visibility="community")
    assert kept.cache.digest(claimed["id"]) == ""
    with pytest.raises(exceptions.DigestMismatch):
        kept.cache.path(claimed, sha256=digest(b"secret"))
    assert kept.here(claimed) == [False]
    assert kept.cache.path(claimed).read_bytes() == b"other"


def test_data_that_are_not_what_they_should_be_are_not_kept(kept: Kept) -> None:
    image = kept.image(b"data")
    with pytest.raises(exceptions.DigestMismatch):
        kept.cache.path(image, sha256="0" * 64)
    assert (kept.here(image), kept.files) == ([False], set())
    kept.fetch(image)
    with pytest.raises(exceptions.DigestMismatch):
        kept.cache.path(image, sha256="0" * 64)
    with pytest.raises(exceptions.TooLarge):
        kept.cache.path(kept.image(b"more"), limit=3)
    assert kept.files == {digest(b"data")}


def test_data_that_are_judged_badly_are_not_kept(kept: Kept) -> None:
    image = kept.image(b"data")

    def refuse(path: Path) -> None:
        assert path.read_bytes() == b"data"
        raise exceptions.BadDisk(path=path, reason="no disk")

    with pytest.raises(exceptions.BadDisk):
        kept.cache.path(image, check=refuse)
    assert (kept.here(image), kept.files) == ([False], set())


def test_the_least_recently_used_go_first(kept: Kept) -> None:
    one, two, three, four = (kept.image() for _ in range(4))
    kept.fetch(one, two, three)
    assert kept.here(one, two, three) == [True] * 3
    kept.fetch(one)  # used again
    kept.cache.path(four)
    assert kept.here(one, two, three, four) == [True, False, True, True]
    assert len(kept.files) == 3


def test_the_one_that_is_being_fetched_stays_however_large(kept: Kept) -> None:
    one, large = kept.image(), kept.image(b"l" * SIZE * 9)
    kept.fetch(one, large)
    assert kept.here(one, large) == [False, True]


def test_without_limit_all_stay(glance: FakeGlance, alpha: Records, stores: Stores) -> None:
    kept = Kept(glance, stores(alpha.images, cache_bytes=0), alpha)
    images = [kept.image() for _ in range(9)]
    kept.fetch(*images)
    assert all(kept.here(*images))


def test_images_with_the_same_data_count_once(kept: Kept) -> None:
    same = [kept.image(b"s" * SIZE) for _ in range(5)]
    other = kept.image()
    kept.fetch(*same, other)
    assert all(kept.here(*same, other))
    kept.fetch(kept.image(), kept.image())
    assert kept.here(*same) == [False] * 5
    assert len(kept.files) == 3


def test_what_is_held_stays(kept: Kept) -> None:
    """A launch may need more than the limit."""
    images = [kept.image() for _ in range(5)]
    kept.fetch(images[0])
    with kept.store._contents.hold([kept.cache.digest(images[0]["id"])]):
        kept.fetch(*images[1:])
        assert kept.here(images[0]) == [True]
    kept.fetch(kept.image())
    assert kept.here(images[0]) == [False]
    assert len(kept.files) == 3


def test_what_a_session_has_stored_stays_until_it_is_recorded(kept: Kept) -> None:
    with kept.store.scratch() as scratch:
        (scratch / "disk").write_bytes(b"d" * SIZE)
        adopted = kept.store.adopt(scratch / "disk")
    kept.fetch(*(kept.image() for _ in range(5)))
    assert adopted in kept.files


def test_a_file_that_was_deleted_is_fetched_again(kept: Kept) -> None:
    image = kept.image(b"data")
    kept.cache.path(image).unlink()
    assert kept.here(image) == [False]
    assert kept.cache.path(image).read_bytes() == b"data"


def test_one_that_another_process_lets_go_of_just_now_is_fetched_again(
        kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    image = kept.image(b"data")
    kept.fetch(image)
    utime, left = os.utime, iter([True])

    def overtaken(path: Path, *times: object) -> None:
        if next(left, False):
            kept.cache.forget(image["id"])
        utime(path, *times)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "utime", overtaken)
    assert kept.cache.path(image).read_bytes() == b"data"


def test_a_damaged_copy_of_a_small_image_is_told_and_fetched_again(kept: Kept) -> None:
    image = kept.image(b"data")
    path = kept.cache.path(image)
    path.chmod(0o600)
    path.write_bytes(b"dada")
    with pytest.raises(exceptions.DigestMismatch, match=r"the copy of image .* on this host"):
        kept.cache.read(image, limit=9)
    assert kept.cache.read(image, limit=9) == b"data"


def test_what_is_forgotten_goes_unless_another_image_has_it(kept: Kept) -> None:
    one, two = kept.image(b"same"), kept.image(b"same")
    kept.fetch(one, two)
    kept.cache.forget(one["id"])
    assert kept.here(one, two) == [False, True]
    assert kept.files == {digest(b"same")}
    kept.cache.forget(two["id"])
    assert kept.files == set()
    kept.cache.forget("never kept")


def test_an_object_that_was_made_here_need_not_be_fetched(kept: Kept) -> None:
    image = kept.image(b"data")
    with kept.store.scratch() as scratch:
        (scratch / "disk").write_bytes(b"data")
        kept.cache.keep(image["id"], kept.store.adopt(scratch / "disk"))
    assert kept.cache.path(image).read_bytes() == b"data"
    assert kept.downloads == 0


def test_an_image_that_has_other_data_now_is_kept_with_them(kept: Kept) -> None:
    """Ids are not given twice; an import puts other data in the place of the
    first."""
    image = kept.image(b"gold")
    kept.fetch(image)
    with kept.store.scratch() as scratch:
        (scratch / "disk").write_bytes(b"base")
        kept.cache.keep(image["id"], kept.store.adopt(scratch / "disk"))
    assert kept.cache.path(image).read_bytes() == b"base"
    assert kept.files == {digest(b"base")}


def test_what_cannot_be_fetched_leaves_nothing(kept: Kept, glance: FakeGlance) -> None:
    image = kept.image(b"data")
    kept.records.images.discard(image["id"])
    with pytest.raises(exceptions.NotFound):
        kept.cache.path(image)
    assert kept.files == set()
    assert list((Path(kept.store._root) / "tmp").iterdir()) == []


def test_small_data_are_read_whole(kept: Kept) -> None:
    content = io.BytesIO(b"manifest" * 100)
    assert kept.cache.read(kept.image(content.getvalue()), limit=800) == content.getvalue()
