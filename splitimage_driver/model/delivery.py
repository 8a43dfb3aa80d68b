"""What a guest has to do to lay parts itself: the plan that it is given.

Every change is tied to the parts that it belongs to, by their numbers; none
means: to all of them.
"""

from __future__ import annotations

import msgspec

from splitimage_driver.model.entry import FileEntry

#: How parts get onto a machine's disk: before it boots; while it runs; or what
#: is predicted to bring its services up earlier.
INJECT, STREAM, AUTO = "inject", "stream", "auto"
WAYS = (INJECT, STREAM, AUTO)

EARLY, LATE = "early", "late"
START, RESTART, STOP = "start", "restart", "stop"
#: What becomes of a path that the guest's user has changed: it is kept; the
#: whole plan is refused; or it is overwritten.
KEEP, REFUSE, FORCE = "keep", "refuse", "force"

Parts = tuple[int, ...]


class BlobDisk(msgspec.Struct, frozen=True):
    """:ivar blob: sha256 of a part's squashfs
    :ivar size: its bytes
    :ivar name: of the part, for messages
    """

    blob: str
    size: int
    name: str


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """A path that is written.

    :ivar entry: as it shall be
    :ivar before: as the start image has it; None: not at all
    :ivar member: where the chunk's disk holds the content of a file; without
        a disk it is generated, empty, or a further name
    :ivar onto: name of the same file that is on the disk and stays
    """

    parts: Parts
    entry: FileEntry
    before: FileEntry | None = None
    member: bytes = b""
    onto: bytes = b""


class Name(msgspec.Struct, frozen=True):
    """A further name of the file put just before."""

    path: bytes
    before: FileEntry | None


class Gone(msgspec.Struct, frozen=True):
    """A path that is removed."""

    parts: Parts
    before: FileEntry


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that one worker of the guest makes, and makes durable, at once.

    :ivar disk: number of the disk with the contents; None: needs none
    :ivar size: bytes of content
    """

    disk: int | None
    parts: Parts
    changes: tuple[Put | Name | Gone, ...]
    size: int = 0


class RowChange(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar key: as :func:`splitimage_driver.merge.rows.keyed` gives it
    :ivar old: the start image's row; None: it has none
    :ivar new: None: the row goes
    :ivar after: keys of the rows before it in the new file, the nearest first
    """

    parts: Parts
    key: bytes
    old: bytes | None
    new: bytes | None
    after: tuple[bytes, ...] = ()


class SharedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is changed row by row where the guest has changed it too.

    :ivar phase: ``early``, before any other file (accounts), or ``late``,
        after all of them (what the package manager knows)
    :ivar old: sha256 of the start image's content, hexadecimal; "": no file
    :ivar entry: as it shall be; None: it goes
    :ivar content: of that
    """

    phase: str
    path: bytes
    records: str
    key: bytes
    old: str
    entry: FileEntry | None
    content: bytes
    rows: tuple[RowChange, ...]


class Unit(msgspec.Struct, frozen=True):
    """A unit of systemd and what is done with it."""

    action: str
    name: bytes


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Parts whose services need each other: they are started when all of
    these parts, with what they require, are there.

    :ivar size: bytes of content that they bring
    :ivar files: number of new paths
    :ivar tmpfiles: paths of new configuration of systemd-tmpfiles
    """

    parts: Parts
    size: int
    files: int
    units: tuple[Unit, ...] = ()
    tmpfiles: tuple[bytes, ...] = ()


class Times(msgspec.Struct, frozen=True):
    """Time of a directory, set at the end.

    :ivar mtime: nanoseconds
    """

    path: bytes
    mtime: int


class DeliveryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar mode: ``add`` or ``remove``
    :ivar policy: about what the user has changed: ``keep``, ``refuse``,
        ``force``
    :ivar parts: names by number
    :ivar directories: to make or change, outermost first
    """

    mode: str
    policy: str
    parts: tuple[str, ...]
    disks: tuple[BlobDisk, ...]
    groups: tuple[Group, ...]
    shared: tuple[SharedFile, ...]
    directories: tuple[Put, ...]
    chunks: tuple[Chunk, ...]
    times: tuple[Times, ...]

    @property
    def size(self) -> int:
        """Bytes of content to be written."""
        return sum(chunk.size for chunk in self.chunks)
