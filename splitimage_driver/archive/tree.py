"""Reading file trees as streams: tar files, squashfs blobs, directories."""

from __future__ import annotations

import tarfile
from pathlib import Path

from splitimage_driver import exceptions
from splitimage_driver.archive import compression
from splitimage_driver.archive.base import Limits, Member, Tree
from splitimage_driver.archive.directory import DirTree
from splitimage_driver.archive.tar import BlobTree, TarTree

__all__ = ["BlobTree", "DirTree", "Limits", "Member", "TarTree", "Tree", "open_tree"]

_SQUASHFS = b"hsqs"
_EXPECTED = "a directory, a tar archive or a squashfs"


def open_tree(path: Path, owner: tuple[int, int] | None = None) -> Tree:
    """The tree that a path holds, found by looking, not by its name.

    :param owner: (uid, gid) of every member of a directory; archives bring
        their own
    :raises BadArchive: it is none, or cannot be read
    """
    path = Path(path)
    try:
        if path.is_dir():
            return DirTree(path, owner)
        if not path.is_file():
            reason = "it is not a regular file" if path.exists() else "there is no such file"
            raise exceptions.BadArchive(path=path, expected=_EXPECTED, reason=reason)
        with open(path, "rb") as file:
            if file.read(4) == _SQUASHFS:
                return BlobTree(path)
        with compression.opened(path) as stream:
            head = stream.read(tarfile.BLOCKSIZE)
    except (OSError, *compression.ERRORS) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it is truncated"
        raise exceptions.BadArchive(path=path, expected=_EXPECTED, reason=reason) from error
    except ValueError as error:  # a NUL in the name
        raise exceptions.BadArchive(path=path, expected=_EXPECTED, reason=str(error)) from error
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        pass  # an empty archive is its end mark only
    except (tarfile.TarError, ValueError) as error:
        raise exceptions.BadArchive(path=path, expected=_EXPECTED,
                                    reason="its beginning is none of these") from error
    return TarTree(path)
