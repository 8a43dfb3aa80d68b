"""Two tenants of one image service: what is alpha's and private is as if it were
not there for beta, and what beta claims of anything is never part of a launch of
alpha's."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.store.glance.api import Description, Images
from tests.functional import smallgold
from tests.functional.command import Command, Done, refused
from tests.imagerecords import Records

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.glanceusers")
pytestmark = pytest.mark.must_show("glance", 2)

#: Of alpha's composite.
NAME = f"small-{uuid.uuid4().hex[:8]}"
SECRET = b"alpha's own letter\n"


class Alpha(NamedTuple):
    """What alpha has: a captured composite, a completed image, a file set.

    :ivar command: of a host that beta uses, too
    :ivar captured: images that the capture made, by id
    :ivar images: all of them
    """

    command: Command
    composite: str
    completed: str
    fileset: str
    captured: dict[str, Description]
    images: dict[str, Description]

    def of_role(self, role: str) -> list[Description]:
        return [each for each in self.images.values() if each["splitimage_role"] == role]


def owned(images: Images, owner: str) -> dict[str, Description]:
    return {each["id"]: each for each in images.list(hidden=None, visibility="all", owner=owner)}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store's directory of a host that both tenants work on."""
    return tmp_path_factory.mktemp("host") / "store"


@pytest.fixture(scope="module")
def alphas(cloud: TestCloud, small_gold: smallgold.Gold, host: Path,
           tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alpha]:
    from tests.functional.glanceusers import images
    api, admin = images(cloud.alpha), images(cloud.admin)
    before = owned(admin, api.project).keys()
    command = cloud.splitimage("alpha", host)
    letters = tmp_path_factory.mktemp("letters")
    (letters / "letter").write_bytes(SECRET)

    def new() -> dict[str, Description]:
        return {name: each for name, each in owned(admin, api.project).items()
                if name not in before}

    try:
        captured = command("capture", NAME, *small_gold.arguments, "-f", "json").json
        first = new()
        fileset = command("part", "create", "letters", "--from", letters, "-f", "json").json
        done = command("assemble", NAME, "--part", "web", "--fileset", "letters",
                       "-f", "json").json
        yield Alpha(command, captured["id"], done["image_id"], fileset["id"], first, new())
    finally:
        for name in owned(admin, api.project).keys() - before:
            admin.discard(name)


@pytest.fixture
def betas(cloud: TestCloud, host: Path, admin: Images) -> Iterator[Command]:
    """On the same host, with the same cache; what is new of beta's goes."""
    project = str(cloud.beta.current_project_id)
    before = owned(admin, project).keys()
    yield cloud.splitimage("beta", host)
    for name in owned(admin, project).keys() - before:
        admin.discard(name)


# -- through Glance ----------------------------------------------------------------


@pytest.mark.accept
def test_nothing_of_alphas_is_listed_by_any_question(alphas: Alpha, beta: Records) -> None:
    def found(**filters: str) -> set[str]:
        return {each["id"] for each in beta.images.list(hidden=None, **filters)}

    said: set[tuple[str, str]] = {
        (name, str(value)) for image in alphas.images.values() for name, value in image.items()
        if name.startswith(properties.PREFIX) or name in ("name", "owner", "checksum")}
    said |= {("id", "in:" + ",".join(alphas.images)), ("os_hash_value", "0" * 128)}
    questions: list[dict[str, str]] = [{name: value} for name, value in said]
    for question, visibility in itertools.product(
            [{}, *questions], ("", "all", "shared", "community", "private", "public")):
        more = {"visibility": visibility} if visibility else {}
        if visibility == "shared":
            more["member_status"] = "all"
        assert not found(**question, **more) & alphas.images.keys(), (question, more)


def test_guessed_ids_are_as_good_as_any_others(alphas: Alpha, beta: Records, cloud: TestCloud,
                                               ) -> None:
    def asked(image: str) -> list[tuple[int, str]]:
        url = f"{cloud.service('glance').url}/v2/images/{image}"
        patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        data = {"Content-Type": "application/octet-stream"}
        session, answers = cloud.beta.session, []
        for method, path, more in (
                ("GET", "", {}), ("GET", "/file", {}), ("GET", "/members", {}),
                ("GET", "/file", {"headers": {"Range": "bytes=0-1"}}),
                ("GET", f"/members/{beta.images.project}", {}), ("GET", "/locations", {}),
                ("GET", "/tasks", {}),
                ("PATCH", "", {"headers": patch, "json": [
                    {"op": "add", "path": "/splitimage_for", "value": "x"}]}),
                ("PATCH", "", {"headers": patch, "json": [
                    {"op": "replace", "path": "/visibility", "value": "community"}]}),
                ("POST", "/members", {"json": {"member": beta.images.project}}),
                ("PUT", f"/members/{beta.images.project}", {"json": {"status": "accepted"}}),
                ("POST", "/actions/deactivate", {}), ("POST", "/actions/reactivate", {}),
                ("PUT", "/file", {"headers": data, "data": b"x" * 512}),
                ("PUT", "/stage", {"headers": data, "data": b"x" * 512}),
                ("PUT", "/tags/x", {}),
                ("POST", "/import", {"json": {"method": {"name": "glance-direct"}}}),
                ("DELETE", "", {})):
            answer = session.request(url + path, method, raise_exc=False, **more)
            answers.append((answer.status_code, answer.text.replace(image, "ID")))
        return answers

    nothing = asked(str(uuid.uuid4()))
    assert {status for status, _ in nothing} <= {403, 404}
    for image in alphas.images:
        assert asked(image) == nothing
    # Only a record can have an id that is taken: Glance tells that it is.
    with pytest.raises((exceptions.AlreadyExists, exceptions.NotFound)):
        beta.images.create("squatter", {}, image=alphas.composite)


# -- through the filter --------------------------------------------------------------


@pytest.mark.accept
def test_the_filter_plans_on_nothing_of_alphas(alphas: Alpha, cloud: TestCloud) -> None:
    def asked(**request: Any) -> tuple[int, str]:
        answer = cloud.beta.session.post(
            f"{cloud.service('glance').url}/v2/splitimage/plan", json=request, raise_exc=False)
        text = answer.text
        for image in alphas.images:
            text = text.replace(image, "ID")
        return answer.status_code, text.replace(unknown, "ID").replace(
            NAME, "NAME").replace("nothing", "NAME")

    unknown = str(uuid.uuid4())
    for parts in ([], ["web"], ["no-such"]):
        nothing = asked(composite=unknown, parts=parts)
        assert nothing[0] == 404
        for image in alphas.images:
            assert asked(composite=image, parts=parts) == nothing
        assert asked(composite=NAME, parts=parts) == asked(
            composite="nothing", parts=parts)


# -- through the command line ----------------------------------------------------------


@pytest.mark.accept
def test_the_command_line_shows_nothing_of_alphas(
        alphas: Alpha, betas: Command, tmp_path: Path) -> None:
    """On a host that has it all in its cache."""
    for words in (("composite", "list"), ("part", "list"), ("image", "list"),
                  ("store", "check")):
        assert betas(*words, "-f", "json").json == [], words
    out = tmp_path / "out"
    part = next(each for each in alphas.of_role(properties.PART) if each["name"] == "web")
    digest = part["splitimage_digest"]
    parts = ["web", digest, part["id"], "letters", alphas.fileset]
    commands: list[tuple[list[str], tuple[str | Path, ...]]] = [
        ([alphas.composite, NAME], ("composite", "show")),
        ([alphas.composite], ("composite", "delete")),
        ([alphas.composite], ("conflict", "list")),
        ([alphas.composite, NAME], ("plan", "--part", "web")),
        ([alphas.composite], ("assemble", "--part", "web", "-o", out)),
        (parts, ("part", "show")), ([digest, alphas.fileset], ("part", "delete")),
        ([alphas.completed, f"{NAME}+web"], ("image", "show")),
        ([alphas.completed], ("image", "export", "-o", out)),
        ([alphas.completed], ("image", "delete"))]
    for names, begin in commands:
        told = set()
        for name in names:
            unknown = str(uuid.uuid4()) if len(name) == 36 else hashlib.sha256(
                uuid.uuid4().bytes).hexdigest()[:len(name)]
            for each in (name, unknown):
                done = betas(*begin, each)
                refused(done, 10, each)
                told.add(done.err.replace(each, "NAME"))
        assert len(told) == 1, told
        assert not out.exists()


@pytest.mark.accept
def test_reconcile_of_what_is_alphas_does_nothing(
        alphas: Alpha, betas: Command, admin: Images) -> None:
    unknown = betas("composite", "reconcile", str(uuid.uuid4()))
    found = betas("composite", "reconcile", alphas.composite)
    assert (found.status, found.out, found.err) == (unknown.status, unknown.out, unknown.err)
    assert {name: admin.get(name) for name in alphas.images} == alphas.images


@pytest.mark.accept
def test_a_known_digest_opens_nothing_of_the_hosts_cache(
        alphas: Alpha, betas: Command, beta: Records, tmp_path: Path) -> None:
    """beta knows what alpha's contents are called, not what is in them, and has
    them said of images of its own."""
    done = alphas.images[alphas.completed]
    mine = beta.composite("mine")
    forged = beta.completed(mine, "web")
    beta.images.update(forged["id"], {
        name: done[name] for name in ("splitimage_disk", "splitimage_tree", "splitimage_size")})
    out = tmp_path / "out"
    refused(betas("image", "export", forged["id"], "-o", out), 25, forged["id"])
    assert not out.exists()
    letters = next(each for each in alphas.of_role(properties.PART) if each["name"] == "letters")
    for data in (bytes(4096), b"hsqs" + bytes(4092)):
        part = beta.part("stolen", kind="fileset", data=data)
        beta.images.update(part["id"], {"splitimage_digest": letters["splitimage_digest"],
                                        "splitimage_blob": letters["splitimage_blob"]})
        for name in ("stolen", letters["splitimage_digest"]):
            shown = betas("part", "show", name)
            assert shown.status != 0, "its record is another one"
            assert "letter" not in shown.out
        beta.images.discard(part["id"])


# -- which parts count as stored already -------------------------------------------------


def stored(images: dict[str, Description]) -> list[tuple[str, str, str, int]]:
    return sorted((each["splitimage_role"], each["name"], each.get("splitimage_digest", ""),
                   each["size"] if each["splitimage_role"] == "part" else 0)
                  for each in images.values())


def uploads(cloud: TestCloud, images: Mapping[str, Description]) -> int:
    """How many contents were sent for them: from Glance's log."""
    log = (cloud.service("glance").directory / "log").read_text(errors="replace")
    return sum(f"PUT /v2/images/{image}/file" in log for image in images)


@pytest.mark.accept
def test_a_part_that_alpha_has_is_stored_like_any_other(
        alphas: Alpha, betas: Command, cloud: TestCloud, admin: Images,
        small_gold: smallgold.Gold) -> None:
    """Nothing that beta can see, send or count differs: the same requests, the
    same images, the same data."""
    project = str(cloud.beta.current_project_id)
    before = owned(admin, project)
    assert betas("capture", NAME, *small_gold.arguments).status == 0
    own = {name: each for name, each in owned(admin, project).items() if name not in before}
    theirs = alphas.captured
    assert not own.keys() & theirs.keys()
    assert stored(own) == stored(theirs), "the same names and digests"
    assert uploads(cloud, own) == len(own), "all of it was sent"
    assert uploads(cloud, theirs) == len(theirs)
    files = {path.name for path in (cloud.directory / "images" / "fast").iterdir()}
    assert files >= own.keys() | theirs.keys(), "each has data of its own"


# -- what beta claims --------------------------------------------------------------------


def offered(beta: Records, alpha: Images, admin: Images, make: Callable[[], Description],
            ) -> Iterator[tuple[str, Description]]:
    """An image in each way that beta can have alpha see it; the last is the
    operator's doing."""
    for way in ("private", "pending", "accepted", "community", "public"):
        made = make()
        held = made.get("splitimage_manifest")
        for image in filter(None, (made["id"], held)):
            if way in ("pending", "accepted"):
                beta.images.update(image, {"visibility": "shared"})
                beta.images.add_member(image, alpha.project)
                if way == "accepted":
                    accept(alpha, image)
            else:
                (admin if way == "public" else beta.images).update(image, {"visibility": way})
        yield way, made


def accept(images: Images, image: str) -> None:
    answer = images.transport.request(
        "PUT", f"/images/{image}/members/{images.project}",
        headers={"Content-Type": "application/json"}, body=b'{"status": "accepted"}')
    assert answer.status == 200, answer.body()


def settings(tmp_path: Path, *, filter: bool) -> Path:
    path = tmp_path / "splitimage.conf"
    path.write_text(f"[glance]\nfilter = {filter}\n")
    return path


@pytest.mark.accept
@pytest.mark.parametrize("filter", [True, False])
def test_no_label_of_betas_is_in_a_plan_of_alphas(
        alphas: Alpha, alpha: Records, beta: Records, admin: Images, cloud: TestCloud,
        tmp_path: Path, filter: bool) -> None:
    command = cloud.splitimage("alpha", alphas.command.store, "--config-file",
                               settings(tmp_path, filter=filter))
    composite = alphas.images[alphas.composite]

    def plans() -> dict[str, Any]:
        found = {}
        for part in ("web", "db", "php"):
            plan = command("plan", NAME, "--part", part, "--explain", "-f", "json").json
            found[part] = {key: plan[key] for key in ("match", "candidate_id", "recipe", "missing",
                                                      "considered")}
        return found

    before = plans()
    assert {each["match"] for each in before.values()} == {"partial", "superset", "base"} & {
        each["match"] for each in before.values()}
    forged: dict[str, str] = {}
    for part, plan in before.items():
        parts = ("dep.db.web", part) if part != "php" else (part,)
        for way, made in offered(beta, alpha.images, admin, functools.partial(
                beta.completed, composite, *parts, recipe=plan["recipe"],
                splitimage_tree="0" * 64)):
            forged[made["id"]] = f"completed {part} {way}"
    for way, made in offered(beta, alpha.images, admin,
                             lambda: beta.composite(NAME, web=beta.part("web"))):
        forged[made["id"]] = f"composite {way}"
    for each in alphas.of_role(properties.PART):
        made = beta.part(each["name"], kind=each["splitimage_kind"], data=b"hsqs" + bytes(4092))
        beta.images.update(made["id"], {name: each[name] for name in (
            "splitimage_digest", "splitimage_blob", "splitimage_manifest")})
        beta.images.update(made["id"], {"visibility": "community"})
        forged[made["id"]] = f"part {each['name']}"
    seen = [name for name in forged if "private" not in forged[name]]
    assert all(alpha.images.get(name) for name in seen), "alpha could use them"

    assert plans() == before
    assert [row["id"] for row in command("image", "list", "-f", "json").json] == [
        alphas.completed]
    shown = command("composite", "show", NAME, "-f", "json").json
    assert shown["id"] == alphas.composite
    assert {row["id"] for row in command("part", "list", "-f", "json").json} <= {
        each["splitimage_digest"] for each in alphas.of_role(properties.PART)}
    for name, what in forged.items():
        if what.startswith("completed"):
            refused(command("image", "export", name, "-o", tmp_path / "out"), 10, name)
        elif what.startswith("part"):
            refused(command("part", "show", name), 10, name)
        elif what.split()[1] in ("private", "pending", "community"):
            refused(command("plan", name, "--part", "web"), 10, name)


@pytest.mark.accept
def test_no_label_of_betas_is_in_an_image_of_alphas(
        alphas: Alpha, alpha: Records, beta: Records, admin: Images, cloud: TestCloud,
        tmp_path: Path) -> None:
    """The whole way, with an exact match, parts and a base that beta claims to
    have."""
    composite = alphas.images[alphas.composite]
    wanted = alphas.command("plan", NAME, "--part", "db", "-f", "json").json
    for _, made in offered(beta, alpha.images, admin, lambda: beta.completed(
            composite, "db", "dep.db.web", recipe=wanted["recipe"])):
        assert made["status"] == "active"
    command = cloud.splitimage("alpha", tmp_path / "fresh")
    out = tmp_path / "db.qcow2"
    before = owned(admin, alpha.images.project)
    done = command("assemble", NAME, "--part", "db", "-o", out, "-f", "json").json
    assert done["match"] != "exact"
    new = [each for name, each in owned(admin, alpha.images.project).items()
           if name not in before]
    try:
        published = next(each for each in new if each["splitimage_role"] == "completed")
        assert (published["owner"], published["splitimage_recipe"]) == (
            alpha.images.project, wanted["recipe"])
        again = command("plan", NAME, "--part", "db", "-f", "json").json
        assert (again["match"], again["candidate_id"]) == ("exact", published["id"])
        assert out.stat().st_size > len(beta.disk) * 2
    finally:
        for each in new:
            admin.discard(each["id"])


@pytest.mark.accept
def test_a_shared_composite_is_used_by_its_id_and_nothing_that_goes_with_it(
        alpha: Records, beta: Records, admin: Images, cloud: TestCloud, tmp_path: Path) -> None:
    """Whoever accepts a composite trusts it; not what its owner completed."""
    command = cloud.splitimage("alpha", tmp_path / "store")
    composite = beta.composite("theirs", web=beta.part("web"))
    done = [made["id"] for _, made in offered(
        beta, alpha.images, admin, lambda: beta.completed(composite, "web"))]
    beta.images.add_member(composite["id"], alpha.images.project)
    refused(command("composite", "show", composite["id"]), 10, composite["id"])
    accept(alpha.images, composite["id"])
    shown = command("composite", "show", composite["id"], "-f", "json").json
    assert shown["name"] == "theirs"
    refused(command("composite", "show", "theirs"), 10, "theirs")
    assert composite["id"] not in {
        each["id"] for each in command("composite", "list", "-f", "json").json}
    for image in done[:-1]:
        refused(command("image", "show", image), 10, image)


def lines(done: Done) -> list[str]:
    return [json.dumps(done.out), *done.err.splitlines()]


@pytest.mark.accept
def test_what_is_unshared_is_gone(alphas: Alpha, betas: Command, alpha: Records,
                                  beta: Records) -> None:
    """Also where beta has it all in the cache of its host."""
    images, project = alpha.images, beta.images.project
    words = ("plan", alphas.composite, "--part", "web", "-f", "json")
    unknown = lines(betas(*words))
    images.add_member(alphas.composite, project)
    try:
        accept(beta.images, alphas.composite)
        plan = betas(*words).json
        assert plan["match"] == "base", "alpha's completed image is not offered"
        parts = betas("composite", "show", alphas.composite, "-f", "json").json["parts"]
        assert {part["name"] for part in parts} == set(smallgold.PARTS)
    finally:
        with contextlib.suppress(exceptions.NotFound):
            images.remove_member(alphas.composite, project)
    assert lines(betas(*words)) == unknown
    for image in alphas.images:
        with pytest.raises(exceptions.NotFound):
            beta.images.get(image)
        with pytest.raises(exceptions.NotFound):
            beta.images.put(image, io.BytesIO(b"x" * 512))
