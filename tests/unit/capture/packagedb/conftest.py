"""Small trees made of words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pytest

from splitimage_driver.capture.packagedb.files import Read
from splitimage_driver.model.entry import DIRECTORY, FILE, SYMLINK, FileEntry, parents
from splitimage_driver.model.manifest import Manifest

Make = Callable[[Mapping[bytes, bytes | str]], tuple[Manifest, Read]]


@pytest.fixture
def make() -> Make:
    """From path to content (bytes) or link target (str); directories above
    come by themselves. The reader refuses what it was not made for."""
    def build(content: Mapping[bytes, bytes | str]) -> tuple[Manifest, Read]:
        entries: dict[bytes, FileEntry] = {}
        for path, value in content.items():
            for above in parents(path):
                entries.setdefault(above, FileEntry(above, DIRECTORY, 0o755))
            entries[path] = (FileEntry(path, SYMLINK, 0o777, target=value.encode())
                             if isinstance(value, str) else
                             FileEntry(path, FILE, 0o644, size=len(value), mtime=7 * 10**9))

        def read(paths: Iterable[bytes]) -> dict[bytes, bytes]:
            found = {}
            for path in paths:
                value = content[path]
                assert isinstance(value, bytes), f"{path!r} is not a file"
                found[path] = value
            return found
        return Manifest(entries.values()), read
    return build
