"""Whoever dies in the middle of a transfer, a deletion or a publication, at whichever
end: nothing half-made is shown, trying again succeeds, nothing is left.

What is left is counted: images of all kinds, files of the service's stores and of
its staging area.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.store.glance import api
from tests.cloud import glance
from tests.cloud.database import Database
from tests.cloud.service import DATABASE
from tests.functional.dying import until
from tests.functional.glancework import PARTS
from tests.functional.proxy import PATIENCE
from tests.imagerecords import Records

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud
    from tests.functional.glancescene import Scene

pytest_plugins = ("tests.functional.cloud", "tests.functional.glancescene")
pytestmark = pytest.mark.must_show("glance", 3)

MIB = 1 << 20
#: A part's blob and a disk, and where a transfer of theirs is in its middle:
#: nothing else is that large.
PART, DISK, MIDDLE = 3 * MIB, 5 * MIB, MIB
BASE_MIDDLE = 4 * MIB
DATA = r"/file$"
COMPOSITE = ("composite", "small", PART, DISK)
IMAGE = ("image", "done", DISK, "small")
NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])
ALL_PARTS = sorted(f"small-{name}" for name in (*PARTS, "restore"))


def complete(scene: Scene) -> None:
    """All is there, and the same everywhere."""
    assert scene.visible() == {"small"}
    composites, parts, _ = scene.names()
    assert (composites, sorted(parts)) == (["small"], ALL_PARTS)
    path = Path(scene.done("fetch", "small", host="another"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


# -- the network ---------------------------------------------------------------------

def test_a_broken_connection_is_made_again(scene: Scene) -> None:
    up = scene.proxy.cuts("PUT", DATA, after=MIDDLE, times=3)
    scene.done(*COMPOSITE)
    assert len(up.met) == 3
    down = scene.proxy.cuts("GET", DATA, after=2 * MIDDLE, down=True, times=2)
    complete(scene)
    assert len(down.met) == 2
    resumed = [head for head in scene.proxy.heads if "Range: bytes=" in head]
    assert len(resumed) == 2, "it goes on where it was cut off"
    assert scene.emptied() == set()


@pytest.mark.accept
@pytest.mark.parametrize("work", [COMPOSITE, IMAGE], ids=["composite", "image"])
def test_answers_that_get_lost_change_nothing(scene: Scene,
                                              work: tuple[str | int, ...]) -> None:
    if work is IMAGE:
        scene.done(*COMPOSITE)
    lost = [scene.proxy.cuts(method, "/images", down=True, times=2)
            for method in ("POST", "PATCH", "PUT")]
    scene.done(*work)
    assert all(trouble.met for trouble in lost if (work, trouble.method) != (IMAGE, "PATCH"))
    complete(scene)
    lost.append(scene.proxy.cuts("DELETE", "/images", down=True, times=2))
    if work is IMAGE:
        scene.done("delete-image", "done")
    scene.done("delete-composite", "small")
    assert len(lost[-1].met) == 2
    assert scene.emptied() == set()


@pytest.mark.accept
def test_a_login_that_ends_before_an_upload_is_renewed(scene: Scene, cloud: TestCloud) -> None:
    # Else Glance believes for minutes what it has heard of a token.
    with cloud.configured({"glance-api.conf": {"keystone_authtoken": {"token_cache_time": "-1"}}}):
        held = scene.proxy.holds("PUT", DATA)
        with scene.start(*COMPOSITE) as client:
            held.wait()
            token = re.search(r"^X-Auth-Token: (\S+)", scene.proxy.heads[-1], re.MULTILINE)
            assert token
            identity: Any = cloud.admin.identity  # typed as version 2 or 3
            identity.delete("/auth/tokens", headers={"X-Subject-Token": token[1]})
            held.release()
            client.success()
        complete(scene)
        assert scene.emptied() == set()


@pytest.mark.accept
def test_what_is_deleted_while_it_is_downloaded_is_told(scene: Scene) -> None:
    made = scene.done(*COMPOSITE)
    held = scene.proxy.holds("GET", DATA, after=2 * MIDDLE, down=True)
    with scene.start("fetch", "small", host="two") as client:
        held.wait()
        scene.alpha.delete(made)
        held.release(cut=True)
        status, said = client.failure()
    assert status == exceptions.NotFound.exit_code
    assert said.startswith(f"NotFound: no image named {made}")
    objects = [path for path in (scene.place / "two" / "objects").rglob("*") if path.is_file()]
    assert all(path.stat().st_size < MIDDLE for path in objects)
    assert list((scene.place / "two" / "tmp").iterdir()) == []
    assert scene.emptied() == set()


# -- the image service -----------------------------------------------------------------

def test_glance_is_killed_in_an_upload_and_comes_back(scene: Scene, cloud: TestCloud) -> None:
    held = scene.proxy.holds("PUT", DATA, after=MIDDLE)
    with scene.start(*COMPOSITE, timeout=60) as work:
        scene.writes(held)
        cloud.kill("glance")
        scene.proxy.pause()
        held.release(cut=True)
        cloud.up()
        assert scene.visible() == set()
        scene.proxy.go_on()
        work.success()
    complete(scene)
    assert scene.emptied() == set()


@pytest.mark.accept
@pytest.mark.parametrize(("work", "middle"), [(COMPOSITE, MIDDLE), (COMPOSITE, BASE_MIDDLE),
                                              (IMAGE, MIDDLE)], ids=["part", "base", "image"])
def test_glance_is_killed_in_an_upload_and_stays_away(
        scene: Scene, cloud: TestCloud, work: tuple[str | int, ...], middle: int) -> None:
    if work is IMAGE:
        scene.done(*COMPOSITE)
    held = scene.proxy.holds("PUT", DATA, after=middle)
    with scene.start(*work) as client:
        name = scene.writes(held)
        cloud.kill("glance")
        held.release(cut=True)
        status, said = client.failure()
    assert (status, said.partition(":")[0]) == (
        exceptions.CloudUnreachable.exit_code, "CloudUnreachable")
    cloud.up()
    assert ("fast", name) in scene.files()
    # Of the same image Glance takes no data any more: the retry is another one.
    with pytest.raises(exceptions.AlreadyExists):
        scene.alpha.put(name, io.BytesIO(b"again"))
    if work is IMAGE:
        assert scene.names()[2] == []
    else:
        assert scene.visible() == set()
        assert scene.names()[::2] == ([], [])
    scene.done(*work)
    complete(scene)
    assert scene.emptied() == set()


@pytest.mark.accept
def test_glance_is_killed_in_a_download(scene: Scene, cloud: TestCloud) -> None:
    scene.done(*COMPOSITE)
    held = scene.proxy.holds("GET", DATA, after=2 * MIDDLE, down=True)
    with scene.start("fetch", "small", host="two", timeout=60) as client:
        held.wait()
        cloud.kill("glance")
        scene.proxy.pause()
        held.release(cut=True)
        cloud.up()
        scene.proxy.go_on()
        path = Path(client.success())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert scene.emptied() == set()


@pytest.mark.accept
@pytest.mark.parametrize("work", ["delete-composite", "delete-image"])
def test_glance_is_killed_in_a_deletion(scene: Scene, cloud: TestCloud, work: str) -> None:
    scene.done(*COMPOSITE)
    if work == "delete-image":
        scene.done(*IMAGE)
    name = work.removeprefix("delete-").replace("image", "done").replace("composite", "small")
    held = scene.proxy.holds("DELETE", "/images")
    with scene.start(work, name) as client:
        held.wait()
        with tables_locked(cloud):
            # It has the request, and cannot carry it out.
            held.release()
            until(lambda: waiting(cloud))
            cloud.kill("glance")
        status, _ = client.failure()
    assert status == exceptions.CloudUnreachable.exit_code
    cloud.up()
    scene.done(work, name)
    assert name not in scene.visible()
    assert name not in [*scene.names()[0], *scene.names()[2]]
    assert scene.emptied() == set()


@pytest.mark.accept
def test_glance_is_killed_while_an_import_stores_its_parts(scene: Scene, cloud: TestCloud) -> None:
    """What it was about to store goes with the image that it was for: by requests
    that the filter makes itself."""
    gold = scene.alpha.create("gold", {properties.SPLIT: "web=webd"}, hidden=False)["id"]
    part = Records(scene.alpha).part("web", holder=gold, data=None)["id"]
    held = scene.proxy.holds("PUT", DATA, after=MIDDLE)
    with futures.ThreadPoolExecutor(1) as pool:
        upload = pool.submit(
            cloud.alpha.session.put, f"{scene.proxy.url}/v2/images/{part}/file",
            data=bytes(PART), headers={"Content-Type": "application/octet-stream"},
            raise_exc=False)
        scene.writes(held)
        cloud.kill("glance")
        held.release(cut=True)
        assert upload.exception(PATIENCE) is not None
    cloud.up()
    assert ("fast", part) in scene.files()
    done = cloud.openstack("alpha", "image", "delete", gold)
    assert done.status == 0, done.err
    assert not scene.new()
    assert scene.files() == scene.files_before


@pytest.mark.accept
@pytest.mark.parametrize("delayed", [False, True], ids=["", "delayed"])
@pytest.mark.parametrize("filtered", [True, False], ids=["", "without the filter"])
def test_what_is_deleted_while_it_is_uploaded_leaves_nothing(
        scene: Scene, cloud: TestCloud, delayed: bool, filtered: bool) -> None:
    """Through another API, which does not know that somebody is at it. Who uploads
    is told the same whether or not the file has gone with the image."""
    settings: dict[str, dict[str, dict[str, str]]] = {
        "glance-api.conf": {"DEFAULT": {"delayed_delete": str(delayed)}}}
    if not filtered:
        settings["glance-api-paste.ini"] = {"composite:api": {"keystone": glance.PIPELINE}}
    with cloud.configured(settings, glance_apis=2), futures.ThreadPoolExecutor(1) as pool:
        image = scene.alpha.create("doomed", {})["id"]
        held = scene.proxy.holds("PUT", DATA, after=MIDDLE)
        upload = pool.submit(
            cloud.alpha.session.put, f"{scene.proxy.url}/v2/images/{image}/file",
            data=bytes(DISK), headers={"Content-Type": "application/octet-stream"},
            raise_exc=False)
        scene.writes(held)
        other = cloud.service(glance.name(2)).url
        assert cloud.alpha.session.delete(f"{other}/v2/images/{image}").status_code == 204
        there = {("fast", image)}
        assert (scene.files() & there == there) is not filtered
        held.release()
        assert upload.result(PATIENCE).status_code == 410
        assert scene.files() & there == set()
        assert not scene.new()


@pytest.mark.accept
@pytest.mark.parametrize("kind", ["another", "several directories", "the only one"])
def test_it_goes_from_every_store(scene: Scene, cloud: TestCloud, tmp_path: Path,
                                  kind: str) -> None:
    place, staging = tmp_path / "images", tmp_path / "staging"
    settings = {
        "another": {"second": {"filesystem_store_datadir": str(place)}},
        "several directories": {"fast": {"filesystem_store_datadir": " ",
                                         "filesystem_store_datadirs": f"{place}:100"}},
        "the only one": {"DEFAULT": {"enabled_backends": "",
                                     "node_staging_uri": staging.as_uri()},
                         "glance_store": {"filesystem_store_datadir": str(place)}}}[kind]
    staging.mkdir()
    with cloud.configured({"glance-api.conf": settings}):
        image = scene.alpha.create("begun", {})["id"]
        (place / image).write_bytes(b"half")
        scene.alpha.delete(image)
        assert list(place.iterdir()) == []


@pytest.mark.accept
@pytest.mark.parametrize("status", ["deleted", "pending_delete"])
def test_what_is_left_to_the_scrubber_stays(scene: Scene, cloud: TestCloud, status: str) -> None:
    """With ``delayed_delete`` the place of the data outlives the image."""
    image = scene.alpha.create("begun", {})["id"]
    path = cloud.directory / "images" / "fast" / image
    path.write_bytes(b"all")
    place = f"'{image}', '{path.as_uri()}', '{{}}', '{status}', 1, NOW()"
    subprocess.run(_sql(cloud), check=True, text=True, input=(
        "INSERT INTO image_locations (image_id, value, meta_data, status, deleted,"  # noqa: S608
        f" created_at) VALUES ({place});"))
    scene.alpha.delete(image)
    assert path.exists() is (status == "pending_delete")


# -- its database ------------------------------------------------------------------------

@pytest.mark.accept
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_the_database_is_locked_for_a_while(scene: Scene, cloud: TestCloud, method: str) -> None:
    held = scene.proxy.holds(method, "/images")
    with scene.start(*COMPOSITE, timeout=60) as client:
        held.wait()
        with tables_locked(cloud):
            held.release()
            until(lambda: waiting(cloud))
        client.success()
    complete(scene)
    assert scene.emptied() == set()


@pytest.mark.accept
def test_the_database_is_gone_at_the_end_of_an_upload(scene: Scene, cloud: TestCloud) -> None:
    held = scene.proxy.holds("PUT", DATA, after=BASE_MIDDLE)
    with scene.start(*COMPOSITE) as client:
        scene.writes(held)
        cloud.kill(DATABASE)
        held.release()
        status, said = client.failure()
    assert status in (exceptions.CloudFailed.exit_code, exceptions.CloudUnreachable.exit_code), said
    cloud.up()
    assert scene.visible() == set()
    assert scene.names()[0] == []
    scene.done(*COMPOSITE)
    complete(scene)
    assert scene.emptied() == set()


# -- its store ---------------------------------------------------------------------------

@pytest.mark.accept
def test_the_store_is_full(scene: Scene, cloud: TestCloud, tmp_path: Path) -> None:
    with small_file_system(tmp_path / "full", 12 * MIB) as full, cloud.configured(
            {"glance-api.conf": {"fast": {"filesystem_store_datadir": str(full)}}}):
        with scene.start("composite", "small", PART, 24 * MIB) as client:
            status, said = client.failure()
        assert status == exceptions.ServiceFull.exit_code
        assert "has no room" in said and "storage media is full" in said
        scene.collect()
        assert not scene.new()
        assert [path.name for path in full.rglob("*") if path.is_file()] == []
        scene.done("composite", "small", MIB, MIB)
        assert scene.visible() == {"small"}
        assert scene.emptied() == set()
        assert [path.name for path in full.rglob("*") if path.is_file()] == []


# -- the client ----------------------------------------------------------------------------

@pytest.mark.parametrize(("method", "middle"), [
    ("PUT", BASE_MIDDLE),
    pytest.param("PUT", MIDDLE, marks=pytest.mark.accept),
    pytest.param("PUT", 100, marks=pytest.mark.accept),
    pytest.param("PATCH", 0, marks=pytest.mark.accept),
    pytest.param("POST", 0, marks=pytest.mark.accept)],
    ids=["base", "part", "manifest", "shown", "record"])
def test_the_client_is_killed(scene: Scene, method: str, middle: int) -> None:
    held = scene.proxy.holds(method, "/images", after=middle)
    with scene.start(*COMPOSITE) as client:
        held.wait()
        client.kill()
        held.release(cut=True)
    assert scene.visible() == set()
    assert scene.names()[::2] == ([], [])
    scene.done(*COMPOSITE)
    complete(scene)
    assert scene.emptied() == set()


@pytest.mark.accept
@pytest.mark.parametrize("middle", [BASE_MIDDLE, MIDDLE], ids=["base", "part"])
def test_the_client_is_told_to_end(scene: Scene, middle: int) -> None:
    held = scene.proxy.holds("PUT", DATA, after=middle)
    with scene.start(*COMPOSITE) as client:
        held.wait()
        client.process.send_signal(signal.SIGTERM)
        held.release(cut=True)
        assert client.process.wait(120) == 128 + signal.SIGTERM
    assert not scene.new(), "it has tidied up"
    scene.done(*COMPOSITE)
    complete(scene)
    assert scene.emptied() == set()


@pytest.mark.accept
@pytest.mark.parametrize("middle", [100, MIDDLE], ids=["manifest", "disk"])
def test_the_client_is_killed_while_it_publishes(scene: Scene, middle: int) -> None:
    scene.done(*COMPOSITE)
    held = scene.proxy.holds("PUT", DATA, after=middle)
    with scene.start(*IMAGE) as client:
        held.wait()
        client.kill()
        held.release(cut=True)
    assert scene.names()[2] == []
    made = scene.done(*IMAGE, host="two")
    assert [image["id"] for image in scene.new("completed") if image["status"] == api.ACTIVE] == [
        made]
    assert scene.emptied() == set()


# -- means -----------------------------------------------------------------------------------

def _sql(cloud: TestCloud) -> list[str]:
    """The database's own client, as Glance's user."""
    database = cloud.service(DATABASE)
    assert isinstance(database, Database)
    host, port = database.url.removeprefix("mysql://").split(":")
    return ["mariadb", "--no-defaults", f"--host={host}", f"--port={port}", "--user=glance",
            f"--password={cloud.control.site.database_password('glance')}",
            "--batch", "--skip-column-names", "--unbuffered", "glance"]


@contextlib.contextmanager
def tables_locked(cloud: TestCloud) -> Iterator[None]:
    """Nobody else reads or writes images within the block."""
    with subprocess.Popen(_sql(cloud), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write("LOCK TABLES images WRITE, image_properties WRITE;\n"
                           "SELECT 'locked';\n")
        client.stdin.flush()
        assert client.stdout.readline().strip() == "locked"
        yield
        client.stdin.close()


def waiting(cloud: TestCloud) -> bool:
    """Whether somebody waits for a lock."""
    told = subprocess.run([*_sql(cloud), "--execute", "SHOW PROCESSLIST"], capture_output=True,
                          text=True, check=True)
    return "Waiting for table metadata lock" in told.stdout


@contextlib.contextmanager
def small_file_system(place: Path, size: int) -> Iterator[Path]:
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place],
                          check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
