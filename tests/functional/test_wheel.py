"""What an ordinary installation brings into Nova's environment, and takes out again.

Nova looks for compute drivers in its own package ``nova.virt``: this project's
wheel puts a directory there, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cloud.allinone import Cloud

ROOT = Path(__file__).resolve().parents[2]
SHIM = "nova/virt/splitimage/__init__.py"
LOAD = "import nova.virt.splitimage as shim; print(shim.SplitImageDriver.__mro__[1].__module__)"
#: What pip and pbr are told so that they are quick and leave the checkout as it is.
QUIET = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore",
         "SKIP_GENERATE_AUTHORS": "1", "SKIP_WRITE_GIT_CHANGELOG": "1"}


class Environment(NamedTuple):
    """A virtual environment.

    :ivar site: where its packages are
    """

    path: Path
    site: Path

    def pip(self, *words: str | Path) -> None:
        done = subprocess.run([self.path / "bin/python", "-m", "pip", *words], text=True,
                              env=os.environ | QUIET, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def python(self, program: str) -> subprocess.CompletedProcess[str]:
        # Not in the checkout: it would be the first place to look for packages.
        return subprocess.run([self.path / "bin/python", "-c", program], cwd="/", text=True,
                              capture_output=True, check=False)

    def says(self, program: str) -> str:
        done = self.python(program)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def sees(self, site: Path) -> None:
        """The packages there, too, after its own."""
        (self.site / "others.pth").write_text(f"{site}\n")


Make = Callable[[], Environment]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of what is committed."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "--quiet", ROOT, place / "checkout"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir",
         place / "made", place / "checkout"],
        env=os.environ | QUIET, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (place / "made").glob("*.whl")
    return made


@pytest.fixture
def environment(tmp_path: Path) -> Make:
    def make() -> Environment:
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--system-site-packages",
                        tmp_path / "venv"], check=True)
        (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
        return Environment(tmp_path / "venv", site)
    return make


@pytest.fixture(scope="session")
def packages() -> Iterator[Path]:
    """Where the test cloud has its packages."""
    (site,) = Cloud().installed().directory.glob("lib/python3*/site-packages")
    yield site


@pytest.fixture
def nova(environment: Make, packages: Path) -> Environment:
    """An environment with the cloud's Nova as pip has put it there, and what it
    needs of the cloud's."""
    installed = [*packages.glob("nova"), *packages.glob("nova-*.dist-info")]
    if len(installed) != 2:
        pytest.skip("the test cloud has no Nova")
    made = environment()
    for directory in installed:
        # Without a link to this checkout, which the cloud has in it.
        shutil.copytree(directory, made.site / directory.name, symlinks=True)
    link = made.site / "nova/virt/splitimage"
    if link.is_symlink():
        link.unlink()
    made.sees(packages)
    return made


def tree(site: Path) -> dict[str, str]:
    """Nova's files and their digests, without what Python itself adds."""
    return {str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest()
            for top in site.glob("nova*") for path in top.rglob("*")
            if path.is_file() and path.suffix != ".pyc"}


def test_the_wheel_has_the_shim_and_nothing_else_of_novas(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read(SHIM) == (ROOT / SHIM).read_bytes()
    assert [name for name in names if name.startswith("nova/")] == [SHIM]
    assert "splitimage_driver/nova/driver.py" in names
    assert not [name for name in names if name.startswith(("tests/", "demo/"))]


def test_an_ordinary_installation_is_all_that_nova_needs(nova: Environment, wheel: Path) -> None:
    before = tree(nova.site)
    nova.pip("install", "--no-deps", wheel)
    assert nova.says(LOAD) == "nova.virt.libvirt.driver"
    # As Nova does it.
    assert nova.says("from oslo_utils import importutils as i;"
                     "print(i.import_class('nova.virt.splitimage.SplitImageDriver').__name__)"
                     ) == "SplitImageDriver"
    assert nova.says("from splitimage_driver import doctor;"
                     "print([check.ok for check in doctor._nova()])") == "[True]"
    nova.pip("uninstall", "--yes", "splitimage-driver")
    assert tree(nova.site) == before
    assert not (nova.site / "nova/virt/splitimage").exists()
    assert nova.says("import nova.virt.libvirt.driver as d; print(d.LibvirtDriver.__name__)"
                     ) == "LibvirtDriver"


def test_nova_may_come_after_it(nova: Environment, wheel: Path, tmp_path: Path) -> None:
    aside = shutil.move(nova.site / "nova", tmp_path / "aside")
    nova.pip("install", "--no-deps", wheel)
    shutil.copytree(aside, nova.site / "nova", dirs_exist_ok=True)
    assert nova.says(LOAD) == "nova.virt.libvirt.driver"


def test_it_harms_nothing_where_there_is_no_nova(environment: Make, wheel: Path) -> None:
    made = environment()
    made.sees(Path(pytest.__file__).parents[1])  # what this project needs
    made.pip("install", "--no-deps", wheel)
    assert made.says("import splitimage_driver as s; print(s.__file__)"
                     ) == str(made.site / "splitimage_driver/__init__.py")
    done = subprocess.run([made.path / "bin/splitimage", "--version"], cwd="/", text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert made.says("from splitimage_driver import doctor; print(list(doctor._nova()))") == "[]"
    done = made.python("import nova.virt.splitimage")
    assert done.returncode == 1
    # The one that it needs, and not something that is not there.
    assert done.stderr.strip().splitlines()[-1].startswith("ModuleNotFoundError: No module named "
                                                           "'nova.")
    made.pip("uninstall", "--yes", "splitimage-driver")
    assert not [path for path in (made.site / "nova").rglob("*") if path.is_file()]


@pytest.fixture
def editable(environment: Make, tmp_path: Path) -> Environment:
    """With an editable distribution that is laid out, and built, as Nova is."""
    source = tmp_path / "source"
    (source / "nova/virt").mkdir(parents=True)
    for name in ("nova", "nova/virt"):
        (source / name / "__init__.py").touch()
    (source / "nova/virt/driver.py").write_text("here = True\n")
    (source / "setup.cfg").write_text("[metadata]\nname = nova\nsummary = as Nova\n"
                                      "[files]\npackages = nova\n")
    (source / "setup.py").write_text(
        "import setuptools\nsetuptools.setup(setup_requires=['pbr'], pbr=True)\n")
    (source / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['pbr>=6.0.0', 'setuptools>=64.0.0']\n"
        "build-backend = 'pbr.build'\n")
    made = environment()
    made.sees(Path(pytest.__file__).parents[1])
    done = subprocess.run([made.path / "bin/python", "-m", "pip", "install", "--quiet",
                           "--no-deps", "--editable", source], text=True, capture_output=True,
                          env=os.environ | QUIET | {"PBR_VERSION": "34.0.0"}, check=False)
    assert done.returncode == 0, done.stderr
    return made


_FOUND = "import nova.virt.driver as d, splitimage_driver; print(d.here)"
_CHECKED = ("from splitimage_driver import doctor;"
            "print(*(f'{check.ok}: {check.mend}' for check in doctor._nova()))")


def test_beside_an_editable_nova_it_is_editable_and_linked(editable: Environment,
                                                           tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)
    editable.pip("install", "--no-deps", "--editable", checkout)
    assert editable.says(_FOUND) == "True"
    assert editable.says(_CHECKED).startswith("None: ln -s ")
    link = tmp_path / "source/nova/virt/splitimage"
    link.symlink_to(checkout / "nova/virt/splitimage")
    assert editable.says(_CHECKED) == "True:"
    assert editable.says("import importlib.util as u;"
                         "print(u.find_spec('nova.virt.splitimage').origin)"
                         ) == str(link / "__init__.py")


def test_an_ordinary_one_hides_an_editable_nova_and_doctor_says_so(
        editable: Environment, wheel: Path) -> None:
    """A directory without ``__init__.py`` is a package to Python, too, and it asks
    where an editable one is only when it has found none."""
    assert editable.says("import nova.virt.driver as d; print(d.here)") == "True"
    editable.pip("install", "--no-deps", wheel)
    assert "No module named 'nova.virt.driver'" in editable.python(_FOUND).stderr
    found = editable.site / "nova"
    assert editable.says(_CHECKED).startswith("False: pip uninstall splitimage-driver; "
                                              f"rmdir {found}/virt {found}; pip install")
    editable.pip("uninstall", "--yes", "splitimage-driver")
    # pip leaves them.
    (found / "virt").rmdir()
    found.rmdir()
    assert editable.says("import nova.virt.driver as d; print(d.here)") == "True"
