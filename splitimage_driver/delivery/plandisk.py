"""The disk that tells a guest what to do: a squashfs with the plan as text
and the contents that no part has.

The text is one line a thing, its fields separated by tabs; a field's bytes
that are no visible ASCII, and ``%``, are written as ``%XX``. What the fields
are is said by the functions below, each of which writes one kind of line;
``splitimage_driver/guest`` has the reader.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from splitimage_driver.archive import blob
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.model import layout
from splitimage_driver.model.delivery import (
    Chunk,
    DeliveryPlan,
    Gone,
    Name,
    Parts,
    Put,
    RowChange,
    SharedFile,
)
from splitimage_driver.model.entry import DIRECTORY, FILE, SYMLINK, FileEntry

VERSION = 1
PLAN, CONTENTS = b"plan", b"contents"
_HIDDEN = re.compile(rb"[^!-$&-~]")

Field = bytes | str | int


def write(destination: Path, layout_id: str, plan: DeliveryPlan,
          generated: Mapping[bytes, bytes]) -> None:
    """:param generated: contents of files that come out of no blob, by path
    :raises ToolMissing: :raises ToolFailed: see :func:`blob.build`
    """
    found = contents(plan, generated)
    data = text(layout_id, plan)
    members = {PLAN: data} | {CONTENTS + b"/" + digest.encode(): content
                              for digest, content in found.items()}

    def fill(archive: TarWriter) -> None:
        archive.add(FileEntry(CONTENTS, DIRECTORY, 0o755))
        for path in sorted(members):
            archive.add(FileEntry(path, FILE, 0o644, size=len(members[path])),
                        io.BytesIO(members[path]))

    blob.build(destination, fill, newest=0)


def contents(plan: DeliveryPlan, generated: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """sha256 to content of all that the plan writes and no blob has."""
    found = [shared.content for shared in plan.shared if shared.entry is not None]
    found += [generated[change.entry.path] for chunk in plan.chunks for change in chunk.changes
              if isinstance(change, Put) and _generated(chunk, change)]
    return {hashlib.sha256(content).hexdigest(): content for content in found}


def text(layout_id: str, plan: DeliveryPlan) -> bytes:
    """The plan as the guest reads it."""
    return b"".join(b"\t".join(map(field, line)) + b"\n" for line in _lines(layout_id, plan))


def field(value: Field) -> bytes:
    if isinstance(value, bytes):
        return _HIDDEN.sub(lambda match: b"%%%02X" % match[0][0], value)
    return field(value.encode()) if isinstance(value, str) else b"%d" % value


def _lines(layout_id: str, plan: DeliveryPlan) -> Iterator[tuple[Field, ...]]:
    yield "splitimage-plan", VERSION, layout_id, plan.mode, plan.policy, plan.size
    for number, disk in enumerate(plan.disks):
        yield "disk", number, layout.part_serial(disk.blob), disk.size, disk.blob, disk.name
    for number, name in enumerate(plan.parts):
        yield "part", number, name
    for number, group in enumerate(plan.groups):
        yield "group", number, _parts(group.parts), group.size, group.files
        for unit in group.units:
            yield "unit", number, unit.action, unit.name
        for path in group.tmpfiles:
            yield "tmpfiles", number, path
    for shared in plan.shared:
        yield _shared(shared)
        for row in shared.rows:
            yield _row(row)
    for put in plan.directories:
        e = put.entry
        yield ("dir", _parts(put.parts), e.path, _octal(e.mode), e.uid, e.gid, _xattrs(e),
               expected(put.before))
    for number, chunk in enumerate(plan.chunks):
        yield ("chunk", number, "" if chunk.disk is None else chunk.disk, _parts(chunk.parts),
               chunk.size)
        for change in chunk.changes:
            if isinstance(change, Put):
                yield _put(chunk, change)
            elif isinstance(change, Name):
                yield "name", change.path, expected(change.before)
            else:
                yield _gone(change)
    for times in plan.times:
        yield "time", times.path, times.mtime
    yield ("end",)


def _shared(shared: SharedFile) -> tuple[Field, ...]:
    e = shared.entry
    start: tuple[Field, ...] = ("rows", shared.phase, shared.path, shared.records, shared.key,
                                shared.old or "-")
    if e is None:
        return (*start, "-", "0", 0, 0, 0, "")
    return (*start, hashlib.sha256(shared.content).hexdigest(), _octal(e.mode), e.uid, e.gid,
            e.mtime, _xattrs(e))


def _row(row: RowChange) -> tuple[Field, ...]:
    return ("row", _parts(row.parts), row.key, int(row.old is not None), row.old or b"",
            int(row.new is not None), row.new or b"", _list(row.after))


def _put(chunk: Chunk, put: Put) -> tuple[Field, ...]:
    e, parts, before = put.entry, _parts(put.parts), expected(put.before)
    if put.onto:
        return "onto", parts, e.path, put.onto, before
    if e.type == FILE:
        member = put.member
        if _generated(chunk, put):
            member = CONTENTS + b"/" + e.sha256.hex().encode()
        sparse = ",".join(f"{offset}+{length}" for offset, length in e.sparse)
        return ("file", parts, e.path, _octal(e.mode), e.uid, e.gid, e.size, e.mtime,
                e.sha256.hex(), member, sparse, _xattrs(e), before)
    if e.type == SYMLINK:
        return ("link", parts, e.path, e.uid, e.gid, e.mtime, e.target, _xattrs(e), before)
    major, minor = e.device or (0, 0)
    return ("node", parts, e.path, e.type, _octal(e.mode), e.uid, e.gid, major, minor, e.mtime,
            _xattrs(e), before)


def _gone(gone: Gone) -> tuple[Field, ...]:
    return "gone", _parts(gone.parts), gone.before.path, expected(gone.before)


def _generated(chunk: Chunk, put: Put) -> bool:
    """Whether the content lies on the plan's own disk."""
    return put.entry.type == FILE and put.entry.size > 0 and chunk.disk is None and not put.onto


def expected(entry: FileEntry | None) -> bytes:
    """How a path is to be found; ``-``: not at all."""
    if entry is None:
        return b"-"
    owner = b"%o:%d:%d" % (entry.mode, entry.uid, entry.gid)
    if entry.type == FILE:
        return b"f:%s:%d:%d:%s" % (owner, entry.size, entry.mtime, entry.sha256.hex().encode())
    if entry.type == SYMLINK:
        return b"l:%d:%d:%s" % (entry.uid, entry.gid, field(entry.target))
    if entry.type == DIRECTORY:
        return b"d:" + owner
    return b"n:%s:%s:%d:%d" % (entry.type.encode(), owner, *(entry.device or (0, 0)))


def _parts(parts: Parts) -> str:
    return ",".join(map(str, parts))


def _octal(mode: int) -> str:
    return f"{mode:o}"


def _list(items: Iterable[bytes]) -> bytes:
    return b",".join(map(_item, items))


def _item(value: bytes) -> bytes:
    """Of a list, or a name in one."""
    return field(value).replace(b",", b"%2C").replace(b"=", b"%3D")


def _xattrs(entry: FileEntry) -> bytes:
    return b",".join(_item(name) + b"=" + value.hex().encode() for name, value in entry.xattrs)
