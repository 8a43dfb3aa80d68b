"""DESIGN.md's structure, held against the sources."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.abc
import importlib.machinery
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import splitimage_driver

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "splitimage_driver"
MODULES = sorted(PACKAGE.rglob("*.py"))
#: Top-level package to the only places that may import it.
GUARDED = {
    "guestfs": ("splitimage_driver/assembly/guestfs.py",),
    "nova": ("splitimage_driver/nova/",),
    "glance": ("splitimage_driver/glance/",),
    "glance_store": ("splitimage_driver/glance/",),
    "subprocess": ("splitimage_driver/process.py",),
    # A store is one; so is the package database of an rpm system.
    "sqlite3": ("splitimage_driver/store/", "splitimage_driver/capture/packagedb/rpm.py"),
}
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
    before = dict(sys.modules)
    for module in before:
        if module.partition(".")[0] in _Absent.packages | {"splitimage_driver"}:
            del sys.modules[module]
    monkeypatch.setattr(sys, "meta_path", [_Absent(), *sys.meta_path])
    yield
    for module in set(sys.modules) - set(before):
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


@pytest.mark.parametrize(("group", "target"), _entry_points())
def test_every_entry_point_leads_somewhere(group: str, target: str) -> None:
    module, _, attribute = target.partition(":")
    assert callable(getattr(importlib.import_module(module), attribute)), group
