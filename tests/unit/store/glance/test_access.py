from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.part import FILESET
from splitimage_driver.store.glance import access, holdings
from splitimage_driver.store.glance.api import Description
from tests.imagerecords import Records
from tests.unit.store.glance.fake import FakeGlance, Killed, writes

GRACE = 3600


def held(image: Description) -> str:
    return properties.manifest(image)


def restore(composite: Description) -> str:
    return properties.links(composite).restore.image


class Seen:
    """Who sees what, as the images are now."""

    def __init__(self, glance: FakeGlance) -> None:
        self.glance = glance

    def __call__(self, *images: Description | str) -> set[tuple[str, frozenset[str]]]:
        found = set()
        for each in images:
            name = each if isinstance(each, str) else each["id"]
            image = self.glance.images[name]
            # Also members that only a change of the visibility would bring back.
            found.add((image["visibility"], frozenset(self.glance.members.get(name, {}))))
        return found


@pytest.fixture
def seen(glance: FakeGlance) -> Seen:
    return Seen(glance)


def all_of(composite: Description, *parts: Description) -> list[str]:
    """The manifest of a composite, its parts and their manifests."""
    return [held(composite), restore(composite), *(each["id"] for each in parts),
            *(held(each) for each in parts)]


# -- access ------------------------------------------------------------------------


def test_parts_and_manifests_are_seen_like_their_composite(
        glance: FakeGlance, alpha: Records, seen: Seen) -> None:
    apache, mysql = alpha.part("apache"), alpha.part("mysql")
    lamp = alpha.composite(apache=apache, mysql=mysql)
    every = all_of(lamp, apache, mysql)
    alpha.images.add_member(lamp["id"], "beta")
    access.reconcile(alpha.images, lamp["id"])
    assert seen(*every) == {("shared", frozenset({"beta"}))}
    alpha.images.add_member(lamp["id"], "gamma")
    alpha.images.remove_member(lamp["id"], "beta")
    access.reconcile(alpha.images, lamp["id"])
    assert seen(*every) == {("shared", frozenset({"gamma"}))}
    admin = glance.user("admin", admin=True)
    for visibility in ("public", "community", "private"):
        admin.update(lamp["id"], {"visibility": visibility})
        access.reconcile(admin, lamp["id"])
        assert seen(*every) == {(visibility, frozenset())}


def test_a_part_is_seen_by_all_who_see_one_of_its_composites(
        glance: FakeGlance, alpha: Records, seen: Seen) -> None:
    apache = alpha.part()
    one, two = alpha.composite("one", apache=apache), alpha.composite("two", web=apache)
    alpha.images.add_member(one["id"], "beta")
    alpha.images.add_member(two["id"], "gamma")
    for each in (one, two):
        access.reconcile(alpha.images, each["id"])
    assert seen(apache, held(apache)) == {("shared", frozenset({"beta", "gamma"}))}
    assert seen(held(one), restore(one)) == {("shared", frozenset({"beta"}))}
    alpha.images.update(two["id"], {"visibility": "community"})
    access.reconcile(alpha.images, two["id"])
    assert seen(apache) == {("community", frozenset())}
    alpha.images.delete(two["id"])
    access.reconcile(alpha.images, two["id"], last=two)
    assert seen(apache) == {("shared", frozenset({"beta"}))}


def test_a_second_time_changes_nothing(glance: FakeGlance, alpha: Records) -> None:
    apache = alpha.part()
    lamp = alpha.composite(apache=apache)
    alpha.images.add_member(lamp["id"], "beta")
    assert access.reconcile(alpha.images, lamp["id"])
    glance.requests.clear()
    assert access.reconcile(alpha.images, lamp["id"]) == []
    assert writes(glance.requests) == []


def test_one_that_is_shared_with_nobody_costs_few_requests(
        glance: FakeGlance, alpha: Records) -> None:
    parts = {f"p{number}": alpha.part(f"p{number}") for number in range(20)}
    lamp = alpha.composite(**parts)
    access.reconcile(alpha.images, lamp["id"])
    glance.requests.clear()
    access.reconcile(alpha.images, lamp["id"])
    assert len(glance.requests) < 15


def test_images_of_another_tenant_are_not_touched(
        glance: FakeGlance, alpha: Records, beta: Records) -> None:
    secret = alpha.part()
    forged = beta.composite("forged", apache=secret)
    beta.images.update(forged["id"], {"splitimage_restore": f"{held(secret)} {'0' * 64}"})
    admin = glance.user("admin", admin=True)
    admin.update(forged["id"], {"visibility": "public"})
    before = {name: dict(image) for name, image in glance.images.items()
              if image["owner"] == "alpha"}
    access.reconcile(admin, forged["id"])
    admin.delete(forged["id"])
    access.reconcile(admin, forged["id"], last=forged)
    access.collect(admin, "beta", grace=0)
    assert {name: glance.images[name] for name in before} == before


def test_an_own_image_of_another_kind_is_not_touched(
        glance: FakeGlance, alpha: Records, seen: Seen) -> None:
    plain = alpha.image("plain", {}, b"x" * 512)
    completed = alpha.completed(alpha.composite())
    lamp = alpha.composite("odd", plain={**plain, "splitimage_digest": "0" * 64,
                                         "splitimage_kind": "software"},
                           done={**completed, "splitimage_digest": "0" * 64,
                                 "splitimage_kind": "software"})
    alpha.images.add_member(lamp["id"], "beta")
    access.reconcile(alpha.images, lamp["id"])
    assert seen(plain, completed) == {("shared", frozenset())}
    assert not glance.images[plain["id"]]["protected"]


def test_who_may_not_make_public_does_the_rest_and_is_told(
        glance: FakeGlance, alpha: Records, seen: Seen) -> None:
    apache = alpha.part()
    lamp, other = alpha.composite(apache=apache), alpha.composite("other")
    glance.images[lamp["id"]]["visibility"] = "public"
    glance.images[restore(lamp)]["protected"] = False
    with pytest.raises(exceptions.NotPermitted, match="not public"):
        access.reconcile(alpha.images, lamp["id"])
    alpha.images.add_member(other["id"], "beta")
    with pytest.raises(exceptions.NotPermitted):
        access.reconcile_all(alpha.images, "alpha")
    assert seen(held(other)) == {("shared", frozenset({"beta"}))}


def test_a_change_that_overtakes_is_not_undone(
        glance: FakeGlance, alpha: Records, seen: Seen) -> None:
    apache = alpha.part()
    lamp = alpha.composite(apache=apache)
    alpha.images.add_member(lamp["id"], "beta")
    admin = glance.user("admin", admin=True)
    begun: list[str] = []

    def before(method: str, path: str) -> None:
        if method == "POST" and path.endswith("members") and not begun:
            begun.append(path)
            admin.update(lamp["id"], {"visibility": "public"})
            access.reconcile(admin, lamp["id"])

    glance.before = before
    access.reconcile(admin, lamp["id"])
    assert begun
    assert seen(*all_of(lamp, apache)) == {("public", frozenset())}


# -- active or not -----------------------------------------------------------------


def test_parts_are_as_active_as_the_composites_that_refer_to_them(
        glance: FakeGlance, alpha: Records) -> None:
    def status(*images: str) -> set[str]:
        return {glance.images[image]["status"] for image in images}

    shared, own, bad = alpha.part("shared"), alpha.part("own"), alpha.part("bad")
    one = alpha.composite("one", shared=shared, own=own, bad=bad)
    two = alpha.composite("two", shared=shared)
    alpha.images.deactivate(bad["id"])  # by an administrator, for its own sake
    alpha.images.deactivate(one["id"])
    access.reconcile(alpha.images, one["id"])
    assert status(held(one), own["id"], held(own), restore(one)) == {"deactivated"}
    assert status(shared["id"], held(shared), two["id"]) == {"active"}
    alpha.images.deactivate(one["id"], back=True)
    access.reconcile(alpha.images, one["id"])
    assert status(*all_of(one, own)) == {"active"}
    assert status(bad["id"]) == {"deactivated"}
    assert not [image for image in glance.images.values() if access.holdings.DEACTIVATED in image]


# -- existence ---------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
def test_a_deleted_composite_leaves_its_parts_for_the_grace_time(
        glance: FakeGlance, alpha: Records, seen: Seen, told: bool) -> None:
    lamp = alpha.begun()
    apache, old = alpha.part(holder=lamp["id"]), alpha.part("old", holder=lamp["id"])
    lamp = alpha.finished(lamp, apache=apache)
    alpha.images.add_member(lamp["id"], "beta")
    access.reconcile(alpha.images, lamp["id"])
    glance.age(10 * GRACE)
    alpha.images.delete(lamp["id"])
    access.reconcile(alpha.images, lamp["id"], last=lamp if told else None)
    assert held(lamp) not in glance.images
    assert seen(apache, old, restore(lamp), held(apache)) == {("private", frozenset())}
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    assert access.reconcile(alpha.images, lamp["id"], last=lamp if told else None) == []
    glance.age(GRACE)
    removed = access.collect(alpha.images, "alpha", grace=GRACE)
    assert {each.role for each in removed} == {"part", "manifest"}
    assert glance.images == {}


def test_an_import_that_was_given_up_takes_all_with_it(
        glance: FakeGlance, alpha: Records) -> None:
    stuck = alpha.image("gold", {"splitimage_split": "lamp"}, None, hidden=False)
    glance.images[stuck["id"]]["status"] = "importing"
    last = alpha.images.get(stuck["id"])
    shared = alpha.part("shared")
    other = alpha.composite("other", shared=shared)
    access.claim(alpha.images, shared["id"], stuck["id"])
    alpha.part("apache", holder=stuck["id"])
    alpha.part("half", holder=stuck["id"], data=None)
    alpha.manifest(stuck["id"])
    glance.age(10 * GRACE)
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    alpha.images.delete(stuck["id"])
    access.reconcile(alpha.images, stuck["id"], last=last)
    assert set(glance.images) == {other["id"], *all_of(other, shared),
                                  held(glance.images[restore(other)])}


def test_the_collector_takes_at_once_what_was_stored_for_what_is_gone(
        glance: FakeGlance, alpha: Records) -> None:
    stuck = alpha.image("gold", {}, None)
    alpha.part(holder=stuck["id"])
    alpha.manifest(stuck["id"])
    completed = alpha.completed(alpha.composite())
    alpha.images.delete(stuck["id"])
    alpha.images.delete(completed["id"])
    removed = access.collect(alpha.images, "alpha", grace=GRACE)
    assert sorted(each.role for each in removed) == ["manifest"] * 3 + ["part"]
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []


def test_a_replaced_part_goes_after_the_grace_time(glance: FakeGlance, alpha: Records) -> None:
    lamp = alpha.begun()
    old, new = alpha.part(holder=lamp["id"]), alpha.part(holder=lamp["id"])
    lamp = alpha.finished(lamp, apache=old)
    glance.age(10 * GRACE)
    alpha.images.update(lamp["id"], {"splitimage_part_apache":
                                     f"{new['id']} {new['splitimage_digest']}"})
    # Nobody has told, so the time counts from when it is found.
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    glance.age(GRACE)
    assert {each.image for each in access.collect(alpha.images, "alpha", grace=GRACE)} == {
        old["id"], held(old)}
    assert new["id"] in glance.images


def test_records_go_when_their_publisher_has_stopped(glance: FakeGlance, alpha: Records) -> None:
    lamp = alpha.begun()
    part = alpha.part(holder=lamp["id"], data=None)
    completed = alpha.completed(alpha.composite("other"), whole=False)
    kept = len(glance.images)
    glance.age(GRACE)
    access.touch(alpha.images, lamp["id"])
    access.touch(alpha.images, completed["id"])
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    assert len(glance.images) == kept
    glance.age(GRACE)
    removed = {each.image for each in access.collect(alpha.images, "alpha", grace=GRACE)}
    assert removed == {lamp["id"], part["id"], held(part), completed["id"], held(completed)}


def test_a_long_upload_lives_as_long_as_its_manifest_is_touched(
        glance: FakeGlance, alpha: Records) -> None:
    completed = alpha.completed(alpha.composite("other"), whole=False)
    glance.age(GRACE)
    access.touch(alpha.images, held(completed))
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    assert completed["id"] in glance.images


def test_a_composite_that_was_never_shown_goes_with_its_parts(
        glance: FakeGlance, alpha: Records) -> None:
    """Its publisher died when all of its data were there."""
    lamp = alpha.composite("lamp", apache=alpha.part())
    shown = alpha.composite("other", mysql=alpha.part("mysql"))
    alpha.images.update(lamp["id"], {"os_hidden": True, holdings.UNFINISHED_MARK: "1.0"})
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    glance.age(GRACE)
    access.collect(alpha.images, "alpha", grace=GRACE)
    assert lamp["id"] not in glance.images and held(lamp) not in glance.images
    glance.age(GRACE)
    access.collect(alpha.images, "alpha", grace=GRACE)
    assert {shown["id"], held(shown), restore(shown)} <= glance.images.keys()
    assert restore(lamp) not in glance.images


def test_what_is_not_to_be_removed_is_not(
        glance: FakeGlance, alpha: Records, beta: Records) -> None:
    alpha.part("files", kind=FILESET)
    alpha.part("unknown", kind="")
    glance.images[alpha.made[1]].pop("splitimage_kind")
    alpha.completed(alpha.composite("lamp", apache=alpha.part()), "apache")
    alpha.image("plain", {}, None)
    alpha.image("snapshot", {**properties.common(properties.PART), "splitimage_kind": "software",
                             "image_type": "snapshot"}, b"x" * 512)
    alpha.image("newer", {"splitimage_role": "part", "splitimage_schema": "2",
                          "splitimage_kind": "software"}, b"x" * 512)
    beta.part("rest")
    before = set(glance.images)
    glance.age(100 * GRACE)
    for _ in range(2):
        assert access.collect(alpha.images, "alpha", grace=0) == []
    assert access.collect(alpha.images, "beta", grace=0) == []
    assert set(glance.images) == before


def test_a_damaged_composite_keeps_what_it_names(glance: FakeGlance, alpha: Records) -> None:
    apache = alpha.part()
    lamp = alpha.composite(apache=apache)
    alpha.images.update(lamp["id"], {
        "splitimage_part_apache": f"  {apache['id']};", "splitimage_part_../x": "?"})
    glance.age(10 * GRACE)
    assert access.collect(alpha.images, "alpha", grace=0) == []


def test_a_claimed_part_stays(glance: FakeGlance, alpha: Records) -> None:
    part = alpha.part()
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    assert access.holdings.UNREFERENCED in glance.images[part["id"]]
    glance.age(10 * GRACE)
    lamp = alpha.begun()
    access.claim(alpha.images, part["id"], lamp["id"])
    glance.age(10 * GRACE, part["id"], held(part))
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    assert access.holdings.UNREFERENCED not in glance.images[part["id"]]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_one_that_is_claimed_while_it_is_removed_stays_or_is_seen_to_be_gone(
        glance: FakeGlance, alpha: Records, method: str) -> None:
    part, lamp = alpha.part(), alpha.begun()
    access.collect(alpha.images, "alpha", grace=GRACE)
    glance.age(10 * GRACE, part["id"], held(part))
    claimed: list[str] = []

    def before(asked: str, path: str) -> None:
        if asked == method and part["id"] in path and not claimed:
            claimed.append(path)
            access.claim(alpha.images, part["id"], lamp["id"])

    glance.before = before
    assert access.collect(alpha.images, "alpha", grace=GRACE) == []
    assert claimed
    assert glance.images[part["id"]]["protected"]


# -- killed, and side by side --------------------------------------------------------


def killed_anywhere(glance: FakeGlance, work: Callable[[], Any]) -> int:
    """Run it again and again, each time killed one request later."""
    for number in itertools.count():
        glance.die_at(number)
        try:
            work()
        except Killed:
            continue
        finally:
            glance.live()
        return number
    raise AssertionError


def test_killed_anywhere_it_ends_well_the_next_time(
        glance: FakeGlance, alpha: Records, seen: Seen) -> None:
    lamp = alpha.begun()
    apache, mysql = alpha.part(holder=lamp["id"]), alpha.part("mysql", holder=lamp["id"])
    lamp = alpha.finished(lamp, apache=apache, mysql=mysql)
    every = all_of(lamp, apache, mysql)
    steps = (
        lambda: alpha.images.add_member(lamp["id"], "beta"),
        lambda: alpha.images.remove_member(lamp["id"], "beta"),
        lambda: alpha.images.add_member(lamp["id"], "gamma"),
        lambda: alpha.images.update(lamp["id"], {"visibility": "community"}),
        lambda: alpha.images.deactivate(lamp["id"]),
        lambda: alpha.images.deactivate(lamp["id"], back=True))
    for step in steps:
        step()
        assert killed_anywhere(glance, lambda: access.reconcile(alpha.images, lamp["id"])) > 5
        assert access.reconcile(alpha.images, lamp["id"]) == []
    assert seen(*every) == {("community", frozenset())}
    assert {glance.images[each]["status"] for each in every} == {"active"}
    alpha.images.delete(lamp["id"])
    killed_anywhere(glance, lambda: access.reconcile(alpha.images, lamp["id"], last=lamp))
    glance.age(GRACE)
    killed_anywhere(glance, lambda: access.collect(alpha.images, "alpha", grace=GRACE))
    # What was touched just before a kill has a new grace time.
    glance.age(GRACE)
    access.collect(alpha.images, "alpha", grace=GRACE)
    assert glance.images == {}


def test_two_at_once_do_not_stand_in_each_others_way(
        glance: FakeGlance, alpha: Records) -> None:
    """One runs whole at each request of the other."""
    for number in range(200):
        lamp = alpha.composite("lamp", apache=alpha.part())
        alpha.images.add_member(lamp["id"], "beta")
        left = iter(range(number))

        def other(work: Callable[[], Any], left: Any = left) -> None:
            def before(method: str, path: str) -> None:
                if next(left, None) is None:
                    glance.live()
                    work()
            glance.before = before

        other(functools.partial(access.reconcile, alpha.images, lamp["id"]))
        access.reconcile(alpha.images, lamp["id"])
        alpha.images.delete(lamp["id"])
        if next(left, None) is None:
            other(lambda: access.collect(alpha.images, "alpha", grace=0))
        access.collect(alpha.images, "alpha", grace=0)
        glance.live()
        # What each has let be because of the other.
        access.collect(alpha.images, "alpha", grace=0)
        assert glance.images == {}
        if next(left, None) is not None:
            return
    raise AssertionError("it never ended by itself")


def test_long_lists_come_in_pages(glance: FakeGlance, alpha: Records) -> None:
    glance.page = 3
    parts = {f"p{number}": alpha.part(f"p{number}") for number in range(10)}
    lamp = alpha.composite(**parts)
    spare = [alpha.part(f"q{number}") for number in range(10)]
    alpha.images.update(lamp["id"], {"visibility": "community"})
    access.reconcile(alpha.images, lamp["id"])
    assert {glance.images[each["id"]]["visibility"] for each in parts.values()} == {"community"}
    assert len(access.collect(alpha.images, "alpha", grace=0)) == 2 * len(spare)
