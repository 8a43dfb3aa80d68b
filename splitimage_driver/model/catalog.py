"""Catalogues of images and lists of requests as plain data, for planning
without a store."""

from __future__ import annotations

from typing import Annotated

import msgspec

#: The largest size of one file: sums of millions still fit 63 bits, and each
#: is exact as a floating-point number.
MAX_SIZE = 1 << 50
#: Of ``inject_seconds``; about 30 years.
MAX_SECONDS = 1e9

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """:ivar size: bytes
    :ivar digest: of the content; two files are the same if path and digest are
    """

    path: _Name
    size: _Size
    digest: str


class FileSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part.

    :ivar inject_seconds: to inject the part, in place of the sum over its
        files
    """

    files: tuple[File, ...]
    inject_seconds: _Seconds | None = None


Parts = dict[_Name, tuple[File, ...] | FileSet]


class CatalogImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stored image: the files it has beyond its operating system, or the
    names of the parts that bring them.

    :ivar fetch_bytes: of its disk that are not on this host yet
    """

    id: _Name
    os: str
    files: tuple[File, ...] | msgspec.UnsetType = msgspec.UNSET
    parts: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    fetch_bytes: _Size = 0


class CatalogRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files wanted beyond an operating system, or names of parts."""

    id: _Name
    os: str
    files: tuple[File, ...] | msgspec.UnsetType = msgspec.UNSET
    parts: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Catalog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    images: tuple[CatalogImage, ...]
    parts: Parts = {}


class Requests(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requests: tuple[CatalogRequest, ...]
    parts: Parts = {}
