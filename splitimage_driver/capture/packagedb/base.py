"""What a package split asks of a machine's package database.

:func:`read` finds the database of a tree; :func:`expected_base` and
:func:`groups` answer what a split by packages asks.
"""

from __future__ import annotations

from splitimage_driver.capture.packagedb import dpkg, rpm
from splitimage_driver.capture.packagedb.database import Package, PackageDB
from splitimage_driver.capture.packagedb.files import Files, Read
from splitimage_driver.capture.packagedb.groups import (
    Groups,
    Software,
    expected_base,
    groups,
)
from splitimage_driver.model.manifest import Manifest

__all__ = ["Groups", "Package", "PackageDB", "Read", "Software", "expected_base", "groups",
           "kind", "read"]


def kind(files: Files) -> str:
    """``dpkg``, ``rpm``, or "" where neither is there. A Debian with the rpm
    tool has no rpm database, and an rpm system with dpkg an empty one, so
    the order hardly matters."""
    return "dpkg" if dpkg.present(files) else "rpm" if rpm.present(files) else ""


def read(manifest: Manifest, read: Read) -> PackageDB | None:
    """The package database of a tree; None where it has none that is known.

    :param read: gives the contents of files of the tree, by path
    :raises InvalidInput: the database is damaged, or absurdly large
    :raises Unsupported: a format of it that is not read here
    """
    files = Files(manifest, read)
    found = kind(files)
    if found == "dpkg":
        return dpkg.read(files)
    if found == "rpm":
        return rpm.read(files)
    return None
