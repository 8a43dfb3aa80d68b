"""What is noted of images that are used here, for whoever is not logged in."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.part import DEPENDENCY, FILESET
from splitimage_driver.store.glance import used
from splitimage_driver.store.glance.store import GlanceStore
from splitimage_driver.store.glance.used import Kept, UsedComposite, UsedFileset
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance
from tests.unit.store.glance.gold import Gold


def root(store: GlanceStore) -> Path:
    return Path(store._root)


def composites(store: GlanceStore) -> list[UsedComposite]:
    with Kept(root(store)) as kept:
        return kept.used(UsedComposite)


def test_a_composite_that_is_asked_for_is_noted(alpha: Records, stores: Stores) -> None:
    author = stores(alpha.images)
    gold = Gold(author)
    apache, apr = gold.part("apache"), gold.part("apr", kind=DEPENDENCY)
    lamp = gold.saved("lamp", apache, apr)
    alpha.images.update(lamp.id, {"splitimage_default_parts": "apache"})
    host = stores(alpha.images)
    assert composites(host) == []
    host.composite("lamp")
    [found] = composites(host)
    assert (found.id, found.owner, found.base) == (lamp.id, "alpha", lamp.base.disk_size)
    assert found.defaults == ("apache",)
    assert {name: part.size for name, part in found.parts.items()} == {
        "apache": apache.blob_size, "apr": apr.blob_size}
    assert found.parts["apr"].ref == lamp.parts["apr"]


def test_its_data_are_here_once_they_were_fetched(alpha: Records, stores: Stores) -> None:
    gold = Gold(stores(alpha.images))
    apache, php = gold.part("apache"), gold.part("php")
    lamp = gold.saved("lamp", apache, php)
    host = stores(alpha.images)
    host.composite("lamp")
    host.path(lamp.base.disk)
    host.path(php.blob)
    [found] = composites(host)
    with Kept(root(host)) as kept:
        here = kept.images()
    assert lamp.id in here and found.parts["php"].image in here
    assert found.parts["apache"].image not in here


def test_a_completed_image_is_noted_when_it_is_used_and_not_when_it_is_gone(
        alpha: Records, stores: Stores) -> None:
    lamp = alpha.composite()
    made = alpha.completed(lamp)
    host = stores(alpha.images)
    host.image(made["id"])
    with Kept(root(host)) as kept:
        assert kept.used(Image) == []
    host.touch_image(made["id"])
    with Kept(root(host)) as kept:
        [found] = kept.used(Image)
    assert (found.id, found.composite, found.owner) == (made["id"], lamp["id"], "alpha")
    host.delete_image(made["id"])
    with Kept(root(host)) as kept:
        assert kept.used(Image) == []


def test_a_file_set_is_noted_with_its_name(alpha: Records, stores: Stores) -> None:
    site = Gold(stores(alpha.images)).part("site", kind=FILESET, pending=False)
    host = stores(alpha.images)
    host.part("site")
    host.part(site.id)
    with Kept(root(host)) as kept:
        [found] = kept.used(UsedFileset)
    assert (found.id, found.name, found.owner, found.size) == (
        site.id, "site", "alpha", site.blob_size)


def test_the_last_used_come_first(glance: FakeGlance, alpha: Records, stores: Stores,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(used.time, "time", lambda: now[0])
    monkeypatch.setattr(used, "_REMEMBERED", 3)
    names = [alpha.composite(name)["name"] for name in ("one", "two", "three", "four")]
    host = stores(alpha.images)
    for name in (*names, "three", "two"):
        now[0] += 100
        host.composite(name)
    with Kept(root(host)) as kept:
        found = kept.used(UsedComposite)
    assert [glance.images[each.id]["name"] for each in found] == ["two", "three", "four"]


def test_what_is_used_all_the_time_is_not_written_all_the_time(
        alpha: Records, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha.composite()
    host = stores(alpha.images)
    host.composite("lamp")
    monkeypatch.setattr(host._database, "writing", None)
    host.composite("lamp")


def test_that_it_cannot_be_noted_is_no_reason_not_to_use_it(
        alpha: Records, stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    alpha.composite()
    host = stores(alpha.images)
    with sqlite3.connect(root(host) / "splitimage.db") as connection:
        connection.execute("DROP TABLE used")
    assert host.composite("lamp").name == "lamp"
    assert "cannot note what was used" in caplog.text


def test_a_store_that_was_made_before_gets_the_table(alpha: Records, stores: Stores) -> None:
    alpha.composite()
    host = stores(alpha.images, host="old")
    host.close()
    with sqlite3.connect(root(host) / "splitimage.db") as connection:
        connection.execute("DROP TABLE used")
    with Kept(root(host)) as kept:
        assert kept.used(UsedComposite) == []
    stores(alpha.images, host="old").composite("lamp")
    assert len(composites(host)) == 1


def test_where_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(exceptions.StoreCorrupt), Kept(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_told(alpha: Records, stores: Stores) -> None:
    host = stores(alpha.images)
    with sqlite3.connect(root(host) / "splitimage.db") as connection:
        connection.execute("INSERT INTO used VALUES ('x', 'composite', 1, x'00')")
    with pytest.raises(exceptions.StoreCorrupt, match="what was used cannot be read"):
        composites(host)
