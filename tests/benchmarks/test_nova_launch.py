"""A launch of a combination against launches of plain images, on the test cloud's
Nova: from the request to ACTIVE, polled ten times a second.

``SPLITIMAGE_ROUNDS`` sets how many rounds the quick ones have (3, times three).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo import gold
from splitimage_driver.launch import accelerator
from tests.benchmarks.results import ROOT, Results
from tests.functional import novascene

if TYPE_CHECKING:
    from tests.functional.command import Command
    from tests.functional.novacloud import NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud")
pytestmark = pytest.mark.must_show("nova", 2)

ROUNDS = 3 * int(os.environ.get("SPLITIMAGE_ROUNDS", "3"))
PARTS = {"splitimage:parts": "apache,mysql,php"}
PACKAGES = [name for step in gold.LAMP for name in step.packages]
FIRST, AGAIN, PLAIN, INSTALL = ("first launch", "second launch", "plain image, cached",
                                "virt-customize --install, upload, plain launch")
Note = Callable[[str, object], None]


class Bench:
    """:ivar image: id of the composite
    :ivar disk: the gold machine's first step, standalone
    """

    def __init__(self, cloud: NovaCloud, home: Path) -> None:
        self.cloud, self.home = cloud, home
        self.disk, steps = novascene.lamp(home)
        self.command: Command = cloud.splitimage("alpha", home / "store")
        self.name = f"lamp-{time.time():.0f}"
        done = self.command("capture", self.name, *steps, timeout=1800)
        assert done.status == 0, done.err
        self.image: str = self.command("composite", "show", self.name, "-f", "json").json["id"]

    def launch(self, image: str, **metadata: str) -> float:
        """Seconds to ACTIVE; the server goes again."""
        compute: Any = self.cloud.alpha.compute
        flavor = compute.find_flavor("small").id
        began = time.monotonic()
        server = compute.create_server(name="bench", image_id=image, flavor_id=flavor,
                                       networks="none", metadata=metadata)
        while (status := compute.get_server(server.id).status) == "BUILD":
            time.sleep(0.1)
        seconds = time.monotonic() - began
        assert status == "ACTIVE", self.cloud.fault(server)
        self.cloud.delete(server)
        return seconds

    def upload(self, path: Path, name: str) -> str:
        done = self.cloud.openstack("alpha", "image", "create", "--disk-format", "qcow2",
                                    "--file", path, "-f", "json", name, timeout=1800)
        assert done.status == 0, done.err
        return str(done.json["id"])

    def close(self) -> None:
        for image in self.command("image", "list", "--composite", self.name, "-f", "json").json:
            self.command("image", "delete", image["id"])
        self.command("composite", "delete", self.name)


@pytest.fixture(scope="module")
def bench(nova_cloud: NovaCloud, results: Results) -> Iterator[Bench]:
    home = ROOT / ".cache" / "benchmarks" / "nova"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    made = Bench(nova_cloud, home)
    yield made
    made.close()
    shutil.rmtree(home)


def test_a_second_launch_is_as_quick_as_a_plain_cached_image(
        bench: Bench, results: Results, record_property: Note) -> None:
    results.note(FIRST, bench.launch(bench.image, **PARTS))
    # The same disk as an image like any other.
    exported = bench.home / "exported.qcow2"
    [image] = bench.command("image", "list", "--composite", bench.name, "-f", "json").json
    assert bench.command("image", "export", image["id"], "-o", exported).status == 0
    plain = bench.upload(exported, "plain")
    bench.launch(plain)
    bench.launch(bench.image, **PARTS)
    for _ in range(ROUNDS):
        results.note(PLAIN, bench.launch(plain))
        results.note(AGAIN, bench.launch(bench.image, **PARTS))
    bench.cloud.alpha.image.delete_image(plain)
    ratio = results.ratio(AGAIN, PLAIN, "at most 1.2")
    record_property("second launch / plain cached image", f"{ratio:.2f}")
    assert ratio <= 1.2


def test_a_first_launch_takes_a_fifth_of_installing_uploading_and_launching(
        bench: Bench, results: Results, record_property: Note) -> None:
    if not results.seconds.get(FIRST):
        results.note(FIRST, bench.launch(bench.image, **PARTS))
    environment = dict(os.environ)
    if accelerator.choose() == accelerator.TCG:
        environment["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"

    def customize(disk: Path, *words: str) -> None:
        subprocess.run(["virt-customize", "--format", "qcow2", "-a", disk, "--network",
                        "--memsize", "1024", "--smp", str(os.cpu_count()), *words],
                       check=True, capture_output=True, env=environment)

    # Not counted: package lists, and no more packages than the gold machine has.
    listed = bench.home / "listed.qcow2"
    shutil.copyfile(bench.disk, listed)
    customize(listed, "--write",
              '/etc/apt/apt.conf.d/99recommends:APT::Install-Recommends "false";',
              "--run-command", "apt-get update")
    began = time.monotonic()
    customize(listed, "--install", ",".join(PACKAGES))
    image = bench.upload(listed, "customized")
    bench.launch(image)
    results.note(INSTALL, time.monotonic() - began)
    bench.cloud.alpha.image.delete_image(image)
    ratio = results.ratio(FIRST, INSTALL, "at most 0.2")
    record_property("first launch / virt-customize, upload, launch", f"{ratio:.2f}")
    record_property("on", results.facts["machine"])
    assert ratio <= 0.2
