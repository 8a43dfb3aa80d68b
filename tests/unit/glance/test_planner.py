"""Plans in the image service, as callers get them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from splitimage_driver.glance.planner import MAX_REQUESTS, Planner
from splitimage_driver.model import properties
from splitimage_driver.model.composite import Answer, Composite, recipe
from splitimage_driver.store.glance import records
from splitimage_driver.store.glance.api import Description
from tests.stocked import LAMP, Piece, Stock, digest
from tests.unit.glance.conftest import Api
from tests.unit.store.glance.fake import FakeGlance

ABSENT = "no composite named {} in the image service"


def candidates(answer: Any) -> list[str]:
    return [each["image"] for each in answer["candidates"]]


# -- what is nearest ---------------------------------------------------------------


def test_a_request_is_answered_with_all_that_comes_with_it(api: Api, alpha: Stock) -> None:
    composite = alpha.composite("lamp")
    image = alpha.completed(composite, ["apache", "common"])
    answer = api.plan("alpha", composite="lamp", parts=["apache", "php"])
    assert answer["composite"] == composite["id"]
    assert answer["parts"] == ["apache", "common", "php"]
    assert (answer["image"], answer["match"], answer["missing"], answer["excess"]) == (
        image, "subset", ["php"], [])
    assert answer["unit"] == "s" and 0 < answer["cost"] < answer["candidates"][1]["cost"]
    assert candidates(answer) == [image, composite["id"]]
    assert answer["candidates"][1] == {
        "image": composite["id"], "match": "base", "missing": ["apache", "common", "php"],
        "excess": [], "cost": answer["candidates"][1]["cost"], "size": 512}


def test_an_exact_match_is_one_of_the_same_recipe(api: Api, alpha: Stock) -> None:
    composite = alpha.composite("lamp")
    alpha.completed(composite, ["mysql"], wanted=digest("an older edition"))
    exact = alpha.completed(composite, ["mysql"])
    answer = api.plan("alpha", composite="lamp", parts=["mysql"])
    assert (answer["image"], answer["match"], answer["cost"]) == (exact, "exact", 0.0)
    assert answer["recipe"] == alpha.images.get(exact)["splitimage_recipe"]
    assert answer["candidates"][1]["match"] == "partial"


def test_the_callers_own_recipe_wins(api: Api, alpha: Stock) -> None:
    """It has made some choice of its own, an answer to a conflict for instance."""
    composite = alpha.composite("lamp")
    alpha.completed(composite, ["mysql"])
    other = alpha.completed(composite, ["mysql"], wanted=digest("with an answer"))
    answer = api.plan("alpha", composite="lamp", parts=["mysql"], recipe=digest("with an answer"))
    assert (answer["image"], answer["match"]) == (other, "exact")


def test_answers_of_the_administrator_are_in_the_recipe(api: Api, alpha: Stock,
                                                        glance: FakeGlance) -> None:
    composite = alpha.composite("lamp")
    held = composite["splitimage_manifest"]
    bundle = records.unpack(glance.data[held], held)
    record = bundle.of(Composite, held)
    decided = Answer(b"etc/x", ("apache", "mysql"), "keep")
    other = Answer(b"etc/y", ("apache", "php"), "keep")
    glance.put(held, records.pack(
        msgspec.structs.replace(record, answers=(decided, other)), bundle.manifest, bundle.parts))
    answer = api.plan("alpha", composite="lamp", parts=["apache", "mysql"])
    assert answer["recipe"] == recipe(record.base.disk, [
        record.parts[name].id for name in ("apache", "common", "mysql")], [decided])


def test_file_sets_are_weighed_by_their_records(api: Api, alpha: Stock) -> None:
    composite = alpha.composite("lamp")
    large, small = alpha.fileset("large", 10, 1 << 30), alpha.fileset("small", 10, 1 << 10)
    with_large = alpha.completed(composite, [], filesets=[large])
    with_small = alpha.completed(composite, [], filesets=[small])
    answer = api.plan("alpha", composite="lamp", filesets=[small, large])
    assert candidates(answer) == [with_large, with_small, composite["id"]]
    assert answer["missing"] == [small]
    assert answer["filesets"] == sorted([small, large])


def test_only_so_many_candidates_are_told(api: Api, alpha: Stock) -> None:
    composite = alpha.composite("lamp")
    for _ in range(8):
        alpha.completed(composite, ["mysql"], wanted=digest())
    assert len(api.plan("alpha", composite="lamp", parts=["php"])["candidates"]) == 5
    assert len(api.plan("alpha", composite="lamp", parts=["php"], limit=2)["candidates"]) == 2
    assert len(api.plan("alpha", composite="lamp", parts=["php"], limit=999)["candidates"]) == 9


def test_a_part_that_the_composite_has_lost_is_in_excess(api: Api, alpha: Stock) -> None:
    composite = alpha.composite("lamp", {"mysql": Piece(1, 1)})
    image = alpha.completed(composite, ["mysql", "gone"])
    answer = api.plan("alpha", composite="lamp", parts=["mysql"])
    assert (answer["image"], answer["excess"]) == (image, ["gone"])


def test_a_changed_composite_is_read_anew(api: Api, alpha: Stock) -> None:
    one, two = alpha.composite("lamp"), alpha.composite("other", {"nginx": Piece(1, 1)})
    assert api.plan("alpha", composite="lamp", parts=["php"])["match"] == "base"
    said = {name: value for name, value in two.items() if name.startswith("splitimage_")}
    gone = {name: None for name in one if name.startswith("splitimage_") and name not in said}
    alpha.images.update(one["id"], {**said, **gone})
    assert api.plan("alpha", composite="lamp", parts=["nginx"])["missing"] == ["nginx"]
    assert api.plan("alpha", composite="lamp", parts=["php"])[0] == 400


# -- whose it may be ---------------------------------------------------------------


@pytest.mark.must_show("glance", 2)
def test_nothing_of_others_is_ever_a_candidate(api: Api, alpha: Stock, beta: Stock,
                                               admin: Stock, glance: FakeGlance) -> None:
    composite = admin.composite("lamp", visibility="public")
    own = alpha.completed(composite, ["mysql"], wanted=digest())
    right = recipe(digest(composite["id"]), [properties.links(composite).parts["mysql"].digest])
    for visibility in ("private", "shared", "community", "public"):
        image = beta.completed(composite, ["mysql"], wanted=right,
                               visibility="private" if visibility == "public" else visibility)
        glance.images[image]["visibility"] = visibility
        if visibility == "shared":
            glance.members[image] = {"alpha": "accepted"}
    answer = api.plan("alpha", composite="lamp", parts=["mysql"])
    assert set(candidates(answer)) == {own, composite["id"]}
    assert answer["match"] != "exact"
    assert api.plan("beta", composite="lamp", parts=["mysql"])["match"] == "exact"


@pytest.mark.must_show("glance", 2)
def test_a_composite_that_is_not_seen_is_one_that_is_not_there(
        api: Api, alpha: Stock, beta: Stock, glance: FakeGlance) -> None:
    hidden = beta.composite("secret")
    shared = beta.composite("shared", visibility="shared")
    community = beta.composite("offered", visibility="community")
    glance.members[shared["id"]] = {"alpha": "pending"}
    assert api.plan("beta", composite="secret")["match"] == "exact"  # the base by itself
    words = "00000000-0000-4000-8000-000000000000"
    for name in (words, "secret", hidden["id"], "shared", shared["id"], "offered",
                 community["id"]):
        assert api.plan("alpha", composite=name, parts=["mysql"]) == (404, ABSENT.format(name))


def test_a_shared_composite_is_used_by_its_id_once_it_is_accepted(
        api: Api, beta: Stock, glance: FakeGlance) -> None:
    shared = beta.composite("shared", visibility="shared")
    members = {"alpha": "accepted"}
    glance.members = {shared["id"]: members, shared["splitimage_manifest"]: members}
    assert api.plan("alpha", composite=shared["id"], parts=["mysql"])["image"] == shared["id"]
    assert api.plan("alpha", composite="shared") == (404, ABSENT.format("shared"))


def test_an_own_name_comes_before_a_public_one(api: Api, alpha: Stock, admin: Stock) -> None:
    public = admin.composite("lamp", visibility="public")
    assert api.plan("alpha", composite="lamp")["composite"] == public["id"]
    own = alpha.composite("lamp")
    assert api.plan("alpha", composite="lamp")["composite"] == own["id"]
    second = alpha.composite("lamp")
    status, reason = api.plan("alpha", composite="lamp")
    assert status == 400
    assert own["id"] in reason and second["id"] in reason and public["id"] not in reason


@pytest.mark.must_show("glance", 2)
def test_file_sets_of_others_are_not_known(api: Api, alpha: Stock, beta: Stock) -> None:
    alpha.composite("lamp")
    theirs = beta.fileset("theirs", 1, 1)
    for name in (theirs, digest("none")):
        assert api.plan("alpha", composite="lamp", filesets=[name]) == (
            404, f"no file set named {name} in the image service")


@pytest.mark.must_show("glance", 2)
def test_a_manifest_of_another_owner_is_not_read(api: Api, alpha: Stock, beta: Stock,
                                                 planner: Planner) -> None:
    theirs = beta.composite("theirs")
    assert api.plan("beta", composite="theirs", parts=["mysql"])["match"] == "base"
    assert theirs["splitimage_manifest"] in planner.catalogue._kept
    stolen = {name: value for name, value in theirs.items() if name.startswith("splitimage_")}
    alpha.composite("mine", changes=stolen)
    absent = alpha.composite("absent", changes=stolen | {
        "splitimage_manifest": "00000000-0000-4000-8000-000000000000"})
    status, reason = api.plan("alpha", composite="mine", parts=["mysql"])
    assert status == 400
    assert api.plan("alpha", composite=absent["id"], parts=["mysql"]) == (
        status, reason.replace(theirs["splitimage_manifest"],
                               "00000000-0000-4000-8000-000000000000"))


def test_what_is_not_shown_at_the_last_moment_is_not_told(api: Api, alpha: Stock,
                                                          glance: FakeGlance) -> None:
    """The index may be behind; Glance is not."""
    composite = alpha.composite("lamp")
    first = alpha.completed(composite, ["mysql"])
    second = alpha.completed(composite, ["mysql", "php"])

    def gone(method: str, path: str) -> None:
        if "id=in" in path:
            glance.images.pop(first, None)

    glance.before = gone
    answer = api.plan("alpha", composite="lamp", parts=["mysql"], limit=1)
    assert candidates(answer) == [second]


@pytest.mark.parametrize("changes", [
    {"splitimage_part_mysql": "x"}, {"splitimage_os": digest("another")},
    {"splitimage_manifest": "x"}, {"splitimage_schema": "9"},
    {"splitimage_part_more": f"00000000-0000-4000-8000-000000000000 {digest()}"}])
def test_a_composite_that_was_tampered_with_is_refused(api: Api, alpha: Stock,
                                                       changes: dict[str, Any]) -> None:
    composite = alpha.composite("lamp", changes=changes)
    status, reason = api.plan("alpha", composite=composite["id"], parts=["mysql"])
    assert (status, composite["id"] in reason) == (400, True)


def test_a_manifest_that_is_none_is_refused(api: Api, alpha: Stock, glance: FakeGlance) -> None:
    composite = alpha.composite("lamp")
    for data in (b"", b"x" * 600, records.pack(None, b"tree"),
                 glance.data[composite["splitimage_manifest"]][:-5]):
        glance.put(composite["splitimage_manifest"], data)
        status, reason = api.plan("alpha", composite="lamp", parts=["mysql"])
        assert (status, composite["splitimage_manifest"] in reason) == (400, True), reason


# -- several -----------------------------------------------------------------------


def test_a_list_is_answered_with_an_order(api: Api, alpha: Stock) -> None:
    composite = alpha.composite("lamp")
    other = alpha.composite("other", {"nginx": Piece(1, 1)})
    ask: list[dict[str, Any]] = [
        {"composite": "lamp", "parts": ["apache", "mysql", "php"], "limit": 1},
        {"composite": "lamp", "parts": ["apache", "mysql"]},
        {"composite": composite["id"], "parts": ["mysql", "apache", "common"]},
        {"composite": "other", "parts": ["nginx"]}]
    answer = api.plan("alpha", requests=ask)
    assert [plan["image"] for plan in answer["plans"]] == [composite["id"]] * 3 + [other["id"]]
    assert answer["plans"][0] == api.plan("alpha", **ask[0])
    steps = {tuple(step["requests"]): step for step in answer["steps"]}
    assert steps.keys() == {(0,), (1, 2), (3,)}
    assert (steps[1, 2]["image"], steps[1, 2]["request"]) == (composite["id"], None)
    assert (steps[0,]["image"], steps[0,]["request"]) == (None, 1)
    assert (steps[0,]["match"], steps[0,]["missing"]) == ("subset", ["php"])
    assert steps[0,]["cost"] < answer["plans"][0]["cost"]
    assert (steps[3,]["image"], steps[3,]["request"]) == (other["id"], None)
    order = [step["requests"][0] for step in answer["steps"]]
    assert order.index(1) < order.index(0)


def test_a_list_with_one_that_cannot_be_is_refused(api: Api, alpha: Stock) -> None:
    alpha.composite("lamp")
    assert api.plan("alpha", requests=[{"composite": "lamp"}, {"composite": "x"}]) == (
        404, ABSENT.format("x"))


# -- bad input ---------------------------------------------------------------------


@pytest.mark.parametrize(("request_", "reason"), [
    ({}, "composite"), ({"composite": ""}, "composite"), ({"composite": 5}, "composite"),
    ({"composite": "x" * 256}, "composite"), ({"composite": "x", "parts": "mysql"}, "parts"),
    ({"composite": "x", "parts": ["../x"]}, "parts"),
    ({"composite": "x", "parts": ["a\n"]}, "parts"),
    ({"composite": "x", "parts": ["a"] * 65}, "parts"),
    ({"composite": "x", "filesets": ["0" * 63]}, "filesets"),
    ({"composite": "x", "recipe": "0"}, "recipe"), ({"composite": "x", "limit": 0}, "limit"),
    ({"composite": "x", "part": []}, "part"), ({"requests": []}, "requests"),
    ({"requests": [{"composite": "x"}] * (MAX_REQUESTS + 1)}, "requests"),
    ({"requests": [{"composite": "x"}], "limit": 1}, "limit")])
def test_bad_input_is_told(api: Api, request_: dict[str, Any], reason: str) -> None:
    status, said = api.plan("alpha", **request_)
    assert (status, reason in said) == (400, True), said


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"5", b"[" * 100_000,
                                  json.dumps({"composite": "\ud800"}).encode()])
def test_what_is_no_request_is_told(api: Api, body: bytes) -> None:
    status, said = api.posted("alpha", body)
    assert (status, said.startswith("the request: ")) == (400, True), said


def test_a_part_that_is_none_of_the_composites(api: Api, alpha: Stock) -> None:
    alpha.composite("lamp")
    assert api.plan("alpha", composite="lamp", parts=["nginx"]) == (
        400, "composite lamp has no part nginx (it has: apache, mysql, php)")


def test_a_composite_that_is_not_active_is_told(api: Api, alpha: Stock) -> None:
    composite = alpha.composite("lamp")
    alpha.images.deactivate(composite["id"])
    status, said = api.plan("alpha", composite=composite["id"])
    assert (status, "deactivated" in said) == (400, True)


def test_many_composites_do_not_fill_the_memory(api: Api, alpha: Stock, planner: Planner) -> None:
    planner.catalogue._limit = 3
    made: list[Description] = [alpha.composite(f"c{number}", LAMP) for number in range(5)]
    for each in made:
        assert api.plan("alpha", composite=each["id"], parts=["php"])["match"] == "base"
    assert list(planner.catalogue._kept) == [each["splitimage_manifest"] for each in made[2:]]
