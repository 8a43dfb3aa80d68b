"""From two trees to the plan by which a running guest makes one the other."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.delivery import rowchanges, units
from splitimage_driver.delivery.attribution import NOBODY, Attribution, Names
from splitimage_driver.merge import registry
from splitimage_driver.model.delivery import (
    KEEP,
    RESTART,
    START,
    STOP,
    BlobDisk,
    Chunk,
    DeliveryPlan,
    Gone,
    Group,
    Name,
    Parts,
    Put,
    SharedFile,
    Times,
    Unit,
)
from splitimage_driver.model.entry import SYMLINK, FileEntry, text
from splitimage_driver.model.layout import ADD, REMOVE
from splitimage_driver.model.part import FILESET_PREFIX
from splitimage_driver.model.plan import Source, Work

#: A worker makes this much durable at once.
_BYTES, _CHANGES = 8 << 20, 256
#: As many links in a row as the kernel follows.
_LINKS = 40


class Contents(msgspec.Struct, frozen=True):
    """Where the guest's plan can read small files on this host.

    :ivar old: of the start image, by path
    :ivar new: of the request, by path
    """

    old: Callable[[bytes], bytes]
    new: Callable[[bytes], bytes]


def plan(work: Work, owners: Attribution, contents: Contents, *,
         closures: Mapping[str, Collection[str]], disks: Callable[[str], BlobDisk],
         mode: str = ADD, policy: str = KEEP) -> DeliveryPlan:
    """:param work: from the start image's tree to the request's
    :param closures: what users can name (a software part, ``fileset NAME``)
        to all parts that it needs, itself included
    :param disks: of a blob
    :raises Unsupported: a directory has to give way to something else, which
        is not done under a running system
    """
    return _Planning(work, owners, contents, closures, disks, mode, policy).run()


class _Planning:
    def __init__(self, work: Work, owners: Attribution, contents: Contents,
                 closures: Mapping[str, Collection[str]], disks: Callable[[str], BlobDisk],
                 mode: str, policy: str) -> None:
        self.work, self.owners, self.contents = work, owners, contents
        self.closures, self.mode, self.policy = closures, mode, policy
        self._disk = disks
        self.shared = {path for path in owners.shared if registry.merger_for(path) is not None}
        touched = [e.path for e in (*work.missing, *work.excess)]
        names = sorted(set(closures).union(
            *(closures.values()), *(owners.path(path) for path in touched)))
        self.names = tuple(names)
        self.numbers = {name: n for n, name in enumerate(names)}
        self.disks: dict[str, int] = {}
        self.blobs: list[BlobDisk] = []

    def run(self) -> DeliveryPlan:
        work = self.work
        for e in work.replaced:
            if e.is_dir:
                raise exceptions.Unsupported(
                    what=f"{text(e.path)} in the place of a directory",
                    reason="a running system's directories stay; have the parts injected")
        before = work.current.by_path
        shared = tuple(self._shared_files())
        groups = self._groups()
        chunks: list[Chunk] = []
        left = _with_links(self._changes())
        # What every group waits for comes first, then the parts of the group
        # that is to be ready first.
        for mine in (NOBODY, *({self.names[n] for n in group.parts} for group in groups)):
            chunks += _chunked(c for c in left if c.names <= mine)
            left = [c for c in left if not c.names <= mine]
        chunks += _chunked(left)
        directories = tuple(Put(parts=self._parts(e.path), entry=e, before=before.get(e.path))
                            for e in work.missing if e.is_dir)
        gone = [Gone(self._parts(e.path), e) for e in reversed(work.excess) if e.is_dir]
        if gone:
            chunks.append(Chunk(disk=None, parts=(), changes=tuple(gone)))
        return DeliveryPlan(
            mode=self.mode, policy=self.policy, parts=self.names, disks=tuple(self.blobs),
            groups=tuple(groups), shared=shared, directories=directories, chunks=tuple(chunks),
            times=tuple(Times(e.path, e.mtime) for e in work.directories))

    # -- parts ------------------------------------------------------------------------

    def _parts(self, path: bytes) -> Parts:
        return self._numbered(self.owners.path(path))

    def _numbered(self, names: Iterable[str]) -> Parts:
        return tuple(sorted(self.numbers[name] for name in names))

    # -- shared files -----------------------------------------------------------------

    def _shared_files(self) -> Iterator[SharedFile]:
        work = self.work
        changed = {e.path for e in (*work.missing, *work.excess)} & self.shared
        for path in sorted(changed):
            merger = registry.merger_for(path)
            before, entry = work.current.get(path), work.target.get(path)
            if merger is None or not all(e is None or e.is_file for e in (before, entry)):
                continue
            yield rowchanges.shared_file(
                merger, path, before=before, entry=entry,
                old=self.contents.old(path) if before is not None else None,
                new=self.contents.new(path) if entry is not None else None,
                parts=lambda key, path=path: self._numbered(  # type: ignore[misc]
                    self.owners.row(path, key) or self.owners.path(path)))

    # -- files ------------------------------------------------------------------------

    def _changes(self) -> Iterator[_Change]:
        """All but directories and shared files."""
        work = self.work
        before = work.current.by_path
        missing = {e.path for e in work.missing}
        carried = {e.path for e in work.contents}
        followers: dict[bytes, list[FileEntry]] = {}
        for e in work.missing:
            if e.is_file and e.link and e.path not in carried:
                followers.setdefault(e.link, []).append(e)
        for e in work.missing:
            if e.is_dir or e.path in self.shared:
                continue
            names = self.owners.path(e.path)
            put = Put(parts=self._numbered(names), entry=e, before=before.get(e.path))
            if not e.is_file:
                yield _Change(names, (put,))
                continue
            if e.link and e.path not in carried:
                stays = work.linkable(e, missing)
                if stays is not None:
                    yield _Change(names, (msgspec.structs.replace(put, onto=stays),))
                    continue
                group = followers[e.link]
                if e.size or group[0] is not e:
                    continue  # with its leader
                others: Sequence[FileEntry] = group[1:]
            else:
                others = followers.get(e.link, ()) if e.link else ()
            names = names.union(*(self.owners.path(o.path) for o in others))
            put = msgspec.structs.replace(put, parts=self._numbered(names))
            further = tuple(Name(o.path, before.get(o.path)) for o in others)
            source = None if e.path in work.generated else work.sources.get(e.path)
            if source is None or not e.size:
                yield _Change(names, (put, *further), size=e.size)
            else:
                put = msgspec.structs.replace(put, member=source.member)
                yield _Change(names, (put, *further), self._number(source), e.size)
        for e in work.excess:
            if not e.is_dir and e.path not in self.shared:
                names = self.owners.path(e.path)
                yield _Change(names, (Gone(self._numbered(names), e),))

    def _number(self, source: Source) -> int:
        if source.blob not in self.disks:
            self.disks[source.blob] = len(self.blobs)
            self.blobs.append(self._disk(source.blob))
        return self.disks[source.blob]

    # -- groups -----------------------------------------------------------------------

    def _groups(self) -> list[Group]:
        """The one that needs the least comes first."""
        touched = [*self.work.missing, *self.work.excess]
        concerned = NOBODY.union(*(self.owners.path(e.path) for e in touched))
        found = [self._group(names, touched) for names in self._together()
                 if concerned & names]
        return sorted(found, key=lambda group: (group.size, group.parts))

    def _together(self) -> list[Names]:
        """Software that changes each other's files, with what it needs; every
        file set belongs to all."""
        groups: list[set[str]] = []
        filesets = {name for name in self.closures if name.startswith(FILESET_PREFIX)}
        software = [name for name in sorted(self.closures) if name not in filesets]
        for name in software:
            mine = {name}.union(*(m for m in self.owners.meetings if name in m))
            joined = [g for g in groups if g & mine]
            groups = [g for g in groups if g not in joined] + [mine.union(*joined)]
        return [frozenset(filesets.union(
            *(self.closures.get(name, (name,)) for name in group)))
            for group in groups or ([set()] if filesets else [])]

    def _group(self, names: Names, touched: Sequence[FileEntry]) -> Group:
        work = self.work
        mine = [e for e in touched if self.owners.path(e.path) & names]
        now = work.current.by_path
        content = {e.path for e in work.contents}
        wanted, was = units.enabled(work.target), units.enabled(work.current)
        paths = {e.path for e in mine}
        acts = []
        for name in units.order(wanted.keys() | was.keys()):
            if name not in wanted:
                if self.mode == REMOVE and paths.intersection(was[name]):
                    acts.append(Unit(STOP, name))
            elif name not in was:
                if paths.intersection(wanted[name]):
                    acts.append(Unit(START, name))
            elif self._disturbed(wanted[name], mine):
                acts.append(Unit(RESTART, name))
        return Group(
            parts=self._numbered(names), size=sum(e.size for e in mine if e.path in content),
            files=sum(e.path not in now for e in mine), units=tuple(acts),
            tmpfiles=tuple(e.path for e in mine if e.path in work.target
                           and units.is_tmpfiles(e.path)))

    def _disturbed(self, links: Collection[bytes], changed: Iterable[FileEntry]) -> bool:
        """Whether files change that belong to the software of a unit that
        runs already."""
        owners = NOBODY.union(*(self.owners.path(link) for link in links))
        return bool(owners) and any(
            owners & self.owners.path(e.path) for e in changed
            if not e.is_dir and e.path not in self.shared)


class _Change(msgspec.Struct, frozen=True):
    """:ivar names: of the parts it belongs to
    :ivar changes: what one worker does in one go
    :ivar disk: number
    """

    names: Names
    changes: tuple[Put | Name | Gone, ...]
    disk: int | None = None
    size: int = 0


def _with_links(changes: Iterable[_Change]) -> list[_Change]:
    """A symbolic link follows the file that it leads to, in the same change: ldconfig,
    which runs whenever somebody installs a package, removes links of libraries that
    lead nowhere."""
    found: list[_Change] = []
    files: dict[bytes, int] = {}
    links: dict[bytes, _Change] = {}
    for change in changes:
        put = change.changes[0]
        if isinstance(put, Put) and put.entry.type == SYMLINK:
            links[put.entry.path] = change
            continue
        files |= dict.fromkeys((each.entry.path if isinstance(each, Put) else each.path
                                for each in change.changes if not isinstance(each, Gone)),
                               len(found))
        found.append(change)
    alone: list[_Change] = []
    for _, end, link in sorted(_followed(links), key=lambda each: each[:2]):
        number = files.get(end)
        if number is None or found[number].names != link.names:
            alone.append(link)
            continue
        found[number] = msgspec.structs.replace(
            found[number], changes=(*found[number].changes, *link.changes))
    return found + alone


def _followed(links: Mapping[bytes, _Change]) -> Iterator[tuple[int, bytes, _Change]]:
    """Each link with where it ends, and after how many others."""
    for path, change in links.items():
        passed = [path]
        while (link := links.get(passed[-1])) is not None and len(passed) <= _LINKS:
            put = link.changes[0]
            assert isinstance(put, Put)  # noqa: S101 (it makes a link)
            passed.append(posixpath.normpath(posixpath.join(
                b"/", posixpath.dirname(passed[-1]), put.entry.target)).lstrip(b"/"))
        yield len(passed), passed[-1], change


def _chunked(changes: Iterable[_Change]) -> Iterator[Chunk]:
    """In pieces of the same disk and parts, so that what fails fails nothing
    else."""
    together: dict[tuple[int, tuple[str, ...]], list[_Change]] = {}
    for change in changes:
        disk = -1 if change.disk is None else change.disk
        together.setdefault((disk, tuple(sorted(change.names))), []).append(change)
    for key in sorted(together):
        piece: list[_Change] = []
        for change in together[key]:
            if piece and (sum(c.size for c in piece) + change.size > _BYTES
                          or len(piece) >= _CHANGES):
                yield _chunk(piece)
                piece = []
            piece.append(change)
        yield _chunk(piece)


def _chunk(piece: Sequence[_Change]) -> Chunk:
    first = piece[0].changes[0]
    assert not isinstance(first, Name)  # noqa: S101 (a name follows its file)
    return Chunk(disk=piece[0].disk, parts=first.parts,
                 changes=tuple(change for each in piece for change in each.changes),
                 size=sum(each.size for each in piece))
