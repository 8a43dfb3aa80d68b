"""What parts of one composite disagree about, found once, at capture."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.archive import acl
from splitimage_driver.archive.tree import BlobTree
from splitimage_driver.merge import ids
from splitimage_driver.model import part as parts_
from splitimage_driver.model.composite import Composite, Conflict
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.part import Layer, PartManifest, Row
from splitimage_driver.model.plan import Source
from splitimage_driver.planning import target
from splitimage_driver.store.base import Store

#: Bytes of a file that is read to be merged.
_SMALL = 4 << 20


def laid(composite: Composite, name: str, store: Store) -> target.Laid:
    """A part of a composite, ready to be laid."""
    ref = composite.parts[name]
    return target.Laid(name=name, kind=ref.kind, blob=store.part(ref.id).blob,
                       manifest=store.part_manifest(ref.id))


def restore_of(composite: Composite, store: Store) -> target.Laid:
    return target.Laid(name="", kind=parts_.RESTORE, blob=store.part(composite.restore).blob,
                       manifest=store.part_manifest(composite.restore))


def reader(store: Store) -> target.Read:
    """Reads single small files out of part blobs."""
    known: dict[Source, bytes] = {}

    def read(source: Source) -> bytes:
        if source not in known:
            found = BlobTree(store.path(source.blob)).read([source.member], limit=_SMALL)
            known[source] = found[source.member]
        return known[source]

    return read


def found(composite: Composite, store: Store) -> Composite:
    """The composite with its conflicts: for every two parts that speak about
    the same path, and for all together where more of them do, what no rule and
    no recorded answer decides."""
    parts = {name: laid(composite, name, store) for name in composite.parts}
    paths = {name: {p for p in part.manifest.paths()} - _directories(part.manifest)
             for name, part in parts.items()}
    base, restore = store.manifest(composite.base.manifest), restore_of(composite, store)
    read = reader(store)

    def left(*names: str) -> tuple[Conflict, ...]:
        return target.lay(base, [parts[n] for n in composite.closure(names)],
                          shared=composite.shared, restore=restore, answers=composite.answers,
                          read=read).conflicts

    conflicts: dict[bytes, Conflict] = {}
    for one, two in itertools.combinations(sorted(parts), 2):
        if paths[one].isdisjoint(paths[two]):
            continue
        for conflict in left(one, two):
            known = conflicts.get(conflict.path)
            merged = tuple(sorted({*conflict.parts, *(known.parts if known else ())}))
            conflicts[conflict.path] = Conflict(conflict.path, merged, conflict.reason)
    spoken = collections.Counter(itertools.chain.from_iterable(paths.values()))
    if any(times > 2 for times in spoken.values()):
        for conflict in left(*parts):
            conflicts.setdefault(conflict.path, conflict)
    return msgspec.structs.replace(
        composite, conflicts=tuple(conflicts[p] for p in sorted(conflicts)))


def refusal(composite: Composite, open_: Sequence[Conflict],
            filesets: Collection[str]) -> exceptions.OpenConflict:
    """What a request with open conflicts is answered: the first of them, and
    who can decide it.

    :param filesets: names of the request's own
    """
    first = open_[0]
    own = [name for name in first.parts if name in filesets]
    others = [name for name in first.parts if name not in filesets]
    who = []
    if own:
        who.append(f"file set{'s' * (len(own) > 1)} {' and '.join(own)}")
    if others or not own:
        who.append(f"part{'s' * (len(others) != 1)} {' and '.join(others)}".strip()
                   + ("" if own else f" of composite {composite.name}"))
    kind = exceptions.FilesetConflict if own else exceptions.OpenConflict
    return kind(who=" and ".join(who), composite=composite.name,
                path="/" + first.path.decode(errors="replace"), reason=first.reason,
                more=f" (and {len(open_) - 1} more)" if len(open_) > 1 else "")


def _directories(manifest: PartManifest) -> set[bytes]:
    return {e.path for _, e in manifest.entries() if e.is_dir}


# -- accounts ----------------------------------------------------------------------


def settle_accounts(new: Mapping[str, PartManifest], others: Mapping[str, PartManifest],
                    shared: Mapping[bytes, bytes], *, renumber: bool,
                    notes: list[str]) -> dict[str, PartManifest]:
    """Refuse, or renumber in the new parts, accounts that clash with those of
    the parts that are there.

    An account that both have by name gets the number that it has there; one
    whose number is another's gets a free one.

    :raises AccountClash: and not ``renumber``; or that does not help
    """
    rows = {name: _rows(m) for name, m in {**others, **new}.items()}
    clashes = ids.account_clashes(shared, rows)
    if not clashes:
        return dict(new)
    tables: dict[str, dict[int, int]] = {"uid": {}, "gid": {}}
    for clash in clashes:
        mine = {h.number for h in clash.holders if h.part in new}
        theirs = {h.number for h in clash.holders if h.part not in new}
        if not renumber or not mine:
            raise _clash(clashes)
        if clash.reason == "name" and len(theirs) == 1:
            tables[clash.kind].update(dict.fromkeys(mine - theirs, *theirs))
    for clash in clashes:
        if clash.reason == "number":
            table = tables[clash.kind]
            wanted = {h.number for h in clash.holders if h.part in new} - table.keys()
            table |= ids.free_ids(clash.kind, wanted, shared, {
                **rows, "": [_taken(clash.kind, n) for n in table.values()]})
    uids, gids = tables["uid"], tables["gid"]
    result = {name: _renumbered(m, uids, gids) for name, m in new.items()}
    left = ids.account_clashes(shared, {name: _rows(m) for name, m in
                                        {**others, **result}.items()})
    if left:
        raise _clash(left)
    notes += [f"{kind} {old} became {now}" for kind, table in (("uid", uids), ("gid", gids))
              for old, now in sorted(table.items())]
    return result


def _clash(clashes: Iterable[ids.AccountClash]) -> exceptions.AccountClash:
    return exceptions.AccountClash(clashes="; ".join(str(c) for c in clashes))


def _taken(kind: str, number: int) -> Row:
    """A row that says that a number is not free."""
    value = b"taken%d:x:%d:" % (number, number)
    return Row(ids.FILES[kind], value, value + (b"0::/:/" if kind == "uid" else b""))


def _rows(manifest: PartManifest) -> list[Row]:
    return [row for layer in manifest.layers for row in layer.rows]


def _renumbered(manifest: PartManifest, uids: Mapping[int, int],
                gids: Mapping[int, int]) -> PartManifest:
    def owner(e: FileEntry) -> FileEntry:
        return msgspec.structs.replace(
            e, uid=uids.get(e.uid, e.uid), gid=gids.get(e.gid, e.gid),
            xattrs=tuple((name, acl.renumbered(value, uids, gids)
                          if name in (acl.ACCESS, acl.DEFAULT) else value)
                         for name, value in e.xattrs))

    return PartManifest(tuple(Layer(
        when=layer.when, deleted=layer.deleted,
        entries=tuple(owner(e) for e in layer.entries),
        rows=tuple(ids.renumber(layer.rows, uids, gids))) for layer in manifest.layers))
