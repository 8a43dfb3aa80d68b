"""What a server is to be made of: read from its metadata, or its flavor."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model import properties

PREFIX = "splitimage:"
#: Keys of a server's metadata and of a flavor's extra specs: lists of names,
#: separated by commas.
PARTS, FILESETS = PREFIX + "parts", PREFIX + "filesets"
_KEYS = (PARTS, FILESETS)


class Wanted(msgspec.Struct, frozen=True):
    """:ivar parts: None: nobody says; the image may
    :ivar filesets: names or ids of the project's own file sets
    """

    parts: tuple[str, ...] | None = None
    filesets: tuple[str, ...] = ()

    @property
    def says_nothing(self) -> bool:
        return self.parts is None and not self.filesets


def wanted(metadata: Mapping[str, str], extra_specs: Mapping[str, str]) -> Wanted:
    """Of a server. What its metadata say goes before what its flavor says, key
    by key; an empty list is a list.

    :raises InvalidInput: it has keys of ours that there are not
    """
    for key in sorted(metadata):
        if key.startswith(PREFIX) and key not in _KEYS:
            raise exceptions.InvalidInput(what=f"metadata {key}",
                                          reason=f"there is no such key: {' and '.join(_KEYS)} are")
    parts, filesets = (properties.names(found) if (found := metadata.get(key, extra_specs.get(key)))
                       is not None else None for key in _KEYS)
    return Wanted(parts, filesets or ())
