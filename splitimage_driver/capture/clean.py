"""The base's tree: without what belongs to one machine, ready for a first
boot."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

import msgspec

from splitimage_driver import guest
from splitimage_driver.capture.identity import EMPTY, REMOVE, Identity
from splitimage_driver.model.entry import FILE, FileEntry, directories
from splitimage_driver.model.manifest import Manifest


class Cleaned(msgspec.Struct, frozen=True):
    """:ivar generated: contents of files that are not the gold machine's"""

    manifest: Manifest
    generated: dict[bytes, bytes]
    first_boot: frozenset[bytes]


def clean(tree: Manifest, identity: Identity, *, generated: Mapping[bytes, bytes]) -> Cleaned:
    """Apply the identity rules to a base's tree.

    :param generated: contents of files that the splitter changed
    """
    found: dict[bytes, FileEntry] = {}
    contents = dict(generated)
    newest = max((e.mtime for e in tree), default=0)
    for e in tree:
        rule = None if e.is_dir else identity.rule(e.path)
        if rule is not None and rule.action == REMOVE:
            continue
        if rule is not None and rule.action == EMPTY and e.is_file:
            e = e.with_content(b"")
        elif e.path in generated:
            e = e.with_content(generated[e.path])
        found[e.path] = e
    extra = guest.first_boot(tree, newest)
    found.update({e.path: e for e in extra.entries})
    contents.update(extra.contents)
    machine_id = b"etc/machine-id"
    if extra.entries and machine_id not in found:
        # Empty, not absent: systemd then makes an id at first boot without
        # presetting every unit again.
        found[machine_id] = FileEntry(path=machine_id, type=FILE, mode=0o444,
                                      mtime=newest).with_content(b"")
    return Cleaned(Manifest(_regrouped(found.values())), contents,
                   frozenset(e.path for e in extra.entries))


def _regrouped(entries: Iterable[FileEntry]) -> list[FileEntry]:
    """Hard-link groups by the names that are left of them."""
    left = list(entries)
    groups: dict[bytes, list[bytes]] = collections.defaultdict(list)
    for e in left:
        if e.link:
            groups[e.link].append(e.path)
    leaders = {link: min(names) if len(names) > 1 else b"" for link, names in groups.items()}
    return [msgspec.structs.replace(e, link=leaders[e.link])
            if e.link and leaders[e.link] != e.link else e for e in left]


def without_own_directories(tree: Manifest, known: Manifest, identity: Identity) -> Manifest:
    """The tree without the empty directories that a machine made for what
    belongs to it alone, such as ``/var/log/journal/MACHINE-ID``.

    :param tree: cleaned
    :param known: the tree that the machine booted with
    """
    used = directories(e.path for e in tree if not e.is_dir)
    return Manifest(
        e for e in tree if not e.is_dir or e.path in used or e.path in known
        or (rule := identity.rule(e.path)) is None or rule.action != REMOVE)
