"""Small records that stores answer with."""

from __future__ import annotations

import msgspec

WAITING, RUNNING = "waiting", "running"
#: Kind of a finding: somebody saw what he should not, or did not what he should.
ACCESS = "access"


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What an assembly asks the queue for, and what others can have from it.

    :ivar composite: its name or id, as it was asked for; ``parts`` and
        ``filesets`` likewise
    :ivar kin: of those whose images can be made from each other
    :ivar seconds: to make it from a stored image
    :ivar source: name of that image
    :ivar room: bytes of scratch space
    :ivar changes: what makes its tree out of the base's; empty: nobody will
        be able to use its image
    """

    owner: str
    composite: str
    parts: tuple[str, ...] = ()
    filesets: tuple[str, ...] = ()
    recipe: str = ""
    kin: str
    seconds: float
    source: str
    room: int = 0
    changes: bytes = b""


class QueueItem(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar state: ``waiting`` or ``running``
    :ivar need: of an assembly
    :ivar source: the image it is made from, stored or still to be made: its
        name; "": not known
    :ivar left: seconds until its image is there, as predicted; None: not known
    """

    id: str
    subject: str
    state: str
    pid: int
    since: float
    need: Need | None = None
    source: str = ""
    left: float | None = None


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
