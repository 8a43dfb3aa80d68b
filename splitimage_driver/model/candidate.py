"""Stored bootable images with a known manifest."""

from __future__ import annotations

import msgspec

from splitimage_driver.model.composite import Mount

BASE, COMPLETED = "base", "completed"


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A completed image as the store records it.

    :ivar id: random (uuid4), never derived from the content
    :ivar name: COMPOSITE+PARTS
    :ivar composite: id of the composite it came from
    :ivar parts: names of the composite's parts in it, dependency parts too
    :ivar filesets: digests of the tenant's file sets in it
    :ivar recipe: see :func:`splitimage_driver.model.composite.recipe`
    :ivar disk: sha256 of the qcow2
    :ivar disk_size: bytes of the qcow2 file as stored (allocated)
    :ivar manifest: digest of the manifest of its tree
    :ivar public: offered to other projects
    :ivar booted: taken from a machine that had run
    """

    id: str
    name: str
    composite: str
    parts: tuple[str, ...]
    filesets: tuple[str, ...] = ()
    recipe: str
    disk: str
    disk_size: int
    virtual_size: int
    manifest: str
    mounts: tuple[Mount, ...]
    owner: str
    public: bool = False
    created: float
    last_used: float
    booted: bool = False


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What the planner compares: a base or a completed image.

    :ivar fetch_bytes: bytes of its disk that are not on this host yet
    """

    id: str
    name: str
    kind: str
    disk: str
    disk_size: int
    virtual_size: int
    manifest: str
    mounts: tuple[Mount, ...]
    recipe: str
    fetch_bytes: int = 0
