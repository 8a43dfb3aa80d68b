"""The filter in a real Glance: plans, whose images they are made of, and parts
that follow their composite."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.composite import recipe
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.http import HttpTransport
from tests.cloud import glance
from tests.stocked import LAMP, Stock, digest

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud",)

Note = Callable[[str, object], None]
PATH = "/v2/splitimage/plan"


class Users:
    """Of the cloud, each with what it stores."""

    def __init__(self, cloud: TestCloud) -> None:
        self.cloud = cloud
        self.alpha, self.beta, self.admin = (
            Stock(Images(HttpTransport(connection, 60.0)))
            for connection in (cloud.alpha, cloud.beta, cloud.admin))

    def plan(self, project: str, *, api: int = 1, **request: Any) -> Any:
        """:param api: number of the API that is asked
        :returns: the answer, or (status, reason)
        """
        answer = getattr(self.cloud, project).session.post(
            self.cloud.service(glance.name(api)).url + PATH, json=request, raise_exc=False)
        found = answer.json()
        return found if answer.status_code == 200 else (answer.status_code, found["message"])

    def openstack(self, project: str, *words: str) -> None:
        done = self.cloud.openstack(project, *words)
        assert done.status == 0, done.err


@pytest.fixture
def users(cloud: TestCloud) -> Iterator[Users]:
    found = Users(cloud)
    yield found
    for stock in (found.alpha, found.beta, found.admin):
        stock.clear()


def candidates(answer: Any) -> set[str]:
    return {each["image"] for each in answer["candidates"]}


def right(composite: Description, *parts: str) -> str:
    """The recipe of an exact match."""
    links = properties.links(composite).parts
    return recipe(digest(composite["id"]), [links[part].digest for part in parts])


@pytest.mark.must_show("glance", 1)
def test_the_nearest_image_and_what_is_missing(users: Users) -> None:
    composite = users.alpha.composite("lamp")
    fileset = users.alpha.fileset("site", 10, 4096)
    answer = users.plan("alpha", composite="lamp", parts=["apache", "php"], filesets=[fileset])
    assert (answer["image"], answer["match"]) == (composite["id"], "base")
    assert answer["missing"] == sorted(["apache", "common", "php", fileset])
    some = users.alpha.completed(composite, ["apache", "common"])
    more = users.alpha.completed(composite, ["apache", "common", "php", "mysql"])
    answer = users.plan("alpha", composite="lamp", parts=["apache", "php"], filesets=[fileset])
    assert [(each["image"], each["match"], each["missing"], each["excess"])
            for each in answer["candidates"]] == [
        (more, "partial", [fileset], ["mysql"]), (some, "subset", sorted(["php", fileset]), []),
        (composite["id"], "base", sorted(["apache", "common", "php", fileset]), [])]
    exact = users.alpha.completed(composite, ["apache", "common", "php"], filesets=[fileset])
    answer = users.plan("alpha", composite=composite["id"], parts=["apache", "php"],
                        filesets=[fileset], limit=1)
    assert (answer["image"], answer["match"], answer["cost"]) == (exact, "exact", 0.0)
    assert candidates(answer) == {exact}


@pytest.mark.accept
@pytest.mark.must_show("glance", 1)
def test_a_list_is_answered_with_an_order(users: Users) -> None:
    composite = users.alpha.composite("lamp")
    answer = users.plan("alpha", requests=[
        {"composite": "lamp", "parts": ["apache", "mysql", "php"]},
        {"composite": "lamp", "parts": ["apache", "mysql"]},
        {"composite": composite["id"], "parts": ["apache", "mysql"]}])
    assert [(step["requests"], step["image"], step["request"], step["missing"])
            for step in answer["steps"]] == [
        ([1, 2], composite["id"], None, ["apache", "common", "mysql"]), ([0], None, 1, ["php"])]
    assert sum(step["cost"] for step in answer["steps"]) < sum(
        plan["cost"] for plan in answer["plans"][:2])


@pytest.mark.must_show("glance", 2)
def test_nothing_of_betas_is_ever_in_a_plan_of_alphas(users: Users) -> None:
    """Neither shared and accepted, nor community, nor labelled with all that an
    exact match has."""
    composite = users.admin.composite("lamp", visibility="public")
    wanted = right(composite, "mysql")
    for visibility in ("private", "shared", "community"):
        image = users.beta.completed(composite, ["mysql"], wanted=wanted, visibility=visibility)
        if visibility == "shared":
            users.beta.images.add_member(image, users.alpha.project)
            users.openstack("alpha", "image", "set", "--accept", image)
    # In alpha's name he cannot store anything.
    with pytest.raises(exceptions.NotPermitted):
        users.beta.images.create("x", {**properties.common(properties.COMPLETED)},
                                 owner=users.alpha.project)
    # The administrator, for whom nothing is hidden, gets nothing of others either.
    for project in ("alpha", "admin"):
        answer = users.plan(project, composite="lamp", parts=["mysql"], limit=200)
        assert candidates(answer) == {composite["id"]}
        assert answer["match"] == "base"
    assert users.plan("beta", composite="lamp", parts=["mysql"])["match"] == "exact"
    # What the composite's owner offers to all is one.
    offered = users.admin.completed(composite, ["mysql"], visibility="public")
    assert users.plan("alpha", composite="lamp", parts=["mysql"])["image"] == offered


@pytest.mark.accept
@pytest.mark.must_show("glance", 2)
def test_who_may_not_see_a_composite_does_not_learn_of_it(users: Users) -> None:
    hidden = users.alpha.composite("secret")
    community = users.alpha.composite("offered", visibility="community")
    users.alpha.completed(hidden, ["mysql"])
    fileset = users.alpha.fileset("theirs", 1, 1)
    assert users.plan("alpha", composite="secret", parts=["mysql"])["match"] == "exact"
    own = users.beta.composite("own")
    for name in (str(uuid.uuid4()), "nothing", "secret", hidden["id"], "offered", community["id"]):
        for project in ("beta", "admin"):
            assert users.plan(project, composite=name, parts=["mysql"]) == (
                404, f"no composite named {name} in the image service")
    for name in (digest(), fileset):
        assert users.plan("beta", composite="own", filesets=[name]) == (
            404, f"no file set named {name} in the image service")
    # A composite of one's own that names what is another's, and one that names
    # what is not there.
    told = set()
    for manifest in (hidden["splitimage_manifest"], str(uuid.uuid4())):
        users.beta.images.update(own["id"], {"splitimage_manifest": manifest})
        status, reason = users.plan("beta", composite=own["id"], parts=["mysql"])
        told.add((status, reason.replace(manifest, "ID")))
    assert len(told) == 1


@pytest.mark.accept
@pytest.mark.must_show("glance", 2)
def test_a_composite_is_planned_on_while_it_is_shared(users: Users) -> None:
    """By the ordinary client: the parts follow by themselves."""
    composite = users.alpha.composite("lamp", stored=True, visibility="shared")["id"]

    def planned() -> Any:
        return users.plan("beta", composite=composite, parts=["php"])

    absent = (404, f"no composite named {composite} in the image service")
    assert planned() == absent
    users.openstack("alpha", "image", "add", "project", composite, users.beta.project)
    assert planned() == absent, "he has not accepted it"
    users.openstack("beta", "image", "set", "--accept", composite)
    assert planned()["image"] == composite
    parts = properties.links(users.alpha.images.get(composite))
    for link in (*parts.parts.values(), parts.restore):
        assert users.beta.images.get(link.image)["owner"] == users.alpha.project
    users.openstack("alpha", "image", "remove", "project", composite, users.beta.project)
    assert planned() == absent
    for link in parts.parts.values():
        with pytest.raises(exceptions.NotFound):
            users.beta.images.get(link.image)


def stored_for(users: Users, composite: str) -> list[Description]:
    return [image for role in ("part", "manifest") for image in users.admin.images.list(
        hidden=True, splitimage_role=role, splitimage_for=composite)]


@pytest.mark.accept
def test_parts_follow_what_the_ordinary_client_does(users: Users) -> None:
    composite = users.alpha.composite("lamp", stored=True)["id"]
    stored = stored_for(users, composite)
    assert len(stored) == len(LAMP) + 2
    for words, name, value in (
            (("admin", "image", "set", "--public"), "visibility", "public"),
            (("alpha", "image", "set", "--private"), "visibility", "private"),
            (("admin", "image", "set", "--deactivate"), "status", "deactivated"),
            (("admin", "image", "set", "--activate"), "status", "active")):
        users.openstack(*words, composite)
        assert {image[name] for image in stored_for(users, composite)} == {value}, words
    users.openstack("alpha", "image", "delete", composite)
    own = next(image["id"] for image in stored if image["splitimage_role"] == "manifest")
    with pytest.raises(exceptions.NotFound):
        users.alpha.images.get(own)
    for image in stored:
        if image["id"] != own:
            left = users.alpha.images.get(image["id"])
            assert "splitimage_unreferenced" in left
            assert users.alpha.images.get(properties.manifest(left))["visibility"] == "private"


@pytest.mark.accept
def test_a_completed_image_takes_its_manifest_with_it(users: Users) -> None:
    composite = users.alpha.composite("lamp")
    image = users.alpha.completed(composite, ["mysql"])
    held = users.alpha.manifest(image, b"tree")
    users.alpha.images.update(image, {"splitimage_manifest": held})
    users.alpha.images.update(held, {"protected": True})
    users.openstack("alpha", "image", "delete", image)
    with pytest.raises(exceptions.NotFound):
        users.alpha.images.get(held)


@pytest.mark.accept
@pytest.mark.must_show("glance", 6)
@pytest.mark.parametrize(("changes", "word"), [
    ({"splitimage_part_mysql": "x"}, "splitimage_part_mysql"),
    ({"splitimage_os": digest()}, "do not agree"), ({"splitimage_manifest": "../../x"}, "manifest"),
    ({"splitimage_part_mysql": f"{uuid.uuid4()} {digest()}"}, "do not agree"),
    ({"splitimage_schema": "2"}, "schema"), ({"splitimage_part_..": "x"}, "names no part")])
def test_a_composite_that_was_tampered_with_is_refused(
        users: Users, changes: dict[str, str], word: str) -> None:
    composite = users.alpha.composite("lamp", changes=changes)
    status, reason = users.plan("alpha", composite=composite["id"], parts=["php"])
    assert (status, word in reason) == (400, True), reason


@pytest.mark.must_show("glance", 6)
def test_bad_requests_are_told_in_one_line(cloud: TestCloud, users: Users) -> None:
    url = cloud.service(glance.NAME).url + PATH
    for body in (b"", b"{", b"[]", b"\xff" * 9, b"[" * 500_000, b" " * (1 << 20),
                 b'{"composite": "x", "parts": ["' + b"a" * 1000 + b'"]}',
                 b'{"composite": "a\\nb", "parts": ["..\\/x"]}',
                 b'{"requests": [' + b'{"composite": "x"},' * 300 + b'{"composite": "x"}]}',
                 b" " * ((1 << 20) + 1), b" " * (12 << 20)):
        answer = cloud.alpha.session.post(url, data=body, raise_exc=False)
        told = answer.json()
        assert (answer.status_code, told["code"]) == (400, 400), body[:40]
        assert told["message"] and "\n" not in told["message"]
    answer = cloud.alpha.session.get(url, raise_exc=False)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert users.plan("alpha", composite="../../etc/passwd") == (
        404, "no composite named ../../etc/passwd in the image service")


@pytest.mark.accept
def test_nobody_plans_without_a_token(cloud: TestCloud) -> None:
    for headers in ({}, {"X-Auth-Token": "forged"}):
        answer = cloud.alpha.session.post(
            cloud.service(glance.NAME).url + PATH, json={"composite": "lamp"}, raise_exc=False,
            authenticated=False, headers=headers)
        assert answer.status_code == 401


@pytest.mark.accept
def test_glance_without_the_filter_is_glance(cloud: TestCloud, users: Users) -> None:
    with cloud.configured({"glance-api-paste.ini": {
            "composite:api": {"keystone": glance.PIPELINE}}}):
        composite = users.alpha.composite("lamp")
        assert users.alpha.images.ask("/splitimage/plan", {"composite": composite["id"]}) is None
        assert users.alpha.images.get(composite["id"])["status"] == "active"
    assert users.plan("alpha", composite="lamp")["match"] == "exact"


@pytest.mark.accept
def test_rates_come_from_the_filters_own_file(cloud: TestCloud, users: Users) -> None:
    users.alpha.composite("lamp")
    with cloud.configured({"splitimage.conf": {"planning": {"cost": "bytes"}}}):
        answer = users.plan("alpha", composite="lamp", parts=["mysql"])
        assert (answer["cost"], answer["unit"]) == (LAMP["mysql"].size, "bytes")


def within(seconds: float, users: Users, api: int, match: str) -> float:
    """How long it took until all answers had such a candidate, and none of
    another kind but the base."""
    began = time.monotonic()
    while not all_have(users, api, match):
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def all_have(users: Users, api: int, match: str) -> bool:
    """Several answers in a row, so that each worker gives some."""
    answers = [users.plan("alpha", api=api, composite="lamp", parts=["mysql"], limit=2)
               for _ in range(6)]
    return all({each["match"] for each in answer["candidates"]} == {match, "base"}
               for answer in answers)


@pytest.mark.must_show("glance", 4)
def test_a_change_through_another_worker_is_seen_within_two_seconds(
        cloud: TestCloud, users: Users, record_property: Note) -> None:
    with cloud.configured(glance_apis=2, glance_workers=2):
        first, second = users.alpha, at(cloud, 2)
        composite = first.composite("lamp")
        seen: list[float] = []
        for _ in range(8):  # whichever worker answers
            for api in (1, 2):
                assert users.plan("alpha", api=api, composite="lamp",
                                  parts=["mysql"])["match"] == "base"
        for stock, other in ((first, 2), (second, 1)):
            image = stock.completed(composite, ["mysql"])
            seen.append(within(2, users, other, "exact"))
            stock.images.update(image, {"splitimage_parts": "php",
                                        "splitimage_recipe": digest()})
            seen.append(within(2, users, other, "partial"))
            stock.images.delete(image)
            seen.append(within(2, users, other, "base"))
    record_property("a change is seen through other workers after",
                    f"{max(seen):.2f} s at most, six answers in a row included")


def at(cloud: TestCloud, api: int) -> Stock:
    """Alpha's, through another API than the catalogue names."""
    class Elsewhere(HttpTransport):
        def request(self, method: str, path: str, **more: Any) -> Any:
            return super().request(
                method, f"{cloud.service(glance.name(api)).url}/v2{path}", **more)

    return Stock(Images(Elsewhere(cloud.alpha, 60.0)))

