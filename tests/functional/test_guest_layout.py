"""The guest's own programs lay parts: the real ones, in a root that has only
what a minimal Debian has."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from splitimage_driver.archive import acl
from splitimage_driver.delivery import rowchanges
from splitimage_driver.merge import registry
from splitimage_driver.model import layout
from splitimage_driver.model.delivery import (
    RESTART,
    START,
    STOP,
    Chunk,
    DeliveryPlan,
    Gone,
    Group,
    Name,
    Put,
    SharedFile,
    Times,
    Unit,
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
def guest(system: Path, tmp_path: Path) -> Iterator[Guest]:
    """In memory, where that is possible: every chunk is synced several times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as place:
        yield Guest(system, Path(place, "root"))


@pytest.fixture
def disk_guest(system: Path, tmp_path: Path) -> Guest:
    """On a disk, with all that its file system knows."""
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


def two_parts(guest: Guest, **options: str) -> Plan:
    """A file of ``web`` and two chunks of ``data``."""
    plan = Plan(guest, **options)
    plan.chunk(plan.put(file("srv/web", b"web's\n"), b"web's\n"))
    plan.chunk(plan.put(file("srv/data", BIG, ), BIG, part=1), part=1)
    plan.chunk(plan.put(file("srv/more", b"more\n"), b"more\n", part=1), part=1)
    return plan


def complete(ended: Ended) -> None:
    assert ended.status == 0, ended
    assert ended.end["state"] == "complete" and ended.end["failed"] == {}


@TREE
def test_all_that_a_part_can_hold(disk_guest: Guest) -> None:
    """Owners, modes, attributes, times, holes, further names, links, nodes."""
    guest = disk_guest
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
def test_disks_are_blobs_as_they_are_stored(guest: Guest) -> None:
    two_parts(guest).give()
    for serial in (layout.plan_serial(guestroot.ID), layout.part_serial(WEB),
                   layout.part_serial(DATA)):
        guest.pack(serial)
    complete(guest.lay())
    assert (guest.root / "srv/data").read_bytes() == BIG
    assert {p.name for p in (guest.root / "run/splitimage").iterdir()} == {
        "lock", "report", f"seen-{guestroot.ID}"}


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


# -- what the guest's user did -------------------------------------------------------------


@CUT
def test_what_the_user_made_or_changed_is_kept_and_told(guest: Guest) -> None:
    root = guest.root
    for name in ("changed", "removed", "linked"):
        (root / "srv" / name).write_bytes(b"as the image has it\n")
    plan = Plan(guest)
    plan.chunk(*(plan.put(file(f"srv/{name}", b"new\n"), b"new\n",
                          before=plan.before(f"srv/{name}".encode()))
                 for name in ("changed", "removed", "linked", "made", "same")))
    plan.directories.append(plan.put(FileEntry(path=b"srv/place", type=DIRECTORY, mode=0o755)))
    plan.give()
    (root / "srv/changed").write_bytes(b"the user's\n")
    (root / "srv/removed").unlink()
    (root / "srv/linked").unlink()
    (root / "srv/linked").symlink_to("/etc/passwd")
    (root / "srv/made").mkdir()
    (root / "srv/same").write_bytes(b"new\n")
    (root / "srv/place").mkdir(mode=0o700)
    passwd = (root / "etc/passwd").read_bytes()
    ended = guest.lay()
    complete(ended)
    kept = ["/srv/changed", "/srv/linked", "/srv/made", "/srv/place", "/srv/removed"]
    assert ended.end["kept"] == kept and ended.end["kept_count"] == 5
    assert guest.status["kept"] == kept
    assert (root / "srv/changed").read_bytes() == b"the user's\n"
    assert not (root / "srv/removed").exists() and (root / "srv/made").is_dir()
    assert (root / "srv/linked").is_symlink() and (root / "etc/passwd").read_bytes() == passwd
    assert not guest.temporaries()


def library_link(path: str, target: str = "libx.so.1.2") -> FileEntry:
    return FileEntry(path=path.encode(), type=SYMLINK, mode=0o777, mtime=MTIME,
                     target=target.encode())


@TREE
def test_links_that_ldconfig_has_made_get_their_time(guest: Guest) -> None:
    place = guest.root / "srv"
    plan = Plan(guest)
    plan.chunk(plan.put(file("srv/libx.so.1.2", b"x"), b"x"),
               *(plan.put(library_link(f"srv/libx.so{end}")) for end in (".1", ".2", "")))
    plan.give()
    (place / "libx.so.1").symlink_to("libx.so.1.2")
    (place / "libx.so.2").symlink_to("libx.so.2.0")
    ended = guest.lay()
    complete(ended)
    assert ended.end["kept"] == ["/srv/libx.so.2"]
    assert {link.name: (str(link.readlink()), link.lstat().st_mtime_ns == MTIME)
            for link in place.glob("libx.so*") if link.is_symlink()} == {
        "libx.so": ("libx.so.1.2", True), "libx.so.1": ("libx.so.1.2", True),
        "libx.so.2": ("libx.so.2.0", False)}


@TREE
@pytest.mark.parametrize(("there", "wanted", "found"), [
    ("symlink 'x.1', 'x'", "{ type => 'l', target => 'x.1', uid => 0, gid => 0 }", "ours"),
    ("symlink 'x.2', 'x'", "{ type => 'l', target => 'x.1', uid => 0, gid => 0 }", "theirs"),
    ("1", "undef", "gone"), ("symlink 'x.2', 'x'", "undef", "theirs"),
    ("mkdir 'x'", "{ type => 'l', target => 'x.1', uid => 0, gid => 0 }", "theirs"),
])
def test_what_ldconfig_does_while_a_chunk_is_placed(
        tmp_path: Path, there: str, wanted: str, found: str) -> None:
    """After the last look at a path, and before it is replaced."""
    script = f"""
        chdir $ARGV[0] or die; symlink 'x.1', 'new'; my $new = (lstat 'new')[1]; {there};
        my $item = {{ entry => {wanted}, state => undef, temporary => 'new', what => 'write' }};
        my $known = Files::already($item, 'x');
        my $now = (lstat 'x')[1];
        print $known ? (defined $now ? ($now == $new ? 'ours' : 'same') : 'gone') : 'theirs';
    """
    told = subprocess.run(
        ["perl", f"-I{guestroot.PROGRAMS}", "-w", "-MFiles", "-e", script, tmp_path],
        check=True, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == (found, "")


@CUT
@pytest.mark.parametrize("state", ["complete", "failed"])
def test_what_is_done_is_the_users_from_then_on(guest: Guest, state: str) -> None:
    """A file that was laid and then edited or removed stays so, whether the
    layout is to go on or is at its end."""
    plan = two_parts(guest)
    plan.give()
    missing = layout.part_serial(DATA)
    if state == "failed":
        guest.take_back(missing)
    assert guest.lay().end["state"] == state
    (guest.root / "srv/web").write_bytes(b"edited\n")
    if state == "complete":
        (guest.root / "srv/more").unlink()
    plan.give()
    complete(guest.lay())
    assert (guest.root / "srv/web").read_bytes() == b"edited\n"
    assert (guest.root / "srv/more").exists() == (state == "failed")


@CUT
def test_what_a_power_cut_left_is_done_again(guest: Guest) -> None:
    """The journal says that a file was about to be put there, not that its
    chunk is done."""
    two_parts(guest).give()
    (guest.root / "var/lib/splitimage").mkdir()
    guest.journal.write_bytes(b"begin\nw srv/web\nw srv/da")  # half a line
    (guest.root / "srv/web").write_bytes(b"\0" * 6)
    os.utime(guest.root / "srv/web", ns=(MTIME, MTIME))
    (guest.root / f"srv/.splitimage-{guestroot.ID}-0.0").write_bytes(b"half")
    complete(guest.lay())
    assert (guest.root / "srv/web").read_bytes() == b"web's\n"
    assert (guest.root / "srv/data").read_bytes() == BIG
    assert not guest.temporaries()


@FAILURE
def test_nothing_is_written_through_a_link_of_the_users(guest: Guest) -> None:
    root = guest.root
    plan = Plan(guest)
    plan.chunk(plan.put(file("srv/deep/er/web", b"web's\n"), b"web's\n"))
    plan.chunk(plan.put(file("srv/data", b"data\n"), b"data\n", part=1), part=1)
    plan.directories.append(plan.put(FileEntry(path=b"srv/deep/er/new", type=DIRECTORY,
                                               mode=0o755)))
    plan.give()
    (root / "srv/deep").symlink_to("/etc")
    (root / "etc/er").mkdir()
    ended = guest.lay()
    assert ended.status == 1 and ended.end["failed"] == {"web": "/srv/deep is a symbolic link"}
    assert ended.parts == {"web": "failed", "data": "complete"}
    assert list((root / "etc/er").iterdir()) == [] and (root / "srv/data").exists()
    # The way out: the user takes the link away.
    (root / "srv/deep").unlink()
    (root / "srv/deep/er").mkdir(parents=True)
    complete(guest.lay())
    assert (root / "srv/deep/er/web").exists() and (root / "srv/deep/er/new").is_dir()


# -- removal -------------------------------------------------------------------------------


def removal(guest: Guest, policy: str) -> Plan:
    """Of two files, their directories, an account, a package; one file has
    been changed here."""
    root = guest.root
    plan = Plan(guest, mode="remove", policy=policy)
    passwd, status = root / "etc/passwd", root / "var/lib/dpkg/status"
    plan.rows("etc/passwd", passwd.read_bytes(), parts=lambda key: (0,),
              old=passwd.read_bytes() + b"www:x:33:33::/srv:/bin/false\n")
    plan.rows("var/lib/dpkg/status", status.read_bytes(), parts=lambda key: (0,),
              old=status.read_bytes() + stanza("web").encode())
    with passwd.open("a") as accounts, status.open("a") as packages:
        accounts.write("www:x:33:33::/srv:/bin/false\n")
        packages.write(stanza("web"))
    (root / "srv/web/deep").mkdir(parents=True)
    (root / "srv/web/deep/file").write_bytes(b"content\n")
    (root / "srv/web/other").write_bytes(b"content\n")
    (root / "srv/restored").write_bytes(b"web's version\n")
    tree = guest.tree()
    plan.chunk(Gone((0,), tree[b"srv/web/deep/file"]), Gone((0,), tree[b"srv/web/other"]),
               plan.put(file("srv/restored", b"the base's\n"), b"the base's\n", own=True,
                        before=tree[b"srv/restored"]), own=True)
    plan.chunk(Gone((0,), tree[b"srv/web/deep"]), Gone((0,), tree[b"srv/web"]), own=True, parts=())
    plan.give()
    return plan


@TREE
def test_a_part_is_removed(guest: Guest) -> None:
    removal(guest, "refuse")
    ended = guest.lay()
    complete(ended)
    assert ended.end["kept_count"] == 0
    root = guest.root
    assert sorted(p.name for p in (root / "srv").iterdir()) == ["restored"]
    assert (root / "srv/restored").read_bytes() == b"the base's\n"
    assert b"www" not in (root / "etc/passwd").read_bytes()
    assert b"web" not in (root / "var/lib/dpkg/status").read_bytes()


@FAILURE
def test_removal_refuses_what_the_user_changed(guest: Guest) -> None:
    removal(guest, "refuse")
    (guest.root / "srv/web/other").write_bytes(b"the user's\n")
    before = guest.tree()
    ended = guest.lay()
    assert ended.status == 1 and ended.end["kept"] == ["/srv/web/other"]
    assert ended.parts["web"] == "failed" and guest.tree() == before


@TREE
def test_removal_with_force_and_with_care(guest: Guest) -> None:
    removal(guest, "keep")
    root = guest.root
    (root / "srv/web/other").write_bytes(b"the user's\n")
    (root / "srv/web/deep/own").write_bytes(b"the user's own\n")
    ended = guest.lay()
    complete(ended)
    assert ended.end["kept"] == ["/srv/web", "/srv/web/deep", "/srv/web/other"]
    assert not (root / "srv/web/deep/file").exists()
    shutil.rmtree(root / "srv/web")
    shutil.rmtree(root / "var/lib/splitimage")
    removal(guest, "force")
    (root / "srv/web/other").write_bytes(b"the user's\n")
    (root / "srv/web/deep/own").write_bytes(b"the user's own\n")
    complete(guest.lay())
    assert not (root / "srv/web/other").exists()
    # What no part knows is nobody's to remove.
    assert (root / "srv/web/deep/own").exists()


# -- shared files --------------------------------------------------------------------------

@TREE
def test_a_file_whose_records_only_change_places(guest: Guest) -> None:
    place = guest.root / "etc/shells"
    place.write_bytes(b"/bin/a\n/bin/b\n")
    plan = Plan(guest)
    plan.rows("etc/shells", b"/bin/b\n/bin/a\n", parts=lambda key: (0,))
    plan.give()
    assert plan.shared[0].rows == ()
    complete(guest.lay())
    assert place.read_bytes() == b"/bin/b\n/bin/a\n"


DIVERSION = b"/usr/bin/%s\n/usr/bin/%s.real\n%s\n"
#: Path, what the image has, what the parts make of it, what somebody else
#: makes of it meanwhile, and what comes of both.
GRAMMARS = {
    "lines": ("var/lib/dpkg/statoverride", b"root root 4755 /srv/a\n",
              b"root root 2755 /srv/a\nroot web 2755 /srv/b\n",
              b"root root 4755 /srv/a\nroot mail 2755 /srv/c\n",
              b"root root 2755 /srv/a\nroot web 2755 /srv/b\nroot mail 2755 /srv/c\n"),
    "stanzas": ("var/lib/dpkg/status", stanza("a").encode() + stanza("gone").encode(),
                stanza("a", "2").encode() + stanza("b").encode(),
                stanza("a").encode() + stanza("gone").encode() + stanza("own").encode(),
                stanza("a", "2").encode() + stanza("b").encode() + stanza("own").encode()),
    "triples": ("var/lib/dpkg/diversions", DIVERSION % ((b"a",) * 3),
                DIVERSION % ((b"a",) * 3) + DIVERSION % ((b"b",) * 3),
                DIVERSION % ((b"own",) * 3) + DIVERSION % ((b"a",) * 3),
                DIVERSION % ((b"own",) * 3) + DIVERSION % ((b"a",) * 3)
                + DIVERSION % ((b"b",) * 3)),
    "the user's row stays": (
        "etc/group", b"root:x:0:\nmail:x:8:\n", b"root:x:0:\nmail:x:8:web\nweb:x:33:\n",
        b"root:x:0:\nmail:x:8:me\n", b"root:x:0:\nmail:x:8:me\nweb:x:33:\n"),
}


@CUT
@pytest.mark.parametrize("name", GRAMMARS)
def test_rows_of_every_grammar(guest: Guest, name: str) -> None:
    path, old, new, others, both = GRAMMARS[name]
    place = guest.root / path
    place.write_bytes(old)
    plan = Plan(guest)
    plan.rows(path, new, parts=lambda key: (0,))
    plan.give()
    place.write_bytes(others)
    place.chmod(0o640)
    ended = guest.lay()
    complete(ended)
    assert place.read_bytes() == both and stat.S_IMODE(place.stat().st_mode) == 0o640
    assert ended.end["kept"] == ([f"/{path}"] if name == "the user's row stays" else [])
    # Fast, and as a whole.
    place.write_bytes(old)
    place.chmod(0o644)
    shutil.rmtree(guest.root / "var/lib/splitimage")
    complete(guest.lay())
    assert place.read_bytes() == new and place.stat().st_mtime_ns == MTIME
    assert not guest.temporaries()


def alternative(*choices: tuple[str, int]) -> bytes:
    rows = "".join(f"{path}\n{priority}\n{path}.1\n" for path, priority in choices)
    return f"auto\n/usr/bin/pager\npager.1\n/usr/share/man/pager.1\n\n{rows}\n".encode()


@CUT
def test_alternatives_that_changed_meanwhile_are_left_to_their_program(guest: Guest) -> None:
    path = "var/lib/dpkg/alternatives/pager"
    place = guest.root / path
    for name in ("bin/more", "bin/less", "bin/own"):
        (guest.root / "opt" / name).parent.mkdir(parents=True, exist_ok=True)
        (guest.root / "opt" / name).touch()
        (guest.root / "opt" / f"{name}.1").touch()
    old = alternative(("/opt/bin/more", 10)).replace(b"/usr/", b"/srv/")
    new = alternative(("/opt/bin/less", 70), ("/opt/bin/more", 10)).replace(b"/usr/", b"/srv/")
    (guest.root / "srv/bin").mkdir()
    (guest.root / "srv/share/man").mkdir(parents=True)
    place.write_bytes(old)
    plan = Plan(guest)
    plan.rows(path, new, parts=lambda key: (0,))
    plan.give()
    guest.run("update-alternatives", "--install", "/srv/bin/pager", "pager", "/opt/bin/own", "20")
    complete(guest.lay())
    said = guest.run("update-alternatives", "--query", "pager")
    assert [line.split()[1] for line in said.splitlines() if line.startswith("Alternative:")] == [
        "/opt/bin/less", "/opt/bin/more", "/opt/bin/own"]
    assert os.readlink(guest.root / "etc/alternatives/pager") == "/opt/bin/less"
    assert os.readlink(guest.root / "etc/alternatives/pager.1") == "/opt/bin/less.1"


@CUT
@pytest.mark.parametrize("path", ["etc/.pwd.lock", "var/lib/dpkg/lock-frontend",
                                  "var/lib/dpkg/lock"])
def test_shared_files_wait_for_those_who_have_them(guest: Guest, path: str) -> None:
    plan = Plan(guest)
    shared = "etc/passwd" if path.startswith("etc") else "var/lib/dpkg/status"
    row = b"www:x:33:33::/srv:/bin/false\n" if path.startswith("etc") else stanza("web").encode()
    old = (guest.root / shared).read_bytes()
    plan.rows(shared, old + row, parts=lambda key: (0,))
    plan.give()
    with (guest.root / path).open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        process = guest.start(*guest.words())
        until(lambda: waits(guest.root / path))
        assert (guest.root / shared).read_bytes() == old
    complete(guest.ended(process))
    assert (guest.root / shared).read_bytes() == old + row


# -- failures ------------------------------------------------------------------------------


@FAILURE
def test_a_number_that_another_name_has_fails_its_part_only(guest: Guest) -> None:
    plan = two_parts(guest)
    accounts = (guest.root / "etc/passwd").read_bytes()
    plan.rows("etc/passwd", accounts + b"www:x:33:33::/srv:/bin/false\ndbd:x:34:34::/:/bin/false\n",
              parts=lambda key: (0,) if key == b"www" else (1,))
    shadow = (guest.root / "etc/shadow").read_bytes()
    plan.rows("etc/shadow", shadow + b"www:!:1::::::\ndbd:!:1::::::\n",
              parts=lambda key: (0,) if key == b"www" else (1,))
    plan.give()
    guest.run("useradd", "--no-create-home", "--uid", "33", "someone")
    ended = guest.lay()
    assert ended.status == 1
    assert ended.end["failed"] == {"web": "uid 33 of www belongs to someone here"}
    assert ended.parts == {"web": "failed", "data": "complete"}
    for name in ("passwd", "shadow"):
        found = (guest.root / "etc" / name).read_bytes()
        assert b"dbd" in found and b"someone" in found and b"www" not in found
    assert (guest.root / "srv/data").exists() and not (guest.root / "srv/web").exists()
    guest.run("userdel", "someone")
    complete(guest.lay())
    assert b"www" in (guest.root / "etc/shadow").read_bytes()
    assert (guest.root / "srv/web").exists()


def damage(guest: Guest, how: str) -> None:
    """To the disk of the part ``data``."""
    serial = layout.part_serial(DATA)
    disk = guest.disks / serial
    if how == "missing":
        guest.take_back(serial)
    elif how == "content":
        (disk / "content/srv/data").write_bytes(bytes(len(BIG)))
    elif how == "short":
        (disk / "content/srv/data").write_bytes(BIG[:1000])
    elif how == "member":
        (disk / "content/srv/data").unlink()
    elif how == "kind":
        (disk / "content/srv/data").unlink()
        os.mkfifo(disk / "content/srv/data")
    else:
        image = guest.pack(serial)
        size = image.stat().st_size
        with image.open("r+b") as file:
            if how == "cut":
                file.truncate(512)
            else:
                # A block of the content: the file system itself is whole.
                file.seek(size // 2)
                file.write(bytes(4096))


@FAILURE
@pytest.mark.parametrize("how", ["missing", "content", "block", *(
    pytest.param(how, marks=pytest.mark.accept) for how in ("short", "member", "kind", "cut"))])
def test_a_damaged_part_fails_alone_and_a_retry_finishes_it(guest: Guest, how: str) -> None:
    plan = two_parts(guest)
    status = (guest.root / "var/lib/dpkg/status").read_bytes()
    rows = [stanza("data").encode(), stanza("web").encode()]
    plan.rows("var/lib/dpkg/status", status + b"".join(rows),
              parts=lambda key: (1,) if key.startswith(b"data") else (0,))
    plan.give()
    damage(guest, how)
    ended = guest.lay()
    assert ended.status == 1 and ended.end["state"] == "failed"
    assert list(ended.end["failed"]) == ["data"] and ended.parts == {
        "web": "complete", "data": "failed"}
    assert (guest.root / "srv/web").read_bytes() == b"web's\n"
    assert not (guest.root / "srv/data").exists() and not guest.temporaries()
    # Only what is there is in the package manager's database.
    assert (guest.root / "var/lib/dpkg/status").read_bytes() == status + rows[1]
    (guest.root / "srv/web").write_bytes(b"edited\n")
    disk = guest.disks / layout.part_serial(DATA)
    if disk.is_file():
        disk.unlink()
    plan.give()
    ended = guest.lay()
    complete(ended)
    assert (guest.root / "srv/data").read_bytes() == BIG
    assert (guest.root / "srv/web").read_bytes() == b"edited\n"
    assert (guest.root / "var/lib/dpkg/status").read_bytes() == status + b"".join(rows)


@FAILURE
def test_a_part_that_does_not_fit_fails_before_it_writes(guest: Guest, tmp_path: Path) -> None:
    small = tmp_path / "small.img"
    with small.open("wb") as image:
        image.truncate(4 << 20)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", small],
                   check=True)
    plan = Plan(guest)
    large = bytes(8 << 20)
    plan.chunk(plan.put(file("srv/large", large), large, part=1), part=1)
    plan.chunk(plan.put(file("srv/web", b"web's\n"), b"web's\n"))
    plan.give()
    ended = guest.lay(small=small)
    assert ended.status == 1 and ended.parts == {"data": "failed", "web": "complete"}
    assert ended.end["failed"]["data"].startswith("no room: ")
    complete(guest.lay())


@FAILURE
def test_a_killed_worker_fails_what_it_had(guest: Guest, tmp_path: Path) -> None:
    two_parts(guest).give()
    sums = tmp_path / "sums"
    shutil.copy2(guest.system / "usr/bin/sha256sum", guest.root / "srv/real")
    sums.write_text("#!/bin/sh\ncase \"$*\" in *-1.0*) kill -9 $PPID;; esac\n"
                    "exec /srv/real \"$@\"\n")
    sums.chmod(0o755)
    for streams in ("1", "3"):
        ended = guest.lay("--streams", streams, sums=sums)
        assert ended.end["failed"] == {"data": "its process was killed by signal 9"}
        assert not guest.temporaries()
    assert (guest.root / "srv/web").exists()
    complete(guest.lay())


#: Every thousandth number kills the one that has it, every other hundredth fails.
QUEUE = """
use Workers;
our $stopping = 0;
my $workers = Workers->start(4, sub {
    kill 9, $$ if $_[0] % 1000 == 0 && $_[0] < 4000;
    die "no\\n" if $_[0] % 100 == 0;
});
$workers->feed(1 .. 20000);
my %seen;
while (my $message = $workers->next(0)) { $seen{"$message->[0] " . ($message->[2] // '')}++ }
$workers->finish;
print "$_: $seen{$_}\\n" for sort keys %seen;
"""


@FAILURE
def test_a_queue_longer_than_its_pipe_loses_nothing(guest: Guest) -> None:
    said = guest.run("perl", "-I/usr/lib/splitimage", "-e", QUEUE)
    assert said.splitlines() == ["done : 19800", "fail its process was killed by signal 9: 3",
                                 "fail no: 197"]


@FAILURE
def test_a_disk_that_is_no_plan_is_told(guest: Guest) -> None:
    two_parts(guest).give()
    place = guest.disks / layout.plan_serial(guestroot.ID) / "plan"
    for text in (b"", b"hello\n", place.read_bytes()[:-4]):
        place.write_bytes(text)
        ended = guest.lay()
        assert ended.status == 1 and list(ended.end["failed"]) == ["plan"]
    assert not (guest.root / "srv/web").exists()


# -- services ------------------------------------------------------------------------------


def with_services(guest: Guest, **options: str) -> Plan:
    plan = two_parts(guest, **options)
    plan.groups = [
        Group(parts=(0,), size=0, files=0, units=(Unit(START, b"web.service"),
                                                  Unit(RESTART, b"log.service"))),
        Group(parts=(0, 1), size=0, files=0, units=(Unit(START, b"data.service"),),
              tmpfiles=(b"usr/lib/tmpfiles.d/data.conf",))]
    return plan


@FAILURE
def test_services_start_when_all_that_they_need_is_there(guest: Guest) -> None:
    guest.boot()
    with_services(guest).give()
    damage(guest, "missing")
    ended = guest.lay()
    assert list(ended.end["failed"]) == ["data"]
    assert [(e["unit"], e["state"]) for e in ended.of("unit")] == [
        ("web.service", "started"), ("log.service", "started")]
    assert guest.told == ["systemctl daemon-reload", "systemctl start web.service",
                          "systemctl restart log.service"]
    # What is started already stays as its user has it since.
    with_services(guest).give()
    complete(guest.lay())
    *first, last = guest.told
    assert sorted(first) == ["systemctl daemon-reload",
                             "systemd-tmpfiles --create /usr/lib/tmpfiles.d/data.conf"]
    assert last == "systemctl start data.service"


@FAILURE
def test_a_service_that_fails_is_told_and_tried_again(guest: Guest) -> None:
    guest.boot()
    with_services(guest).give()
    (guest.root / "srv/failing").write_text("start data.service\n")
    ended = guest.lay()
    assert ended.status == 1 and ended.parts == {"web": "complete", "data": "complete"}
    assert ended.end["failed"] == {
        "data.service": "Job for data.service failed because it is named."}
    assert (guest.root / "srv/data").read_bytes() == BIG
    (guest.root / "srv/failing").unlink()
    (guest.root / "srv/data").write_bytes(b"used since\n")
    assert "systemctl start web.service" in guest.told
    complete(guest.lay())
    assert "systemctl start web.service" not in guest.told
    assert (guest.root / "srv/data").read_bytes() == b"used since\n"


@TREE
def test_services_are_stopped_before_their_files_go(guest: Guest) -> None:
    guest.boot()
    (guest.root / "srv/web").write_bytes(b"web's\n")
    plan = Plan(guest, mode="remove", policy="refuse")
    plan.groups = [Group(parts=(0,), size=0, files=0, units=(Unit(STOP, b"web.service"),))]
    plan.chunk(Gone((0,), guest.tree()[b"srv/web"]), own=True)
    plan.give()
    (guest.root / "srv/web").write_bytes(b"the user's\n")
    assert guest.lay().status == 1 and guest.told == []
    (guest.root / "srv/web").write_bytes(b"web's\n")
    complete(guest.lay())
    assert guest.told[0] == "systemctl stop web.service"
    assert not (guest.root / "srv/web").exists()


# -- moments -------------------------------------------------------------------------------


@CUT
def test_two_at_once(guest: Guest) -> None:
    two_parts(guest).give()
    (guest.root / "run/splitimage").mkdir()
    with (guest.root / "run/splitimage/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = guest.lay()
        assert (ended.status, ended.err) == (75, "layout: another one is at work\n")
    complete(guest.lay())


@CUT
def test_nothing_to_do(guest: Guest) -> None:
    assert guest.lay() == Ended(0, (), "")


@CUT
def test_told_to_stop_it_stops_and_goes_on_next_time(guest: Guest, tmp_path: Path) -> None:
    two_parts(guest).give()
    sums = tmp_path / "sums"
    # The one that it is told by is its own parent's parent.
    sums.write_text("#!/bin/sh\nread -r _ _ _ layout _ </proc/$PPID/stat\nkill -TERM $layout\n"
                    "until [ -e /srv/go ]; do sleep 0.05; done\nexec /srv/real \"$@\"\n")
    sums.chmod(0o755)
    shutil.copy2(guest.system / "usr/bin/sha256sum", guest.root / "srv/real")
    process = guest.start(*guest.words("--streams", "1"), sums=sums)
    until(lambda: (guest.root / "var/lib/splitimage/status.json").exists())
    (guest.root / "srv/go").touch()
    ended = guest.ended(process)
    assert ended.status == 0 and not ended.of("end")
    assert not guest.temporaries() and not (guest.root / "srv/more").exists()
    complete(guest.lay())
    assert (guest.root / "srv/more").exists()


@CUT
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.accept)
                                       for n in range(1, 40))])
def test_killed_at_any_moment_the_next_one_finishes(guest: Guest, seed: int) -> None:
    """All its processes at once, up to five times; then the same tree as if
    nothing had been, and none of its temporaries."""
    chance = random.Random(seed)
    plan = Plan(guest)
    for number in range(60):
        content = chance.randbytes(chance.choice((0, 10, 5000, 200_000)))
        part = chance.randrange(2)
        path = f"srv/{chance.randrange(4)}/file{number}"
        before = None
        if chance.random() < 0.3:
            (guest.root / path).parent.mkdir(exist_ok=True)
            (guest.root / path).write_bytes(b"old\n")
            before = plan.before(path.encode())
        changes: list[Put | Name | Gone] = [
            plan.put(file(path, content), content, part=part, before=before)]
        if chance.random() < 0.2:
            changes.append(Name(f"srv/name{number}".encode(), None))
        plan.chunk(*changes, part=part)
    there = {p.name for p in (guest.root / "srv").iterdir()}
    plan.directories += [plan.put(FileEntry(path=f"srv/{n}".encode(), type=DIRECTORY, mode=0o750),
                                  before=plan.before(f"srv/{n}".encode()))
                         for n in range(4) if str(n) not in there]
    accounts = (guest.root / "etc/passwd").read_bytes()
    plan.rows("etc/passwd", accounts + b"www:x:33:33::/:/bin/false\n", parts=lambda key: (0,))
    status = (guest.root / "var/lib/dpkg/status").read_bytes()
    plan.rows("var/lib/dpkg/status", status + stanza("web").encode(), parts=lambda key: (0,))
    given = plan.give()
    killed = 0
    for _ in range(5):
        process = guest.start(*guest.words("--streams", str(chance.randint(1, 4))))
        # Somewhere in the next facts of the journal, and some way to the one after.
        wanted = facts(guest) + chance.randrange(60)
        while process.poll() is None and facts(guest) < wanted:
            pause.wait(0.002)
        pause.wait(chance.uniform(0, 0.03))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed
    complete(guest.lay())
    found = guest.tree()
    for put in (c for chunk in given.chunks for c in chunk.changes if isinstance(c, Put)):
        there_now = found[put.entry.path]
        assert there_now.same(msgspec.structs.replace(put.entry, link=there_now.link))
        assert there_now.mtime == put.entry.mtime
    for shared in given.shared:
        assert found[shared.path].sha256 == hashlib.sha256(shared.content).digest()
    assert not guest.temporaries()


@TREE
def test_progress_and_end_are_told(guest: Guest) -> None:
    plan = Plan(guest)
    for number in range(40):
        plan.chunk(plan.put(file(f"srv/{number}", bytes(1000)), bytes(1000)))
    plan.chunk(plan.put(file("srv/q\"\\\u00e9", b"x"), b"x", part=1), part=1)
    plan.give()
    (guest.root / "srv/q\"\\\u00e9").touch()
    ended = guest.lay()
    complete(ended)
    assert ended.events[0] == {"splitimage": guestroot.ID, "event": "begin", "bytes": 40_001}
    done = [each["bytes"] for each in ended.of("progress")]
    assert done == sorted(done) and done[-1] >= 38_000 and len(done) <= 20
    assert ended.end["kept"] == ["/srv/q\"\\\u00e9"]
    report = (guest.root / "run/splitimage/report").read_bytes()
    assert report.isascii()
    assert tuple(json.loads(line) for line in report.splitlines()) == ended.events
    assert guest.status["done"] == guest.status["total"] == 40_001
    # Attached again, the end is told again.
    again = guest.lay()
    assert again.events == (ended.events[-1],)


def facts(guest: Guest) -> int:
    """Lines of the journal."""
    return guest.journal.read_bytes().count(b"\n") if guest.journal.exists() else 0


def until(happens: Callable[[], bool]) -> None:
    for _ in range(600):
        if happens():
            return
        pause.wait(0.1)
    raise AssertionError("it does not happen")


pause = threading.Event()


def waits(path: Path) -> bool:
    """Whether a process of the guest has the file open, that is, tries to lock it."""
    found = path.stat()
    me = os.getpid()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != me:
            with contextlib.suppress(OSError):
                for handle in (process / "fd").iterdir():
                    there = handle.stat()
                    if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
                        return True
    return False
