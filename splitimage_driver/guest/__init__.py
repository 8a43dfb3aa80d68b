"""The files that a base carries: for its first boot, and so that it can lay
parts while it runs.

They are this project's only addition to a gold machine's tree; every one is
listed in :data:`FIRST_BOOT` or :data:`LAYING`.
"""

from __future__ import annotations

import importlib.resources

import msgspec

from splitimage_driver.model.entry import DIRECTORY, FILE, SYMLINK, FileEntry
from splitimage_driver.model.manifest import Manifest

_UNIT = b"splitimage-firstboot.service"
#: The program that lays parts; a base without it cannot.
LAYOUT = b"usr/lib/splitimage/layout"


class FirstBoot(msgspec.Struct, frozen=True):
    """Entries to add to the base, and the contents of the files among them."""

    entries: tuple[FileEntry, ...]
    contents: dict[bytes, bytes]


#: Where a file goes: path, mode, name of the resource.
Place = tuple[bytes, int, str]


def _places(directory: str, mode: int, *names: str) -> tuple[Place, ...]:
    return tuple((f"{directory}/{name}".encode(), mode, name) for name in names)


_PROGRAMS, _UNITS = "usr/lib/splitimage", "usr/lib/systemd/system"
FIRST_BOOT: tuple[Place, ...] = (
    *_places(_PROGRAMS, 0o755, "firstboot"), *_places(_UNITS, 0o644, _UNIT.decode()))
#: The perl programs that carry out a plan, their units, and the rule that
#: starts them when a plan's disk is attached.
LAYING: tuple[Place, ...] = (
    *_places(_PROGRAMS, 0o755, "layout"),
    *_places(_PROGRAMS, 0o644, *(f"{name}.pm" for name in (
        "Alternatives", "Disks", "Files", "Journal", "Kernel", "Layout", "Locks", "Objects",
        "Parts", "Plan", "Report", "Room", "Rows", "Services", "Shared", "State", "Tree",
        "Workers"))),
    *_places(_UNITS, 0o644, "splitimage-layout.service"),
    *_places("usr/lib/udev/rules.d", 0o644, "55-splitimage.rules"))
#: What a layout needs, each in one of its places.
_NEEDS = ((b"usr/bin/perl",), (b"usr/bin/udevadm", b"bin/udevadm", b"usr/sbin/udevadm"))
_LINK = b"etc/systemd/system/sysinit.target.wants/" + _UNIT


def first_boot(tree: Manifest, mtime: int) -> FirstBoot:
    """What ``tree`` needs; nothing where it has no systemd, and nothing to lay
    parts with where it has no perl or no udev.

    :param mtime: of the files, nanoseconds
    """
    if b"usr/lib/systemd/systemd" not in tree and b"lib/systemd/systemd" not in tree:
        return FirstBoot((), {})
    found: list[FileEntry] = []
    contents = {}
    root = b"" if b"usr/lib/systemd/systemd" in tree else b"usr/"
    able = all(any(path in tree for path in places) for places in _NEEDS)
    for place, mode, resource in (*FIRST_BOOT, *(LAYING if able else ())):
        # Before the usrmerge, units and rules are below /lib.
        system = place.startswith((b"usr/lib/systemd/", b"usr/lib/udev/"))
        path = place.removeprefix(root) if system else place
        content = (importlib.resources.files(__package__) / resource).read_bytes()
        contents[path] = content
        found.append(FileEntry(path=path, type=FILE, mode=mode, mtime=mtime).with_content(content))
    unit = next(e.path for e in found if e.path.endswith(b"/" + _UNIT))
    found.append(FileEntry(path=_LINK, type=SYMLINK, mode=0o777, mtime=mtime,
                           target=b"/" + unit))
    for e in list(found):
        above = e.path.rpartition(b"/")[0]
        while above and above not in tree:
            found.append(FileEntry(path=above, type=DIRECTORY, mode=0o755))
            above = above.rpartition(b"/")[0]
    return FirstBoot(tuple({e.path: e for e in found}.values()), contents)
