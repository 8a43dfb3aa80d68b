"""File sets in a target tree."""

from __future__ import annotations

import hashlib

from splitimage_driver.model.entry import DIRECTORY, FILE, FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import FILESET, SOFTWARE, Layer, PartManifest
from splitimage_driver.planning.target import Laid, lay

BASE = Manifest([FileEntry(path=b"etc", type=DIRECTORY, mode=0o755)])


def file(path: bytes, content: bytes) -> FileEntry:
    return FileEntry(path=path, type=FILE, mode=0o644, size=len(content),
                     sha256=hashlib.sha256(content).digest())


def part(name: str, *layers: Layer, kind: str = SOFTWARE) -> Laid:
    return Laid(name=name, kind=kind, blob=f"blob of {name}", manifest=PartManifest(layers))


def test_a_file_set_with_a_parts_name_does_not_stand_in_for_it() -> None:
    apache = part("apache", Layer(entries=(file(b"etc/mode", b"event"),)),
                  Layer(when=("php",), entries=(file(b"etc/mode", b"prefork"),)))
    mine = part("php", Layer(entries=(file(b"etc/page", b"mine"),)), kind=FILESET)
    php = part("php", Layer(entries=(file(b"etc/php.ini", b""),)))

    target = lay(BASE, [apache, mine], shared={})
    assert target.manifest.by_path[b"etc/mode"] == file(b"etc/mode", b"event")
    assert b"etc/page" in target.manifest

    together = lay(BASE, [apache, php, mine], shared={})
    assert together.manifest.by_path[b"etc/mode"] == file(b"etc/mode", b"prefork")


def test_a_file_set_with_a_parts_name_does_not_lose_silently() -> None:
    apache = part("apache", Layer(when=("php",), entries=(file(b"etc/mode", b"prefork"),)))
    php = part("php", Layer(entries=(file(b"etc/php.ini", b""),)))
    mine = part("php", Layer(entries=(file(b"etc/mode", b"mine"),)), kind=FILESET)

    target = lay(BASE, [apache, php, mine], shared={})
    assert [c.path for c in target.conflicts] == [b"etc/mode"]
