"""Capture: a gold machine becomes a composite image."""

from __future__ import annotations

import contextlib
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions, plugins
from splitimage_driver.archive.tree import BlobTree, TarTree, Tree, open_tree
from splitimage_driver.assembly import assembler, disks
from splitimage_driver.assembly.base import Opener, Session
from splitimage_driver.capture import clean, conflicts, inspect, pack
from splitimage_driver.capture.clean import Cleaned
from splitimage_driver.capture.draft import Draft
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.capture.splitter import Splitter
from splitimage_driver.model import part as parts_
from splitimage_driver.model.composite import MAX_PARTS, Base, Composite, Mount
from splitimage_driver.model.entry import text
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import check_name
from splitimage_driver.model.plan import Work
from splitimage_driver.progress import Operation
from splitimage_driver.store.base import Store

LOG = logging.getLogger(__name__)
SPLITTERS = "splitimage.splitters"


class Gold(msgspec.Struct, frozen=True, kw_only=True):
    """What is captured.

    :ivar disk: the finished disk, or the first step's
    :ivar steps: (name, disk or root tar) of the later steps, cumulative
    :ivar software: name: its packages; instead of steps
    :ivar hardware: what the administrator knows of the machine
    """

    disk: Path
    steps: tuple[tuple[str, Path], ...] = ()
    software: dict[str, tuple[str, ...]] = {}
    hardware: dict[str, Any] = {}

    def names(self) -> list[str]:
        """:raises InvalidInput: bad, doubled or no names, or both ways"""
        names = [*(name for name, _ in self.steps), *self.software]
        if self.steps and self.software:
            raise exceptions.InvalidInput(what="capture",
                                          reason="give steps or software, not both")
        if not names:
            raise exceptions.InvalidInput(what="capture", reason="no software is named")
        for name in names:
            check_name("part", name)
            if name == "base" or names.count(name) > 1:
                raise exceptions.InvalidInput(what=f"part name {name!r}",
                                              reason="it is given twice" if name != "base"
                                              else "it means the operating system")
        return names


class Capture:
    """One capture into one store.

    :param sessions: opens a disk: (path, format, mounts, readonly=...)
    """

    def __init__(self, store: Store, sessions: Opener, *, exclude: Sequence[str],
                 owner: str, public: bool = False) -> None:
        self.store, self.sessions, self.owner, self.public = store, sessions, owner, public
        self.exclude = exclude
        self.identity = Identity(exclude)

    def run(self, name: str, gold: Gold, *, onto: Composite | None = None,
            renumber: bool = False) -> Composite:
        """Capture ``gold`` as composite ``name``, or add its parts to
        ``onto``, whose base must be the same.

        :raises AlreadyExists: the composite, or one of its parts
        :raises AccountClash: numbers of accounts clash and not ``renumber``
        """
        check_name("composite", name)
        names = gold.names()
        rest = check_name("part", f"{name}-rest")
        if onto is not None:
            for part in (*names, rest):
                if part in onto.parts:
                    raise exceptions.AlreadyExists(kind="part", name=part,
                                                   where=f"composite {onto.name}")
        with self.store.scratch() as scratch, Operation(
                "capture", total=5, unit="steps", subject=name) as step:
            base_disk = scratch / "base.qcow2"
            with self._open(gold.disk, base_disk, readonly=onto is not None) as session:
                self.identity = Identity(self.exclude, session.mounts)
                session.read_tree(scratch / "base.tar")
                first = GoldState("base", TarTree(scratch / "base.tar"),
                                  sparse=session.sparse_files())
                step.advance()
                spool = Spool(scratch / "contents")
                draft, cleaned, states = self._split(gold, first, rest, spool, scratch)
                step.advance()
                facts = session.facts()
                if onto is None:
                    work = Work(first.manifest, cleaned.manifest, {}, cleaned.generated)
                    assembler.validate(session, work)
                    assembler.assemble(session, work, lambda blob, members: ())
                mounts = session.mounts
            step.advance()
            if onto is not None:
                self._same_base(onto, cleaned.manifest)
                base, shared = self.store.manifest(onto.base.manifest), onto.shared
            else:
                base, shared = cleaned.manifest, self._shared(first, cleaned)
            composite = self._pack(name, gold, draft, states, spool, scratch, base, shared,
                                   cleaned, onto, renumber)
            step.advance()
            if onto is None:
                composite = self._with_base(composite, gold, base_disk, mounts, facts, first,
                                            cleaned)
            composite = conflicts.found(composite, self.store)
            composite = self.store.save_composite(composite, replace=onto is not None)
            step.advance()
            LOG.info("captured %s: parts %s", composite.name, ", ".join(sorted(composite.parts)))
            return composite

    # -- reading ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self, disk: Path, copy: Path, *, readonly: bool = False) -> Iterator[Session]:
        """The gold disk, as a private copy that may be written."""
        info = disks.inspect(disk)
        if readonly:
            opened = self.sessions(disk, info.format, None, readonly=True, scratch=copy.parent)
        else:
            with Operation("copy", subject=str(disk)):
                disks.convert(disk, info.format, copy, "qcow2")
            opened = self.sessions(copy, "qcow2", None, scratch=copy.parent, shown=str(disk))
        with opened as session:
            yield session

    def _step(self, name: str, source: Path, scratch: Path, first: GoldState) -> GoldState:
        """A later step: a root tar, a directory, or a disk."""
        tree: Tree
        sparse: set[bytes] = set()
        if source.is_dir() or _is_archive(source):
            tree = open_tree(source)
        else:
            info = disks.inspect(source)
            with self.sessions(source, info.format, None, readonly=True,
                               scratch=scratch) as session:
                session.read_tree(scratch / f"{name}.tar")
                sparse = session.sparse_files()
            tree = TarTree(scratch / f"{name}.tar")
        return GoldState(name, tree, first.place, sparse)

    def _split(self, gold: Gold, first: GoldState, rest: str, spool: Spool,
               scratch: Path) -> tuple[Draft, Cleaned, list[GoldState]]:
        states = [first]
        for name, source in gold.steps:
            states.append(self._step(name, source, scratch, first))
        splitter: Splitter = plugins.load(SPLITTERS, "packages" if gold.software else "steps")()
        found = splitter.split(states, gold.software, rest=rest, identity=self.identity,
                               spool=spool)
        return found.draft, clean.clean(found.base, self.identity,
                                        generated=found.generated), states

    def _shared(self, first: GoldState, cleaned: Cleaned) -> dict[bytes, bytes]:
        """The base's files that are merged by rows."""
        return {path: cleaned.generated.get(path, content)
                for path, content in first.shared.items() if path in cleaned.manifest}

    def _same_base(self, onto: Composite, found: Manifest) -> None:
        """:raises InvalidInput: this gold machine stands on another base"""
        known = self.store.manifest(onto.base.manifest)
        other = [e for e in (*known, *found) if e.path
                 and not self.identity.excludes(e)
                 and not e.same((found if known.get(e.path) is e else known).get(e.path))]
        if other:
            raise exceptions.InvalidInput(
                what="the base of this gold machine",
                reason=f"it is not that of composite {onto.name}: {len(other)} entries differ, "
                       f"{text(other[0].path)} among them")

    # -- writing ------------------------------------------------------------------------

    def _pack(self, name: str, gold: Gold, draft: Draft, states: Sequence[GoldState],
              spool: Spool, scratch: Path, base: Manifest, shared: Mapping[bytes, bytes],
              cleaned: Cleaned, onto: Composite | None, renumber: bool) -> Composite:
        trees = [state.manifest for state in states]
        corrected = pack.correct(draft, base, states[-1].manifest, trees, shared=shared,
                                 identity=self.identity, ignore=cleaned.first_boot)
        if corrected:
            draft.notes.append(f"{corrected} paths belong to no part alone: they are right only "
                               f"where all of {', '.join(draft.software)} is asked for")
        manifests = draft.manifests(base, trees)
        others = {n: self.store.part_manifest(ref.id) for n, ref in
                  (onto.parts if onto else {}).items()}
        manifests = conflicts.settle_accounts(manifests, others, shared, renumber=renumber,
                                              notes=draft.notes)
        pack.take_contents(states, (e for m in manifests.values() for _, e in m.entries()),
                           spool)
        versions = _versions(states[-1])
        ids = {}
        with Operation("pack", total=len(manifests), unit="steps", subject=name) as step:
            for part, manifest in manifests.items():
                ids[part] = pack.store_part(
                    self.store, part, draft.kind(part), manifest, spool, scratch,
                    owner=self.owner, public=self.public,
                    packages=[versions.get(p, p) for p in draft.packages.get(part, ())]).id
                step.advance()
        refs = pack.references(draft, ids)
        if onto is not None:
            refs = {**onto.parts, **refs}
        if len(refs) > MAX_PARTS:
            raise exceptions.InvalidInput(
                what="capture", reason=f"{len(refs)} parts, at most {MAX_PARTS} fit into a "
                                       "composite: name fewer pieces of software")
        for content in cleaned.generated.values():
            spool.put(content)
        restore = self._restore(base, {**others, **manifests}, states, spool, scratch, onto, name)
        if onto is not None:
            return msgspec.structs.replace(
                onto, parts=refs, restore=restore, notes=(*onto.notes, *draft.notes))
        return Composite(
            name=name, id=str(uuid.uuid4()), owner=self.owner, created=time.time(),
            system=inspect.system(states[0].manifest, states[0].read),
            base=Base(disk="", disk_size=0, virtual_size=0, manifest="", mounts=()),
            parts=refs, restore=restore, shared=dict(shared), hardware=dict(gold.hardware),
            public=self.public, notes=tuple(draft.notes))

    def _restore(self, base: Manifest, manifests: Mapping[str, parts_.PartManifest],
                 states: Sequence[GoldState], spool: Spool, scratch: Path,
                 onto: Composite | None, name: str) -> str:
        manifest = pack.restore_manifest(base, manifests.values())
        if onto is not None:
            # What the first gold machine's base gave is taken over from there.
            known = self.store.part(onto.restore)
            if known.blob:
                by_path = {e.path: e for _, e in manifest.entries()}
                for member, content in BlobTree(self.store.path(known.blob)).contents(
                        set(by_path)):
                    spool.put(content.read())
                    del member
        pack.take_contents(states[:1], (e for _, e in manifest.entries()), spool)
        return pack.store_part(self.store, f"{name}.restore"[:63], parts_.RESTORE, manifest,
                               spool, scratch, owner=self.owner, public=self.public).id

    def _with_base(self, composite: Composite, gold: Gold, base_disk: Path,
                   mounts: tuple[Mount, ...], facts: dict[str, Any], first: GoldState,
                   cleaned: Cleaned) -> Composite:
        with Operation("compact", subject=composite.name):
            compact = base_disk.with_name("compact.qcow2")
            disks.convert(base_disk, "qcow2", compact, "qcow2")
        size = disks.virtual_size(compact)
        digest = self.store.adopt(compact)
        base = Base(disk=digest, disk_size=disks.allocated(self.store.path(digest)),
                    virtual_size=size, manifest=self.store.put_manifest(cleaned.manifest),
                    mounts=mounts)
        hardware = {**_hardware(composite, first, facts), **gold.hardware}
        return msgspec.structs.replace(composite, base=base, hardware=hardware)


def _is_archive(path: Path) -> bool:
    """A tar file by its looks; a disk image is none of these."""
    try:
        with path.open("rb") as stream:
            head = stream.read(6)
    except OSError as error:
        raise exceptions.InvalidInput(what=str(path),
                                      reason=error.strerror or str(error)) from error
    return (head[:2] == b"\x1f\x8b" or head[:4] == b"\x28\xb5\x2f\xfd" or head == b"\xfd7zXZ\x00"
            or (head[:4] != b"QFI\xfb" and tarfile.is_tarfile(path)))


def _versions(state: GoldState) -> dict[str, str]:
    if state.packages is None:
        return {}
    return {key: f"{key}={p.version}" for key, p in state.packages.packages.items()}


def _hardware(composite: Composite, first: GoldState, facts: dict[str, Any]) -> dict[str, Any]:
    """What the gold machine's tree and disk say about the hardware it is
    made for."""
    tree = first.manifest
    modules = sorted({e.path.split(b"/")[3 if e.path.startswith(b"usr/") else 2].decode()
                      for e in tree if e.path.startswith((b"usr/lib/modules/", b"lib/modules/"))
                      and e.path.count(b"/") > 3})
    drivers = sorted({e.path.rpartition(b"/")[2].partition(b".")[0].decode("ascii", "replace")
                      for e in tree if b"/modules/" in e.path and b".ko" in e.path
                      and any(w in e.path for w in (b"virtio", b"/ata/", b"nvme", b"xen",
                                                    b"hyperv", b"vmw", b"/net/ethernet/"))})
    uefi = any(e.path.lower().startswith(b"boot/efi/efi/") for e in tree)
    return {"architecture": composite.system.architecture, "firmware": "uefi" if uefi else "bios",
            "kernels": modules, "drivers": drivers, "disk": facts}
