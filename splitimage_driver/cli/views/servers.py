"""Servers, and what they lay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from splitimage_driver.cli.columns import (
    Column,
    Digest,
    Digests,
    Id,
    Lines,
    Moment,
    Pairs,
    Ports,
    Size,
    Words,
)
from splitimage_driver.cli.views.composites import with_composites
from splitimage_driver.model.layout import FAILED, REMOVE

if TYPE_CHECKING:
    from splitimage_driver.model.layout import Layout
    from splitimage_driver.model.server import Server
    from splitimage_driver.store.base import Store


def _state(found: Server) -> str:
    """What runs, and how far its layout is."""
    if found.layout is None or found.complete:
        return found.state
    return f"{found.state}, {_laying(found.layout)}"


def _laying(layout: Layout) -> str:
    if layout.state == FAILED:
        return "layout failed"
    return f"{'removing' if layout.mode == REMOVE else 'laying'} {layout.percent} %"


class State(FormattableColumn[str]):
    """Programs get the server's own state alone: the layout's is a column."""

    def __init__(self, found: Server) -> None:
        super().__init__(found.state)
        self._shown = _state(found)

    def human_readable(self) -> str:
        return self._shown


SERVERS = (
    Column("name", lambda s: s.record.name),
    Column("id", lambda s: s.record.id),
    Column("state", lambda s: State(s.record)),
    Column("ports", lambda s: Ports(s.record.ports)),
    Column("parts", lambda s: Words(s.record.parts)),
    Column("filesets", lambda s: Digests(s.record.filesets), long=True),
    Column("layout", lambda s: s.record.layout.state if s.record.layout else "", long=True),
    Column("laid percent", lambda s: s.record.layout.percent if s.record.layout else 100,
           long=True),
    Column("composite", lambda s: s.composite, long=True),
    Column("image", lambda s: Id(s.record.image), long=True),
    Column("disk", lambda s: Digest(s.record.disk), long=True),
    Column("pid", lambda s: s.record.pid, long=True),
    Column("directory", lambda s: s.record.directory, long=True),
    Column("owner", lambda s: s.record.owner, long=True),
    Column("created", lambda s: Moment(s.record.created), long=True),
)


def server(found: Server, store: Store) -> dict[str, Any]:
    [named] = with_composites([found], store)
    return {**{c.name: c.value(named) for c in SERVERS}, "image": found.image,
            **(layout(found.layout) if found.layout is not None else {})}


def layout(found: Layout) -> dict[str, Any]:
    """What a server lays, or has laid last."""
    more = found.kept_count - len(found.kept)
    return {
        "layout": "refused" if found.refused else found.state,
        "layout mode": found.mode,
        "laid percent": found.percent, "laid": Size(found.done), "to lay": Size(found.size),
        "layout parts": Words(found.parts), "layout filesets": Digests(found.filesets),
        "failed": Pairs(dict(found.failed)),
        "kept": Lines([*found.kept, *([f"and {more} more"] if more > 0 else [])])}
