"""Access to parts and manifests, and their end, in a real Glance, with the rights
of plain members."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.store.glance import access, api
from splitimage_driver.store.glance.api import Description, Images
from tests.cloud import glance
from tests.imagerecords import Records

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.glanceusers")
pytestmark = [pytest.mark.accept, pytest.mark.must_show("glance", 2)]


@pytest.fixture(scope="module", autouse=True)
def without_filter(cloud: TestCloud) -> Iterator[None]:
    """Else it had done already what is tried here."""
    with cloud.configured({"glance-api-paste.ini": {
            "composite:api": {"keystone": glance.PIPELINE}}}):
        yield


def family(composite: Description, *parts: Description) -> list[str]:
    """A composite's manifest, its parts and their manifests."""
    return [properties.manifest(composite), properties.links(composite).restore.image,
            *(each["id"] for each in parts), *(properties.manifest(each) for each in parts)]


def seen(images: Images, *ids: str) -> set[str]:
    """Those that the user gets: described, and their data."""
    found = set()
    for each in ids:
        with contextlib.suppress(exceptions.NotFound):
            images.get(each)
            with contextlib.closing(images.open(each)) as answer:
                assert b"".join(answer.chunks(1 << 16))
            found.add(each)
    return found


def listed(images: Images) -> set[str]:
    return {each["id"] for each in images.list(hidden=None)} | {
        each["id"] for each in images.list(hidden=None, visibility="all")} | {
        each["id"] for each in images.list(hidden=None, visibility="shared", member_status="all")}


def test_parts_are_shared_and_unshared_with_their_composite(
        alpha: Records, beta: Records, admin: Images) -> None:
    apache, mysql = alpha.part("apache"), alpha.part("mysql")
    lamp, other = alpha.composite(apache=apache), alpha.composite("other", a=apache, m=mysql)
    images, project = alpha.images, beta.images.project
    every = {*family(lamp, apache), *family(other, apache, mysql)}
    for each in (lamp, other):
        assert access.reconcile(images, each["id"])
        assert access.reconcile(images, each["id"]) == []
    assert seen(beta.images, *every) == set()
    assert not listed(beta.images) & every

    images.add_member(lamp["id"], project)
    access.reconcile(images, lamp["id"])
    assert seen(beta.images, *every) == set(family(lamp, apache))
    images.add_member(other["id"], project)
    access.reconcile(images, other["id"])
    images.remove_member(lamp["id"], project)
    access.reconcile(images, lamp["id"])
    assert seen(beta.images, *every) == set(family(other, apache, mysql))
    images.delete(other["id"])
    access.reconcile(images, other["id"], last=other)
    assert seen(beta.images, *every) == set()

    admin.update(lamp["id"], {"visibility": "public"})
    with pytest.raises(exceptions.NotPermitted):
        access.reconcile(images, lamp["id"])
    assert seen(beta.images, *every) == set(), "alpha may not make public"
    access.reconcile(admin, lamp["id"])
    assert access.reconcile(images, lamp["id"]) == []
    assert seen(beta.images, *every) == set(family(lamp, apache))
    admin.update(lamp["id"], {"visibility": "private"})
    access.reconcile(images, lamp["id"])
    assert seen(beta.images, *every) == set(), "alpha may make private"


def test_members_of_before_do_not_come_back(alpha: Records, beta: Records) -> None:
    images, project = alpha.images, beta.images.project
    lamp = alpha.composite(apache=alpha.part())
    restore = properties.links(lamp).restore.image
    images.add_member(lamp["id"], project)
    access.reconcile(images, lamp["id"])
    assert images.members(restore) == {project: "pending"}
    # Glance keeps the members of an image that is private for a while.
    images.remove_member(lamp["id"], project)
    images.update(lamp["id"], {"visibility": "private"})
    access.reconcile(images, lamp["id"])
    images.update(restore, {"visibility": "shared"})
    assert images.members(restore) == {}
    with pytest.raises(exceptions.NotFound):
        beta.images.get(restore)


def test_a_plain_member_deactivates_parts_with_their_composite(
        alpha: Records, beta: Records) -> None:
    apache = alpha.part()
    lamp, other = alpha.composite(apache=apache), alpha.composite("other", a=apache)
    images = alpha.images
    own, shared = properties.links(lamp).restore.image, apache["id"]
    images.deactivate(lamp["id"])
    access.reconcile(images, lamp["id"])
    assert images.get(own)["status"] == api.DEACTIVATED
    assert images.get(shared)["status"] == api.ACTIVE
    with pytest.raises(exceptions.NotPermitted):
        images.open(own)
    images.deactivate(other["id"])
    access.reconcile(images, other["id"])
    assert images.get(shared)["status"] == api.DEACTIVATED
    images.deactivate(lamp["id"], back=True)
    access.reconcile(images, lamp["id"])
    assert {images.get(each)["status"] for each in family(lamp, apache)} == {api.ACTIVE}


def test_nobody_reconciles_or_collects_what_is_anothers(
        alpha: Records, beta: Records, admin: Images) -> None:
    secret = alpha.part()
    lamp = alpha.composite(apache=secret)
    loose = alpha.part("loose")
    forged = beta.composite("lamp", apache=secret)
    before = {each: admin.get(each) for each in alpha.made}
    access.reconcile(beta.images, lamp["id"])
    access.reconcile(beta.images, lamp["id"], last=lamp, owner=alpha.images.project)
    admin.update(forged["id"], {"visibility": "public"})
    access.reconcile(admin, forged["id"])
    access.collect(beta.images, alpha.images.project, grace=0)
    access.collect(beta.images, beta.images.project, grace=0)
    assert {each: admin.get(each) for each in alpha.made} == before
    assert loose["id"] in before


def test_what_nothing_refers_to_goes_with_its_data(
        cloud: TestCloud, alpha: Records, beta: Records) -> None:
    def stored() -> int:
        return sum(1 for path in (cloud.directory / "images").rglob("*") if path.is_file())

    for each in (alpha, beta):  # of whatever ran here before
        access.collect(each.images, each.images.project, grace=0)
    before = stored()
    images, project = alpha.images, alpha.images.project
    lamp = alpha.begun()
    parts = {name: alpha.part(name, holder=lamp["id"]) for name in ("apache", "mysql")}
    half = alpha.part("half", holder=lamp["id"], data=None)
    files = alpha.part("files", kind="fileset")
    foreign = beta.part("foreign")
    assert access.collect(images, project, grace=3600) == [], "it is in the making"
    lamp = alpha.finished(lamp, **parts)
    images.delete(lamp["id"])
    access.reconcile(images, lamp["id"], last=lamp)
    with pytest.raises(exceptions.NotFound):
        images.get(half["id"])  # nobody can have begun to use it
    assert access.collect(images, project, grace=3600) == []
    removed = access.collect(images, project, grace=0)
    assert {each.image for each in removed} >= {each["id"] for each in parts.values()}
    assert {each.role for each in removed} == {"part", "manifest"}
    assert images.get(files["id"])["status"] == api.ACTIVE
    assert beta.images.get(foreign["id"])["status"] == api.ACTIVE
    assert stored() - before == 4, "the file set and the foreign part, each with its manifest"


def test_two_at_once(alpha: Records, beta: Records, admin: Images) -> None:
    """Whichever of them is first at each image: what is in line at the end is the
    composite as it is then."""
    images, project = alpha.images, alpha.images.project
    parts = {name: alpha.part(name) for name in ("apache", "mysql", "php")}
    lamp = alpha.composite(**parts)
    every = family(lamp, *parts.values())
    members = [beta.images.project, admin.project]

    def share(member: str) -> None:
        images.add_member(lamp["id"], member)
        access.reconcile(images, lamp["id"])
        access.collect(images, project, grace=3600)

    def side_by_side(*work: Callable[[], object]) -> None:
        with concurrent.futures.ThreadPoolExecutor(len(work)) as pool:
            for done in [pool.submit(each) for each in work]:
                done.result()

    side_by_side(*(lambda member=member: share(member) for member in members))
    assert {frozenset(images.members(each)) for each in every} == {frozenset(members)}
    images.delete(lamp["id"])
    side_by_side(*[lambda: access.reconcile(images, lamp["id"], last=lamp)] * 2)
    side_by_side(*[lambda: access.collect(images, project, grace=0)] * 2)
    access.collect(images, project, grace=0)
    assert seen(admin, *every) == set()
