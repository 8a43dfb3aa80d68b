"""Records of composites and file sets, kept from one request to the next.

They are read with the rights of whoever asks first, and are kept by the id of
the manifest image that holds them: Glance never changes an image's data. Who
asks later has been shown the image that names the manifest, which must have the
same owner.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.glance.ranking import Weight
from splitimage_driver.model import properties
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import Part
from splitimage_driver.store.glance import records, transfer
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.records import Bundle

#: Bytes of a manifest as it is stored, and unpacked: many times what a system
#: of a million files has, and no danger to the process.
_PACKED, _UNPACKED = 64 << 20, 256 << 20


class Sheet(NamedTuple):
    """What a plan needs of a composite.

    :ivar record: without its contents
    :ivar weights: by name of a part
    """

    record: Composite
    weights: Mapping[str, Weight]


class _Kept(NamedTuple):
    owner: str
    found: Any


class Catalogue:
    """:param limit: how many records are kept"""

    def __init__(self, limit: int = 2000) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        # One at a time: however large they are made, they share the memory.
        self._reading = threading.Lock()

    def composite(self, images: Images, image: Description) -> Sheet:
        """:param image: as Glance has just shown it to the caller
        :raises BadImage: it does not fit its manifest, or that is not there for
            the caller, or is another owner's
        """
        links = properties.links(image)
        found: Sheet = self._found(images, image, _sheet)
        record = found.record
        if ({name: ref.id for name, ref in record.parts.items()}
                != {name: link.digest for name, link in links.parts.items()}
                or record.restore != links.restore.digest
                or image.get("splitimage_os") != record.base.manifest):
            raise _differs(image)
        return found._replace(record=msgspec.structs.replace(
            record, id=image["id"], name=str(image.get("name") or ""), owner=image["owner"]))

    def fileset(self, images: Images, image: Description) -> Weight:
        """:param image: of a part, likewise"""
        digest = properties.digest(image)
        part: Part = self._found(images, image, _part)
        if part.id != digest:
            raise _differs(image)
        return Weight(part.files, part.size)

    def _found(self, images: Images, image: Description,
               read: Callable[[Bundle, str], Any]) -> Any:
        name, owner = properties.manifest(image), str(image["owner"])
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None:
                self._kept.move_to_end(name)
        if kept is None:
            with self._reading:
                kept = _Kept(owner, read(_bundle(images, name, owner), name))
            with self._lock:
                self._kept[name] = kept
                while len(self._kept) > self._limit:
                    self._kept.popitem(last=False)
        if kept.owner != owner or not isinstance(kept.found, _KINDS[read]):
            raise _absent(name)
        return kept.found


def _bundle(images: Images, name: str, owner: str) -> Bundle:
    try:
        shown = images.get(name)
        if shown.get("owner") != owner or properties.role(shown) != properties.MANIFEST:
            raise _absent(name)
        with tempfile.TemporaryDirectory(prefix="splitimage-") as scratch:
            data = transfer.read(images, shown, Path(scratch), limit=_PACKED)
    except (exceptions.NotFound, exceptions.NotPermitted) as error:
        raise _absent(name) from error
    return records.unpack(data, name, _UNPACKED)


def _sheet(bundle: Bundle, name: str) -> Sheet:
    record = bundle.of(Composite, name)
    weights = {part.id: Weight(part.files, part.size) for part in bundle.parts}
    if hashlib.sha256(bundle.manifest).hexdigest() != record.base.manifest:
        raise exceptions.BadImage(image=name, reason="it holds another manifest than it says")
    if missing := {ref.id for ref in record.parts.values()} - weights.keys():
        raise exceptions.BadImage(image=name,
                                  reason=f"it does not describe part {min(missing)}")
    return Sheet(msgspec.structs.replace(record, shared={}, hardware={}, conflicts=(), notes=()),
                 {part: weights[ref.id] for part, ref in record.parts.items()})


def _part(bundle: Bundle, name: str) -> Part:
    return msgspec.structs.replace(bundle.of(Part, name), packages=())


_KINDS: Mapping[Callable[[Bundle, str], Any], type] = {_sheet: Sheet, _part: Part}


def _absent(name: str) -> exceptions.BadImage:
    """The same words for what is not there and for what is another's."""
    return exceptions.BadImage(
        image=name, reason="there is no such manifest of the owner of what names it")


def _differs(image: Description) -> exceptions.BadImage:
    return properties.bad(image, "its properties and its manifest do not agree")
