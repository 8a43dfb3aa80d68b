"""Real trees through real tools. Needs root, for device nodes and owners."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.archive import acl, blob
from splitimage_driver.archive.tree import BlobTree, DirTree, TarTree, Tree, open_tree
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.model.entry import FILE, FileEntry
from splitimage_driver.model.manifest import Manifest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")

ACCESS = acl.from_text("user::rw-,user:33:rw-,group::r--,group:44:r-x,mask::rwx,other::r--")
DEFAULT = acl.from_text("user::rwx,group::r-x,group:44:r-x,mask::r-x,other::---")
LONG = b"x" * 200 + b"/" + b"y" * 250


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything that a Linux file system holds."""
    root = tmp_path_factory.mktemp("source")
    raw = os.fsencode(root)

    def put(name: bytes, content: bytes = b"x", mode: int = 0o644,
            owner: tuple[int, int] = (0, 0), mtime: int = 1577836800_123456789) -> bytes:
        path = raw + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(content)
        os.chown(path, *owner)
        os.chmod(path, mode)
        os.utime(path, ns=(0, mtime))
        return path

    first = put(b"m/one", b"one" * 100_000)
    os.link(first, raw + b"/m/two")
    os.link(first, raw + b"/0first")
    os.link(put(LONG, b"long"), raw + b"/z-long")
    put(b"empty", b"")
    os.link(put(b"empty2", b""), raw + b"/empty3")
    for name in (b"new\nline", b"bad\xff\xfe", "größe/ü".encode(), b'back\\slash "q"\x01',
                 b" space ", b"-dash"):
        put(name, name)
    put(b"suid", mode=0o4755)
    put(b"sgid", mode=0o2755)
    put(b"none", mode=0)
    put(b"owned", owner=(4_000_000_000, 3_000_000))
    put(b"before 1970", mtime=-1_500_000_000)
    put(b"after 2242", mtime=2**33 * 10**9 + 500)
    for plain, mode in (("sticky", 0o1777), ("setgid", 0o2775), ("closed", 0o700)):
        (root / plain).mkdir()
        (root / plain).chmod(mode)
    os.mknod(root / "null", 0o666 | 0o020000, os.makedev(1, 3))
    os.mknod(root / "disk", 0o660 | 0o060000, os.makedev(259, 70_000))
    os.mkfifo(root / "fifo", 0o640)
    os.symlink(b"/etc/x\xff\n", raw + b"/link")
    os.symlink(b"/" + b"b" * 99, raw + b"/link100")
    os.symlink(b"c/" * 150, raw + b"/long link")
    os.link(root / "link", root / "link2", follow_symlinks=False)
    for name in (b"sparse", b"sparse\xff" + b"n" * 120):
        with open(raw + b"/" + name, "wb") as out:
            out.truncate(10 << 20)
            out.seek(1 << 20)
            out.write(b"d" * 5000)
            out.seek(5 << 20)
            out.write(b"e")
    with open(root / "sparse at the start", "wb") as out:
        out.seek(3 << 20)
        out.write(b"end")
    with open(root / "hole", "wb") as out:
        out.truncate(3 << 20)
    path = put(b"attributes")
    os.setxattr(path, "security.capability",
                bytes.fromhex("0100000200200000000000000000000000000000"))
    for key, value in ((b"user.bin", bytes(range(256))), (b"trusted.x", b"1"),
                       (b"user.a=b%c", b"odd"), (b"user.empty", b"")):
        os.setxattr(path, key, value)
    path = put(b"acl", mode=0o664)
    os.setxattr(path, acl.ACCESS, ACCESS)
    os.setxattr(path, "security.selinux", b"system_u:object_r:etc_t:s0\0")
    os.setxattr(root / "setgid", acl.DEFAULT, DEFAULT)
    os.setxattr(root / "sticky", "user.d", b"dir")
    os.setxattr(root, "user.root", b"r")
    root.chmod(0o711)
    here = Path.cwd()
    os.chdir(root)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket")
    finally:
        os.chdir(here)
    return root


def filler(tree: Tree, manifest: Manifest) -> Callable[[TarWriter], None]:
    """Writes a whole tree: links after what they point to."""
    def fill(writer: TarWriter) -> None:
        written: dict[bytes, bytes] = {}
        for entry in manifest:
            if not entry.is_file and entry.link not in written:
                writer.add(entry)
                if entry.link:
                    written[entry.link] = entry.path
        for path, content in tree.contents(manifest.by_path):
            entry = manifest.by_path[path]
            writer.add(entry, content)
            if entry.link:
                written[entry.link] = path
        for entry in manifest:
            if entry.link and written[entry.link] != entry.path:
                writer.add(entry, hardlink_to=written[entry.link])
    return fill


def differences(one: Manifest, two: Manifest, *ignored: str) -> list[str]:
    found = []
    for path in sorted({*one.by_path, *two.by_path}):
        left, right = one.get(path), two.get(path)
        if left is None or right is None:
            found.append(f"{path!r}: {'missing' if right is None else 'in excess'}")
            continue
        found += [f"{path!r}: {field} {getattr(left, field)!r:.200} {getattr(right, field)!r:.200}"
                  for field in FileEntry.__struct_fields__
                  if field not in ignored and getattr(left, field) != getattr(right, field)]
    return found


@pytest.fixture(scope="module")
def manifest(source: Path) -> Manifest:
    return DirTree(source).manifest()


@pytest.fixture(scope="module")
def archive(source: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "all.tar"
    with path.open("wb") as out:
        writer = TarWriter(out)
        filler(DirTree(source), manifest)(writer)
        writer.close()
        assert out.tell() == writer.written
    return path


def test_the_directory_is_seen_whole(manifest: Manifest) -> None:
    found = manifest.by_path
    assert b"socket" not in found
    assert found[b"m/one"].link == found[b"m/two"].link == b"0first"
    assert found[b"sparse"].sparse[0][0] <= 1 << 20
    assert found[b"hole"].sparse == ((3 << 20, 0),)
    assert found[b"disk"].device == (259, 70_000)
    assert dict(found[b"acl"].xattrs)[acl.ACCESS] == ACCESS
    assert {e.type for e in manifest} == set("fdlcbp")


def test_the_archive_reads_back_equal(archive: Path, manifest: Manifest) -> None:
    assert archive.stat().st_size < 2 << 20  # holes take no room
    assert differences(manifest, open_tree(archive).manifest()) == []


def test_real_tar_restores_everything(archive: Path, manifest: Manifest, tmp_path: Path) -> None:
    subprocess.run(["tar", "-C", tmp_path, "-xpf", archive, "--numeric-owner", "--xattrs",
                    "--xattrs-include=*", "--acls", "--selinux"], check=True)
    assert differences(manifest, DirTree(tmp_path).manifest()) == []
    subprocess.run(["tar", "-df", archive, "-C", tmp_path], check=True)


@pytest.mark.parametrize(("options", "lost"), [
    ("--format=gnu", {"mtime", "xattrs", "sparse"}),
    ("--format=gnu -S", {"mtime", "xattrs"}),
    ("--format=pax --xattrs --xattrs-include=* --acls --selinux", {"sparse"}),
    ("--format=pax -S --sparse-version=0.0", {"xattrs"}),
    ("--format=pax -S --sparse-version=0.1", {"xattrs"}),
    ("--format=pax -S --xattrs --xattrs-include=* --acls --selinux", set()),
    ("--format=pax -S --xattrs --xattrs-include=* --acls -z", set()),
    ("--format=pax -S --xattrs --xattrs-include=* --acls -J", set()),
    ("--format=pax -S --xattrs --xattrs-include=* --acls --zstd", set())])
def test_archives_of_real_tar(source: Path, manifest: Manifest, tmp_path: Path, options: str,
                              lost: set[str]) -> None:
    subprocess.run(["tar", "-C", source, *options.split(), "--numeric-owner",
                    "-cf", tmp_path / "x", "."], check=True)
    assert differences(manifest, open_tree(tmp_path / "x").manifest(), *lost) == []


def test_the_same_members_give_the_same_blob(source: Path, manifest: Manifest,
                                             tmp_path: Path) -> None:
    """Nothing is dated by the clock, as long as no member is of the future."""
    past = Manifest([e for e in manifest if e.mtime < time.time_ns()])
    fill, newest = filler(DirTree(source), past), max(e.mtime for e in past)
    blob.build(tmp_path / "one", fill, newest=newest)
    time.sleep(1.1)
    blob.build(tmp_path / "two", fill, newest=newest)
    assert blob.digest(tmp_path / "one") == blob.digest(tmp_path / "two")


def test_a_blob_holds_what_squashfs_can(source: Path, manifest: Manifest, tmp_path: Path) -> None:
    fill, newest = filler(DirTree(source), manifest), max(e.mtime for e in manifest)
    blob.build(tmp_path / "one", fill, newest=newest)
    tree = open_tree(tmp_path / "one")
    assert isinstance(tree, BlobTree)
    found = tree.manifest()

    def reduced(entry: FileEntry) -> FileEntry:
        """What is lost: fractions, ACLs, the map of holes."""
        return msgspec.structs.replace(
            entry, mtime=entry.mtime // 10**9 * 10**9, sparse=(),
            xattrs=tuple(x for x in entry.xattrs if x[0] not in (acl.ACCESS, acl.DEFAULT)))

    apart = {b"", b"before 1970", b"after 2242"}
    assert differences(Manifest(reduced(e) for e in manifest if e.path not in apart),
                       found - apart) == []
    assert {p: found.by_path[p].sha256 for p in apart} == {
        p: manifest.by_path[p].sha256 for p in apart}


def test_nothing_of_a_blob_is_dated_by_the_clock(tmp_path: Path) -> None:
    """Neither its root nor directories that it is not told of."""
    then = 1_600_000_000 * 10**9
    blob.build(tmp_path / "b", lambda writer: writer.add(
        FileEntry(b"a/b/c", FILE, 0o644, size=1, mtime=then), io.BytesIO(b"x")), newest=then)
    listed = subprocess.run(["unsquashfs", "-lln", tmp_path / "b"], check=True, text=True,
                            capture_output=True).stdout.splitlines()
    assert len(listed) == 4
    assert all(" 2020-09-13 " in line for line in listed), listed


def test_contents_of_a_blob_come_in_one_pass_under_their_names(
        source: Path, manifest: Manifest, tmp_path: Path) -> None:
    blob.build(tmp_path / "b", filler(DirTree(source), manifest), newest=0)
    wanted = {b"m/two", b"0first", LONG, b"bad\xff\xfe", b"empty", b"sparse", b"no such"}
    expected = DirTree(source).read(wanted)
    assert len(expected) == 6
    assert BlobTree(tmp_path / "b").read(wanted) == expected
    assert BlobTree(tmp_path / "b").read([b"acl"]) == {b"acl": b"x"}


def test_a_blob_that_looks_like_a_boot_record_is_built_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Incompressible content stands as it is in the blob, so this one really
    gets the mark at byte 510."""
    (tmp_path / "tree").mkdir()
    content = bytearray(os.urandom(1 << 17))
    tree = DirTree(tmp_path / "tree")
    seen: list[str] = []
    real = blob._format

    def noted(path: Path) -> str:
        seen.append(real(path))
        return seen[-1]

    monkeypatch.setattr(blob, "_format", noted)

    def build() -> bytes:
        (tmp_path / "tree" / "f").write_bytes(content)
        blob.build(tmp_path / "b", filler(tree, tree.manifest()), newest=0)
        return (tmp_path / "b").read_bytes()

    mark = 510 - build().index(content[:64])
    content[mark:mark + 2] = b"\x55\xaa"
    seen.clear()
    build()
    assert seen == ["gpt", "raw"]
    built = BlobTree(tmp_path / "b")
    assert built.read([b"f"]) == {b"f": bytes(content)}
    assert blob.PADDING in built.manifest()


def test_a_full_disk_or_a_missing_place_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(exceptions.ToolFailed, match="mksquashfs"):
        blob.build(tmp_path / "nowhere" / "b", lambda writer: None, newest=0)


def test_damaged_blobs(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(os.urandom(1 << 20))
    tree = DirTree(tmp_path / "tree")
    blob.build(tmp_path / "b", filler(tree, tree.manifest()), newest=0)
    whole = (tmp_path / "b").read_bytes()
    for name, data in (("cut", whole[:len(whole) // 2]), ("head", whole[:96]),
                       ("table", whole[:64] + b"\xff" * 32 + whole[96:])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(exceptions.BadArchive, match="squashfs"):
            open_tree(tmp_path / name).manifest()


def test_a_root_tar_of_another_maker(tmp_path: Path) -> None:
    """bsdtar writes ACLs as star does, with names and numbers, and a mode
    that does not know the mask."""
    maker = shutil.which("bsdtar")
    if maker is None:
        pytest.skip("bsdtar is not installed")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"x")
    os.setxattr(tmp_path / "tree" / "f", "user.x", b"\0\xff")
    os.setxattr(tmp_path / "tree" / "f", acl.ACCESS, ACCESS)
    subprocess.run([maker, "-C", tmp_path / "tree", "--acls", "--xattrs", "-cf",
                    tmp_path / "x.tar", "."], check=True)
    assert differences(TarTree(tmp_path / "x.tar").manifest(),
                       DirTree(tmp_path / "tree").manifest()) == []
