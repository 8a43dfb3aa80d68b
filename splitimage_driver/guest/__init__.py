"""The files that a base carries for its first boot.

They are this project's only addition to a gold machine's tree; every one is
listed in :data:`FIRST_BOOT`.
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


#: Where each goes: (path, mode, name of the resource).
FIRST_BOOT = (
    (b"usr/lib/splitimage/firstboot", 0o755, "firstboot"),
    (b"usr/lib/systemd/system/" + _UNIT, 0o644, _UNIT.decode()),
)
_LINK = b"etc/systemd/system/sysinit.target.wants/" + _UNIT


def first_boot(tree: Manifest, mtime: int) -> FirstBoot:
    """What ``tree`` needs; nothing where it has no systemd.

    :param mtime: of the files, nanoseconds
    """
    if b"usr/lib/systemd/systemd" not in tree and b"lib/systemd/systemd" not in tree:
        return FirstBoot((), {})
    found: list[FileEntry] = []
    contents = {}
    root = b"" if b"usr/lib/systemd/systemd" in tree else b"usr/"
    for place, mode, resource in FIRST_BOOT:
        # Before the usrmerge, units are below /lib.
        path = place.removeprefix(root) if b"systemd" in place and root else place
        content = (importlib.resources.files(__package__) / resource).read_bytes()
        contents[path] = content
        found.append(FileEntry(path=path, type=FILE, mode=mode, mtime=mtime).with_content(content))
    unit = next(e.path for e in found if e.path.endswith(_UNIT))
    found.append(FileEntry(path=_LINK, type=SYMLINK, mode=0o777, mtime=mtime,
                           target=b"/" + unit))
    for e in list(found):
        above = e.path.rpartition(b"/")[0]
        while above and above not in tree:
            found.append(FileEntry(path=above, type=DIRECTORY, mode=0o755))
            above = above.rpartition(b"/")[0]
    return FirstBoot(tuple({e.path: e for e in found}.values()), contents)
