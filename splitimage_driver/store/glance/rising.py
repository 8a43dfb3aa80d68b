"""Parts on their way into the image service: several at a time, while the next one
is still being made; they go again where the composite that they are for does not
come about."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

from splitimage_driver.model import properties
from splitimage_driver.model.part import Part
from splitimage_driver.model.properties import Links
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.cache import Cache
from splitimage_driver.store.glance.places import Places
from splitimage_driver.store.glance.publish import Publisher


class Rising:
    """:param parallel: at a time"""

    def __init__(self, publisher: Publisher, places: Places, cache: Cache, *,
                 parallel: int) -> None:
        self.publisher, self.places, self.cache = publisher, places, cache
        self._pool = concurrent.futures.ThreadPoolExecutor(parallel)
        #: On their way up, by the part's id; and images of those that this session
        #: brought for a composite that is not there yet.
        self._rising: dict[str, concurrent.futures.Future[Description]] = {}
        self._brought: dict[str, Description] = {}

    def start(self, part: Part, manifest: bytes, blob: Path | None) -> None:
        """:param manifest: its canonical bytes
        :param blob: its squashfs on this host; None: it has no contents
        """
        self._rising[part.id] = self._pool.submit(self._raise, part, manifest, blob)
        self.places.learn_part(part, "")

    def _raise(self, part: Part, manifest: bytes, blob: Path | None) -> Description:
        image = self.publisher.part(part, manifest, blob)
        if part.blob:
            # In this order: the lease on the file ends with the second.
            self.places.learn_part(part, image["id"])
            self.cache.keep(image["id"], part.blob)
        return image

    def arrived(self, part: Part) -> str:
        """Id of the image of a part, once that is complete."""
        future = self._rising.get(part.id)
        if future is not None:
            try:
                image = future.result()
            except Exception:
                del self._rising[part.id]
                self.places.forget_part(part)
                raise
            del self._rising[part.id]
            self._brought[image["id"]] = image
            self.places.learn_part(part, image["id"])
        place = self.places.part(part.id, part.owner)
        assert place is not None  # noqa: S101 (it was stored, or found)
        return place.image

    def settle(self, *images: str) -> None:
        """These do not go again with this session."""
        for image in images:
            self._brought.pop(image, None)

    def settle_links(self, links: Links) -> None:
        self.settle(*(link.image for link in (*links.parts.values(), links.restore)))

    def close(self) -> None:
        """Those whose composite did not come about go."""
        try:
            begun = [future for future in self._rising.values() if not future.cancel()]
            for future in begun:
                if future.exception() is None:
                    image = future.result()
                    self._brought[image["id"]] = image
            self._rising.clear()
            self.publisher.discard(*(name for image in self._brought.values()
                                     for name in (image["id"], properties.manifest(image))))
            self._brought.clear()
        finally:
            self._pool.shutdown(cancel_futures=True)
