from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from splitimage_driver import exceptions, process
from splitimage_driver.archive import acl, sparse
from splitimage_driver.archive.tar import BlobTree
from splitimage_driver.archive.tree import Limits, TarTree, open_tree
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.paths import Resolver

from . import helpers
from .helpers import ACL, file, foreign, info, packed, saved

_reuse = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@_reuse
@given(st.lists(helpers.members(), max_size=6, unique_by=lambda m: m[0].path))
def test_what_the_writer_writes_comes_back(tmp_path: Path,
                                           drawn: list[tuple[FileEntry, bytes]]) -> None:
    tree = TarTree(saved(tmp_path, packed(drawn)))
    assert tree.manifest() == Manifest(entry for entry, _ in drawn)
    contents = {entry.path: content for entry, content in drawn if entry.is_file}
    assert {path: stream.read() for path, stream in tree.contents(contents)} == contents
    assert tree.read(contents) == contents


@_reuse
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), max_size=5),
       st.integers(0, 3000))
def test_sparse_files_come_back(tmp_path: Path, gaps: list[tuple[int, int]], tail: int) -> None:
    content, segments = b"", []
    for gap, length in gaps:
        segments.append((len(content) + gap, length))
        content += bytes(gap) + b"d" * length
    content += bytes(tail)
    entry = file(b"s", content, sparse=sparse.normal(segments, len(content)))
    tree = TarTree(saved(tmp_path, packed([(entry, content), (file(b"t", b"after"), b"after")])))
    assert tree.manifest() == Manifest([entry, file(b"t", b"after")])
    assert tree.read([b"s"]) == {b"s": content}


# -- hard links, duplicates ---------------------------------------------------------

def linked() -> bytes:
    return foreign(info("./", tarfile.DIRTYPE, mode=0o755), (info("m", mode=0o640), b"data"),
                   info("z", tarfile.LNKTYPE, linkname="./m"),
                   info("a", tarfile.LNKTYPE, linkname="m"))


def test_a_hard_link_group_is_named_by_its_lowest_path(tmp_path: Path) -> None:
    tree = TarTree(saved(tmp_path, linked()))
    manifest = tree.manifest()
    group = [manifest.by_path[path] for path in (b"a", b"m", b"z")]
    assert {entry.link for entry in group} == {b"a"}
    assert len({msgspec.structs.replace(entry, path=b"") for entry in group}) == 1
    assert group[0].mode == 0o640
    assert manifest.content_bytes == 4


def test_contents_come_once_under_the_name_that_holds_them(tmp_path: Path) -> None:
    tree = TarTree(saved(tmp_path, linked()))
    for wanted in ({b"a"}, {b"m"}, {b"a", b"m", b"z"}):
        assert [(p, s.read()) for p, s in tree.contents(wanted)] == [(b"m", b"data")]
    assert tree.read([b"z", b"a", b"nothing", b""]) == {b"z": b"data", b"a": b"data"}


def test_the_last_of_several_members_counts(tmp_path: Path) -> None:
    tree = TarTree(saved(tmp_path, foreign(
        (info("f"), b"old"), info("kept", tarfile.LNKTYPE, linkname="f"),
        (info("f"), b"newer"), (info("g"), b"x"), info("g", tarfile.SYMTYPE, linkname="f"))))
    manifest = tree.manifest()
    assert manifest.by_path[b"f"].sha256 == hashlib.sha256(b"newer").digest()
    assert manifest.by_path[b"f"].link == b""
    assert manifest.by_path[b"kept"].size == 3
    assert manifest.by_path[b"g"].type == "l"
    assert [(p, s.read()) for p, s in tree.contents({b"f", b"g"})] == [(b"f", b"newer")]
    assert tree.read([b"kept", b"f"]) == {b"kept": b"old", b"f": b"newer"}


@pytest.mark.parametrize("target", ["elsewhere", "later", "d", "self"])
def test_hard_links_out_of_the_set_are_refused(tmp_path: Path, target: str) -> None:
    data = foreign(info("d", tarfile.DIRTYPE), info("self", tarfile.LNKTYPE, linkname=target),
                   (info("later"), b"x"))
    with pytest.raises(exceptions.UnsafePath, match="hard link to"):
        TarTree(saved(tmp_path, data)).manifest()


# -- names ------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../b", "..", "./../x"])
def test_names_out_of_the_tree_are_refused(tmp_path: Path, name: str) -> None:
    for data in (foreign((info(name), b"x")),
                 foreign((info("f"), b""), info("l", tarfile.LNKTYPE, linkname=name))):
        with pytest.raises(exceptions.UnsafePath):
            list(TarTree(saved(tmp_path, data)).members())


@pytest.mark.parametrize("member", [
    info("n" * 256), info("a/" + "n" * 256 + "/b"), info("d/" * 2100 + "f"),
    info("l", tarfile.SYMTYPE, linkname="t" * 4096)])
def test_names_longer_than_a_file_system_allows(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(exceptions.UnsafePath, match="longer"):
        TarTree(saved(tmp_path, foreign(member))).manifest()


def test_the_root_in_all_its_spellings(tmp_path: Path) -> None:
    for name in (".", "./", "././"):
        [member] = TarTree(saved(tmp_path, foreign(info(name, tarfile.DIRTYPE)))).members()
        assert member.entry.path == b""


def test_members_are_mapped_with_their_directories(tmp_path: Path) -> None:
    base = Manifest([FileEntry(b"bin", "l", 0o777, target=b"usr/bin"),
                     FileEntry(b"usr", "d", 0o755), FileEntry(b"usr/bin", "d", 0o755)])
    place = Resolver(base)
    tree = TarTree(saved(tmp_path, foreign(
        info("bin", tarfile.DIRTYPE, mode=0o755), (info("bin/tool"), b"x"),
        info("sbin-tool", tarfile.LNKTYPE, linkname="bin/tool"))))
    manifest = tree.manifest(place)
    assert [e.path for e in manifest] == [b"sbin-tool", b"usr/bin", b"usr/bin/tool"]
    assert manifest.by_path[b"usr/bin/tool"].link == b"sbin-tool"
    assert [p for p, _ in tree.contents({b"sbin-tool"}, place)] == [b"usr/bin/tool"]
    assert tree.read([b"usr/bin/tool"], place=place) == {b"usr/bin/tool": b"x"}
    assert tree.read([b"bin/tool"]) == {b"bin/tool": b"x"}


# -- attributes -------------------------------------------------------------------------

def attributes(tmp_path: Path, **headers: str) -> dict[bytes, bytes]:
    data = foreign((info("f", pax_headers={k.replace("__", "."): v for k, v in headers.items()}),
                    b""))
    [member] = TarTree(saved(tmp_path, data)).members()
    return dict(member.entry.xattrs)


TEXT = "user::rw-\nuser:33:rw-\ngroup::r--\nmask::rw-\nother::---\n"


def test_acls_as_text_become_the_kernels_form(tmp_path: Path) -> None:
    assert attributes(tmp_path, SCHILY__acl__access=TEXT, SCHILY__acl__default="") == {
        acl.ACCESS: ACL}
    assert attributes(tmp_path, SCHILY__acl__access="user::rw-,group::r--,other::r--") == {}


def test_the_binary_acl_wins_over_its_text(tmp_path: Path) -> None:
    binary = ACL.decode("utf-8", "surrogateescape")
    text = "user::rw-,user:www-data:rw-,group::r--,mask::rw-,other::---"
    data = packed([(file(b"f", xattrs=((acl.ACCESS, ACL),)), b"")])
    assert b"SCHILY.acl.access=user" in data
    data = foreign((info("f", pax_headers={
        "SCHILY.xattr.system.posix_acl_access": binary, "SCHILY.acl.access": text}), b""))
    [member] = TarTree(saved(tmp_path, data)).members()
    assert dict(member.entry.xattrs) == {acl.ACCESS: ACL}


def test_the_mode_follows_the_acl(tmp_path: Path) -> None:
    member = info("f", mode=0o4640, pax_headers={"SCHILY.acl.access": TEXT})
    [found] = TarTree(saved(tmp_path, foreign((member, b"")))).members()
    assert found.entry.mode == 0o4660


@pytest.mark.parametrize("headers", [
    {"SCHILY__acl__access": "user::rw-,user:www-data:rw-,group::r--,mask::rw-,other::r--"},
    {"SCHILY__xattr__system__posix_acl_access": "nonsense"}])
def test_acls_that_cannot_be_kept_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    with pytest.raises(exceptions.BadArchive, match=r"/f: .*ACL"):
        attributes(tmp_path, **headers)


def test_selinux_labels_end_as_the_kernel_has_them(tmp_path: Path) -> None:
    assert attributes(tmp_path, RHT__security__selinux="u:r:t:s0") == {
        b"security.selinux": b"u:r:t:s0\0"}


# -- form ---------------------------------------------------------------------------------

@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats(tmp_path: Path, form: int) -> None:
    name = "d" * 60 + "/" + "n" * 80
    tree = TarTree(saved(tmp_path, foreign((info(name, mtime=7), b"x"), form=form)))
    assert [(e.path.decode(), e.mtime) for e in tree.manifest()] == [(name, 7 * 10**9)]


@pytest.mark.parametrize("compress", [
    gzip.compress, lzma.compress, zstandard.compress,
    lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    lambda data: lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]),
    lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
], ids=["gzip", "xz", "zstd", "gzip twice", "xz twice", "zstd twice"])
def test_compression_is_found_by_looking(tmp_path: Path, compress: object) -> None:
    content = bytes(range(256)) * 4000
    data = packed([(file(b"f", content), content), (file(b"g", b"x"), b"x")])
    path = saved(tmp_path, compress(data), "misnamed.txt")  # type: ignore[operator]
    tree = open_tree(path)
    assert tree.manifest() == Manifest([file(b"f", content), file(b"g", b"x")])
    cut = path.read_bytes()
    path.write_bytes(cut[:len(cut) * 2 // 3])
    with pytest.raises(exceptions.BadArchive):
        tree.manifest()


def test_a_stream_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    data = packed([(file(b"f"), b"")])
    greedy = lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0,
                                           "dict_size": 1 << 30}])
    with pytest.raises(exceptions.BadArchive, match=r"[Mm]emory"):
        open_tree(saved(tmp_path, greedy)).manifest()


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "none of these"), (b"x" * 5000, "none of these"), (bz2.compress(b"x"), "none of these"),
    (b"\x1f\x8b", "truncated|ended"), (b"\xfd7zXZ\x00", "early")])
def test_what_is_no_archive(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(exceptions.BadArchive, match=reason):
        open_tree(saved(tmp_path, data))


def test_an_empty_archive_is_an_empty_tree(tmp_path: Path) -> None:
    assert len(open_tree(saved(tmp_path, packed([]))).manifest()) == 0


def test_a_truncated_archive_is_noticed_wherever_it_ends(tmp_path: Path) -> None:
    long = file(b"p" * 150, b"y" * 700)
    holey = file(b"s", bytes(4096) + b"x", sparse=((4096, 1),))
    data = packed([(long, b"y" * 700), (holey, bytes(4096) + b"x"), (file(b"z"), b"")])
    end = len(data.rstrip(b"\0"))
    end += -end % 512
    for length in [*range(1, end, 97), *range(512, end + 1, 512)]:
        with pytest.raises(exceptions.BadArchive):
            TarTree(saved(tmp_path, data[:length])).manifest()


@_reuse
@given(st.data())
@example(None).via("no change")
def test_damage_is_an_error_of_ours_or_a_tree(tmp_path: Path, data: object) -> None:
    """No traceback and no endless loop, whatever the bytes."""
    whole = bytearray(packed([
        (file(b"p" * 150, b"y" * 700, xattrs=((acl.ACCESS, ACL), (b"user.x", b"1"))), b"y" * 700),
        (file(b"s", bytes(4096) + b"x", sparse=((4096, 1),), mtime=5), bytes(4096) + b"x"),
        (FileEntry(b"l", "l", 0o777, target=b"t" * 120), None)]))
    if data is not None:
        for _ in range(data.draw(st.integers(1, 4))):  # type: ignore[attr-defined]
            place = data.draw(st.integers(0, 6000))  # type: ignore[attr-defined]
            piece = data.draw(st.binary(min_size=1, max_size=12)  # type: ignore[attr-defined]
                              | st.sampled_from([b"-1", b"99999999999", b"\0" * 12, b"\x80" * 12]))
            whole[place:place + len(piece)] = piece
            for start in range(0, len(whole), 512):  # let damaged headers through the checksum
                block = whole[start:start + 512]
                if block[257:262] == b"ustar":
                    total = sum(block[:148]) + 256 + sum(block[156:])
                    whole[start + 148:start + 156] = b"%06o\0 " % total
    tree = TarTree(saved(tmp_path, bytes(whole)))
    with contextlib.suppress(exceptions.SplitImageError):
        manifest = tree.manifest(limits=Limits(bytes=1 << 24))
        assert Manifest.decode(manifest.encode()) == manifest


@pytest.mark.parametrize("segments", ["5,10,0,3", "0,5,3,9", "-4,2", "0,9223372036854775807"])
def test_impossible_sparse_maps_end_in_an_error(tmp_path: Path, segments: str) -> None:
    member = info("s", pax_headers={"GNU.sparse.map": segments, "GNU.sparse.size": "12"})
    with pytest.raises(exceptions.BadArchive):
        TarTree(saved(tmp_path, foreign((member, b"0123456789ab")))).manifest()


def test_a_sparse_file_with_a_record_of_its_stored_size(tmp_path: Path) -> None:
    """As GNU tar writes it for more than 8 GiB of data."""
    content = bytes(8192) + b"data"
    data = bytearray(packed([(file(b"s", content, sparse=((8192, 4),)), content),
                             (file(b"t", b"next"), b"next")]))
    records = data[512:data.index(0, 512)]
    longer = bytes(records) + b"12 size=516\n"
    assert len(longer) < 512
    data[512:512 + len(longer)] = longer
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, len(longer)
    data[:512] = header.tobuf(tarfile.USTAR_FORMAT)
    tree = TarTree(saved(tmp_path, bytes(data)))
    assert tree.manifest() == Manifest([file(b"s", content, sparse=((8192, 4),)),
                                        file(b"t", b"next")])
    assert tree.read([b"s"]) == {b"s": content}


def test_the_name_of_a_sparse_file_wins_over_its_stand_in(tmp_path: Path) -> None:
    member = info("x", pax_headers={"GNU.sparse.map": "0,2", "GNU.sparse.size": "9",
                                    "GNU.sparse.name": "real", "path": "GNUSparseFile.7/real"})
    manifest = TarTree(saved(tmp_path, foreign((member, b"ab")))).manifest()
    assert [(e.path, e.size, e.sparse) for e in manifest] == [(b"real", 9, ((0, 2),))]


def test_headers_of_unlimited_size_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    data = header.tobuf(tarfile.USTAR_FORMAT) + bytes(4096)
    with pytest.raises(exceptions.BadArchive, match="headers are too large"):
        TarTree(saved(tmp_path, data)).manifest()


@pytest.mark.parametrize(("member", "reason"), [
    (info("v", b"V"), "unknown type"),
    (info("u", uid=2**32 - 1), "owner of /u"),
    (info("t", pax_headers={"mtime": "tomorrow"}), "number of seconds"),
    (info("t", pax_headers={"mtime": "9300000000"}), "out of range")])
def test_members_that_no_file_system_holds(tmp_path: Path, member: tarfile.TarInfo,
                                           reason: str) -> None:
    with pytest.raises(exceptions.BadArchive, match=reason):
        TarTree(saved(tmp_path, foreign(member))).manifest()


# -- use ----------------------------------------------------------------------------------

def test_limits_hold_before_content_is_read(tmp_path: Path) -> None:
    huge = info("s", pax_headers={"GNU.sparse.map": "0,2", "GNU.sparse.size": str(1 << 60)})
    tree = TarTree(saved(tmp_path, foreign((huge, b"ab"))))
    with pytest.raises(exceptions.TooLarge, match="1073741824 bytes"):
        tree.manifest(limits=Limits(bytes=1 << 30))
    many = TarTree(saved(tmp_path, foreign(*((info("same"), b"") for _ in range(20)))))
    with pytest.raises(exceptions.TooLarge, match="11 > 10 entries"):
        many.manifest(limits=Limits(entries=10))


def test_reading_as_a_whole_is_limited(tmp_path: Path) -> None:
    tree = TarTree(saved(tmp_path, foreign((info("f"), b"12345"))))
    assert tree.read([b"f"], limit=5) == {b"f": b"12345"}
    with pytest.raises(exceptions.TooLarge, match="/f in"):
        tree.read([b"f"], limit=4)


def test_a_stream_ends_with_its_member(tmp_path: Path) -> None:
    tree = TarTree(saved(tmp_path, foreign((info("a"), b"1"), (info("b"), b"2"))))
    streams = [stream for _, stream in tree.contents({b"a", b"b"})]
    with pytest.raises(ValueError, match="next member"):
        streams[0].read()


def test_partly_read_content_does_not_disturb_the_next(tmp_path: Path) -> None:
    data = gzip.compress(foreign((info("a"), b"1" * 100_000), (info("b"), b"2" * 10)))
    tree = TarTree(saved(tmp_path, data))
    assert [s.read(3) for _, s in tree.contents({b"a", b"b"})] == [b"111", b"222"]


def test_members_have_neither_digest_nor_group(tmp_path: Path) -> None:
    members = TarTree(saved(tmp_path, linked())).members()
    seen = [(m.entry.path, m.hardlink, m.content is not None, m.entry.sha256, m.entry.link)
            for m in members]
    assert seen == [(b"", None, False, b"", b""), (b"m", None, True, b"", b""),
                    (b"z", b"m", False, b"", b""), (b"a", b"m", False, b"", b"")]


# -- blobs --------------------------------------------------------------------------------

@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """sqfs2tar's part is played by an archive in memory."""
    script: dict[str, Any] = {"out": b"", "status": 0, "runs": 0}

    @contextlib.contextmanager
    def reading(argv: list[object]) -> Iterator[io.BytesIO]:
        assert argv[0] == "sqfs2tar"
        assert "--no-skip" in argv
        script["runs"] += 1
        stream = io.BytesIO(script["out"])
        yield stream
        if not stream.read(1) and script["status"]:
            raise exceptions.ToolFailed(tool="sqfs2tar", status="status 1", reason="bad block")

    monkeypatch.setattr(process, "reading", reading)
    return script


def test_a_blob_is_found_and_read_as_a_stream(tmp_path: Path, tool: dict[str, bytes]) -> None:
    tool["out"] = foreign((info("a"), b"1"), (info("b"), b"2"), (info("c"), b"3"))
    tree = open_tree(saved(tmp_path, b"hsqs" + bytes(92)))
    assert isinstance(tree, BlobTree)
    assert len(tree.manifest()) == 3
    assert [(p, s.read()) for p, s in tree.contents({b"b", b"a"})] == [(b"a", b"1"), (b"b", b"2")]
    assert tree.read([b"c", b"nothing"]) == {b"c": b"3"}
    assert tool["runs"] == 3
    assert list(tree.contents(set())) == []
    assert tool["runs"] == 3


def test_a_damaged_blob_is_a_bad_archive(tmp_path: Path, tool: dict[str, object]) -> None:
    tool["out"], tool["status"] = foreign((info("a"), b"1")), 1
    with pytest.raises(exceptions.BadArchive, match=r"squashfs: .*bad block"):
        BlobTree(tmp_path / "x").manifest()


def test_the_writer_appends_to_any_stream() -> None:
    out = io.BytesIO(b"before")
    out.seek(0, io.SEEK_END)
    writer = TarWriter(out)
    writer.add(FileEntry(b"d", "d", 0o755))
    assert writer.written == 512
