"""OpenStack's own tests of its services (tempest, from PyPI), run against the
test cloud.

They live in an environment of their own. What became of a test is written down
as soon as it ended, so a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.cloud import accounts, config
from tests.cloud.daemon import clean_environment
from tests.functional.command import ROOT

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

_HERE = Path(__file__).resolve().parent
DIRECTORY = ROOT / ".cache" / "tempest"
#: What tempest names whatever it makes.
_PREFIX = "tempest-"
#: The tests of a class are run by one process one after another.
_WORKERS = 2
#: A server has this long for whatever it does, and a test in all.
_PATIENCE, _MOST = 180, 900
#: Those that its servers boot from.
IMAGES = ("tempest-image", "tempest-other")
#: Of tempest.conf, what is the same everywhere.
_SETTINGS: dict[str, dict[str, object]] = {
    "identity": {"auth_version": "v3", "v3_endpoint_type": "public"},
    "auth": {"create_isolated_networks": "false", "admin_domain_name": "Default"},
    # There is a network service, which has no networks: without one most tests
    # are skipped.
    "service_available": {"neutron": "true", "cinder": "false", "swift": "false",
                          "horizon": "false"},
    "validation": {"run_validation": "false"},
    "image": {"build_timeout": _PATIENCE},
    "compute": {"build_timeout": _PATIENCE, "min_compute_nodes": 2, "hypervisor_type": "QEMU",
                "max_microversion": "latest"},
    "compute-feature-enabled": {
        "resize": "true", "cold_migration": "true", "live_migration": "true",
        "block_migration_for_live_migration": "true", "shelve": "true",
        "shelve_migrate": "true", "rescue": "true", "stable_rescue": "true",
        "snapshot": "true", "suspend": "true", "pause": "true", "personality": "true",
        "console_output": "true", "config_drive": "true", "metadata_service": "false",
        "vnc_console": "false", "interface_attach": "false"}}
#: MiB of memory and GiB of disk of the two flavors that the tests use.
_FLAVORS = {"tempest": (128, 1), "tempest-alt": (192, 1)}
PASSED, SKIPPED, FAILED, UNTOLD = "success", "skip", "fail", "told nothing"


class Outcome(NamedTuple):
    status: str
    why: str
    seconds: float


def short(name: str) -> str:
    """Without the packages that it is in, and its tags."""
    return ".".join(name.partition("[")[0].split(".")[-2:])


def tests_key() -> str:
    """The same as long as the same tests are run in the same manner."""
    return _digest(_HERE / "tests.txt", _HERE / "constraints.txt",
                   ROOT / "tests" / "cloud" / "constraints.txt",
                   told=json.dumps([_SETTINGS, _FLAVORS]))


def driver_key() -> str:
    """The same as long as this project's sources are."""
    return _digest(*(path for name in ("splitimage_driver", "nova")
                     for path in sorted((ROOT / name).rglob("*.py"))))


def _digest(*paths: Path, told: str = "") -> str:
    digest = hashlib.sha256(told.encode())
    for path in paths:
        digest.update(b"%s\0%s\0" % (os.fsencode(path.name), path.read_bytes()))
    return digest.hexdigest()[:16]


class Results:
    """What became of the tests of one run.

    :param path: has a line for each time a test was run
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def tries(self) -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text().splitlines():
                told = json.loads(line)
                found.setdefault(told["name"], []).append(
                    Outcome(told["status"], told["why"], told["seconds"]))
        return found

    def of(self, name: str) -> Outcome:
        """The best of its tries; of one that told nothing, what its class said."""
        tries = self.tries()
        if name in tries:
            return next((t for t in tries[name] if t.status == PASSED), tries[name][-1])
        whole = f"setUpClass ({name.partition('[')[0].rpartition('.')[0]})"
        if whole in tries:
            return tries[whole][-1]
        return Outcome(UNTOLD, "", 0.0)


class Tempest:
    """:param directory: its environment, configuration, results"""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        self._venv, self._work = directory / "venv", directory / "work"

    def install(self) -> None:
        stamp = self._venv / f".set-up-{_digest(_HERE / 'constraints.txt')}"
        if stamp.exists():
            return
        shutil.rmtree(self._venv, ignore_errors=True)
        subprocess.run(["/usr/bin/python3", "-m", "venv", self._venv], check=True)
        subprocess.run([self._venv / "bin/pip", "install", "--quiet",
                        "--disable-pip-version-check", "--constraint", _HERE / "constraints.txt",
                        "--requirement", _HERE / "requirements.txt"], check=True)
        stamp.touch()

    def configure(self, cloud: TestCloud, *disks: Path) -> None:
        """:param disks: the two that the servers boot from, the first one mostly"""
        self._work.mkdir(parents=True, exist_ok=True)
        images = [self._image(cloud, name, disk)
                  for name, disk in zip(IMAGES, disks, strict=True)]
        flavors = [self._flavor(cloud, name) for name in _FLAVORS]
        told: dict[str, dict[str, object]] = {
            "DEFAULT": {"log_file": self._work / "tempest.log"},
            "oslo_concurrency": {"lock_path": self._work / "locks"},
            "identity": {"uri_v3": f"{cloud.service('keystone').url}/v3"},
            "auth": {"admin_username": accounts.ADMIN, "admin_project_name": accounts.ADMIN,
                     "admin_password": cloud.control.site.state.password(accounts.ADMIN)},
            "compute": {"image_ref": images[0], "image_ref_alt": images[1],
                        "flavor_ref": flavors[0], "flavor_ref_alt": flavors[1]}}
        text = config.text({name: {**_SETTINGS.get(name, {}), **told.get(name, {})}
                            for name in {**_SETTINGS, **told}}, {})
        path = self._work / "tempest.conf"
        path.touch(mode=0o600)
        path.write_text(text)
        if not (self._work / ".stestr.conf").exists():
            self._run("--list-tests", check=False)  # makes it, to no avail
            self._program("stestr", "init")

    @staticmethod
    def _image(cloud: TestCloud, name: str, disk: Path) -> str:
        image: Any = cloud.admin.image.find_image(name)
        if image is None:
            image = cloud.admin.create_image(
                name, filename=str(disk), disk_format="raw", container_format="bare",
                visibility="public", wait=True, use_import=False)
        return str(image.id)

    @staticmethod
    def _flavor(cloud: TestCloud, name: str) -> str:
        memory, gigabytes = _FLAVORS[name]
        flavor = cloud.admin.compute.find_flavor(name) or cloud.admin.compute.create_flavor(
            name=name, vcpus=1, ram=memory, disk=gigabytes)
        return str(flavor.id)

    def chosen(self) -> list[list[str]]:
        """Names of the tests that ``tests.txt`` names, by its groups."""
        groups: list[list[str]] = [[]]
        without = []
        for line in (_HERE / "tests.txt").read_text().splitlines():
            if not line:
                groups.append([])
            elif line.startswith("-"):
                without.append(line[1:])
            elif not line.startswith("#"):
                groups[-1].append(line)
        left = [name for name in self._run("--list-tests", "--regex", r"^tempest\.api\.compute\.")
                .stdout.split()
                if not any(re.match(words, name.partition("[")[0]) for words in without)]
        found = []
        for words in filter(None, groups):
            found.append([name for name in left if any(re.match(word, name) for word in words)])
            left = [name for name in left if name not in set(found[-1])]
        return found

    def run(self, names: Iterable[str], results: Results) -> None:
        """Add what becomes of them to the results."""
        wanted = "".join(f"{name}\n" for name in names)
        if not wanted:
            return
        listed = self._work / "names"
        listed.write_text(wanted)
        with (self._work / "errors").open("ab") as errors, results.path.open("ab") as output:
            tests = subprocess.Popen(
                self._words("--subunit", "--load-list", listed, "--concurrency", str(_WORKERS)),
                cwd=self._work, env=self._environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=errors)
            subprocess.run([self._venv / "bin/python", _HERE / "record.py"], stdin=tests.stdout,
                           stdout=output, stderr=errors, check=True)
            tests.wait()

    def _run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._words(*words), cwd=self._work, env=self._environment(),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=check)

    def _program(self, name: str, *words: str) -> None:
        subprocess.run([self._venv / "bin" / name, *words], cwd=self._work, check=True,
                       capture_output=True)

    def _words(self, *words: str | Path) -> list[str | Path]:
        return [self._venv / "bin/tempest", "run", "--config-file", self._work / "tempest.conf",
                *words]

    def _environment(self) -> dict[str, str]:
        return clean_environment() | {
            "PATH": f"{self._venv / 'bin'}:{os.environ['PATH']}", "OS_TEST_TIMEOUT": str(_MOST)}


@contextlib.contextmanager
def swept(cloud: TestCloud) -> Iterator[None]:
    """What tests that were killed have left is away, before and after."""
    _sweep(cloud)
    try:
        yield
    finally:
        _sweep(cloud)


def _sweep(cloud: TestCloud) -> None:
    compute: Any = cloud.admin.compute
    image: Any = cloud.admin.image  # typed as either version, as is the next
    identity: Any = cloud.admin.identity
    servers = [server for server in compute.servers(all_projects=True)
               if server.name.startswith(_PREFIX)]
    for server in servers:
        compute.delete_server(server, force=True, ignore_missing=True)
    for server in servers:
        compute.wait_for_delete(server, wait=_PATIENCE)
    for each in image.images():
        if (each.name or "").startswith(_PREFIX) and each.name not in IMAGES:
            image.delete_image(each, ignore_missing=True)
    for user in identity.users():
        if user.name.startswith(_PREFIX):
            identity.delete_user(user)
    for project in identity.projects():
        if project.name.startswith(_PREFIX):
            identity.delete_project(project)
