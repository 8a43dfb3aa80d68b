"""DESIGN.md's structure, held against the sources."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import splitimage_driver

pytestmark = pytest.mark.must_show("main-job", 9)

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "splitimage_driver"
MODULES = sorted(PACKAGE.rglob("*.py"))
#: Top-level package to the only places that may import it.
GUARDED = {
    "guestfs": ("splitimage_driver/assembly/guestfs.py",),
    "nova": ("splitimage_driver/nova/",),
    "glance": ("splitimage_driver/glance/",),
    "glance_store": ("splitimage_driver/glance/",),
    "taskflow": ("splitimage_driver/glance/",),  # Glance's own
    "subprocess": ("splitimage_driver/process.py",),
    # A store is one; so is the package database of an rpm system.
    "sqlite3": ("splitimage_driver/store/", "splitimage_driver/capture/packagedb/rpm.py"),
    # What tempest's results are read with, where that is installed.
    "subunit": ("tests/functional/tempest/",),
    "testtools": ("tests/functional/tempest/",),
}
#: An axis of plugins, and the abstract base class of its plugins.
AXES = {
    "splitimage.stores": "splitimage_driver.store.base:Store",
    "splitimage.splitters": "splitimage_driver.capture.splitter:Splitter",
    "splitimage.costs": "splitimage_driver.planning.cost:Cost",
    "splitimage.weights": "splitimage_driver.planning.weights:Weights",
    "splitimage.mergers": "splitimage_driver.merge.base:Merger",
    "splitimage.assemblers": "splitimage_driver.assembly.base:Opener",
    "splitimage.launchers": "splitimage_driver.launch.base:Launcher",
}
#: The rooms of the house; each is explained in doc/source/contributor.rst.
ROOMS = {"archive", "assembly", "capture", "cli", "conf", "delivery", "glance", "guest", "launch",
         "merge", "model", "nova", "planning", "store"}
#: What pure code has no business with.
IMPURE = {"fcntl", "guestfs", "http", "io", "multiprocessing", "os", "pathlib", "shutil",
          "socket", "sqlite3", "subprocess", "tempfile", "threading", "urllib"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """Top-level names of all that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_has_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_guarded_packages_are_imported_in_their_places_only(path: Path) -> None:
    strayed = {package for package in imported(path)
               if package in GUARDED and not name(path).startswith(GUARDED[package])}
    assert strayed == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").rglob("*.py")), ids=name)
def test_the_model_does_no_io(path: Path) -> None:
    assert IMPURE & set(imported(path)) == set()


def test_the_layout_is_the_documented_one() -> None:
    rooms = {path.name for path in PACKAGE.iterdir()
             if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == ROOMS
    page = (ROOT / "doc/source/contributor.rst").read_text()
    assert {room for room in ROOMS if not re.search(rf"^ +{room}/ ", page, re.MULTILINE)} == set()


def test_unit_tests_mirror_the_tree() -> None:
    """A folder of tests is one of the package, or holds data."""
    here = ROOT / "tests" / "unit"
    strayed = [name(path) for path in here.rglob("test_*.py")
               if not (PACKAGE / path.parent.relative_to(here)).is_dir()]
    assert strayed == []


def _declared(*files: str) -> set[str]:
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    return {_canonical(match[0]) for line in lines if (match := re.match(r"[A-Za-z][\w.-]*", line))}


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize(("folders", "files"), [
    (("splitimage_driver",), ("requirements.txt",)),
    (("demo", "tests"), ("requirements.txt", "test-requirements.txt")),
])
def test_all_that_is_imported_is_declared(folders: tuple[str, ...],
                                          files: tuple[str, ...]) -> None:
    """So that nothing works only because something else brought it."""
    own = {"splitimage_driver", "demo", "tests", *GUARDED}
    used = {package for folder in folders for path in (ROOT / folder).rglob("*.py")
            for package in imported(path)} - own - sys.stdlib_module_names
    brought = importlib.metadata.packages_distributions()
    declared = _declared(*files)
    assert {package for package in used
            if not declared & {_canonical(d) for d in brought.get(package, [package])}} == set()


class _Absent(importlib.abc.MetaPathFinder):
    """Stands for a host without the optional packages."""

    packages = frozenset({"guestfs", "nova", "glance", "glance_store", "openstack"})

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"{fullname} is absent", name=fullname)
        return None


@pytest.fixture
def bare_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No optional package, and nothing of this project imported yet."""
    def concerned() -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items()
                if name.partition(".")[0] in _Absent.packages | {"splitimage_driver"}}

    before = concerned()
    for module in before:
        del sys.modules[module]
    monkeypatch.setattr(sys, "meta_path", [_Absent(), *sys.meta_path])
    yield
    for module in concerned():  # others, as numpy, cannot be loaded twice
        del sys.modules[module]
    sys.modules.update(before)


def test_all_but_the_plugins_imports_without_optional_packages(bare_host: None) -> None:
    """What does not touch a disk, Nova or Glance runs where they are absent."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "splitimage_driver."):
        if not module.name.startswith(("splitimage_driver.assembly.guestfs",
                                       "splitimage_driver.nova", "splitimage_driver.glance",
                                       "splitimage_driver.store.glance")):
            importlib.import_module(module.name)
    assert sys.modules["splitimage_driver"] is not splitimage_driver
    assert "guestfs" not in sys.modules


def _entry_points() -> list[tuple[str, str]]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return [(group, line.partition("=")[2].strip())
            for group, lines in parser["entry_points"].items()
            for line in lines.strip().splitlines()]


def _found(target: str) -> Any:
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


@pytest.mark.parametrize(("group", "target"), _entry_points())
def test_every_entry_point_leads_somewhere(group: str, target: str) -> None:
    if group.startswith("glance."):
        # Loaded by Glance only, which the functional tests have; what is there
        # is read.
        module, _, attribute = target.partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        assert attribute in {node.name for node in tree.body
                             if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        return
    found = _found(target)
    assert callable(found) or isinstance(found, ModuleType)
    if group in AXES:
        assert issubclass(found, _found(AXES[group]))


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_has_a_plugin_and_an_abstract_base(axis: str) -> None:
    assert axis in {group for group, _ in _entry_points()}
    assert inspect.isabstract(_found(AXES[axis]))


@pytest.mark.must_show("planning", 6)
def test_compiled_helpers_come_ready_made() -> None:
    """From a registry, for many Linux systems: no compiler is asked for."""
    compiled = 0
    for name in _declared("requirements.txt"):
        told = (importlib.metadata.distribution(name).read_text("WHEEL") or "").splitlines()
        tags = [line.partition(": ")[2] for line in told if line.startswith("Tag:")]
        assert tags, f"{name} was built here"
        compiled += any("manylinux" in tag for tag in tags)
        assert all(tag.endswith("-none-any") or "manylinux" in tag for tag in tags), (name, tags)
    assert compiled >= 2
    wanted = (ROOT / "bindep.txt").read_text()
    assert not re.search(r"^(gcc|g\+\+|clang|build-essential|python3-dev)\b", wanted, re.MULTILINE)
