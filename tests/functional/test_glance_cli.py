"""The command line in a real cloud: ``splitimage --os-cloud`` and ``openstack
splitimage`` are the same commands, and what fails is told in the same way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import openstack.exceptions
import pytest
import yaml

from tests.cloud import accounts, glance
from tests.functional import smallgold
from tests.functional.command import Command, Done, refused

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud",)
long = pytest.mark.accept


class Shells(NamedTuple):
    """Both, of one user.

    :ivar own: the command ``splitimage``
    :ivar store: where both keep what they have fetched
    """

    cloud: TestCloud
    project: str
    own: Command
    store: Path

    def openstack(self, *words: str | Path) -> Done:
        return self.cloud.openstack(self.project, "--splitimage-store", self.store,
                                    "splitimage", *words)

    def same(self, *words: str | Path) -> Any:
        """What both answer."""
        found = self.own(*words, "-f", "json").json
        assert self.openstack(*words, "-f", "json").json == found
        return found

    def both_refused(self, code: int, *words: str, of: tuple[str | Path, ...]) -> None:
        refused(self.own(*of), code, *words)
        refused(self.openstack(*of), code, *words)

    @property
    def client(self) -> Any:
        """openstacksdk's for images."""
        return getattr(self.cloud, self.project).image

    def images(self) -> dict[str, dict[str, Any]]:
        """All that the project has, by id."""
        owner = getattr(self.cloud, self.project).current_project_id
        asked = [{"limit": 1000, "os_hidden": hidden, "owner": owner}
                 for hidden in ("true", "false")]
        return {image["id"]: image for query in asked
                for image in self.client.get("/images", params=query).json()["images"]}

    def discard(self, images: set[str]) -> None:
        for image in images:  # with a composite others may have gone
            with contextlib.suppress(openstack.exceptions.NotFoundException):
                self.client.update_image(image, is_protected=False)
                self.client.delete_image(image)


@pytest.fixture(scope="module")
def alpha(cloud: TestCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shells]:
    """What is new of alpha's goes at the end."""
    store = tmp_path_factory.mktemp("alpha") / "cache"
    shells = Shells(cloud, "alpha", cloud.splitimage("alpha", store), store)
    before = shells.images()
    yield shells
    shells.discard(shells.images().keys() - before.keys())


@pytest.fixture(scope="module")
def beta(cloud: TestCloud, tmp_path_factory: pytest.TempPathFactory) -> Shells:
    store = tmp_path_factory.mktemp("beta") / "cache"
    return Shells(cloud, "beta", cloud.splitimage("beta", store), store)


@pytest.fixture(scope="module")
def small(alpha: Shells, small_gold: smallgold.Gold) -> str:
    """A composite of alpha's, by name; parts are in Glance's second store."""
    name = f"small-{uuid.uuid4().hex[:8]}"
    done = alpha.own("capture", name, *small_gold.arguments, "--image-store", "second",
                     "-f", "json")
    assert [part["name"] for part in done.json["parts"]] == list(smallgold.PARTS)
    return name


# -- one composite, two shells -------------------------------------------------------


def test_both_shells_show_the_same(alpha: Shells, small: str) -> None:
    shown = alpha.same("composite", "show", small, "--all")
    assert {part["name"] for part in shown["parts"]} == {*smallgold.PARTS, "dep.db.web"}
    assert shown["owner"] == alpha.cloud.alpha.current_project_id
    assert small in {each["name"] for each in alpha.same("composite", "list")}
    planned = alpha.same("plan", small, "--part", "web")
    assert (planned["match"], planned["candidate_id"]) == ("base", shown["id"])
    web = next(part for part in shown["parts"] if part["name"] == "web")
    assert alpha.same("part", "show", web["id"], "--files")["contents"]


def test_a_plan_fetches_no_contents(alpha: Shells, small: str, tmp_path: Path) -> None:
    """Only what describes them."""
    fresh = alpha.cloud.splitimage("alpha", tmp_path / "fresh")
    done = fresh("--progress", "json", "plan", small, "--part", "web", "-f", "json")
    there = alpha.images()
    fetched = {there[event["subject"]]["splitimage_role"] for event in map(
        json.loads, done.err.splitlines()) if event["operation"] == "download"}
    assert fetched == {"manifest"}
    assert done.json["fetch"] > 0


@pytest.mark.must_show("glance", 1)
def test_an_ordinary_client_sees_one_image(alpha: Shells, small: str) -> None:
    listed = alpha.cloud.openstack("alpha", "image", "list", "-f", "json").json
    assert [each["Name"] for each in listed if each["Name"].startswith(small)] == [small]


def test_parts_are_in_the_store_that_was_named(alpha: Shells, small: str,
                                               tmp_path: Path) -> None:
    shown = alpha.own("composite", "show", small, "-f", "json").json
    there = alpha.images()
    disk = there[shown["id"]]
    assert disk["stores"] == "fast"  # whence servers start
    assert there[disk["splitimage_manifest"]]["stores"] == "second"

    (tmp_path / "page").write_text(str(uuid.uuid4()))  # no part that is there already
    made = alpha.openstack("part", "create", "page", "--from", archive(tmp_path / "page"),
                           "--image-store", "second", "-f", "json").json
    there = alpha.images()
    [part] = [each for each in there.values() if each.get("splitimage_digest") == made["id"]]
    for image in (part["id"], part["splitimage_manifest"]):
        assert there[image]["stores"] == "second"
        assert (alpha.cloud.directory / "images" / "second" / image).is_file()
    assert alpha.own("part", "delete", made["id"]).status == 0
    assert not alpha.images().keys() & {part["id"], part["splitimage_manifest"]}


def archive(file: Path) -> Path:
    path = file.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        tar.add(file, arcname=file.name)
    return path


def test_a_store_that_is_not_there_is_refused(alpha: Shells, tmp_path: Path) -> None:
    before = alpha.images()
    (tmp_path / "page").mkdir()
    alpha.both_refused(52, "nosuch", of=("part", "create", "page", "--from", tmp_path / "page",
                                         "--image-store", "nosuch"))
    assert alpha.images() == before


@pytest.mark.must_show("glance", 2)
@long
def test_the_other_project_sees_nothing(alpha: Shells, beta: Shells, small: str) -> None:
    composite = alpha.own("composite", "show", small, "-f", "json").json
    part = next(part["id"] for part in composite["parts"] if part["name"] == "web")
    assert small not in {each["name"] for each in beta.same("composite", "list")}
    assert part not in {each["id"] for each in beta.same("part", "list", "--all")}
    for command in (("composite", "show"), ("plan",), ("composite", "delete")):
        for named in (small, composite["id"]):
            refused(beta.own(*command, named), 10, named)
        refused(beta.openstack(*command, composite["id"]), 10, composite["id"])
    beta.both_refused(10, part, of=("part", "show", part))


@long
def test_what_one_shell_makes_the_other_finds(alpha: Shells, small: str,
                                              tmp_path: Path) -> None:
    parts = ("--part", "web", "--part", "php")
    first = alpha.openstack("assemble", small, *parts, "-o", tmp_path / "one", "-f", "json").json
    assert (first["match"], first["image"]) == ("base", f"{small}+php+web")
    # Both shells share a cache: from elsewhere it is fetched.
    elsewhere = alpha.cloud.splitimage("alpha", tmp_path / "elsewhere")
    again = elsewhere("assemble", small, *parts, "-o", tmp_path / "two", "-f", "json").json
    assert (again["match"], again["image_id"]) == ("exact", first["image_id"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

    assert alpha.same("image", "show", first["image"])["composite"] == small
    assert alpha.same("plan", small, *parts)["candidate_id"] == first["image_id"]
    alpha.both_refused(12, f"image {first['image']}", of=("composite", "delete", small))
    assert alpha.own("image", "delete", first["image"]).status == 0
    assert first["image_id"] not in alpha.images()


@long
def test_a_batch_is_launched_by_whoever_openstack_is(alpha: Shells, small: str,
                                                     tmp_path: Path) -> None:
    """Each launch is in a process of its own, which logs in again."""
    batch = tmp_path / "batch.json"
    batch.write_text(json.dumps([{"composite": small, "parts": ["db"], "name": "one"},
                                 {"composite": small, "parts": ["db"], "name": "two"}]))
    try:
        launched = alpha.openstack("launch", "--batch", batch, "--memory", "64", "-f", "json")
        assert [each["name"] for each in launched.json] == ["one", "two"]
        assert {each["state"] for each in alpha.same("server", "list")} == {"running"}
    finally:
        for server in alpha.own("server", "list", "-f", "json").json:
            assert alpha.own("server", "delete", server["id"]).status == 0
    assert alpha.own("image", "delete", f"{small}+db").status == 0


@pytest.fixture
def without_filter(cloud: TestCloud) -> Iterator[None]:
    """Else it had done already what is to be repaired."""
    with cloud.configured({"glance-api-paste.ini": {
            "composite:api": {"keystone": glance.PIPELINE}}}):
        yield


@long
def test_what_is_out_of_line_is_repaired(alpha: Shells, small_gold: smallgold.Gold,
                                         without_filter: None, tmp_path: Path) -> None:
    before = alpha.images()
    name = f"small-{uuid.uuid4().hex[:8]}"
    assert alpha.own("capture", name, *small_gold.arguments).status == 0
    found = alpha.own("composite", "show", name, "-f", "json").json
    others = alpha.same("store", "check")
    alpha.client.add_member(found["id"], member_id=alpha.cloud.beta.current_project_id)
    done = alpha.own("composite", "reconcile", name, "-f", "json").json
    assert any("shared with" in each["done"] for each in done)
    assert alpha.same("composite", "reconcile", name) == []

    alpha.client.delete_image(found["id"])  # behind its back
    found_now = [each for each in alpha.same("store", "check") if each not in others]
    assert {each["kind"] for each in found_now} == {"unreferenced"}
    soon = tmp_path / "splitimage.conf"
    soon.write_text("[glance]\ngrace = 0\n")
    assert alpha.own("composite", "reconcile", found["id"]).status == 0
    repaired = alpha.own("--config-file", soon, "store", "check", "--repair", "-f", "json").json
    assert all(each["repaired"] for each in repaired)
    assert alpha.images().keys() <= before.keys()


@long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_ends_an_upload_at_once(number: signal.Signals, alpha: Shells,
                                         tmp_path: Path) -> None:
    """It is not waited for, and nothing of it stays."""
    (tmp_path / "set").mkdir()
    with (tmp_path / "set" / "noise").open("wb") as noise:
        for _ in range(256):
            noise.write(os.urandom(1 << 20))
    before = alpha.images()
    words = alpha.own.words("--progress", "json", "part", "create", "noise", "--from",
                            tmp_path / "set")
    with subprocess.Popen(words, env=alpha.own.environment(), stderr=subprocess.PIPE,
                          text=True) as running:
        assert running.stderr is not None
        told: dict[str, Any] = {}
        for line in running.stderr:
            told = json.loads(line)
            if told["operation"] == "upload" and 0 < told["current"] < told["total"] // 2:
                break
        running.send_signal(number)
        rest = [json.loads(line) for line in running.stderr if line.startswith("{")]
        assert running.wait(60) == 128 + number
    last = [each for each in rest if each["subject"] == told["subject"]] or [told]
    assert last[-1]["current"] < told["total"]
    assert alpha.images() == before
    assert list((alpha.store / "tmp").iterdir()) == []
    assert alpha.own.processes() == []


# -- what fails --------------------------------------------------------------------------


class Clouds:
    """A ``clouds.yaml`` of a test.

    :param good: a cloud's description that works
    """

    def __init__(self, path: Path, good: dict[str, Any]) -> None:
        self.path, self.good, self.clouds = path, good, {"good": good}

    def add(self, name: str, **auth: str | None) -> None:
        changed = {key: value for key, value in {**self.good["auth"], **auth}.items() if value}
        self.clouds[name] = {**self.good, "auth": changed}
        self.path.write_text(yaml.safe_dump({"clouds": self.clouds}))

    def command(self, store: Path, *options: str | Path, cloud: str = "") -> Command:
        return Command(store, *options, *(("--os-cloud", cloud) if cloud else ()),
                       env={"OS_CLIENT_CONFIG_FILE": str(self.path), "OS_CLOUD": "good"})


@pytest.fixture
def clouds(cloud: TestCloud, tmp_path: Path) -> Clouds:
    described = yaml.safe_load(accounts.clouds_file(cloud.control.site).read_text())
    return Clouds(tmp_path / "clouds.yaml", described["clouds"][accounts.names()["alpha"]])


def test_a_login_that_fails_is_told_in_one_line(clouds: Clouds, tmp_path: Path) -> None:
    clouds.add("wrong", password="wrong")
    clouds.add("dead", auth_url="http://127.0.0.1:9/v3")
    clouds.add("nowhere", auth_url="http://nowhere.invalid/v3")
    clouds.add("half", auth_url=None)
    for name, code, said in (
            ("absent", 15, ("cloud absent", "not found")),
            ("half", 15, ("cloud half", "auth_url")),
            ("wrong", 51, ("cloud wrong", "log in", "401")),
            ("dead", 50, ("cloud dead", "127.0.0.1:9", "Connection refused")),
            ("nowhere", 50, ("cloud nowhere", "nowhere.invalid"))):
        refused(clouds.command(tmp_path / "cache", cloud=name)("composite", "list"), code, *said)
    refused(clouds.command(tmp_path / "cache", "--project", "beta", cloud="good")(
        "composite", "list"), 15, "--project beta")


def test_a_cloud_of_the_environment_counts_when_it_is_asked_for(
        clouds: Clouds, tmp_path: Path) -> None:
    clouds.add("other")
    local = clouds.command(tmp_path / "local")("composite", "list", "--debug")
    assert local.status == 0
    assert "keystoneauth" not in local.err
    (tmp_path / "glance.conf").write_text("[store]\ndriver = glance\n")
    configured = clouds.command(tmp_path / "cache", "--config-file", tmp_path / "glance.conf")
    assert configured("composite", "list").status == 0
    refused(configured("composite", "list", env={"OS_CLOUD": "absent"}), 15, "cloud absent")


def test_openstack_tells_a_failed_login_itself(cloud: TestCloud) -> None:
    done = cloud.openstack("alpha", "--os-password", "wrong", "splitimage", "composite", "list")
    assert done.status == 1
    assert "HTTP 401" in done.err
    assert "Traceback" not in done.err


@pytest.mark.must_show("glance", 3)
@long
def test_a_service_that_is_down_is_told_in_one_line(cloud: TestCloud, alpha: Shells,
                                                    small: str, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    before = alpha.images()
    cloud.kill(glance.NAME)
    try:
        alpha.both_refused(50, "cloud splitimage-alpha", of=("composite", "show", small))
        alpha.both_refused(50, "cloud splitimage-alpha", of=(
            "part", "create", "page", "--from", tmp_path / "page"))
    finally:
        cloud.up()
    assert alpha.same("composite", "show", small)["name"] == small
    assert alpha.images() == before
