"""What a set of files from outside may bring."""

from __future__ import annotations

from splitimage_driver import exceptions
from splitimage_driver.archive.base import Limits
from splitimage_driver.model.entry import BLOCK, CHAR, FILE, text
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import CONTENT
from splitimage_driver.model.paths import refuse_escapes

_CAPABILITY = b"security.capability"
_RESERVED = CONTENT.partition(b"/")[0]


def check(source: str, manifest: Manifest, *, allow_setuid: bool = False,
          limits: Limits | None = None) -> None:
    """Refuse a file set that could take over the machine it is laid on.

    Names out of the tree and hard links out of the set are refused while
    it is read (:meth:`Tree.manifest`).

    :param source: what the user gave, for messages
    :param allow_setuid: an administrator allows set-uid and set-gid files
        and file capabilities; device nodes never are
    :raises UnsafePath: a member passes through a link of the set's own, or
        lies where blobs keep what is not a file of the tree
    :raises UnsafeMode: set-uid, set-gid, capabilities, a device node
    :raises TooLarge: over ``limits``
    """
    if limits is not None:
        limits.check(source, len(manifest), manifest.content_bytes)
    refuse_escapes(source, manifest)
    for entry in manifest:
        if entry.path.partition(b"/")[0] == _RESERVED:
            raise exceptions.UnsafePath(source=source, path=text(entry.path),
                                        reason=f"{text(_RESERVED)} is reserved")
        what = ""
        if entry.type in (CHAR, BLOCK):
            raise exceptions.UnsafeMode(source=source, path=text(entry.path),
                                        what="a device node (no option allows these)")
        if entry.type == FILE and entry.mode & 0o6000:
            what = "a set-uid file" if entry.mode & 0o4000 else "a set-gid file"
        elif any(name == _CAPABILITY for name, _ in entry.xattrs):
            what = "a file with capabilities"
        if what and not allow_setuid:
            raise exceptions.UnsafeMode(source=source, path=text(entry.path), what=what)
