"""Data of images that this host keeps, so that nothing travels twice.

An object here is kept for an image, not for its digest alone: whoever asks
names an image that Glance has shown to them just now, so that nobody gets at
another tenant's data by knowing, or forging, its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.store.contents import OBJECT, Contents
from splitimage_driver.store.glance import transfer
from splitimage_driver.store.glance.api import Description, Images

LOG = logging.getLogger(__name__)
#: Kind of the rows that note what is kept for which image.
CACHE = "cache"


class Cache:
    """:param lock: of the store, so that two who want the same fetch it once
    :param limit: bytes to keep; 0: no limit
    """

    def __init__(self, images: Images, contents: Contents,
                 lock: Callable[[str], AbstractContextManager[None]], *, limit: int) -> None:
        self.images, self.contents, self.lock, self.limit = images, contents, lock, limit

    def digest(self, image: str) -> str:
        """sha256 of the image's data, if they are here; else ""."""
        for row in self.contents.database.query(
                "SELECT digest FROM uses WHERE kind = ? AND holder = ? AND target = ?",
                CACHE, image, OBJECT):
            if self.contents.files[OBJECT].has(row["digest"]):
                return str(row["digest"])
        return ""

    def path(self, image: Description, *, sha256: str | None = None,
             limit: int | None = None, check: Callable[[Path], object] | None = None) -> Path:
        """The data of an image; fetched if they are not here.

        :param image: as Glance has just shown it to the one who asks
        :param sha256: that they must have
        :param limit: bytes that they may have
        :param check: judges what was fetched, before anybody uses it
        :raises DigestMismatch: they have another one
        """
        name = image["id"]
        while True:
            with self.lock(f"image {name}"):
                found = self.digest(name) or self._fetch(image, sha256, limit, check)
            if sha256 is not None and found != sha256:
                raise exceptions.DigestMismatch(what=f"image {name}", expected=sha256, found=found)
            path = self.contents.files[OBJECT].path(found)
            with contextlib.suppress(FileNotFoundError):  # another process has just let go of it
                os.utime(path)  # the least recently used go first
                return path

    def _fetch(self, image: Description, sha256: str | None, limit: int | None,
               check: Callable[[Path], object] | None) -> str:
        with self.contents.scratch.directory() as scratch:
            file = scratch / "data"
            found = transfer.download(self.images, image, file, sha256=sha256, limit=limit)
            if check is not None:
                check(file)
            digest = self.contents.adopt(file, found)
            self.keep(image["id"], digest)
            return digest

    def read(self, image: Description, *, limit: int) -> bytes:
        """The data of a small image, whole even where the copy here is not."""
        path = self.path(image, limit=limit)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != path.name:
            self.forget(image["id"])
            raise exceptions.DigestMismatch(what=f"the copy of image {image['id']} on this host",
                                            expected=path.name,
                                            found=hashlib.sha256(data).hexdigest())
        return data

    def keep(self, image: str, digest: str) -> None:
        """An object that was stored here is the data of that image, too."""
        with self.contents.database.writing() as connection:
            useless = self.contents.relate(connection, CACHE, image, "", {(OBJECT, digest)})
            self.contents.doom(connection, useless)
        self.contents.collect(useless)
        self.trim(keep=digest)

    def forget(self, image: str) -> None:
        with self.contents.database.writing() as connection:
            useless = self.contents.relate(connection, CACHE, image, "", set())
            self.contents.doom(connection, useless)
        self.contents.collect(useless)

    def trim(self, keep: str = "") -> None:
        """Let go of the least recently used beyond the limit, never of what
        somebody holds or a server runs on.

        :param keep: never this object
        """
        if not self.limit:
            return
        holders: dict[str, list[str]] = {}
        for row in self.contents.database.query(
                "SELECT holder, digest FROM uses WHERE kind = ? ORDER BY holder", CACHE):
            holders.setdefault(row["digest"], []).append(row["holder"])
        kept = []
        for digest in holders:
            with contextlib.suppress(FileNotFoundError):
                status = self.contents.files[OBJECT].path(digest).stat()
                kept.append((status.st_mtime, digest, status.st_size))
        total = sum(size for *_, size in kept)
        for _, digest, size in sorted(kept):
            if total <= self.limit:
                break
            if digest != keep and not self._needed(digest):
                LOG.info("letting go of the copy of image %s, %d bytes",
                         ", ".join(holders[digest]), size)
                for image in holders[digest]:
                    self.forget(image)
                total -= size

    def copies(self, digest: str) -> list[str]:
        """Ids of the images whose data an object is, if it is nothing else."""
        if self._needed(digest):
            return []
        return [str(row["holder"]) for row in self.contents.database.query(
            "SELECT holder FROM uses WHERE kind = ? AND target = ? AND digest = ?"
            " ORDER BY holder", CACHE, OBJECT, digest)]

    def _needed(self, digest: str) -> bool:
        """Whether it stays here even if it is let go."""
        with self.contents.database.reading() as connection:
            return self.contents.leased(connection, OBJECT, digest) or connection.execute(
                "SELECT 1 FROM uses WHERE kind != ? AND target = ? AND digest = ?",
                (CACHE, OBJECT, digest)).fetchone() is not None
