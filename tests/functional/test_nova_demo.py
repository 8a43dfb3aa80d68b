"""The demonstration's combinations as servers of an ordinary Nova."""

from __future__ import annotations

import functools
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo import gold
from tests.functional import novascene, trees
from tests.functional.freshroot import ROOT, fresh_root

if TYPE_CHECKING:
    from tests.functional.novacloud import NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud")
pytestmark = [pytest.mark.accept, pytest.mark.must_show("nova", 1)]

Note = Callable[[str, object], None]
SOFTWARE = {step.name: set(step.packages) for step in gold.LAMP}
ALL = set[str]().union(*SOFTWARE.values())
COMBINATIONS = (("apache",), ("apache", "php"), ("mysql",), ("apache", "mysql", "php"),
                ("apache", "php"))


@pytest.fixture(scope="module")
def lamp(nova_cloud: NovaCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of the demonstration's composite, alpha's."""
    place = tmp_path_factory.mktemp("lamp")
    _, steps = novascene.lamp(place)
    command = nova_cloud.splitimage("alpha", place / "store")
    name = f"lamp-{uuid.uuid4().hex[:8]}"
    done = command("capture", name, *steps, timeout=1800)
    assert done.status == 0, done.err
    yield name
    for image in command("image", "list", "--composite", name, "-f", "json").json:
        command("image", "delete", image["id"])
    command("composite", "delete", name)


def installed(disk: Path) -> set[str]:
    """Of the software's own packages; all that is there is whole."""
    with trees.mounted(disk) as tree:
        tree.run("dpkg --audit; apt-get check")
        status = tree.read("/var/lib/dpkg/status").decode()
    return ALL & {match[1] for match in re.finditer(
        r"^Package: (\S+)\nStatus: install ok installed$", status, re.MULTILINE)}


def active(cloud: NovaCloud, name: str) -> bool:
    found = cloud.alpha.image.find_image(name)
    return found is not None and found.status == "active"


def test_its_combinations(nova_cloud: NovaCloud, lamp: str, tmp_path: Path,
                          record_property: Note) -> None:
    for number, parts in enumerate(COMBINATIONS):
        name, began = f"{lamp}-{number}", time.monotonic()
        created = nova_cloud.openstack(
            "alpha", "server", "create", "--image", lamp, "--flavor", "small", "--nic", "none",
            "--property", f"splitimage:parts={','.join(parts)}", "--wait", "-f", "json", name,
            timeout=1800)
        assert created.status == 0, created.err
        record_property(f"{number}: {', '.join(parts)}, ACTIVE after, s",
                        round(time.monotonic() - began))
        server = nova_cloud.alpha.compute.get_server(created.json["id"])
        try:
            nova_cloud.says(server, "login:", seconds=900)
            assert snapshot_of(nova_cloud, server, name, tmp_path) == set[str]().union(
                *(SOFTWARE[part] for part in parts))
        finally:
            nova_cloud.delete(server)


def snapshot_of(cloud: NovaCloud, server: Any, name: str, directory: Path) -> set[str]:
    """What of the software a server has on its disk."""
    cloud.act(server, "createImage", {"name": name})
    assert cloud.until(functools.partial(active, cloud, name), 900)
    saved = cloud.openstack("alpha", "image", "save", "--file", directory / "disk", name,
                            timeout=900)
    assert saved.status == 0, saved.err
    cloud.openstack("alpha", "image", "delete", name)
    return installed(directory / "disk")


@pytest.mark.must_show("streams", 1)
def test_parts_that_are_laid_while_it_runs(nova_cloud: NovaCloud, lamp: str, tmp_path: Path,
                                           record_property: Note) -> None:
    """From the base; then one more, and away with another."""
    compute: Any = nova_cloud.alpha.compute
    composite: Any = nova_cloud.alpha.image.find_image(lamp)
    server = nova_cloud.boot(composite.id, flavor="small", metadata={
        "splitimage:parts": "apache", "splitimage:deliver": "stream"})
    try:
        for parts in ("apache", "apache,mysql", "mysql"):
            began = time.monotonic()
            if parts != "apache":
                compute.set_server_metadata(server.id, **{"splitimage:parts": parts})
                assert nova_cloud.until(functools.partial(_seen, nova_cloud, server))
            assert nova_cloud.until(lambda: _layout(nova_cloud, server) == "complete", 1800), (
                _layout(nova_cloud, server), nova_cloud.console(server))
            record_property(f"{parts}: complete after, s", round(time.monotonic() - began))
            assert snapshot_of(nova_cloud, server, f"{lamp}-laid", tmp_path) == set[str]().union(
                *(SOFTWARE[part] for part in parts.split(",")))
    finally:
        nova_cloud.delete(server)


def _seen(cloud: NovaCloud, server: Any) -> bool:
    """The host looks at what is wanted when it is asked for the console."""
    cloud.console(server)
    return _layout(cloud, server) != "complete"


def _layout(cloud: NovaCloud, server: Any) -> str:
    """What the host tells the server's user."""
    compute: Any = cloud.alpha.compute
    return str(compute.get_server(server.id).metadata.get("splitimage:layout", ""))


def test_on_a_bare_machine(tmp_path: Path, record_property: Note) -> None:
    """`./run cloud` from nothing, then the same with it."""
    with fresh_root(ROOT / ".cache") as root:
        began = time.time()
        done = root.run(
            "bash", "-c", "./run cloud && touch /root/up && ./run test -q -m '' "
            "tests/functional/test_nova_demo.py -k combinations; status=$?; "
            "./run cloud-down; exit $status", log=tmp_path / "log", timeout=3600)
        assert done.returncode == 0, done.stdout[-4000:]
        assert " passed" in done.stdout
        record_property("a cloud with Nova on a bare machine, seconds",
                        round((root.path / "root/up").stat().st_mtime - began))
