"""What a server lays, or has laid, while it runs."""

from __future__ import annotations

import msgspec

LAYING, COMPLETE, FAILED = "laying", "complete", "failed"
ADD, REMOVE = "add", "remove"

#: Hexadecimal digits of a plan's id: with its prefix it fills the 20 bytes
#: that a serial number of a virtio disk can have.
ID_DIGITS = 12
PLAN_PREFIX, PART_PREFIX = "si-plan-", "si-"
_PART_DIGITS = 17


def plan_serial(layout_id: str) -> str:
    """Serial number of the disk with the plan."""
    return PLAN_PREFIX + layout_id


def part_serial(blob: str) -> str:
    """Serial number of the disk that is a part's blob.

    :param blob: its sha256 in hexadecimal
    """
    return PART_PREFIX + blob[:_PART_DIGITS]


class PartDisk(msgspec.Struct, frozen=True):
    """A part's blob as the guest sees it.

    :ivar blob: sha256
    """

    serial: str
    blob: str


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that is carried out inside a running server.

    :ivar id: of the plan, :data:`ID_DIGITS` hexadecimal digits, random
    :ivar mode: ``add`` or ``remove``
    :ivar parts: names of the composite's parts that come (or go), dependency
        parts too
    :ivar filesets: ids of the file sets that come (or go)
    :ivar disks: of the parts; the plan's own disk is not among them
    :ivar size: bytes of file content to be laid
    :ivar done: of these, as the guest last reported
    :ivar state: ``laying``, ``complete`` or ``failed``
    :ivar failed: part or unit to the reason, as the guest reported
    :ivar kept: paths that the guest's user had changed, the first ones
    :ivar attached: the disks are in the machine
    """

    id: str
    mode: str = ADD
    parts: tuple[str, ...] = ()
    filesets: tuple[str, ...] = ()
    disks: tuple[PartDisk, ...] = ()
    size: int = 0
    done: int = 0
    state: str = LAYING
    failed: dict[str, str] = {}
    kept: tuple[str, ...] = ()
    attached: bool = False

    @property
    def serial(self) -> str:
        return plan_serial(self.id)
