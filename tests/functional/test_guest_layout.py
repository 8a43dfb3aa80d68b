"""The guest's own programs lay parts: the real ones, in a root that has only
what a minimal Debian has."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from splitimage_driver.archive import acl
from splitimage_driver.delivery import rowchanges
from splitimage_driver.merge import registry
from splitimage_driver.model.delivery import (
    Chunk,
    DeliveryPlan,
    Gone,
    Group,
    Name,
    Put,
    SharedFile,
    Times,
)
from splitimage_driver.model.entry import DIRECTORY, FIFO, FILE, SYMLINK, FileEntry
from tests.functional import guestroot
from tests.functional.guestroot import Ended, Guest, stanza

TREE = pytest.mark.must_show("streams", 1)
CUT = pytest.mark.must_show("streams", 2)
FAILURE = pytest.mark.must_show("streams", 4)
MTIME = 1_700_000_000_123_456_789
WEB, DATA = hashlib.sha256(b"web").hexdigest(), hashlib.sha256(b"data").hexdigest()
BIG = os.urandom(300_000)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guestroot.build_system(tmp_path_factory.mktemp("system") / "root")


@pytest.fixture
def guest(system: Path, tmp_path: Path) -> Guest:
    return Guest(system, tmp_path / "root")


def file(path: str, content: bytes, **fields: object) -> FileEntry:
    return FileEntry(path=path.encode(), type=FILE, mode=0o644, mtime=MTIME,
                     **fields).with_content(content)  # type: ignore[arg-type]


class Plan:
    """A plan under construction: part 0 is ``web``, part 1 ``data``."""

    def __init__(self, guest: Guest, **options: str) -> None:
        self.guest, self.options = guest, {"mode": "add", "policy": "keep"} | options
        self.parts: list[str] = ["web", "data"]
        self.directories: list[Put] = []
        self.chunks: list[Chunk] = []
        self.shared: list[SharedFile] = []
        self.groups: list[Group] = [Group(parts=(0,), size=0, files=0),
                                    Group(parts=(1,), size=0, files=0)]
        self.times: list[Times] = []
        self.blobs: dict[str, dict[bytes, bytes]] = {WEB: {}, DATA: {}}
        self.generated: dict[bytes, bytes] = {}

    def before(self, path: bytes) -> FileEntry | None:
        return self.guest.tree().get(path)

    def put(self, entry: FileEntry, content: bytes = b"", *, part: int = 0, own: bool = False,
            before: FileEntry | None = None, onto: bytes = b"") -> Put:
        """:param own: the content lies on the plan's own disk"""
        member = b"content/" + entry.path
        if own:
            self.generated[entry.path] = content
        elif entry.type == FILE and not onto:
            self.blobs[(WEB, DATA)[part]][member] = content
        return Put(parts=(part,), entry=entry, before=before, member=member, onto=onto)

    def chunk(self, *changes: Put | Name | Gone, part: int = 0, own: bool = False,
              parts: tuple[int, ...] | None = None) -> None:
        size = sum(c.entry.size for c in changes if isinstance(c, Put))
        self.chunks.append(Chunk(disk=None if own else part, changes=changes, size=size,
                                 parts=(part,) if parts is None else parts))

    def rows(self, path: str, new: bytes | None, *, parts: Callable[[bytes], Sequence[int]],
             old: bytes | None = None) -> None:
        """From the guest's present content, or ``old``."""
        there = self.guest.root / path
        if old is None and there.exists():
            old = there.read_bytes()
        merger = registry.merger_for(path.encode())
        assert merger is not None
        entry = None if new is None else file(path, new)
        if entry is not None and there.exists():
            found = there.stat()
            entry = msgspec.structs.replace(entry, mode=stat.S_IMODE(found.st_mode),
                                            uid=found.st_uid, gid=found.st_gid)
        self.shared.append(rowchanges.shared_file(
            merger, path.encode(), before=None if old is None else file(path, old), entry=entry,
            old=old, new=new, parts=lambda key: tuple(parts(key))))

    def give(self, layout_id: str = guestroot.ID) -> DeliveryPlan:
        disks = tuple(guestroot.blob_disk(blob, members, name)
                      for (blob, members), name in zip(self.blobs.items(), self.parts,
                                                       strict=True))
        plan = DeliveryPlan(
            parts=tuple(self.parts), disks=disks, groups=tuple(self.groups),
            shared=tuple(self.shared), directories=tuple(self.directories),
            chunks=tuple(self.chunks), times=tuple(self.times), **self.options)
        self.guest.give(plan, self.generated, self.blobs, layout_id)
        return plan


def complete(ended: Ended) -> None:
    assert (ended.status, ended.err) == (0, ""), ended
    assert ended.end["state"] == "complete" and ended.end["failed"] == {}


@TREE
def test_all_that_a_part_can_hold(guest: Guest) -> None:
    """Owners, modes, attributes, times, holes, further names, links, nodes."""
    root = guest.root
    (root / "srv/old-file").write_bytes(b"as it was\n")
    (root / "srv/becomes-a-link").write_bytes(b"a file\n")
    (root / "srv/becomes-a-file").symlink_to("elsewhere")
    (root / "srv/first-name").write_bytes(b"many names\n")
    plan = Plan(guest)
    listed = acl.from_text("user::rw-,user:100:r--,group::r--,mask::r--,other::---")
    sparse = b"\0" * (1 << 20) + b"end" + b"\0" * 100
    raw = FileEntry(path=b"srv/web", type=DIRECTORY, mode=0o2750, uid=100, gid=100)
    plan.directories += [plan.put(raw), plan.put(msgspec.structs.replace(
        raw, path=b"srv/web/\xff deep%\n", mode=0o1777,
        xattrs=((acl.DEFAULT, listed), (b"user.note", b"\0\xff"))))]
    deep = "srv/web/\udcff deep%\n/".encode("utf-8", "surrogateescape")

    def below(name: bytes, content: bytes, **fields: object) -> FileEntry:
        return msgspec.structs.replace(file("x", content), path=deep + name, **fields)

    leader = below(b"a=b,c", BIG, mode=0o4711, uid=7, gid=8,
                   xattrs=((b"security.capability", bytes.fromhex(
                       "0100000200040000000000000000000000000000")),
                           (b"system.posix_acl_access", listed), (b"user.k=,%", b"v")))
    leader = msgspec.structs.replace(leader, mode=0o640)
    plan.chunk(
        plan.put(leader, BIG), Name(deep + b"second", None), Name(b"srv/third", None),
        plan.put(below(b"holes", sparse, sparse=((1 << 20, 4096),)), sparse),
        plan.put(below(b"empty", b"", mode=0o4755)),
        plan.put(below(b"before 1970", b"old\n", mtime=-1_500_000_001), b"old\n"))
    links = [FileEntry(path=b"srv/web/link", type=SYMLINK, mode=0o777, uid=7, mtime=MTIME,
                       target=b"/nowhere:at all%"),
             FileEntry(path=b"srv/becomes-a-link", type=SYMLINK, mode=0o777, mtime=MTIME,
                       target=b"x")]
    nodes = [FileEntry(path=b"srv/web/pipe", type=FIFO, mode=0o600, uid=7, mtime=MTIME),
             FileEntry(path=b"srv/web/tape", type="c", mode=0o660, gid=8, mtime=MTIME + 1,
                       device=(4, 300))]
    plan.chunk(*(plan.put(e, before=plan.before(e.path)) for e in (*links, *nodes)),
               plan.put(file("srv/becomes-a-file", b"made here\n"), b"made here\n", own=True,
                        before=plan.before(b"srv/becomes-a-file")),
               plan.put(file("srv/further-name", b"many names\n"), onto=b"srv/first-name"),
               Gone((0,), plan.before(b"srv/old-file") or links[0]), own=True)
    plan.times += [Times(b"", MTIME), Times(b"srv", MTIME + 5), Times(b"srv/web", MTIME + 6)]
    plan.give()
    ended = guest.lay()
    complete(ended)
    found = guest.tree()
    for change in [c for chunk in plan.chunks for c in chunk.changes if isinstance(c, Put)]:
        e, there = change.entry, found[change.entry.path]
        if change.onto:
            assert there.link == b"srv/first-name"
            continue
        assert there.same(msgspec.structs.replace(e, link=there.link)), (e, there)
        assert there.mtime == e.mtime and bool(there.sparse) == bool(e.sparse), (e, there)
    for put in plan.directories:
        assert found[put.entry.path].same(put.entry)
    assert {found[p].link for p in (leader.path, deep + b"second", b"srv/third")} == {
        min(leader.path, deep + b"second", b"srv/third")}
    assert b"srv/old-file" not in found
    assert [os.stat(root / p).st_mtime_ns for p in ("", "srv", "srv/web")] == [
        MTIME, MTIME + 5, MTIME + 6]
    assert ended.parts == {"web": "complete", "data": "complete"}
    assert not guest.temporaries()
    assert guest.status["state"] == "complete"
    assert stat.S_IMODE(guest.journal.stat().st_mode) == 0o600


@TREE
def test_accounts_and_packages_that_nobody_changed_meanwhile(guest: Guest) -> None:
    plan = Plan(guest)
    passwd = (guest.root / "etc/passwd").read_bytes()
    plan.rows("etc/passwd", passwd + b"www:x:33:33::/srv:/bin/false\n", parts=lambda key: (0,))
    status = (guest.root / "var/lib/dpkg/status").read_bytes()
    plan.rows("var/lib/dpkg/status", status + stanza("web").encode(), parts=lambda key: (0,))
    plan.give()
    complete(guest.lay())
    for shared in plan.shared:
        place = guest.root / shared.path.decode()
        assert place.read_bytes() == shared.content and place.stat().st_mtime_ns == MTIME


@CUT
def test_what_others_add_to_shared_files_stays(guest: Guest) -> None:
    root = guest.root
    plan = Plan(guest)
    accounts = (root / "etc/passwd").read_bytes().splitlines(keepends=True)
    plan.rows("etc/passwd", b"".join([accounts[0], b"www:x:33:33::/srv:/bin/false\n", accounts[1]]),
              parts=lambda key: (0,))
    status = (root / "var/lib/dpkg/status").read_bytes()
    plan.rows("var/lib/dpkg/status", status + stanza("web").encode(), parts=lambda key: (0,))
    plan.give()
    guest.run("useradd", "--no-create-home", "someone")
    with (root / "var/lib/dpkg/status").open("a") as there:
        there.write(stanza("tree", "2"))
    complete(guest.lay())
    names = [line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()]
    assert names == ["root", "www", "old", "someone"]
    packages = guest.run("dpkg-query", "-W", "-f", "${Package} ${Version}\n")
    assert packages == "base-files 1\nold 1\ntree 2\nweb 1\n"
