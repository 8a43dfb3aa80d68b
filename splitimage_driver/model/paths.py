"""Where a path really lies: resolution through a tree's own directory links.

Everything is chroot-style: an absolute link target starts at the tree's
root, ``..`` stops there. On a usrmerged system ``bin/x`` is ``usr/bin/x``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from splitimage_driver import exceptions
from splitimage_driver.model.entry import SYMLINK, FileEntry, text
from splitimage_driver.model.manifest import Manifest

_LINKS = 40  # as the kernel's MAXSYMLINKS


class Resolver:
    """Resolves paths of one tree; remembers the directories it met.

    :ivar links: its symbolic links (path: target)
    """

    def __init__(self, tree: Manifest) -> None:
        self.links = {e.path: e.target for e in tree if e.type == SYMLINK}
        self._known: dict[bytes, bytes] = {b"": b""}

    def without(self, gone: Collection[bytes]) -> Resolver:
        """The same tree without these links."""
        if self.links.keys().isdisjoint(gone):
            return self
        other = Resolver(Manifest())
        other.links = {path: target for path, target in self.links.items() if path not in gone}
        return other

    def directory(self, path: bytes, links: int = 0) -> bytes:
        """The real place of a directory named ``path``.

        :param links: how many links led here
        :raises InvalidInput: links go round in a circle
        """
        known = self._known.get(path)
        if known is not None:
            return known
        if links > _LINKS:
            raise exceptions.InvalidInput(what=text(path), reason="links go round in a circle")
        pieces = path.split(b"/")
        depth = len(pieces)
        while depth and b"/".join(pieces[:depth]) not in self._known:
            depth -= 1
        walked = b"/".join(pieces[:depth])
        place = self._known[walked]
        for last in pieces[depth:]:
            walked = walked + b"/" + last if walked else last
            if last in (b"", b"."):
                pass
            elif last == b"..":
                place = place.rpartition(b"/")[0]
            else:
                real, place = place, place + b"/" + last if place else last
                target = self.links.get(place)
                if target is not None:
                    place = self.directory(join(real, target), links + 1)
            self._known[walked] = place
        return place

    def __call__(self, path: bytes) -> bytes:
        """The real place of ``path``; its last component is not followed."""
        path = path.strip(b"/")
        above, _, last = path.rpartition(b"/")
        if last in (b"", b".", b".."):
            return self.directory(path)
        real = self.directory(above)
        return real + b"/" + last if real else last

    def target(self, link: FileEntry) -> bytes:
        """The real place of what the symbolic link ``link`` points at."""
        return self(join(link.path.rpartition(b"/")[0], link.target))


def join(directory: bytes, target: bytes) -> bytes:
    """A link's target as a path from the root; ``..`` is left in."""
    if target.startswith(b"/"):
        return target.strip(b"/")
    return (directory + b"/" + target.rstrip(b"/")).lstrip(b"/")


def clean_member(source: str, raw: bytes) -> bytes:
    """The path of an archive member, or a refusal.

    :returns: the relative path, ``b""`` for the root
    :raises UnsafePath: absolute, or with a ``..``
    """
    if raw.startswith(b"/"):
        raise exceptions.UnsafePath(source=source, path=raw.decode("utf-8", "backslashreplace"),
                                    reason="its name is absolute")
    pieces = [piece for piece in raw.split(b"/") if piece not in (b"", b".")]
    if b".." in pieces:
        raise exceptions.UnsafePath(source=source, path=raw.decode("utf-8", "backslashreplace"),
                                    reason="its name contains ..")
    return b"/".join(pieces)


def refuse_escapes(source: str, entries: Iterable[FileEntry]) -> None:
    """Refuse a file set one of whose members lies below another that is not
    a directory (a link of its own making, above all).

    :raises UnsafePath: naming the member
    """
    kinds = {e.path: e.type for e in entries}
    for path in kinds:
        above = path.rpartition(b"/")[0]
        while above:
            kind = kinds.get(above)
            if kind is not None and kind != "d":
                raise exceptions.UnsafePath(
                    source=source, path=text(path),
                    reason=f"it lies below {text(above)}, which is not a directory")
            above = above.rpartition(b"/")[0]


Place = Callable[[bytes], bytes]
