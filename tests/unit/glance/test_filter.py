"""The filter in the pipeline: what it answers, what it lets through, what it
brings in line."""

from __future__ import annotations

import configparser
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import conf as configuration
from splitimage_driver import exceptions
from splitimage_driver.glance import filter as filter_
from splitimage_driver.glance.filter import MAX_BODY, Filter
from splitimage_driver.glance.planner import Planner
from splitimage_driver.glance.transport import Environ
from splitimage_driver.store.glance import access
from tests.imagerecords import Records
from tests.stocked import Stock
from tests.unit.glance.conftest import Api, FakeDatabase
from tests.unit.store.glance.fake import FakeGlance

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def seen(glance: FakeGlance, composite: str) -> dict[str, str]:
    """Visibility of a composite and of all that was stored for it."""
    return {image["name"]: image["visibility"] for image in glance.images.values()
            if composite in (image["id"], image.get("splitimage_for"))}


# -- passing through ---------------------------------------------------------------


def test_other_requests_pass_untouched(planner: Planner, database: FakeDatabase) -> None:
    asked: list[Environ] = []

    def application(environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        asked.append(environ)
        start("418 I'm a teapot", [("X-Own", "yes")])
        return answer

    answer = [b"as it was"]
    told: list[Any] = []
    for method, path in (("GET", "/v2/images"), ("POST", "/v2/images"),
                         ("PUT", "/v2/images/x/file"), ("GET", "/v2/images/x"),
                         ("DELETE", "/v2/images/x/tags/t"), ("POST", "/v2/images/x/import"),
                         ("GET", "/v2/splitimage/plans"), ("POST", "/v1/splitimage/plan"),
                         ("GET", ""), ("PATCH", "/v2/images/x"), ("DELETE", "/v2/images/x"),
                         ("PUT", "/v2/images/x/members/y")):
        environ: Environ = {"REQUEST_METHOD": method, "PATH_INFO": path}
        told.clear()
        found = Filter(application, planner, database)(environ, lambda *words: told.extend(words))
        assert found is answer
        assert told == ["418 I'm a teapot", [("X-Own", "yes")]]
        assert asked[-1] is environ
    assert database.asked == [], "nobody has asked for a plan"


def test_a_failure_of_ours_does_not_show(api: Api, alpha: Stock, glance: FakeGlance,
                                         monkeypatch: pytest.MonkeyPatch,
                                         caplog: pytest.LogCaptureFixture) -> None:
    composite = alpha.composite("lamp")["id"]

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("broken")

    monkeypatch.setattr(access, "reconcile", fail)
    api.images("alpha").update(composite, {"visibility": "shared"})
    assert glance.images[composite]["visibility"] == "shared"
    assert [r.getMessage() for r in caplog.records if "broken" in (r.exc_text or "")] == [
        f"after a change of image {composite}"]
    caplog.clear()
    monkeypatch.setattr(FakeDatabase, "read", fail)
    api.images("alpha").update(composite, {"visibility": "private"})
    api.images("alpha").delete(composite)
    assert composite not in glance.images
    # What changes, what changes and goes, what goes with it.
    assert len([r for r in caplog.records if "broken" in (r.exc_text or "")]) == 3


def test_what_may_not_be_done_to_the_parts_is_logged_with_the_repair(
        api: Api, alpha: Stock, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    composite = alpha.composite("lamp")["id"]

    def refuse(*_: Any, **__: Any) -> Any:
        raise exceptions.NotPermitted(where="x", what="y", reason="z")

    monkeypatch.setattr(access, "reconcile", refuse)
    api.images("alpha").update(composite, {"visibility": "shared"})
    [record] = [r for r in caplog.records if r.levelname == "WARNING"]
    assert "composite reconcile" in record.getMessage() and record.exc_info is None


# -- changes -----------------------------------------------------------------------


def test_parts_follow_the_visibility_of_their_composite(api: Api, alpha: Stock,
                                                        glance: FakeGlance) -> None:
    composite = alpha.composite("lamp", stored=True)["id"]
    assert set(seen(glance, composite).values()) == {"private"}
    api.images("admin", admin=True).update(composite, {"visibility": "public"})
    names = {"lamp", "apache", "mysql", "php", "common", "restore", "manifest"}
    assert seen(glance, composite) == dict.fromkeys(names, "public")
    api.images("alpha").update(composite, {"visibility": "private"})
    assert seen(glance, composite) == dict.fromkeys(names, "private")


def test_parts_follow_its_members(api: Api, alpha: Stock, glance: FakeGlance) -> None:
    composite = alpha.composite("lamp", stored=True, visibility="shared")["id"]
    parts = [image["id"] for image in glance.images.values()
             if image.get("splitimage_for") == composite]
    api.images("alpha").add_member(composite, "beta")
    assert len(parts) == 6
    assert [set(glance.members[part]) for part in parts] == [{"beta"}] * 6
    api.images("alpha").remove_member(composite, "beta")
    assert [glance.images[part]["visibility"] for part in parts] == ["private"] * 6


def test_parts_follow_its_state(api: Api, alpha: Stock, glance: FakeGlance) -> None:
    composite = alpha.composite("lamp", stored=True)["id"]
    api.images("alpha").deactivate(composite)
    states = {image["status"] for image in glance.images.values()
              if image.get("splitimage_for") == composite}
    assert states == {"deactivated"}
    api.images("alpha").deactivate(composite, back=True)
    assert {image["status"] for image in glance.images.values()} == {"active"}


def test_what_was_only_stored_for_it_is_not_referred_to_once_it_is_gone(
        api: Api, alpha: Stock, glance: FakeGlance) -> None:
    composite = alpha.composite("lamp", stored=True)["id"]
    api.images("alpha").delete(composite)
    left = [image for image in glance.images.values() if image["splitimage_role"] == "part"]
    assert len(left) == 5
    assert all("splitimage_unreferenced" in image for image in left)


def test_the_manifest_goes_with_a_completed_image(api: Api, alpha: Stock,
                                                  glance: FakeGlance) -> None:
    composite = alpha.composite("lamp")
    image = alpha.completed(composite, ["mysql"])
    held = alpha.manifest(image, b"tree")
    alpha.images.update(image, {"splitimage_manifest": held})
    alpha.images.update(held, {"protected": True})
    api.images("alpha").delete(image)
    assert image not in glance.images and held not in glance.images
    assert composite["splitimage_manifest"] in glance.images


@pytest.mark.parametrize("forged", ["other's", "composite's", "none"])
def test_no_other_manifest_goes(api: Api, alpha: Stock, beta: Stock, glance: FakeGlance,
                                forged: str) -> None:
    composite = alpha.composite("lamp")
    image = alpha.completed(composite, ["mysql"])
    held = {"other's": beta.manifest(image, b"tree"),
            "composite's": composite["splitimage_manifest"], "none": composite["id"]}[forged]
    alpha.images.update(image, {"splitimage_manifest": held})
    api.images("admin", admin=True).delete(image)
    assert image not in glance.images and held in glance.images


@pytest.mark.parametrize("role", ["", "composite"])
def test_what_a_cut_off_import_has_stored_goes_with_its_image(
        api: Api, alpha: Stock, glance: FakeGlance, role: str) -> None:
    records = Records(alpha.images)
    known = {"splitimage_split": "web=apache2"} if not role else {
        "splitimage_role": role, "splitimage_schema": "1"}
    image = alpha.images.create("lamp", known, hidden=False)["id"]
    glance.images[image]["status"] = "importing"
    part = records.part("web", holder=image)
    shared = records.part("db", holder=image)
    records.composite("other", db=shared)
    kept = len(glance.images) - 3
    api.images("alpha").delete(image)
    assert part["id"] not in glance.images
    assert part["splitimage_manifest"] not in glance.images
    assert {shared["id"], shared["splitimage_manifest"]} <= glance.images.keys()
    assert len(glance.images) == kept


@pytest.mark.parametrize("changes", [{"name": "stack"}, {"description": "x"}])
def test_what_parts_do_not_follow_costs_nothing(
        api: Api, alpha: Stock, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    composite = alpha.composite("lamp")["id"]
    monkeypatch.setattr(access, "reconcile", lambda *_, **__: pytest.fail("asked for"))
    api.images("alpha").update(composite, changes)


def test_a_change_that_is_refused_changes_nothing(api: Api, alpha: Stock,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    composite = alpha.composite("lamp")["id"]
    alpha.images.update(composite, {"protected": True})
    monkeypatch.setattr(access, "reconcile", lambda *_, **__: pytest.fail("asked for"))
    with pytest.raises(exceptions.NotPermitted):
        api.images("alpha").delete(composite)
    with pytest.raises(exceptions.NotFound):
        api.images("beta").update(composite, {"visibility": "public"}, known={})


# -- the answer itself -------------------------------------------------------------


def test_only_post_asks_for_a_plan(api: Api) -> None:
    answer = api.user("alpha").request("GET", "/splitimage/plan", headers={})
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert json.loads(answer.body())["code"] == 405


def test_a_body_without_length_or_end_is_refused(api: Api) -> None:
    class Endless:
        left = 4 << 20

        def read(self, size: int = -1) -> bytes:
            found = min(size, self.left)
            self.left -= found
            return b"x" * found

    body = Endless()
    answer = api.user("alpha").request("POST", "/splitimage/plan", headers={},
                                       body=body)  # type: ignore[arg-type]
    assert (answer.status, body.left) == (400, 4 << 20)
    assert "length" in json.loads(answer.body())["message"]
    status, reason = api.posted("alpha", b" " * (MAX_BODY + 1))
    assert (status, str(MAX_BODY) in reason) == (400, True)


@pytest.mark.parametrize(("error", "status", "words"), [
    (OSError("secret"), 500, "log of the image service"),
    (exceptions.CloudUnreachable(where="Glance", reason="database"), 503, "database")])
def test_a_plan_that_fails_is_told(api: Api, planner: Planner, monkeypatch: pytest.MonkeyPatch,
                                   error: Exception, status: int, words: str) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(planner, "answer", fail)
    found, reason = api.plan("alpha", composite="lamp")
    assert (found, words in reason, "secret" in reason) == (status, True, False)


def test_the_client_reads_it(api: Api, alpha: Stock) -> None:
    alpha.composite("lamp")
    images = api.images("alpha")
    assert images.ask("/splitimage/plan", {"composite": "lamp"})["match"] == "exact"
    assert images.ask("/splitimage/plan", {"composite": "x"}) is None
    with pytest.raises(exceptions.CloudRefused, match="has no part x"):
        images.ask("/splitimage/plan", {"composite": "lamp", "parts": ["x"]})


def test_the_filter_comes_after_the_context(planner: Planner, database: FakeDatabase) -> None:
    told: list[Any] = []
    asked = b'{"composite":"x"}'
    [body] = Filter(lambda *_: [], planner, database)(
        {"REQUEST_METHOD": "POST", "PATH_INFO": "/v2/splitimage/plan",
         "CONTENT_LENGTH": str(len(asked)), "wsgi.input": io.BytesIO(asked)},
        lambda *words: told.extend(words))
    assert told[0] == "503 Service Unavailable"
    assert "after Glance's context filter" in json.loads(body)["message"]


def test_rates_are_the_operators(database: FakeDatabase, glance: FakeGlance, alpha: Stock,
                                 tmp_path: Path) -> None:
    (tmp_path / "splitimage.conf").write_text(
        "[planning]\ncost = count\n[capture]\nexclude = opt/site/*\n")
    options = configuration.load(files=[str(tmp_path / "splitimage.conf")])
    found = filter_.planner(options, database)
    assert found.options == ("opt/site/*",)
    composite = alpha.composite("lamp")
    alpha.completed(composite, ["mysql"])
    answer = Api(glance, found, database).plan("alpha", composite="lamp", parts=["mysql", "php"])
    assert (answer["unit"], answer["cost"], answer["match"]) == ("files", 1200.0, "subset")



def test_the_sample_of_the_pipeline_names_the_filter() -> None:
    sample, setup = configparser.ConfigParser(), configparser.ConfigParser()
    sample.read(ROOT / "etc/splitimage/glance-api-paste.ini.sample")
    setup.read(ROOT / "setup.cfg")
    distribution, _, name = sample["filter:splitimage"]["use"].removeprefix("egg:").partition("#")
    assert distribution == setup["metadata"]["name"]
    assert setup["entry_points"]["paste.filter_factory"].split(" = ") == [
        f"\n{name}", f"{filter_.__name__}:{filter_.factory.__name__}"]
    for flavor, pipeline in sample["composite:api"].items():
        if flavor.startswith("keystone"):
            filters = pipeline.split()
            assert filters.index("splitimage") == filters.index("context") + 1
