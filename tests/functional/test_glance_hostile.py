"""What a tenant's client may send, through the real API: refused with a reason,
in one line, and nothing is left. (What the import refuses is shown with the
import.)"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import zstandard

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.composite import Composite
from splitimage_driver.store.glance import records
from splitimage_driver.store.glance.api import Description, Images
from tests.functional import smallgold
from tests.functional.command import Command, Done, refused
from tests.imagerecords import Records

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.glanceusers")
pytestmark = pytest.mark.must_show("glance", 6)

MANY = 10_000
#: Of names and values: what would break a line, a path or a terminal.
NASTY = ["two\nlines", "../../etc/passwd", "a/b", "\x1b[31mred\x1b[0m", "tab\tand\rreturn",
         "bell\a", "x" * 4000, "‮right to left", " ", "", "-rf", "--help", "a\u2028b"]


class Scene(NamedTuple):
    """:ivar admin: counts what there is
    :ivar alpha: what alpha stores through the plain API
    """

    cloud: TestCloud
    admin: Images
    alpha: Records
    beta: Records
    command: Command

    def there(self) -> tuple[set[str], set[str]]:
        """Images of all tenants, and files of the image service."""
        root = self.cloud.directory / "images"
        return ({each["id"] for each in self.admin.list(hidden=None, visibility="all")
                 if each["status"] != "deleted"},
                {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()})

    def refused(self, code: int, *words: str | Path, told: str = "") -> str:
        """By the command line, and nothing is left; returns the line."""
        before = self.there()
        done = self.command(*words)
        refused(done, code, *([told] if told else []))
        assert self.there() == before
        assert not [path for path in (self.command.store / "tmp").glob("*")]
        return plain(done.err.splitlines()[0])


def plain(line: str) -> str:
    """A line that does nothing to a terminal."""
    assert line.isprintable(), repr(line)
    assert len(line) < 700, len(line)
    return line


@pytest.fixture
def scene(cloud: TestCloud, admin: Images, alpha: Records, beta: Records,
          tmp_path: Path) -> Scene:
    return Scene(cloud, admin, alpha, beta, cloud.splitimage("alpha", tmp_path / "store"))


def backed(tmp_path: Path, *, data_file: bool = False) -> Path:
    """A qcow2 that shows a file of whoever opens it."""
    secret = tmp_path / "secret.raw"
    secret.write_bytes(b"the host's own\n" + bytes(1 << 20))
    made = tmp_path / "evil.qcow2"
    options = (["-o", f"data_file={tmp_path / 'data.raw'}", "1M"] if data_file
               else ["-b", str(secret), "-F", "raw"])
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options[:2], *(
        options[2:] if not data_file else []), str(made), *(options[2:] if data_file else [])],
        check=True)
    return made


# -- disks -------------------------------------------------------------------------


@pytest.mark.accept
@pytest.mark.parametrize("data_file", [False, True])
def test_a_gold_disk_that_refers_to_other_files(scene: Scene, small_gold: smallgold.Gold,
                                                tmp_path: Path, data_file: bool) -> None:
    evil = backed(tmp_path, data_file=data_file)
    scene.refused(21, "capture", "evil", "--step", f"base={evil}", "--step",
                  f"web={small_gold.tars['web']}", told="file")
    # Glance looks into it by itself, whatever it is called.
    for disk_format in ("qcow2", "raw"):
        made = scene.alpha.image("evil", {}, None, disk_format=disk_format, hidden=False)
        answer = scene.alpha.images.transport.request(
            "PUT", f"/images/{made['id']}/file", body=io.BytesIO(evil.read_bytes()),
            headers={"Content-Type": "application/octet-stream"})
        assert answer.status == 415, answer.body()
        scene.alpha.images.delete(made["id"])


@pytest.mark.accept
@pytest.mark.parametrize("data_file", [False, True])
def test_a_stored_disk_that_refers_to_other_files(scene: Scene, tmp_path: Path,
                                                  data_file: bool) -> None:
    """Where Glance does not look: in a container that it does not know."""
    evil = backed(tmp_path, data_file=data_file).read_bytes()
    loose = Records(scene.alpha.images, evil)
    loose.images = _Ovf(scene.alpha.images.transport)
    try:
        composite = loose.composite("evil", web=loose.part("web"))
        done = loose.completed(composite, "web")
        assert done["status"] == "active"
        scene.refused(21, "assemble", composite["id"], "-o", tmp_path / "out", told="file")
        scene.refused(21, "image", "export", done["id"], "-o", tmp_path / "out", told="file")
        assert not (tmp_path / "out").exists()
    finally:
        loose.remove()


class _Ovf(Images):
    """Disks go into another container, where Glance does not look."""

    def create(self, name: str, properties: Any, **attributes: Any) -> Description:
        if attributes.get("disk_format") == "qcow2":
            attributes["container_format"] = "ovf"
        return super().create(name, properties, **attributes)


# -- properties ----------------------------------------------------------------------


def test_properties_that_name_images_of_another_tenant(scene: Scene, tmp_path: Path) -> None:
    """As alpha would see them if they were believed: beta has what it names, and
    even shares it."""
    theirs = scene.beta.part("web")
    lamp = scene.beta.composite("theirs", web=theirs)
    for image in (theirs["id"], properties.manifest(theirs), properties.manifest(lamp)):
        scene.beta.images.update(image, {"visibility": "community"})
    own = scene.alpha.part("web")
    link = f"{theirs['id']} {theirs['splitimage_digest']}"
    for number, changes in enumerate((
            {"splitimage_part_web": link}, {"splitimage_restore": link},
            {"splitimage_manifest": properties.manifest(lamp)},
            {"splitimage_part_web": f"{uuid.uuid4()} {own['splitimage_digest']}"},
            {"splitimage_part_web": f"{lamp['id']} {own['splitimage_digest']}"})):
        forged = scene.alpha.composite(f"forged{number}", web=own)
        scene.alpha.images.update(forged["id"], changes)
        line = scene.refused(29, "assemble", forged["id"], "--part", "web", "-o",
                             tmp_path / "out", told=" is refused: ")
        assert theirs["name"] not in line.partition(":")[2].replace("refused", "")
        assert not (tmp_path / "out").exists()


@pytest.mark.accept
def test_what_is_not_there_and_what_is_anothers_is_told_alike(scene: Scene) -> None:
    theirs, own = scene.beta.part("web"), scene.alpha.part("web")
    forged = scene.alpha.composite("forged", web=own)
    told = []
    for image in (theirs["id"], str(uuid.uuid4())):
        scene.alpha.images.update(forged["id"], {
            "splitimage_part_web": f"{image} {own['splitimage_digest']}"})
        line = scene.refused(29, "plan", forged["id"], "--part", "web")
        told.append(line.replace(image, "IMAGE"))
    assert told[0] == told[1]


def test_forged_digests(scene: Scene, tmp_path: Path) -> None:
    own, other = scene.alpha.part("web"), scene.alpha.part("other")
    for number, (image, changes) in enumerate((
            (own["id"], {"splitimage_digest": other["splitimage_digest"]}),
            (own["id"], {"splitimage_digest": "0" * 64}),
            (own["id"], {"splitimage_digest": "Z" * 64}),
            (own["id"], {"splitimage_digest": "../../x"}),
            (own["id"], {"splitimage_manifest": properties.manifest(other)}))):
        forged = scene.alpha.composite(f"digest{number}", web=own)
        was = {name: own[name] for name in changes}
        scene.alpha.images.update(image, changes)
        done = scene.command("plan", forged["id"], "--part", "web")
        assert done.status in (25, 29), done.err
        refused(done, done.status)
        scene.alpha.images.update(image, was)
    forged = scene.alpha.composite("base", web=own)
    scene.alpha.images.update(forged["id"], {"splitimage_os": "0" * 64})
    scene.refused(29, "plan", forged["id"], "--part", "web", told="do not agree")


@pytest.mark.accept
def test_manifests_that_are_none(scene: Scene) -> None:
    """Another format, cut off, a bomb, a record of something else."""
    def frame(size: int) -> bytes:
        packed = zstandard.ZstdCompressor().compress(bytes(size))
        return records.MAGIC + packed

    own = scene.alpha.part("web")
    lamp = scene.alpha.composite("whole", web=own)
    whole = b"".join(scene.alpha.images.open(properties.manifest(lamp)).chunks(1 << 16))
    bomb = frame(1 << 20)
    # States, in its header of eight bytes, that it becomes a petabyte.
    stated = zstandard.ZstdCompressor().compress(bytes(1 << 17))
    huge = records.MAGIC + stated[:4] + b"\xe0" + (1 << 50).to_bytes(8, "little") + stated[9:]
    for number, data in enumerate((
            b"x" * 512, whole[:len(whole) // 2], records.MAGIC, bomb, huge,
            records.pack(None, b""), records.MAGIC + whole, b"\0" * (1 << 20))):
        forged = scene.alpha.composite(f"manifest{number}", web=own)
        held = scene.alpha.manifest(forged["id"], data)
        scene.alpha.images.update(forged["id"], {"splitimage_manifest": held["id"]})
        scene.refused(29, "plan", forged["id"], "--part", "web", told="is refused: ")


@pytest.fixture
def unlimited(cloud: TestCloud) -> Iterator[None]:
    """An operator who has lifted the limit on properties."""
    with cloud.configured({"glance-api.conf": {"DEFAULT": {"image_property_quota": "-1"}}}):
        yield


@pytest.mark.accept
def test_ten_thousand_parts(scene: Scene) -> None:
    """Glance's own limit is 128 properties."""
    link = f"{uuid.uuid4()} {'0' * 64}"
    many = {f"splitimage_part_p{number}": link for number in range(MANY)}
    before = scene.there()
    with pytest.raises(exceptions.QuotaExceeded):
        scene.alpha.image("many", properties.common(properties.COMPOSITE) | many, None)
    assert scene.there() == before


@pytest.mark.accept
def test_ten_thousand_parts_where_there_is_no_limit(scene: Scene, unlimited: None) -> None:
    own = scene.alpha.part("web")
    lamp = scene.alpha.composite("many", web=own)
    good = scene.alpha.composite("good", web=own)
    link = f"{uuid.uuid4()} {'0' * 64}"
    many = {f"splitimage_part_p{number}": link for number in range(1000)}
    scene.alpha.images.update(lamp["id"], many)
    scene.refused(29, "plan", lamp["id"], "--part", "web", told="at most 64")
    shown = scene.command("composite", "list", "-f", "json")
    assert [each["name"] for each in shown.json] == ["good"], "the others are there all the same"
    assert good["status"] == "active"


@pytest.mark.accept
def test_ten_thousand_parts_in_a_record(scene: Scene) -> None:
    own = scene.alpha.part("web")
    lamp = scene.alpha.composite("many", web=own)
    whole = records.unpack(b"".join(scene.alpha.images.open(
        properties.manifest(lamp)).chunks(1 << 16)), lamp["id"])
    record = whole.of(Composite, lamp["id"])
    ref = next(iter(record.parts.values()))
    record.parts.update({f"p{number}": ref for number in range(MANY)})
    held = scene.alpha.manifest(lamp["id"], records.pack(record, whole.manifest, whole.parts))
    scene.alpha.images.update(lamp["id"], {"splitimage_manifest": held["id"]})
    scene.refused(29, "plan", lamp["id"], "--part", "web", told="do not agree")


@pytest.mark.accept
@pytest.mark.parametrize("size", [256, 60_000, 1 << 20])
def test_long_values(scene: Scene, size: int) -> None:
    own = scene.alpha.part("web")
    lamp = scene.alpha.composite("long", web=own)
    for name in ("splitimage_part_web", "splitimage_manifest", "splitimage_restore",
                 "splitimage_os", "splitimage_role", "splitimage_part_other"):
        before = scene.alpha.images.get(lamp["id"])
        try:
            scene.alpha.images.update(lamp["id"], {name: "x" * size})
        except (exceptions.CloudRefused, exceptions.CloudFailed, exceptions.TooLarge,
                exceptions.QuotaExceeded) as error:
            plain(str(error))
            assert size == 1 << 20, "what Glance does not keep"
            assert scene.alpha.images.get(lamp["id"]) == before
            continue
        done = scene.command("plan", lamp["id"], "--part", "web")
        assert done.status in (10, 29), (name, done.err)
        refused(done, done.status)
        plain(done.err.splitlines()[0])
        scene.alpha.images.update(lamp["id"], {name: before.get(name)})
    assert scene.command("plan", lamp["id"], "--part", "web", "-f", "json").status in (0, 15)


@pytest.mark.accept
def test_long_values_of_completed_images(scene: Scene) -> None:
    """One that cannot be read is left out, with a word in the log."""
    own = scene.alpha.part("web")
    lamp = scene.alpha.composite("lamp", web=own)
    done = scene.alpha.completed(lamp, "web")
    for name, value in (("splitimage_size", "9" * 5000), ("splitimage_size", "-1"),
                        ("splitimage_used", "nan"), ("splitimage_used", "1e999"),
                        ("splitimage_parts", "x," * 5000), ("splitimage_parts", "../x"),
                        ("splitimage_filesets", "x"), ("splitimage_recipe", "x" * 60000),
                        ("splitimage_composite", "two\nlines")):
        was = done.get(name)
        scene.alpha.images.update(done["id"], {name: value})
        listed = scene.command("image", "list", "-f", "json")
        assert listed.json == [], (name, value[:20])
        scene.alpha.images.update(done["id"], {name: was})
    assert len(scene.command("image", "list", "-f", "json").json) == 1


# -- names ---------------------------------------------------------------------------


@pytest.mark.accept
@pytest.mark.parametrize("name", NASTY)
def test_names_on_the_command_line(scene: Scene, name: str, small_gold: smallgold.Gold,
                                   tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one").write_bytes(b"one\n")
    commands: list[tuple[str | Path, ...]] = [
        ("capture", "--", name), ("part", "create", "--from", tmp_path / "files", "--", name),
        ("composite", "show", "--", name), ("plan", "--part", "web", "--", name),
        ("image", "show", "--", name), ("composite", "delete", "--", name)]
    steps = small_gold.arguments
    for words in commands:
        if words[0] == "capture":
            words = ("capture", *steps, "--", name)
        before = scene.there()
        done = scene.command(*words)
        assert done.status in (10, 15), (words, done.err)
        assert done.out == ""
        lines = done.err.split("\n")
        assert len(lines) == 3 and lines[2] == "", done.err
        assert lines[0].isprintable(), repr(lines[0])
        assert scene.there() == before


def hostile_name(done: Done) -> None:
    """What is shown of it does nothing to a terminal."""
    assert done.status == 0, done.err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2028\u2029]", done.out), done.out


@pytest.mark.accept
@pytest.mark.parametrize("name", [each for each in NASTY if len(each) < 256])
def test_names_in_the_image_service(scene: Scene, name: str) -> None:
    """A composite of that name, as everybody sees it whom it is public to."""
    own = scene.beta.part("web")
    lamp = scene.beta.composite("lamp", web=own)
    done = scene.beta.completed(lamp, "web")
    for image in (lamp["id"], done["id"]):
        scene.beta.images.update(image, {"name": name})
    for image in (lamp["id"], properties.manifest(lamp), own["id"], properties.manifest(own),
                  done["id"], properties.manifest(done)):
        scene.admin.update(image, {"visibility": "public"})
    hostile_name(scene.command("composite", "list"))
    hostile_name(scene.command("image", "list"))
    listed = scene.command("composite", "list", "-f", "json")
    assert listed.status == 0
    shown = scene.command("composite", "show", lamp["id"])
    if shown.status:
        refused(shown, shown.status)
        plain(shown.err.splitlines()[0])
    else:
        hostile_name(shown)
    planned = scene.command("plan", lamp["id"], "--part", "web")
    if planned.status:
        refused(planned, planned.status)
        plain(planned.err.splitlines()[0])
    else:
        hostile_name(planned)


@pytest.mark.accept
@pytest.mark.parametrize("name", ["splitimage_part_../x", "splitimage_part_a\nb",
                                  "splitimage_part_", "splitimage_part_" + "a" * 64,
                                  "splitimage_part_\x1b[31m"])
def test_names_of_parts_in_the_image_service(scene: Scene, name: str) -> None:
    own = scene.alpha.part("web")
    lamp = scene.alpha.composite("lamp", web=own)
    scene.alpha.images.update(lamp["id"], {
        name: f"{own['id']} {own['splitimage_digest']}"})
    scene.refused(29, "plan", lamp["id"], "--part", "web", told="names no part")
    shown = scene.command("composite", "list", "-f", "json")
    assert shown.json == []


@pytest.mark.accept
def test_a_digest_is_no_path(scene: Scene) -> None:
    """Where a digest would name a file of the host."""
    own = scene.alpha.part("web")
    for value in ("../../../etc/passwd", "/etc/passwd", "a" * 63 + "/", "A" * 64,
                  hashlib.sha256(b"").hexdigest() + "\n"):
        scene.alpha.images.update(own["id"], {"splitimage_blob": value})
        shown = scene.command("part", "show", own["splitimage_digest"])
        assert (shown.status, shown.out) == (29, "")
        # The list that it was looked for in has said so, too.
        *_, line, hint = shown.err.splitlines()
        assert "splitimage_blob is no sha256" in plain(line), hint
