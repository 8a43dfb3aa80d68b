"""Archives made in memory, and entries that hypothesis draws."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from splitimage_driver.archive import acl
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.model.entry import FileEntry

ACL = acl.from_text("user::rw-,user:33:rw-,group::r--,mask::rw-,other::---")


def file(path: bytes, content: bytes = b"", mode: int = 0o644, **fields: Any) -> FileEntry:
    return FileEntry(path, "f", mode, size=len(content),
                     sha256=hashlib.sha256(content).digest(), **fields)


def packed(members: Iterable[tuple[FileEntry, bytes | None]]) -> bytes:
    """A tar by this project's writer."""
    out = io.BytesIO()
    writer = TarWriter(out)
    for entry, content in members:
        writer.add(entry, None if content is None else io.BytesIO(content))
    writer.close()
    assert writer.written == len(out.getvalue())
    return out.getvalue()


def foreign(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes],
            form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by the standard library, as others would write it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, None)
            info.size = len(content or b"")
            archive.addfile(info, None if content is None else io.BytesIO(content))
    return out.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def saved(directory: Path, data: bytes, name: str = "set.tar") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


names = (st.binary(min_size=1, max_size=255)
         .filter(lambda n: not set(n) & {0, 47} and n not in (b".", b"..")))
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
times = st.integers(-2**40, 2**63 - 1)
ids = st.integers(0, 2**32 - 2)
_attributes = st.dictionaries(
    st.binary(min_size=1, max_size=50).filter(lambda n: 0 not in n and 10 not in n)
    .map(lambda n: b"user." + n),
    st.binary(max_size=300), max_size=3)
_acls = st.sampled_from([{}, {acl.ACCESS: ACL}, {acl.DEFAULT: ACL}])
_labels = st.sampled_from([{}, {b"security.selinux": b"system_u:object_r:etc_t:s0\0"}])
xattrs = st.tuples(_attributes, _acls, _labels).map(
    lambda drawn: tuple(sorted((drawn[0] | drawn[1] | drawn[2]).items())))


@st.composite
def members(draw: st.DrawFn, at: st.SearchStrategy[bytes] = paths) -> tuple[FileEntry, bytes]:
    """An entry of any type with its content."""
    kind = draw(st.sampled_from("fffdlcbp"))
    common: dict[str, Any] = {"path": draw(at), "type": kind, "uid": draw(ids), "gid": draw(ids),
                              "xattrs": draw(xattrs)}
    common["mode"] = 0o777 if kind == "l" else draw(st.integers(0, 0o7777))
    listed = dict(common["xattrs"]).get(acl.ACCESS)
    if listed and kind != "l":  # as the kernel has it
        common["mode"] = acl.mode(listed, common["mode"])
    common["mtime"] = 0 if kind == "d" else draw(times)
    content = b""
    if kind == "f":
        content = draw(st.binary(max_size=2000))
        common |= {"size": len(content), "sha256": hashlib.sha256(content).digest()}
    elif kind == "l":
        common["target"] = draw(st.binary(min_size=1, max_size=300).filter(lambda t: 0 not in t))
    elif kind in "cb":
        common["device"] = (draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1)))
    return FileEntry(**common), content
