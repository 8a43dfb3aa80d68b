from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.part import FILESET, Part
from splitimage_driver.store.local import LocalStore

Open = Callable[..., LocalStore]


def _capture(make: Any, manifest: Any = None, *, owner: str = "default") -> Part:
    """A part as a capture stores it."""
    manifest = manifest or make.part_manifest()
    return make.store.add_part(Part(  # type: ignore[no-any-return]
        id=manifest.digest, name="apache", kind="software", blob=make.object(b"its blob"),
        blob_size=8, size=9, files=1, owner=owner, created=1.0), manifest, pending=True)


def _die(store: LocalStore) -> None:
    """As SIGKILL does to it: nothing is tidied, only the kernel's lock goes."""
    store._session.close()
    store._database.close()


def _objects(make: Any) -> int:
    return sum(file.is_file() for name in ("objects", "manifests")
               for file in (make.root / name).rglob("*"))


def _none_left(store: LocalStore, make: Any) -> None:
    assert store.parts() == [] and _objects(make) == 0
    assert make.sql("SELECT * FROM uses") == [] == make.sql("SELECT * FROM leases")
    assert list(store.check()) == []


def test_it_goes_with_a_store_that_is_closed(open_local: Open, maker: Any) -> None:
    store = open_local()
    make = maker(store)
    _capture(make)
    store.close()
    _none_left(open_local(), make)


def test_it_goes_with_a_process_that_dies(open_local: Open, maker: Any) -> None:
    store = open_local()
    make = maker(store)
    _capture(make)
    _die(store)
    _none_left(open_local(), make)


def test_a_check_that_repairs_removes_it_too(open_local: Open, maker: Any) -> None:
    watcher, store = open_local(), open_local()
    make = maker(store)
    _capture(make)
    assert list(watcher.check(repair=True)) == [] and watcher.parts()
    _die(store)
    list(watcher.check(repair=True))
    _none_left(watcher, make)


def test_it_stays_with_its_composite(open_local: Open, maker: Any) -> None:
    store = open_local()
    make = maker(store)
    part = _capture(make)
    composite = make.saved("lamp", part)
    store.close()
    store = open_local()
    assert store.parts() == [part]
    store.delete_composite(composite.id)
    store.close()
    assert open_local().parts() == [part]


def test_nobody_deletes_it_meanwhile(open_local: Open, maker: Any) -> None:
    make = maker(open_local())
    part = _capture(make)
    other = open_local()
    with pytest.raises(exceptions.InUse, match="part apache is in use by capture"):
        other.delete_part(part.id)
    make.saved("lamp", part)
    with pytest.raises(exceptions.InUse, match="composite lamp"):
        other.delete_part(part.id)


def test_one_that_was_there_before_stays(open_local: Open, maker: Any) -> None:
    store = open_local()
    make = maker(store)
    old = make.part(manifest=(manifest := make.part_manifest()))
    met = _capture(make, manifest)
    assert met == old
    _die(store)
    store = open_local()
    assert store.parts() == [old]
    store.delete_part(old.id)
    store.close()
    _none_left(open_local(), make)


def test_two_captures_of_the_same_part(open_local: Open, maker: Any) -> None:
    """It goes with the last of them, or stays with the first composite."""
    for finished in (False, True):
        one, two = maker(open_local()), maker(open_local())
        manifest = one.part_manifest()
        part = _capture(one, manifest)
        assert _capture(two, manifest) == part
        _die(one.store)
        store = open_local()
        assert store.parts() == [part]
        if finished:
            two.saved("lamp", part)
        _die(two.store)
        store.close()
        store = open_local()
        assert store.parts() == ([part] if finished else [])


def test_another_captures_composite_makes_it_stay(open_local: Open, maker: Any) -> None:
    one, two = maker(open_local()), maker(open_local())
    manifest = one.part_manifest()
    part = _capture(one, manifest)
    _capture(two, manifest)
    composite = two.saved("lamp", part)
    two.store.delete_composite(composite.id)
    for store in (one.store, two.store):
        _die(store)
    assert open_local().parts() == [part]


def test_one_stored_for_its_own_sake_stays(open_local: Open, maker: Any) -> None:
    one, two = maker(open_local()), maker(open_local())
    manifest = one.part_manifest()
    part = _capture(one, manifest)
    assert two.part(kind=FILESET, manifest=manifest) == part
    _die(one.store)
    assert open_local().parts() == [part]


def test_owners_are_told_apart(open_local: Open, maker: Any) -> None:
    store = open_local()
    make = maker(store)
    manifest = make.part_manifest()
    mine = make.part(manifest=manifest, owner="mine")
    _capture(make, manifest, owner="theirs")
    make.saved("lamp", mine, owner="mine")
    _die(store)
    assert open_local().parts() == [mine]
