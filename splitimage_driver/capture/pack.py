"""From a draft to stored parts: contents packed, relations recorded."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.archive import blob
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.capture.draft import Draft
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.model import part as parts_
from splitimage_driver.model.composite import PartRef
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import FILESET, Layer, Part, PartManifest
from splitimage_driver.planning import target
from splitimage_driver.progress import Operation
from splitimage_driver.store.base import Store


def correct(draft: Draft, base: Manifest, gold: Manifest, trees: Sequence[Manifest], *,
            shared: Mapping[bytes, bytes], identity: Identity,
            ignore: frozenset[bytes]) -> int:
    """Lay all parts over the base and compare with the gold machine; what
    differs is put right in the rest part, for requests that want everything.

    :param ignore: paths that are this project's own
    :returns: number of paths put right
    """
    manifests = draft.manifests(base, trees)
    laid = target.lay(base, [
        target.Laid(name=name, kind=draft.kind(name), blob=name, manifest=manifest)
        for name, manifest in manifests.items()], shared=shared)
    everything = frozenset(manifests) - {draft.rest}
    tree, goal = laid.manifest.by_path, gold.by_path
    corrected = 0
    for path in {*tree, *goal}:
        have, want = tree.get(path), goal.get(path)
        known = want or have
        if (not path or path in ignore or known is None or identity.excludes(known)
                or (want is not None and want.same(have))):
            continue
        corrected += 1
        draft.claim(draft.rest, everything, path, want)
    return corrected


def take_contents(states: Sequence[GoldState], entries: Iterable[FileEntry],
                  spool: Spool) -> None:
    """Spool the contents of ``entries``, each from a state that has it."""
    needed = {e.sha256 for e in entries if e.is_file and e.size}
    needed = {sha for sha in needed if not spool.path(sha).exists()}
    with Operation("collect", total=len(needed), unit="files") as step:
        for state in reversed(states):
            here = {}
            for e in state.manifest:
                if e.sha256 in needed:
                    here[e.sha256] = e.path
            spool.take(state, here.values())
            needed -= set(here)
            step.advance(len(here))


def build_blob(manifest: PartManifest, spool: Spool, destination: Path) -> bool:
    """The squashfs of a part's contents; False where it has none."""
    def fill(tar: TarWriter) -> None:
        done: set[bytes] = set()
        for layer, e in manifest.entries():
            place = parts_.member(layer, e)
            # mksquashfs takes no time before 1970; the manifest has it.
            mtime = max(e.mtime, 0)
            if not e.is_file:
                if not layer.when:
                    tar.add(e, mtime=mtime)
            elif place not in done:
                done.add(place)
                kept = msgspec.structs.replace(e, path=place, link=b"")
                if e.size == 0:
                    tar.add(kept, io.BytesIO(), mtime=mtime)
                else:
                    with spool.path(e.sha256).open("rb") as content:
                        tar.add(kept, content, mtime=mtime)

    if not any(e.is_file and e.size for _, e in manifest.entries()):
        return False
    blob.build(destination, fill, newest=max(e.mtime for _, e in manifest.entries()))
    return True


def store_part(store: Store, name: str, kind: str, manifest: PartManifest, spool: Spool,
               scratch: Path, *, owner: str, packages: Iterable[str] = (),
               public: bool = False) -> Part:
    """Pack and record one part; one that is stored already is not packed
    again. All but file sets are pending until a composite refers to them."""
    pending = kind != FILESET
    # There is none, or it was deleted just now, or what was kept of it is damaged.
    with contextlib.suppress(exceptions.NotFound, exceptions.BadImage, exceptions.DigestMismatch):
        known = store.part(manifest.digest, owner=owner)
        return store.add_part(known, manifest, pending=pending)
    destination = scratch / f"{name}.squashfs"
    digest, size = "", 0
    if build_blob(manifest, spool, destination):
        size = destination.stat().st_size
        digest = store.adopt(destination)
    return store.add_part(Part(
        id=manifest.digest, name=name, kind=kind, blob=digest, blob_size=size,
        size=manifest.size, files=manifest.files, owner=owner, created=time.time(),
        packages=tuple(sorted(packages)), public=public), manifest, pending=pending)


def restore_manifest(base: Manifest, parts: Iterable[PartManifest]) -> PartManifest:
    """The base's versions of every path that some part changes or removes."""
    touched: set[bytes] = set()
    for manifest in parts:
        touched |= manifest.paths()
    return PartManifest((Layer(entries=tuple(
        msgspec.structs.replace(e, link=b"") for e in base if e.path in touched)),))


def references(draft: Draft, ids: Mapping[str, str]) -> dict[str, PartRef]:
    """What the composite records of each part."""
    return {name: PartRef(
        id=part_id, kind=draft.kind(name), requires=tuple(sorted(draft.requires.get(name, ()))),
        hidden=draft.kind(name) == parts_.DEPENDENCY,
        completes=draft.software if name == draft.rest else ()) for name, part_id in ids.items()}
