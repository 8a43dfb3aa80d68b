"""The units of systemd that software brings, and what its arrival does to them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from splitimage_driver.model.entry import SYMLINK
from splitimage_driver.model.manifest import Manifest

#: Enabled: something at the start of the system wants it.
_WANTED = re.compile(rb"(?:etc|usr/lib|lib)/systemd/system/"
                     rb"[^/]+\.target\.(?:wants|requires)/([^/]+)")
#: Scripts of the older kind, for which systemd makes units.
_SCRIPT = re.compile(rb"etc/rc[2-5]\.d/S[0-9][0-9]([^/]+)")
_TMPFILES = re.compile(rb"(?:etc|usr/lib)/tmpfiles\.d/[^/]+\.conf")
#: What others connect to comes first.
_ORDER = {b"socket": 0, b"path": 1, b"mount": 2, b"timer": 3, b"service": 4}


def enabled(tree: Manifest) -> dict[bytes, tuple[bytes, ...]]:
    """Unit to the paths that enable it, of all units that start with the
    system."""
    found: dict[bytes, tuple[bytes, ...]] = {}
    scripts: dict[bytes, tuple[bytes, ...]] = {}
    for e in tree:
        if e.type != SYMLINK:
            continue
        if match := _WANTED.fullmatch(e.path):
            found[match[1]] = (*found.get(match[1], ()), e.path)
        elif match := _SCRIPT.fullmatch(e.path):
            name = match[1] + b".service"
            scripts[name] = (*scripts.get(name, ()), e.path)
    for name, paths in scripts.items():
        # A unit of that name is in the script's place, enabled or not.
        if not any(above + name in tree for above in (
                b"etc/systemd/system/", b"usr/lib/systemd/system/", b"lib/systemd/system/")):
            found[name] = paths
    return found


def order(names: Iterable[bytes]) -> list[bytes]:
    return sorted(names, key=lambda name: (_ORDER.get(name.rpartition(b".")[2], 9), name))


def is_tmpfiles(path: bytes) -> bool:
    """Whether it is configuration of systemd-tmpfiles."""
    return _TMPFILES.fullmatch(path) is not None
