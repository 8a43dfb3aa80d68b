"""Which completed images go when a project has more than it may keep."""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from splitimage_driver.model.candidate import Image


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one project; 0 is no limit.

    :ivar max_age: seconds since the last use
    :ivar max_count: number of images
    :ivar max_bytes: sum of the stored disks
    """

    max_age: float = 0
    max_count: int = 0
    max_bytes: int = 0

    def but(self, *, max_age: float | None = None, max_count: int | None = None,
            max_bytes: int | None = None) -> Limits:
        """These with what is given in their place; None: no change."""
        given = {"max_age": max_age, "max_count": max_count, "max_bytes": max_bytes}
        return msgspec.structs.replace(
            self, **{name: value for name, value in given.items() if value is not None})

    def old(self, image: Image, now: float) -> bool:
        return bool(self.max_age) and now - image.last_used > self.max_age

    def full(self, count: int, size: int) -> str:
        """Which limit that many images of that many bytes exceed, for
        people; "" if none."""
        if self.max_count and count > self.max_count:
            return f"{count} images, allowed are {self.max_count}"
        if self.max_bytes and size > self.max_bytes:
            return f"{size} bytes of images, allowed are {self.max_bytes}"
        return ""


def surplus(images: Iterable[Image], limits: Limits, *, now: float,
            protected: Container[str]) -> list[Image]:
    """The images to delete so that the rest is within the limits, as far as
    that goes: least recently used first, never a protected one.

    :param images: all of one project
    :param now: seconds since the epoch
    :param protected: ids
    """
    kept = sorted(images, key=lambda image: (image.last_used, image.created, image.id))
    count, size = len(kept), sum(image.disk_size for image in kept)
    chosen = []
    for image in kept:
        if image.id in protected or not (limits.old(image, now) or limits.full(count, size)):
            continue
        chosen.append(image)
        count, size = count - 1, size - image.disk_size
    return chosen
