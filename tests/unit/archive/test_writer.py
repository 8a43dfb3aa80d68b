from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.model.entry import FileEntry

from .helpers import ACL, file, packed


def read(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8",
                      errors="surrogateescape") as archive:
        return archive.getmembers()


def test_plain_members_need_no_pax_header() -> None:
    data = packed([(file(b"etc/hostname", b"gold\n", mtime=10**9), b"gold\n")])
    assert data[156:157] == tarfile.REGTYPE
    assert len(data) == tarfile.RECORDSIZE
    [member] = read(data)
    assert (member.name, member.size, member.mtime, member.uname) == ("etc/hostname", 5, 1, "")


def test_the_root_is_dot_slash() -> None:
    assert packed([(FileEntry(b"", "d", 0o755), None)]).startswith(b"./\0")


def test_what_ustar_cannot_hold_goes_into_records() -> None:
    long = b"d" * 200 + b"/" + b"\xff\n" * 100
    entry = file(long, b"x", uid=4_000_000_000, gid=3_000_000, mtime=-1_500_000_000,
                 xattrs=((b"user.a=b%", b"\0\xff"), (b"system.posix_acl_access", ACL),
                         (b"security.selinux", b"label\0")))
    [member] = read(packed([(entry, b"x")]))
    assert member.name.encode("utf-8", "surrogateescape") == long
    headers = member.pax_headers
    assert headers["mtime"] == "-1.5"
    assert (headers["uid"], headers["gid"]) == ("4000000000", "3000000")
    assert headers["SCHILY.xattr.user.a%3Db%25"] == "\0\udcff"
    assert headers["SCHILY.acl.access"] == "user::rw-,user:33:rw-,group::r--,mask::rw-,other::---"
    assert headers["RHT.security.selinux"] == "label"
    assert "SCHILY.xattr.system.posix_acl_access" not in headers


@pytest.mark.parametrize("length", [95, 98, 99, 100, 101, 984, 985, 986, 9984])
def test_the_length_of_a_record_counts_its_own_digits(length: int) -> None:
    name = b"n" * length
    [member] = read(packed([(file(name), b"")]))
    assert member.name == name.decode()


def test_symbolic_link_targets_up_to_100_bytes_stay_in_the_header() -> None:
    target = b"/" + b"\xfe" * 99
    [member] = read(packed([(FileEntry(b"l", "l", 0o777, target=target), None)]))
    assert not member.pax_headers
    assert member.linkname.encode("utf-8", "surrogateescape") == target


def test_hard_links_bring_no_content() -> None:
    out = io.BytesIO()
    writer = TarWriter(out)
    entry = file(b"a", b"data", link=b"a", xattrs=((b"user.x", b"1"),))
    writer.add(entry, io.BytesIO(b"data"))
    writer.add(msgspec.structs.replace(entry, path=b"b"), hardlink_to=b"a")
    writer.close()
    first, second = read(out.getvalue())
    assert (second.type, second.linkname, second.size) == (tarfile.LNKTYPE, "a", 0)
    assert first.size == 4


def test_an_own_time_for_derived_ones() -> None:
    out = io.BytesIO()
    writer = TarWriter(out)
    writer.add(FileEntry(b"d", "d", 0o755), mtime=1_000_000_001)
    writer.close()
    [member] = read(out.getvalue())
    assert member.pax_headers["mtime"] == "1.000000001"


def test_sparse_files_bring_only_their_data() -> None:
    content = bytes(1 << 20) + b"data" + bytes((1 << 20) - 4)
    entry = file(b"disk", content, sparse=((1 << 20, 4),))
    data = packed([(entry, content)])
    assert len(data) == tarfile.RECORDSIZE
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        [member] = archive.getmembers()
        assert member.sparse == [(1 << 20, 4), (2 << 20, 0)]
        assert member.size == 2 << 20


def test_holes_can_be_written_as_zeros() -> None:
    content = bytes(5000) + b"data"
    out = io.BytesIO()
    writer = TarWriter(out, holes=False)
    writer.add(file(b"disk", content, sparse=((5000, 4),)), io.BytesIO(content))
    writer.close()
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        [member] = archive.getmembers()
        assert not member.issparse()
        assert archive.extractfile(member).read() == content  # type: ignore[union-attr]


def test_data_in_a_hole_is_noticed() -> None:
    with pytest.raises(exceptions.InvalidInput, match="hole"):
        packed([(file(b"f", b"abc", sparse=((1, 2),)), b"abc")])


@pytest.mark.parametrize(("content", "found"), [
    (b"dat", "fewer"), (b"data+", "more"), (b"DATA", hashlib.sha256(b"DATA").hexdigest())])
def test_content_that_is_not_the_entrys(content: bytes, found: str) -> None:
    with pytest.raises(exceptions.DigestMismatch, match=f"content of /f .*{found}"):
        packed([(file(b"f", b"data"), content)])


def test_content_is_needed_unless_empty() -> None:
    with pytest.raises(exceptions.DigestMismatch):
        packed([(file(b"f", b"data"), None)])
    assert read(packed([(file(b"f"), None)]))[0].size == 0


@pytest.mark.parametrize("fields", [
    {"sparse": ((0, 5), (3, 1))}, {"sparse": ((0, 99),)},
    {"xattrs": ((b"system.posix_acl_access", b"nonsense"),)}])
def test_entries_that_cannot_be_written(fields: dict[str, Any]) -> None:
    with pytest.raises(exceptions.InvalidInput, match="/f"):
        packed([(msgspec.structs.replace(file(b"f", b"0123456789"), **fields), b"0123456789")])


def test_a_size_over_8_gib_is_a_record() -> None:
    """The header only: the content is refused at once, as it is too short."""
    out = io.BytesIO()
    with pytest.raises(exceptions.DigestMismatch):
        TarWriter(out).add(FileEntry(b"huge", "f", 0o600, size=9 << 30), io.BytesIO())
    assert b" size=%d\n" % (9 << 30) in out.getvalue()
