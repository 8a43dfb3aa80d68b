"""Part blobs: squashfs images made from a tar stream.

The manifest wins wherever it and the blob both speak. squashfs-tools drop
ACLs, fractions of seconds and times outside 1970 to 2106; they make the root
and missing parent directories themselves, with metadata of their own; of an
absolute symbolic link to more than 100 bytes they lose the leading slash;
holes come back as zeros without a map. A blob may also hold
``.splitimage/padding``, which no manifest names.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from oslo_log import log as logging
from oslo_utils.imageutils import format_inspector

from splitimage_driver import exceptions, process
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.model.entry import FILE, FileEntry
from splitimage_driver.model.part import CONTENT

LOG = logging.getLogger(__name__)

PADDING = CONTENT.partition(b"/")[0] + b"/padding"
BLOCK = 128 << 10
_ATTEMPTS = 8
#: The last second of squashfs.
_LAST = 2**32 - 1
# A tree of 786 MB on two cores: level 3 takes 2.9 s for 220 MB, level 9 6.6 s
# for 208 MB, level 15 (the tool's own choice) 43 s for 196 MB.
_OPTIONS = ("-tar", "-noappend", "-comp", "zstd", "-Xcompression-level", "9",
            "-b", str(BLOCK), "-root-mode", "755",
            "-root-uid", "0", "-root-gid", "0", "-no-progress", "-quiet", "-exit-on-error")


def build(destination: Path, fill: Callable[[TarWriter], None], *, newest: int) -> None:
    """Write a blob. The same members in the same order give the same bytes
    with the same squashfs-tools and libzstd, unless one is dated in the future.

    Glance refuses for ever what looks like another format (one blob in
    65,536 has a boot record's mark at byte 510); such a blob is built again
    with a block of padding in front.

    :param destination: put in place of what is there; on its parent
        directory nothing else is written
    :param fill: adds the members; called again when the blob is rebuilt
    :param newest: time of the newest member in ns: what mksquashfs would date by
        the clock has this time
    :raises ToolMissing: squashfs-tools are not installed
    :raises ToolFailed: mksquashfs failed, e.g. for want of space
    """
    # It also is the latest of all times. -root-time has no effect with -tar.
    epoch = min(max(newest // 10**9, 0), _LAST)
    for attempt in range(_ATTEMPTS):
        destination.unlink(missing_ok=True)
        try:
            # sqfstar 4.5.1 is the same program, but takes no level (its issue 191)
            with process.writing(["mksquashfs", "-", destination.absolute(), *_OPTIONS],
                                 env={"SOURCE_DATE_EPOCH": str(epoch)}) as stream:
                # it fails over some sparse members, and finds holes itself
                archive = TarWriter(stream, holes=False)
                if attempt:
                    _pad(archive, attempt)
                fill(archive)
                archive.close()
        except BaseException:
            destination.unlink(missing_ok=True)
            raise
        found = _format(destination)
        if found == "raw":
            return
        LOG.info("%s looks like %s: building it again with padding", destination.name, found)
    destination.unlink()
    raise exceptions.Unsupported(what=f"the content of {destination.name}",
                                 reason=f"as a blob it looks like {found} whatever the padding")


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _format(path: Path) -> str:
    """What Glance would take the file for; ``raw`` is nothing known."""
    try:
        return str(format_inspector.detect_file_format(str(path)))
    except format_inspector.ImageFormatError as error:
        return str(error)


def _pad(archive: TarWriter, attempt: int) -> None:
    """A block that does not compress, first in the image: it decides what
    the bytes at the image's beginning are, and it moves all others."""
    content = b"".join(_noise(attempt))
    archive.add(FileEntry(PADDING, FILE, 0o600, size=len(content)), io.BytesIO(content))


def _noise(seed: int) -> Iterator[bytes]:
    for number in range(BLOCK // hashlib.sha256().digest_size):
        yield hashlib.sha256(b"%d %d" % (seed, number)).digest()
