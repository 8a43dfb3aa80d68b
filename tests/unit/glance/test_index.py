"""The index follows what changes."""

from __future__ import annotations

import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from splitimage_driver.glance import index as index_
from splitimage_driver.glance.index import FileSet, Index
from splitimage_driver.store.glance.api import Description
from tests.stocked import Stock, digest
from tests.unit.glance.conftest import FakeDatabase
from tests.unit.store.glance.fake import FakeGlance


@pytest.fixture
def index(database: FakeDatabase) -> Index:
    return Index(database)


def ids(index: Index, composite: Description, project: str = "alpha") -> set[str]:
    index.refresh()
    return {found.id for found in index.completed(
        composite["id"], composite["splitimage_os"], project=project, owner=composite["owner"])}


def names(index: Index, name: str) -> list[str]:
    index.refresh()
    return [found.id for found in index.named(name)]


def test_it_knows_what_an_image_is_made_of(index: Index, alpha: Stock) -> None:
    composite = alpha.composite("lamp")
    fileset = alpha.fileset("mine", 3, 4)
    image = alpha.completed(composite, ["apache", "common"], filesets=[fileset])
    index.refresh()
    [found] = index.completed(composite["id"], composite["splitimage_os"], project="alpha",
                              owner="alpha")
    assert (found.id, found.elements) == (image, {"apache", "common", fileset})
    assert found.recipe == alpha.images.get(image)["splitimage_recipe"]
    assert [each.id for each in index.named("lamp")] == [composite["id"]]
    [mine] = index.filesets(fileset, "alpha")
    assert mine == FileSet(mine.id, "alpha", fileset)
    assert index.filesets(fileset, "beta") == []


def test_only_own_images_and_public_ones_of_the_composites_owner_are_candidates(
        index: Index, alpha: Stock, beta: Stock, admin: Stock) -> None:
    composite = admin.composite("lamp", visibility="public")
    own = alpha.completed(composite, ["mysql"])
    offered = admin.completed(composite, ["php"], visibility="public")
    admin.completed(composite, ["mysql"])
    for visibility in ("private", "shared", "community"):
        beta.completed(composite, ["mysql"], visibility=visibility)
    assert ids(index, composite, "alpha") == {own, offered}


@pytest.mark.parametrize("changes", [
    {"image_type": "snapshot"}, {"base_image_ref": "x"}, {"splitimage_schema": "2"},
    {"splitimage_parts": "no part's name"}, {"splitimage_recipe": "short"},
    {"splitimage_os": digest("another base")}, {"splitimage_size": "many"}])
def test_what_is_not_as_this_project_writes_it_is_left_out(
        index: Index, alpha: Stock, changes: dict[str, Any]) -> None:
    composite = alpha.composite("lamp")
    good = alpha.completed(composite, ["mysql"])
    alpha.completed(composite, ["mysql"], changes=changes)
    assert ids(index, composite) == {good}


def test_it_follows_every_change(index: Index, alpha: Stock, glance: FakeGlance) -> None:
    composite = alpha.composite("lamp")
    image = alpha.completed(composite, ["mysql"])
    assert ids(index, composite) == {image}
    alpha.images.deactivate(image)
    assert ids(index, composite) == set()
    alpha.images.deactivate(image, back=True)
    assert ids(index, composite) == {image}
    alpha.images.update(image, {"splitimage_role": None})
    assert ids(index, composite) == set()
    alpha.images.update(image, {"splitimage_role": "completed"})
    assert ids(index, composite) == {image}
    alpha.images.delete(image)
    assert ids(index, composite) == set()
    assert names(index, "lamp") == [composite["id"]]
    alpha.images.update(composite["id"], {"name": "stack"})
    assert (names(index, "lamp"), names(index, "stack")) == ([], [composite["id"]])
    alpha.images.delete(composite["id"])
    assert names(index, "stack") == []
    assert len(index) == 0
    assert not (index._names or index._completed or index._filesets)


def test_a_change_in_the_same_second_is_seen(index: Index, alpha: Stock,
                                             glance: FakeGlance) -> None:
    composite = alpha.composite("lamp")
    stamp = composite["updated_at"]
    assert names(index, "lamp") == [composite["id"]]
    alpha.images.update(composite["id"], {"name": "stack"})
    glance.images[composite["id"]]["updated_at"] = stamp
    assert names(index, "stack") == [composite["id"]]


def test_what_has_not_changed_is_not_read_again(index: Index, alpha: Stock, glance: FakeGlance,
                                                database: FakeDatabase) -> None:
    composite = alpha.composite("lamp")
    image = alpha.completed(composite, ["mysql"])
    glance.age(30)  # within the overlap
    index.refresh()
    assert database.read_ids[-1] == {composite["id"], image}, "no manifest"
    index.refresh()
    assert database.read_ids[-1] == set()
    alpha.images.update(image, {"splitimage_used": "5"})
    index.refresh()
    assert database.read_ids[-1] == {image}


def test_a_change_that_is_seen_late_is_seen(index: Index, alpha: Stock, glance: FakeGlance) -> None:
    """Another host's clock is slow, or its transaction took long."""
    assert names(index, "lamp") == []
    composite = alpha.composite("lamp")
    glance.age(45, composite["id"])
    assert names(index, "lamp") == [composite["id"]]


def test_it_asks_for_changes_since_a_minute_before_the_last_time(
        index: Index, database: FakeDatabase) -> None:
    index.refresh()
    index.refresh()
    assert database.asked[0] is None
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert database.asked[1] is not None
    assert datetime.timedelta(seconds=59) < now - database.asked[1] < datetime.timedelta(seconds=90)


def test_who_waits_for_another_is_content_with_what_that_one_asks_afterwards(
        database: FakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never with what was asked before the call."""
    index = Index(database)
    # When it was called, and, if it asks, when it does.
    clock = iter([10.0, 11.0, 10.5, 12.0, 12.5])
    monkeypatch.setattr(index_, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    for asked in (1, 1, 2):
        index.refresh()
        assert len(database.asked) == asked
    assert next(clock, None) is None


def test_after_a_failure_nothing_is_missed(index: Index, alpha: Stock, database: FakeDatabase,
                                           glance: FakeGlance) -> None:
    index.refresh()
    composite = alpha.composite("lamp")

    def fail() -> None:
        raise OSError("the database is gone")

    database.before = fail
    with pytest.raises(OSError, match="gone"):
        index.refresh()
    database.before = lambda: None
    glance.age(45)
    index.refresh()
    assert names(index, "lamp") == [composite["id"]]


def test_one_that_goes_between_two_questions_is_gone(
        index: Index, alpha: Stock, database: FakeDatabase, glance: FakeGlance,
        monkeypatch: pytest.MonkeyPatch) -> None:
    composite = alpha.composite("lamp")
    assert names(index, "lamp") == [composite["id"]]
    heads = database.heads

    def and_gone(since: datetime.datetime | None) -> Any:
        found = heads(since)
        glance.images.pop(composite["id"], None)
        return found

    monkeypatch.setattr(database, "heads", and_gone)
    assert names(index, "lamp") == []
