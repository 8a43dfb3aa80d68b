"""From a gold disk to an exact match on another host, by the ordinary client."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openstack.exceptions import NotFoundException

from tests.functional import smallgold, trees
from tests.functional.command import Done
from tests.functional.freshroot import ROOT, fresh_root

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud",)
pytestmark = pytest.mark.must_show("glance", 1)

#: What is asked of each import: software and its packages.
SPLIT = "db=dbd php=phpd web=webd"
NO_CONTENTS = hashlib.sha256(bytes(512)).hexdigest()

Alpha = Callable[..., Done]


def gold(directory: Path) -> Path:
    """A finished machine, as somebody would have it: one qcow2."""
    tars = smallgold.build(directory).tars
    raw, disk = directory / "gold.raw", directory / "gold.qcow2"
    smallgold.make_disk(raw, tars["php"], directory)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], check=True)
    return disk


@pytest.fixture
def alpha(cloud: TestCloud) -> Iterator[Alpha]:
    """The ordinary client; what it has made goes again."""
    before = {image.id for image in everything(cloud)}
    yield functools.partial(cloud.openstack, "alpha")
    for image in everything(cloud):
        # Manifests may go by themselves with what they belong to.
        with contextlib.suppress(NotFoundException):
            if image.id not in before:
                cloud.alpha.image.update_image(image, is_protected=False)
                cloud.alpha.image.delete_image(image)


def everything(cloud: TestCloud) -> list[Any]:
    project = cloud.alpha.current_project_id
    return [image for hidden in ("true", "false")
            for image in cloud.alpha.image.images(owner=project, os_hidden=hidden)]


def imported(alpha: Alpha, disk: Path, name: str) -> dict[str, Any]:
    """The image, once its import has ended."""
    made = alpha("image", "create", name, "--import", "--disk-format", "qcow2",
                 "--container-format", "bare", "--file", disk,
                 "--property", f"splitimage_split={SPLIT}", "-f", "json").json
    end = time.monotonic() + 300
    while True:
        image: dict[str, Any] = alpha("image", "show", made["id"], "-f", "json").json
        if image["status"] == "active" or "splitimage_error" in image["properties"]:
            return image
        assert time.monotonic() < end, image
        time.sleep(1)


def sha256(alpha: Alpha, image: str, path: Path) -> str:
    """Of what the ordinary client downloads."""
    assert alpha("image", "save", "--file", path, image).status == 0
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_by_ordinary_commands_only(cloud: TestCloud, alpha: Alpha, tmp_path: Path) -> None:
    name = f"journey-{uuid.uuid4().hex[:8]}"
    image = imported(alpha, gold(tmp_path), name)
    assert image["status"] == "active", image
    composite = image["properties"]
    assert composite["splitimage_role"] == "composite"
    assert "splitimage_split" not in composite

    listed = [each["Name"] for each in alpha("image", "list", "-f", "json").json
              if name in each["Name"]]
    assert listed == [name], "its parts are hidden"

    here = ("--splitimage-store", tmp_path / "here")
    shown = alpha(*here, "splitimage", "composite", "show", name, "--all", "-f", "json").json
    kinds = {part["name"]: part["kind"] for part in shown["parts"]}
    assert {part for part, kind in kinds.items() if kind == "software"} == {"db", "php", "web"}
    links = {key.removeprefix("splitimage_part_"): value.split()
             for key, value in composite.items() if key.startswith("splitimage_part_")}
    assert links.keys() == kinds.keys()
    assert {part["name"]: part["id"] for part in shown["parts"]} == {
        part: digest for part, (_, digest) in links.items()}

    plan = alpha(*here, "splitimage", "plan", name, "--part", "web", "--part", "php",
                 "-f", "json").json
    assert (plan["match"], plan["candidate_id"]) == ("base", image["id"])

    made = alpha(*here, "splitimage", "assemble", name, "--part", "web", "--part", "php",
                 "-o", tmp_path / "one.qcow2", "-f", "json", timeout=600)
    assert made.status == 0, made.err

    # Another host: nothing is there but what the cloud has.
    there = ("--splitimage-store", tmp_path / "there")
    plan = alpha(*there, "splitimage", "plan", name, "--part", "php", "--part", "web",
                 "-f", "json").json
    assert plan["match"] == "exact"
    [completed] = alpha(*there, "splitimage", "image", "list", "--composite", name,
                        "-f", "json").json
    assert completed["id"] == plan["candidate_id"]
    assert alpha(*there, "splitimage", "image", "export", completed["id"],
                 "-o", tmp_path / "two.qcow2").status == 0
    one, two = (trees.read(tmp_path / f"{which}.qcow2") for which in ("one", "two"))
    assert trees.differences(one, two) == []
    assert b"usr/sbin/webd" in one and b"usr/bin/phpd" in one and b"usr/sbin/dbd" not in one

    # What the ordinary client downloads is to the byte what the records name.
    assert sha256(alpha, image["id"], tmp_path / "base") == shown["base"]
    assert sha256(alpha, completed["id"], tmp_path / "completed") == completed["disk"]
    parts = {part["id"]: part for part in alpha(*there, "splitimage", "part", "list", "--all",
                                                "--long", "-f", "json").json}
    for part, (place, digest) in links.items():
        # What has no contents has a block of zeros: Glance finishes no image without data.
        assert sha256(alpha, place, tmp_path / part) == (
            parts[digest]["blob"] or NO_CONTENTS), part


@pytest.mark.accept
def test_on_a_bare_machine(tmp_path: Path,
                           record_property: Callable[[str, object], None]) -> None:
    """`./run cloud` from nothing, then the same journey with it."""
    with fresh_root(ROOT / ".cache") as root:
        began = time.monotonic()
        done = root.run(
            "bash", "-c", "./run cloud && touch /root/up && ./run test -q "
            "tests/functional/test_glance_journey.py; status=$?; ./run cloud-down; exit $status",
            log=tmp_path / "log", timeout=1800)
        assert done.returncode == 0, done.stdout[-4000:]
        assert " passed" in done.stdout
        up = (root.path / "root/up").stat().st_mtime - (time.time() - time.monotonic() + began)
        record_property("a cloud on a bare machine, seconds", f"{up:.0f}")
