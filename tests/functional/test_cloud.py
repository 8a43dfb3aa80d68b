"""The test cloud itself: ordinary clients work, tenants are apart, it heals."""

from __future__ import annotations

import concurrent.futures
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cloud import glance, service
from tests.functional.command import ROOT, Done

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud",)
pytestmark = pytest.mark.accept

SERVICES = ("database", "keystone", "glance")

Note = Callable[[str, object], None]


class Image(NamedTuple):
    id: str
    name: str
    content: bytes


def run(*words: str) -> Done:
    """``python -m tests.cloud``."""
    done = subprocess.run([sys.executable, "-m", "tests.cloud", *words], cwd=ROOT, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def image(cloud: TestCloud, tmp_path: Path) -> Iterator[Image]:
    """Of alpha's, by the ordinary client."""
    content, name = os.urandom(3 << 20), f"cloud-{uuid.uuid4()}"
    (tmp_path / "disk").write_bytes(content)
    created = cloud.openstack("alpha", "image", "create", "-f", "json", "--disk-format", "raw",
                              "--file", tmp_path / "disk", name).json
    yield Image(created["id"], name, content)
    cloud.alpha.image.delete_image(created["id"], ignore_missing=True)


def token(cloud: TestCloud) -> dict[str, str]:
    return {"X-Auth-Token": str(cloud.alpha.auth_token)}


def saved(cloud: TestCloud, image: Image, path: Path) -> bytes:
    done = cloud.openstack("alpha", "image", "save", "--file", path, image.id)
    assert done.status == 0, done.err
    return path.read_bytes()


def test_an_image_comes_back_as_it_was(cloud: TestCloud, image: Image, tmp_path: Path) -> None:
    shown = cloud.openstack("alpha", "image", "show", "-f", "json", image.id).json
    assert (shown["status"], shown["visibility"]) == ("active", "shared")
    assert saved(cloud, image, tmp_path / "saved") == image.content
    assert cloud.alpha.image.get_image(image.id).size == len(image.content)


def test_another_tenant_does_not_see_it(cloud: TestCloud, image: Image, tmp_path: Path) -> None:
    def listed(project: str) -> set[str]:
        return {row["ID"] for row in cloud.openstack(project, "image", "list", "-f", "json").json}

    assert image.id in listed("alpha")
    assert image.id in listed("admin")
    assert image.id not in listed("beta")
    assert cloud.openstack("beta", "image", "show", image.id).status != 0
    assert cloud.openstack("beta", "image", "save", "--file", tmp_path / "x",
                           image.id).status != 0
    assert not {i.id for i in cloud.beta.image.images()} & {image.id}


def test_a_plain_member_is_no_administrator(cloud: TestCloud) -> None:
    assert cloud.openstack("alpha", "user", "list").status != 0
    assert cloud.openstack("admin", "user", "list").status == 0


def test_up_again_changes_nothing(cloud: TestCloud, record_property: Note) -> None:
    def state() -> dict[str, object]:
        files = [path for path in cloud.directory.glob("*")
                 if path.is_file() and path.name != "lock"]
        files += [path for name in SERVICES for path in
                  cloud.service(name).directory.glob("*") if path.name != "log"]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes())
                for path in files if path.is_file()}

    before, began = state(), time.monotonic()
    done = run("up")
    record_property("cloud that is up", f"{time.monotonic() - began:.1f} s")
    assert done.status == 0, done.err
    assert "is up already; nothing was changed" in done.err
    assert state() == before
    config, path = done.out.splitlines()
    assert config == (f"export OS_CLIENT_CONFIG_FILE={cloud.directory}/clouds.yaml "
                      "OS_CLOUD=splitimage")
    shown = subprocess.run(
        ["bash", "-c", f"{config}\n{path}\nopenstack token issue -f value -c project_id"],
        env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=True)
    assert re.fullmatch(r"[0-9a-f]{32}\n", shown.stdout)


def test_status_tells_each_service(cloud: TestCloud) -> None:
    done = run("status")
    assert done.status == 0
    assert [line.split() for line in done.out.splitlines()] == [
        [name, "up", cloud.service(name).url] for name in SERVICES]


def test_a_killed_glance_comes_back(cloud: TestCloud, image: Image, tmp_path: Path,
                                    record_property: Note) -> None:
    cloud.kill(glance.NAME)
    assert run("status").out.splitlines()[2].split()[:2] == ["glance", "down"]
    began = time.monotonic()
    assert cloud.up() == ["glance"]
    record_property("glance after SIGKILL", f"{time.monotonic() - began:.1f} s")
    assert saved(cloud, image, tmp_path / "saved") == image.content


def test_a_worker_that_outlived_its_master_does_not_stand_in_the_way(cloud: TestCloud) -> None:
    pid = cloud.service(glance.NAME).daemon.pid
    assert pid is not None
    os.kill(pid, 9)
    assert cloud.up() == ["glance"]
    assert run("status").status == 0


def test_several_apis_and_workers_share_what_they_have(cloud: TestCloud, image: Image) -> None:
    with cloud.configured(glance_apis=2, glance_workers=2):
        urls = [cloud.service(glance.name(number)).url for number in (1, 2)]
        answer = service.ask(f"{urls[1]}/v2/images/{image.id}/file", token(cloud))
        assert answer is not None and answer.body == image.content
        second = cloud.service(glance.name(2)).daemon
        assert len(second.processes()) == 3, "a master and two workers"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda n: written(cloud, urls[n % 2]), range(32)))
        assert done == [(201, 204, 204)] * 32, "many write at the same time"
    assert second.processes() == []


def written(cloud: TestCloud, url: str) -> tuple[int, int, int]:
    """An image of alpha's is made, filled and deleted at one of the APIs."""
    session = cloud.alpha.session
    made = session.post(f"{url}/v2/images", raise_exc=False, json={
        "name": "written", "disk_format": "raw", "container_format": "bare"})
    where = f"{url}/v2/images/{made.json()['id']}"
    filled = session.put(f"{where}/file", data=os.urandom(1 << 18), raise_exc=False,
                         headers={"Content-Type": "application/octet-stream"})
    deleted = session.delete(where, raise_exc=False)
    return made.status_code, filled.status_code, deleted.status_code


def test_options_and_filters_of_a_test_reach_glance(cloud: TestCloud) -> None:
    def packed() -> bool:
        answer = service.ask(f"{cloud.service(glance.NAME).url}/v2/schemas/image",
                             {**token(cloud), "Accept-Encoding": "gzip"})
        assert answer is not None and answer.status == 200
        return answer.headers["Content-Encoding"] == "gzip"

    with cloud.configured({
            "glance-api.conf": {"DEFAULT": {"image_property_quota": "1"}},
            "glance-image-import.conf": {"image_import_opts": {
                "image_import_plugins": "['inject_image_metadata']"}},
            "glance-api-paste.ini": {
                "composite:api": {"keystone": glance.PIPELINE.replace("context", "context tried")},
                "filter:tried": {
                    "paste.filter_factory": "glance.api.middleware.gzip:GzipMiddleware.factory"}},
            }, environment={"SPLITIMAGE_TRIED": "yes"}):
        done = cloud.openstack("alpha", "image", "create", "--property", "a=1", "--property",
                               "b=2", "quota")
        assert done.status != 0 and "413" in done.err, done.err
        assert packed()
        pid = cloud.service(glance.NAME).daemon.pid
        assert b"SPLITIMAGE_TRIED=yes" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert not packed()


def test_only_this_host_and_only_its_owner_get_at_it(cloud: TestCloud) -> None:
    # Address and port in hexadecimal, the other end, the state: 0A is listening.
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    for name in SERVICES:
        port = int(cloud.service(name).url.rpartition(":")[2])
        assert re.findall(rf" (\w+):{port:04X} \S+ 0A ", table) == ["0100007F"]
    password = cloud.control.site.state.password("alpha").encode()
    telling = [path for path in cloud.directory.rglob("*")
               if path.is_file() and not path.is_relative_to(cloud.directory / "venv")
               and not path.is_relative_to(cloud.directory / "images")
               and password in path.read_bytes()]
    assert {"clouds.yaml", "state.json"} <= {path.name for path in telling}
    assert [path for path in telling if path.stat().st_mode & 0o077] == []
