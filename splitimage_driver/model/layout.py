"""What a server lays, or has laid, while it runs."""

from __future__ import annotations

import msgspec

LAYING, COMPLETE, FAILED = "laying", "complete", "failed"
ADD, REMOVE = "add", "remove"
#: Of a removal: it is given up where the guest's user has changed something.
REFUSE = "refuse"

#: Hexadecimal digits of a plan's id: with its prefix it fills the 20 bytes
#: that a serial number of a virtio disk can have.
ID_DIGITS = 12
PLAN_PREFIX, PART_PREFIX = "si-plan-", "si-"
#: Names of models, in the 16 bytes that a SCSI disk has for one: udev knows the
#: disks by them before it has looked into any (guest/55-splitimage.rules).
PLAN_MODEL, PART_MODEL = "splitimage-plan", "splitimage-part"
_PART_DIGITS = 17


def plan_serial(layout_id: str) -> str:
    """Serial number of the disk with the plan."""
    return PLAN_PREFIX + layout_id


def part_serial(blob: str) -> str:
    """Serial number of the disk that is a part's blob.

    :param blob: its sha256 in hexadecimal
    """
    return PART_PREFIX + blob[:_PART_DIGITS]


def model(serial: str) -> str:
    """What a disk with that serial number is, as its model says."""
    return PLAN_MODEL if serial.startswith(PLAN_PREFIX) else PART_MODEL


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
    :ivar policy: about what the guest's user has changed, see
        :mod:`splitimage_driver.model.delivery`
    :ivar parts: names of the composite's parts that come (or go), dependency
        parts too
    :ivar filesets: ids of the file sets that come (or go)
    :ivar disks: of the parts; the plan's own disk is not among them
    :ivar size: bytes of file content to be laid
    :ivar done: of these, as the guest last reported
    :ivar state: ``laying``, ``complete`` or ``failed``
    :ivar failed: part or unit to the reason, as the guest reported
    :ivar kept: paths that the guest's user had changed, the first ones
    :ivar kept_count: how many there are
    :ivar attached: the disks are in the machine
    :ivar heard: bytes of the machine's console that have been read
    :ivar begun: since the disks were attached the guest has told something: what
        it still tells of an attempt before that is no result of this one
    """

    id: str
    mode: str = ADD
    policy: str = "keep"
    parts: tuple[str, ...] = ()
    filesets: tuple[str, ...] = ()
    disks: tuple[PartDisk, ...] = ()
    size: int = 0
    done: int = 0
    state: str = LAYING
    failed: dict[str, str] = {}
    kept: tuple[str, ...] = ()
    kept_count: int = 0
    attached: bool = False
    heard: int = 0
    begun: bool = True

    @property
    def serial(self) -> str:
        return plan_serial(self.id)

    @property
    def refused(self) -> bool:
        """A removal that was given up before it began."""
        return self.state == FAILED and self.policy == REFUSE and bool(self.kept)

    @property
    def over(self) -> bool:
        """There is nothing left to do in the guest."""
        return self.state == COMPLETE or self.refused

    @property
    def settled(self) -> bool:
        """Nothing is left to do, and nothing of it needed any more."""
        return self.over and not self.attached

    @property
    def percent(self) -> int:
        """What is laid of the contents; 100 only when all else is done, too."""
        if self.state == COMPLETE:
            return 100
        return min(99, 100 * self.done // self.size) if self.size else 0
