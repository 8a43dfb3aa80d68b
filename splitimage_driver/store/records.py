"""Small records that stores answer with."""

from __future__ import annotations

import msgspec

WAITING, RUNNING = "waiting", "running"
#: Kind of a finding: somebody saw what he should not, or did not what he should.
ACCESS = "access"


class QueueItem(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar state: ``waiting`` or ``running``"""

    id: str
    subject: str
    state: str
    pid: int
    since: float


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What ``store check`` found.

    :ivar kind: ``damaged``, ``missing``, ``leftover``, ``unreferenced``,
        ``access``
    :ivar repaired: whether it was removed, or put right
    """

    kind: str
    subject: str
    detail: str
    repaired: bool = False

    @property
    def harmless(self) -> bool:
        return self.kind in ("leftover", "unreferenced", ACCESS)
