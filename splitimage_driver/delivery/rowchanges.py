"""The rows of a shared file that a guest changes."""

from __future__ import annotations

from collections.abc import Callable

from splitimage_driver.merge import rows
from splitimage_driver.merge.base import Merger
from splitimage_driver.model.delivery import EARLY, LATE, Parts, RowChange, SharedFile
from splitimage_driver.model.entry import FileEntry

#: Rows before an added one that are named as its neighbours: some of them
#: may be gone by then.
_NEIGHBOURS = 8


def shared_file(merger: Merger, path: bytes, *, before: FileEntry | None,
                old: bytes | None, entry: FileEntry | None, new: bytes | None,
                parts: Callable[[bytes], Parts]) -> SharedFile:
    """:param before: the start image's entry; ``old`` its content
    :param entry: of the request; ``new`` its content
    :param parts: to whom the row of a key belongs
    :raises InvalidInput: one of them is no file of the merger's kind
    """
    was, now = rows.keyed(merger, old), rows.keyed(merger, new)
    order = list(now)
    place = {key: n for n, key in enumerate(order)}
    changes = [RowChange(parts=parts(key), key=key, old=was[key], new=None)
               for key in was if key not in now]
    for key in order:
        if was.get(key) != now[key]:
            at = place[key]
            changes.append(RowChange(
                parts=parts(key), key=key, old=was.get(key), new=now[key],
                after=tuple(reversed(order[max(0, at - _NEIGHBOURS):at]))))
    return SharedFile(
        phase=EARLY if path.startswith(b"etc/") else LATE, path=path,
        records=merger.grammar.records, key=merger.grammar.key,
        old=before.sha256.hex() if before is not None else "", entry=entry,
        content=new or b"", rows=tuple(changes))
