"""What a compute host holds, as it tells the scheduler.

A host's statistics are one text of at most 64 KiB that the scheduler loads for
every host at every request. So this is short and of bounded size: of the composites
that were used last how large their base and parts are and which of them are here,
and which completed images servers can start from at once. Ids are shortened, and
those of a project are mixed with its own, so that a description says little to
whoever reads it; administrators alone can.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import composite as composites
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import PartRef
from splitimage_driver.model.entry import UNDECODABLE
from splitimage_driver.store.glance.used import Kept, UsedComposite, UsedFileset

LOG = logging.getLogger(__name__)
#: Among the statistics of a host.
KEY = "splitimage"
#: What a description begins with: the version of the format.
_FORMAT = "1:"
#: Composites, completed images, file sets that are told, the last used.
_MOST = (32, 96, 64)
#: Letters of a description; what does not fit is left out, the longest unused first.
LIMIT = 8192
#: Bytes that a description may have unpacked.
_UNPACKED = 2**20
#: Sizes are in this many bytes.
UNIT = 1024
#: A public image is everybody's.
EVERYBODY = ""


class HeldPart(msgspec.Struct, frozen=True, array_like=True):
    """Of a composite.

    :ivar here: whether its contents are on the host
    :ivar requires: numbers of parts of the same composite
    :ivar completes: likewise
    """

    name: str
    size: int
    here: bool
    requires: tuple[int, ...] = ()
    completes: tuple[int, ...] = ()


class HeldComposite(msgspec.Struct, frozen=True, array_like=True):
    """:ivar mark: of its id
    :ivar size: of the base
    :ivar here: whether the base is where parts are laid over it
    :ivar boots: whether servers without parts start from it at once
    :ivar parts: all of them, in order
    :ivar defaults: numbers of those that a server gets that names none
    """

    mark: str
    size: int
    here: bool
    boots: bool
    parts: tuple[HeldPart, ...]
    defaults: tuple[int, ...] = ()

    def closure(self, names: Sequence[str]) -> frozenset[int]:
        """Numbers of the parts that a request means.

        :raises SplitImageError: it names one that is not there
        """
        refs = {part.name: PartRef(id="", kind="", requires=self._names(part.requires),
                                   completes=self._names(part.completes))
                for part in self.parts}
        wanted = set(composites.closure(self.mark, refs, names))
        return frozenset(number for number, part in enumerate(self.parts)
                         if part.name in wanted)

    def _names(self, numbers: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.parts[number].name for number in numbers)


class HeldImage(msgspec.Struct, frozen=True, array_like=True):
    """A completed image.

    :ivar mark: of its id
    :ivar project: mark of whose it is
    :ivar composite: mark
    :ivar parts: numbers of those in it
    :ivar filesets: marks of those in it
    :ivar here: whether its disk is where others can be made from it
    :ivar boots: whether servers start from it at once
    """

    mark: str
    project: str
    composite: str
    parts: tuple[int, ...]
    filesets: tuple[str, ...]
    size: int
    here: bool
    boots: bool


class HeldFileset(msgspec.Struct, frozen=True, array_like=True):
    """:ivar mark: of its digest, and the project
    :ivar name: mark of its name, and the project
    """

    mark: str
    name: str
    size: int


class Holdings(msgspec.Struct, frozen=True, array_like=True):
    composites: tuple[HeldComposite, ...] = ()
    images: tuple[HeldImage, ...] = ()
    filesets: tuple[HeldFileset, ...] = ()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Holdings).decode


def mark(*words: str) -> str:
    """Stands for an id; or for a word of a project's, which is to say nothing to
    others: ``mark(project, word)``."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


# -- as text -------------------------------------------------------------------------


def pack(found: Holdings) -> str:
    return _FORMAT + base64.b64encode(zlib.compress(_encode(found), 9)).decode()


def unpack(text: str) -> Holdings:
    """:raises ValueError: it is no text of :func:`pack`, or of another release"""
    if not text.startswith(_FORMAT) or len(text) > LIMIT:
        raise ValueError("it is not as this release tells what a host holds")
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(base64.b64decode(text[len(_FORMAT):], validate=True),
                                    _UNPACKED)
        if not unpacker.eof:
            raise ValueError("it is cut, or too long")
        found = _decode(plain)
    except (zlib.error, *UNDECODABLE) as error:
        raise ValueError(str(error)) from error
    for composite in found.composites:
        for numbers in (composite.defaults, *(part.requires + part.completes
                                              for part in composite.parts)):
            if any(not 0 <= number < len(composite.parts) for number in numbers):
                raise ValueError("it speaks of a part that there is not")
    return found


# -- of this host --------------------------------------------------------------------


def stats(store: Path, cache: Path | None = None) -> dict[str, str]:
    """What to add to the statistics of this host; nothing, whatever is wrong.

    :param store: the directory of this host's store
    :param cache: Nova's directory of images that servers start from; None: it has
        none
    """
    if not (store / "splitimage.db").exists():
        return {}
    try:
        with Kept(store) as kept:
            found = told(kept, cache)
    except (exceptions.SplitImageError, OSError) as error:
        LOG.warning("cannot tell the scheduler what this host holds: %s", error)
        return {}
    return {KEY: found} if found else {}


def told(kept: Kept, cache: Path | None) -> str:
    """As long as it may be; "": nothing is here."""
    one = _Host(kept, cache)
    most = list(_MOST)
    while any(most):
        found = one.holdings(*most)
        if not found.composites and not found.images:
            return ""
        text = pack(found)
        if len(text) <= LIMIT:
            return text
        most = [number * 3 // 4 for number in most]
    return ""


class _Host:
    """What is here, the last used first. What is told is in another order, so that
    it only changes with what is here."""

    def __init__(self, kept: Kept, cache: Path | None) -> None:
        self._here, self._cache = kept.images(), cache
        self._composites = {found.id: found for found in kept.used(UsedComposite)}
        self._numbers = {name: {part: number for number, part in enumerate(sorted(found.parts))}
                         for name, found in self._composites.items()}
        self._images, self._filesets = kept.used(Image), kept.used(UsedFileset)

    def holdings(self, composites: int, images: int, filesets: int) -> Holdings:
        return Holdings(
            tuple(sorted((found for found, _ in zip(self._told_composites(), range(composites),
                                                    strict=False)), key=_mark)),
            tuple(sorted((found for found, _ in zip(self._told_images(), range(images),
                                                    strict=False)), key=_mark)),
            tuple(sorted((found for found, _ in zip(self._told_filesets(), range(filesets),
                                                    strict=False)), key=_mark)))

    def _boots(self, image: str) -> bool:
        """Whether Nova has it under the name that it gives to images."""
        name = hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()
        return self._cache is not None and (self._cache / name).is_file()

    def _told_composites(self) -> Iterator[HeldComposite]:
        needed = {image.composite for image in self._images if self._is_here(image)}
        for found in self._composites.values():
            parts = tuple(self._part(found, name) for name in sorted(found.parts))
            here, boots = found.id in self._here, self._boots(found.id)
            if here or boots or any(part.here for part in parts) or found.id in needed:
                yield HeldComposite(mark(found.id), _size(found.base), here, boots, parts,
                                    self._of(found.id, found.defaults))

    def _part(self, composite: UsedComposite, name: str) -> HeldPart:
        part = composite.parts[name]
        return HeldPart(name, _size(part.size), not part.image or part.image in self._here,
                        self._of(composite.id, part.ref.requires),
                        self._of(composite.id, part.ref.completes))

    def _of(self, composite: str, names: Sequence[str]) -> tuple[int, ...]:
        numbers: Mapping[str, int] = self._numbers[composite]
        return tuple(sorted(numbers[name] for name in names if name in numbers))

    def _is_here(self, image: Image) -> bool:
        return image.id in self._here or self._boots(image.id)

    def _told_images(self) -> Iterator[HeldImage]:
        for image in self._images:
            composite = self._composites.get(image.composite)
            numbers = self._numbers.get(image.composite, {})
            if (composite is None or not self._is_here(image)
                    or not numbers.keys() >= set(image.parts)):
                continue
            # One that others may build on is a public one of the composite's owner.
            everybodys = image.public and image.owner == composite.owner
            yield HeldImage(
                mark(image.id), EVERYBODY if everybodys else mark(image.owner),
                mark(image.composite), self._of(image.composite, image.parts),
                tuple(sorted(mark(image.owner, fileset) for fileset in image.filesets)),
                _size(image.disk_size), image.id in self._here, self._boots(image.id))

    def _told_filesets(self) -> Iterator[HeldFileset]:
        for found in self._filesets:
            if not found.image or found.image in self._here:
                yield HeldFileset(mark(found.owner, found.id), mark(found.owner, found.name),
                                  _size(found.size))


def _mark(found: HeldComposite | HeldImage | HeldFileset) -> str:
    return found.mark


def _size(size: int) -> int:
    return -(-size // UNIT)
