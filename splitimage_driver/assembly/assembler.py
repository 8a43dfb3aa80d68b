"""Carry out a plan on a disk: the only place that writes into an image."""

from __future__ import annotations

import collections
import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.assembly.base import Session
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.plan import Work
from splitimage_driver.progress import Operation

LOG = logging.getLogger(__name__)

#: (member, content) of the wanted members of a blob, each once.
Reader = Callable[[str, frozenset[bytes]], Iterable[tuple[bytes, BinaryIO]]]

_SPOOL = 16 << 20


def validate(session: Session, work: Work) -> None:
    """Check that the work can be done, without writing anything.

    :raises NoSpaceInImage: too few free blocks or inodes, naming where
    :raises NothingToCompose: some content is nowhere to be had
    """
    if work.unobtainable:
        raise exceptions.NothingToCompose(
            reason=f"the content of {len(work.unobtainable)} files cannot be had")
    spaces = session.space()
    points = sorted((s.mountpoint.strip("/").encode() for s in spaces), key=len, reverse=True)
    travelling = {e.path for e in work.contents}
    blocks: collections.Counter[bytes] = collections.Counter()
    inodes: collections.Counter[bytes] = collections.Counter()
    sizes = {s.mountpoint.strip("/").encode(): s.block for s in spaces}
    for e in work.missing:
        point = _mount_of(e.path, points)
        new = work.current.get(e.path) is None
        inodes[point] += new
        if e.path in travelling:
            # Beside what it replaces: that may be given back only later.
            blocks[point] += _room(e, sizes[point])
        elif e.is_dir and new:
            blocks[point] += 1
    gone = (*work.excess, *work.replaced)
    names = collections.Counter(e.link for e in work.current)
    names.subtract(e.link for e in gone)
    for e in gone:
        # A hard-linked file is gone with its last name.
        if not e.link or (e.link == e.path and not names[e.link]):
            point = _mount_of(e.path, points)
            inodes[point] -= 1
            blocks[point] -= sum(length for _, length in e.sparse or ((0, e.size),)
                                 ) // sizes[point]
    for space in spaces:
        point = space.mountpoint.strip("/").encode()
        # One in a hundred for what file systems keep beside the contents.
        needed = blocks[point] + max(blocks[point], 0) // 100
        if needed > space.blocks:
            raise exceptions.NoSpaceInImage(
                mountpoint=space.mountpoint, needed=needed * space.block, unit="bytes",
                available=space.blocks * space.block)
        if 0 <= space.inodes < inodes[point]:
            raise exceptions.NoSpaceInImage(mountpoint=space.mountpoint, needed=inodes[point],
                                            unit="inodes", available=space.inodes)


def _room(e: FileEntry, block: int) -> int:
    """Blocks that a file's data takes at most; holes take none."""
    if e.sparse:
        return sum(-(-length // block) + 1 for _, length in e.sparse if length)
    return -(-e.size // block)


def _mount_of(path: bytes, points: Iterable[bytes]) -> bytes:
    for point in points:
        if not point or path == point or path.startswith(point + b"/"):
            return point
    return b""


def assemble(session: Session, work: Work, read: Reader) -> dict[str, float]:
    """Remove, write, trim; the caller has validated.

    :returns: measured facts: seconds by step, bytes injected
    """
    began = time.monotonic()
    gone = (*work.replaced, *work.excess)
    session.remove([e.path for e in gone if not e.is_dir], [e.path for e in gone if e.is_dir])
    removed = time.monotonic()
    written = 0
    if work.missing or work.directories:
        selinux = any(name == b"security.selinux" for e in work.missing for name, _ in e.xattrs)

        def fill(stream: BinaryIO) -> None:
            nonlocal written
            written = _write(stream, work, read)

        session.write(fill, selinux=selinux)
    injected = time.monotonic()
    session.trim()
    facts = {"remove_seconds": removed - began, "inject_seconds": injected - removed,
             "trim_seconds": time.monotonic() - injected, "injected_bytes": float(written)}
    LOG.info("assembled: %d files written (%d bytes), %d removed", len(work.missing), written,
             len(gone))
    return facts


def _write(stream: BinaryIO, work: Work, read: Reader) -> int:
    """The one archive that brings everything missing; returns content bytes.

    New directories come first, so that every file has its place; every
    directory whose time was disturbed comes once more at the end.
    """
    missing = {e.path for e in work.missing}
    carried = {e.path for e in work.contents}
    with Operation("inject", total=work.inject_bytes, unit="bytes") as step:
        tar = TarWriter(stream)
        for e in work.missing:
            if e.is_dir:
                tar.add(e)
        led: dict[bytes, bytes] = {}
        for e, content in _with_contents(work, read):
            tar.add(e, content)
            step.advance(e.size)
            if e.link:
                led[e.link] = e.path
        for e in work.missing:
            if e.is_dir:
                continue
            if not e.is_file:
                tar.add(e)
            elif e.path in carried:
                pass
            elif e.link in led:
                tar.add(e, hardlink_to=led[e.link])
            elif e.link and (there := work.linkable(e, missing)) is not None:
                tar.add(e, hardlink_to=there)
            elif e.size == 0:
                tar.add(e, io.BytesIO())
                if e.link:
                    led[e.link] = e.path
        for e in work.directories:
            tar.add(e, mtime=e.mtime)
        # Not in a finally: a cut archive must not look like a whole one.
        tar.close()
        return step.current


def _with_contents(work: Work, read: Reader) -> Iterator[tuple[FileEntry, BinaryIO]]:
    by_blob: dict[str, dict[bytes, list[FileEntry]]] = {}
    for e in work.contents:
        if e.path in work.generated:
            yield e, io.BytesIO(work.generated[e.path])
        else:
            source = work.sources[e.path]
            by_blob.setdefault(source.blob, {}).setdefault(source.member, []).append(e)
    for blob in sorted(by_blob):
        wanted = by_blob[blob]
        left = set(wanted)
        for member, content in read(blob, frozenset(wanted)):
            if member not in left:
                continue
            left.discard(member)
            targets = wanted[member]
            if len(targets) == 1:
                yield targets[0], content
                continue
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as spool:
                while piece := content.read(1 << 20):
                    spool.write(piece)
                for e in targets:
                    spool.seek(0)
                    yield e, spool  # type: ignore[misc]
        if left:
            raise exceptions.DigestMismatch(
                what=f"part blob {blob[:12]}", expected=f"{len(wanted)} members",
                found=f"{len(wanted) - len(left)}")

