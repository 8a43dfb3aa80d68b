"""How much of what a server needs compute hosts hold: the weigher's arithmetic.

A completed image counts for its own project only, like everything else that is not
the composite's: where one tenant's servers go must not tell what another has. The
base and the parts count for whoever may launch the composite, which is who names it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.nova import holdings
from splitimage_driver.nova.holdings import EVERYBODY, HeldComposite, HeldImage, Holdings, mark
from splitimage_driver.nova.request import Wanted

LOG = logging.getLogger(__name__)
_NOTHING = Holdings()


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Of a server.

    :ivar image: id of the image that it was asked for with
    :ivar own: id of the image that it has already: it moves
    """

    image: str
    project: str
    wanted: Wanted = Wanted()
    own: str = ""


@functools.lru_cache(maxsize=4096)  # hosts; each tells the same for long
def read(text: str) -> Holdings:
    """What a host has told; nothing, if it cannot be read."""
    try:
        return holdings.unpack(text)
    except ValueError as error:
        LOG.warning("what a host tells of its images is left aside: %s", error)
        return _NOTHING


def concerns(image: str, hosts: Sequence[Holdings]) -> bool:
    """Whether any host knows the image."""
    wanted = mark(image)
    return any(wanted in {composite.mark for composite in host.composites}
               | {completed.mark for completed in host.images} for host in hosts)


def weigh(need: Need, hosts: Sequence[Holdings]) -> list[int]:
    """KiB that a host need not fetch."""
    return _Matching(need, hosts).weights()


class _Matching:
    def __init__(self, need: Need, hosts: Sequence[Holdings]) -> None:
        self.need, self.hosts = need, hosts
        self._image, self._project = mark(need.image), mark(need.project)
        # A file set may be named or given by its digest, and one host may know it.
        known = {name: found.mark for host in hosts for found in host.filesets
                 for name in (found.name, found.mark)}
        words = (mark(need.project, word) for word in need.wanted.filesets)
        self._filesets = frozenset(known.get(word, word) for word in words)

    def weights(self) -> list[int]:
        own = mark(self.need.own or self.need.image)
        as_it_is = [self._booting(host, lambda image: image.mark == own) for host in self.hosts]
        if self.need.own or any(as_it_is):
            return as_it_is
        complete = [self._complete(host) for host in self.hosts]
        if any(complete):
            # It is going to be that one, wherever: elsewhere all of it is fetched.
            return complete
        return [self._ingredients(host) for host in self.hosts]

    def _booting(self, host: Holdings, fits: Callable[[HeldImage], bool]) -> int:
        return max((image.size for image in self._usable(host) if image.boots and fits(image)),
                   default=0)

    def _usable(self, host: Holdings) -> list[HeldImage]:
        return [image for image in host.images if image.project in (self._project, EVERYBODY)]

    def _composite(self, host: Holdings) -> HeldComposite | None:
        return next((found for found in host.composites if found.mark == self._image), None)

    def _parts(self, composite: HeldComposite) -> frozenset[int] | None:
        """None: as far as the host knows it has no such parts."""
        if self.need.wanted.parts is None:
            names = [composite.parts[number].name for number in composite.defaults]
        else:
            names = list(self.need.wanted.parts)
        try:
            return composite.closure(names)
        except exceptions.SplitImageError:
            return None

    def _complete(self, host: Holdings) -> int:
        """What needs nothing but to be started."""
        composite = self._composite(host)
        parts = None if composite is None else self._parts(composite)
        if composite is None or parts is None:
            return 0
        if not parts and not self._filesets:
            return composite.size if composite.boots else 0
        return self._booting(host, lambda image: (
            image.composite == self._image and parts == frozenset(image.parts)
            and self._filesets == frozenset(image.filesets)))

    def _ingredients(self, host: Holdings) -> int:
        """What it can be put together from: the best of the images that it can be
        made from, and what is here of the rest."""
        composite = self._composite(host)
        parts = None if composite is None else self._parts(composite)
        if composite is None or parts is None or not (parts or self._filesets):
            return 0
        sizes = {number: composite.parts[number].size for number in parts}
        here = {number for number in parts if composite.parts[number].here}
        filesets = {found.mark: found.size for found in host.filesets
                    if found.mark in self._filesets}
        loose = sum(sizes[number] for number in here) + sum(filesets.values())
        best = loose + composite.size * composite.here
        for image in self._usable(host):
            if image.here and image.composite == self._image:
                best = max(best, loose + composite.size + sum(
                    sizes[number] for number in parts.intersection(image.parts) - here))
        return best
