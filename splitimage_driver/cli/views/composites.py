"""Composites, what their parts disagree about, and records that name one."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from splitimage_driver.cli.columns import (
    Column,
    Counted,
    Digest,
    Lines,
    Listing,
    Moment,
    Pairs,
    Size,
    Words,
)
from splitimage_driver.model.entry import text

if TYPE_CHECKING:
    from splitimage_driver.model.composite import Composite
    from splitimage_driver.store.base import Store

COMPOSITES = (
    Column("name", lambda c: c.name),
    Column("id", lambda c: c.id, long=True),
    Column("system", lambda c: c.system.name),
    Column("parts", lambda c: Words(c.visible())),
    Column("conflicts", lambda c: len(c.conflicts)),
    Column("base size", lambda c: Size(c.base.disk_size)),
    Column("public", lambda c: c.public, long=True),
    Column("owner", lambda c: c.owner, long=True),
    Column("created", lambda c: Moment(c.created), long=True),
)

_PARTS_OF = (
    Column("name", lambda p: p["name"]),
    Column("kind", lambda p: p["ref"].kind),
    Column("requires", lambda p: Words(p["ref"].requires)),
    Column("size", lambda p: Size(p["part"].size)),
    Column("files", lambda p: p["part"].files),
    Column("packages", lambda p: Counted(p["part"].packages)),
    Column("stored size", lambda p: Size(p["part"].blob_size), long=True),
    Column("completes", lambda p: Words(p["ref"].completes), long=True),
    Column("id", lambda p: Digest(p["ref"].id), long=True),
)


def composite(found: Composite, store: Store, *, hidden: bool = False) -> dict[str, Any]:
    """:param hidden: dependency parts too"""
    parts = [{"name": name, "ref": ref, "part": store.part(ref.id, owner=found.owner)}
             for name, ref in sorted(found.parts.items()) if hidden or not ref.hidden]
    left_out = len(found.parts) - len(parts)
    return {
        "name": found.name, "id": found.id, "system": found.system.name,
        "architecture": found.system.architecture, "packaging": found.system.packaging,
        "base": Digest(found.base.disk), "base size": Size(found.base.disk_size),
        "disk size": Size(found.base.virtual_size),
        "owner": found.owner, "public": found.public, "created": Moment(found.created),
        "dependency parts": sum(ref.hidden for ref in found.parts.values()),
        "notes": Lines(found.notes), "hardware": Pairs(found.hardware),
        "parts": Listing(
            f"parts ({left_out} dependency parts come along by themselves: --all)"
            if left_out else "parts", _PARTS_OF, parts),
        "conflicts": Listing(
            "conflicts (launches of these parts are refused until all are answered: "
            "conflict resolve)" if found.conflicts else "conflicts", CONFLICTS, conflicts(found)),
    }


CONFLICTS = (
    Column("path", lambda c: text(c["path"])),
    Column("parts", lambda c: Words(c["parts"])),
    Column("reason", lambda c: c["reason"]),
    Column("answer", lambda c: c["answer"]),
)


def conflicts(found: Composite) -> list[dict[str, Any]]:
    """The open ones, then those that are answered."""
    still = [{"path": c.path, "parts": c.parts, "reason": c.reason, "answer": ""}
             for c in found.conflicts]
    return still + [{"path": a.path, "parts": a.parts, "reason": "",
                     "answer": f"{a.action} {a.part}".strip()} for a in found.answers]


class _Names:
    """Of the records' composites, looked up all together when one is shown:
    tables leave them out."""

    def __init__(self, records: Sequence[Any], store: Store) -> None:
        self._records, self._store = records, store

    @functools.cached_property
    def _found(self) -> Mapping[str, str]:
        return self._store.composite_names({r.composite for r in self._records})

    def __getitem__(self, composite: str) -> str:
        return self._found.get(composite, composite)


class _Named(NamedTuple):
    """A record that can name its composite."""

    record: Any
    names: _Names

    @property
    def composite(self) -> str:
        return self.names[self.record.composite]


def with_composites(records: Iterable[Any], store: Store) -> list[_Named]:
    records = list(records)
    names = _Names(records, store)
    return [_Named(r, names) for r in records]
