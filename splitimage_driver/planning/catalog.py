"""Catalogues and requests read from JSON, checked, and resolved to files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model.catalog import (
    MAX_SIZE,
    Catalog,
    CatalogImage,
    CatalogRequest,
    File,
    FileSet,
    Parts,
    Requests,
)
from splitimage_driver.planning.difference import Charge, Stored, Wanted

_T = TypeVar("_T")
_BYTE = re.compile(r"\(byte (\d+)\)")
#: The sum of all sizes in one image: twice that is still far from 63 bits.
_MAX_TREE = MAX_SIZE * 1024


class _PartsOnly(msgspec.Struct):
    parts: msgspec.Raw = msgspec.Raw()


def read_catalog(data: bytes, what: str) -> Catalog:
    """:param what: is read, for errors
    :raises InvalidInput: names the place: ``$.images[3].files[2].size``
    """
    return _decode(data, Catalog, what)


def read_requests(data: bytes, what: str) -> Requests:
    """As :func:`read_catalog`."""
    return _decode(data, Requests, what)


def _decode(data: bytes, kind: type[_T], what: str) -> _T:
    try:
        found = msgspec.json.decode(data, type=kind)
        raw = msgspec.json.decode(data, type=_PartsOnly).parts
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(what, _located(str(error), data)) from error
    if bytes(raw):
        # The decoder keeps the last of several equal names.
        json.loads(bytes(raw), object_pairs_hook=lambda pairs: _unique_names(pairs, what))
    return found


def _located(message: str, data: bytes) -> str:
    """The decoder counts bytes; editors count lines."""
    found = _BYTE.search(message)
    if found is None:
        return message if "`$" in message else f"{message} - at `$`"
    before = data[:int(found[1])]
    line = before.count(b"\n") + 1
    column = len(before) - before.rfind(b"\n")
    return f"{message} - at line {line}, column {column}"


def _unique_names(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _invalid(what, f"{twice} is there twice - at `$.parts`")
    return found


class Library:
    """The parts that images and requests are named by.

    :raises InvalidInput: a part has a path twice
    """

    def __init__(self, parts: Parts, what: str, *, known: Library | None = None) -> None:
        self.what = what
        self.parts: dict[str, FileSet] = dict(known.parts) if known else {}
        for name, given in parts.items():
            part = given if isinstance(given, FileSet) else FileSet(given)
            place = f"$.parts[{json.dumps(name)}]"
            _check_files(part.files, what,
                         place + ("" if given is not part else ".files"))
            self.parts[name] = self._joined(name, part, place)

    def _joined(self, name: str, part: FileSet, place: str) -> FileSet:
        """A part that the catalogue has too must be the same."""
        before = self.parts.get(name)
        if before is None:
            return part
        if set(before.files) != set(part.files):
            raise _invalid(self.what,
                           f"part {name} has other files in the catalogue - at `{place}`")
        if part.inject_seconds is None:
            return before
        if before.inject_seconds not in (None, part.inject_seconds):
            raise _invalid(self.what, "another value than in the catalogue - at "
                                      f"`{place}.inject_seconds`")
        return part

    def images(self, images: Sequence[CatalogImage]) -> list[Stored]:
        """:raises InvalidInput: an id or a path twice, an unknown part"""
        _check_ids((image.id for image in images), self.what, "images")
        return [Stored(id=image.id, os=image.os, fetch_bytes=image.fetch_bytes,
                       parts=image.parts or (),
                       files=self._files(image, f"$.images[{number}]"))
                for number, image in enumerate(images)]

    def requests(self, requests: Sequence[CatalogRequest]) -> list[Wanted]:
        """:raises InvalidInput: an id or a path twice, an unknown part"""
        _check_ids((request.id for request in requests), self.what, "requests")
        return [Wanted(id=request.id, os=request.os, parts=request.parts or (),
                       files=self._files(request, f"$.requests[{number}]"),
                       charges=self._charges(request.parts or ()))
                for number, request in enumerate(requests)]

    def _charges(self, names: Iterable[str]) -> tuple[Charge, ...]:
        return tuple(Charge(part.inject_seconds, frozenset(f.path for f in part.files))
                     for part in map(self.parts.__getitem__, names)
                     if part.inject_seconds is not None and part.files)

    def _files(self, tree: CatalogImage | CatalogRequest, place: str) -> dict[str, File]:
        if tree.files is not msgspec.UNSET:
            if tree.parts is not msgspec.UNSET:
                raise _invalid(self.what, f"either files or parts, not both - at `{place}`")
            found = _check_files(tree.files, self.what, f"{place}.files")
        elif tree.parts is not msgspec.UNSET:
            found = self._united(tree.parts, f"{place}.parts")
        else:
            raise _invalid(self.what, f"neither files nor parts - at `{place}`")
        if sum(f.size for f in found.values()) > _MAX_TREE:
            raise _invalid(self.what, f"more than {_MAX_TREE} bytes in all - at `{place}`")
        return found

    def _united(self, names: tuple[str, ...], place: str) -> dict[str, File]:
        found: dict[str, File] = {}
        seen = set()
        for number, name in enumerate(names):
            part = self.parts.get(name)
            if part is None:
                raise _invalid(self.what, f"there is no part {name} - at `{place}[{number}]`")
            if name in seen:
                raise _invalid(self.what, f"{name} is there twice - at `{place}[{number}]`")
            seen.add(name)
            for file in part.files:
                # Parts may share files, as long as they are the same.
                if found.setdefault(file.path, file) != file:
                    raise _invalid(self.what, f"path {file.path} is there twice, of part {name} "
                                              f"and of another - at `{place}[{number}]`")
        return found


def _check_files(files: Iterable[File], what: str, place: str) -> dict[str, File]:
    found: dict[str, File] = {}
    for number, file in enumerate(files):
        if found.setdefault(file.path, file) is not file:
            raise _invalid(what, f"path {file.path} is there twice - at `{place}[{number}].path`")
    return found


def _check_ids(ids: Iterable[str], what: str, place: str) -> None:
    seen: set[str] = set()
    for number, name in enumerate(ids):
        if name in seen:
            raise _invalid(what, f"{name} is there twice - at `$.{place}[{number}].id`")
        seen.add(name)


def _invalid(what: str, reason: str) -> exceptions.InvalidInput:
    return exceptions.InvalidInput(what=what, reason=reason)
