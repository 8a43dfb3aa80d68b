"""A composite image: a base, its parts and their relations."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from splitimage_driver import exceptions

SCHEMA = 1
#: Raised whenever a merger or identity rule changes its output.
RULES = 1
MAX_PARTS = 64
#: What an administrator may answer to a conflict, see :class:`Answer`.
ACTIONS = ("keep", "replace", "concatenate", "three-way", "file")
#: What a tenant may, where a file set clashes with a part.
TENANTS_ACTIONS = ("keep", "replace", "concatenate")


class Mount(msgspec.Struct, frozen=True):
    """A file system of the base.

    :ivar device: as the appliance names it with the disk as the first one,
        e.g. ``/dev/sda1``
    :ivar mountpoint: absolute
    :ivar fstype: ext4, xfs, btrfs, vfat...
    :ivar options: mount options needed to see the tree (``subvol=@``)
    """

    device: str
    mountpoint: str
    fstype: str
    options: str = ""


class System(msgspec.Struct, frozen=True):
    """What /etc/os-release and the package database say."""

    id: str
    version: str
    name: str
    architecture: str
    packaging: str = ""


class Base(msgspec.Struct, frozen=True):
    """The OS sub-image.

    :ivar disk: sha256 of the stored qcow2
    :ivar disk_size: its bytes
    :ivar virtual_size: of the disk as the guest sees it
    :ivar manifest: digest of the manifest of its tree
    :ivar mounts: in the order to mount them
    """

    disk: str
    disk_size: int
    virtual_size: int
    manifest: str
    mounts: tuple[Mount, ...]


class PartRef(msgspec.Struct, frozen=True, kw_only=True):
    """A part as the composite knows it.

    :ivar id: digest of the part
    :ivar requires: names of parts that come with it
    :ivar hidden: a dependency part, not for users to name
    :ivar completes: of a rest part: the software of its gold machine; it
        comes by itself when all of that is there
    """

    id: str
    kind: str
    requires: tuple[str, ...] = ()
    hidden: bool = False
    completes: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """An administrator's (or, for a file set, a tenant's) decision.

    :ivar action: ``keep`` what is there, ``replace`` it by the part's
        version, ``concatenate``, ``three-way``, or ``file`` (own content)
    :ivar part: whose version wins with ``replace``
    :ivar content: of an own file
    """

    path: bytes
    parts: tuple[str, ...]
    action: str
    part: str = ""
    content: bytes = b""

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()


def answered(path: str, action: str) -> Answer:
    """A tenant's answer, whatever the parts are.

    :param path: with a slash before it or without
    :param action: one of :data:`TENANTS_ACTIONS`
    """
    return Answer(path=path.encode("utf-8", "surrogateescape").strip(b"/"), parts=(), action=action)


class Conflict(msgspec.Struct, frozen=True):
    """A path that parts disagree about and that no rule decides."""

    path: bytes
    parts: tuple[str, ...]
    reason: str


class Composite(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar restore: id of the part with the base's versions of every path
        that some part changes: what removal puts back, and the common
        ancestor of merges
    :ivar shared: the base's contents of the files that are merged by rows
    :ivar hardware: what is known of the gold machine, free form
    :ivar software: names in the order of capture
    """

    name: str
    id: str
    owner: str
    created: float
    system: System
    base: Base
    parts: dict[str, PartRef]
    restore: str
    shared: dict[bytes, bytes] = {}
    conflicts: tuple[Conflict, ...] = ()
    answers: tuple[Answer, ...] = ()
    hardware: dict[str, Any] = {}
    public: bool = False
    notes: tuple[str, ...] = ()

    def visible(self) -> list[str]:
        return _visible(self.parts)

    def closure(self, names: Iterable[str]) -> tuple[str, ...]:
        """See :func:`closure`."""
        return closure(self.name, self.parts, names)

    def applying(self, names: Collection[str]) -> list[Answer]:
        """The answers that apply to these parts: where two of an answer's
        parts meet."""
        return [answer for answer in self.answers
                if len(set(answer.parts).intersection(names)) >= min(2, len(answer.parts))]


def closure(composite: str, parts: Mapping[str, PartRef],
            names: Iterable[str]) -> tuple[str, ...]:
    """The parts of a request: those named and all they require, sorted;
    the rest part too when all its software is among them.

    :param composite: whose parts these are, for messages
    :raises UnknownPart: a name is not a part of this composite
    :raises RequirementMissing: a part requires one that is not here
    """
    todo = list(names)
    for name in todo:
        if name not in parts:
            raise exceptions.UnknownPart(composite=composite, part=name,
                                         parts=", ".join(_visible(parts)) or "none")
    wanted: set[str] = set()
    while todo:
        while todo:
            name = todo.pop()
            if name in wanted:
                continue
            wanted.add(name)
            for required in parts[name].requires:
                if required not in parts:
                    raise exceptions.RequirementMissing(composite=composite, part=name,
                                                        missing=required)
                todo.append(required)
        todo = [n for n, ref in parts.items() if n not in wanted
                and ref.completes and wanted.issuperset(ref.completes)]
    return tuple(sorted(wanted))


def _visible(parts: Mapping[str, PartRef]) -> list[str]:
    return sorted(n for n, ref in parts.items() if not ref.hidden)


def recipe(base_disk: str, parts: Iterable[str], answers: Sequence[Answer] = (),
           options: Iterable[str] = ()) -> str:
    """Names a completed image by all that goes into it; equal recipe = exact
    match.

    :param base_disk: sha256 of the base's disk
    :param parts: digests of the parts, file sets included
    :param answers: those that apply to these parts
    :param options: identity options
    """
    ingredients = (SCHEMA, RULES, base_disk, sorted(parts),
                   sorted(answer.digest for answer in answers), sorted(options))
    return hashlib.sha256(msgspec.msgpack.encode(ingredients)).hexdigest()
