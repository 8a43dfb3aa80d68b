from __future__ import annotations

from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb.files import Files


def test_find_follows_links_inside_the_tree(make: Any) -> None:
    files = Files(*make({b"usr/lib/os-release": b"x", b"etc/os-release": "../usr/lib/os-release",
                         b"etc/up": "../../../../usr/lib/os-release", b"abs": "/etc/os-release",
                         b"loop": "loop", b"gone": "nowhere", b"lib": "usr/lib"}))
    for path in (b"etc/os-release", b"etc/up", b"abs", b"lib/os-release", b"/abs"):
        entry = files.find(path)
        assert entry is not None and entry.path == b"usr/lib/os-release"
    for path in (b"loop", b"gone", b"lib", b"usr", b"nowhere"):
        assert files.find(path) is None


def test_below_is_strict_and_resolves(make: Any) -> None:
    files = Files(*make({b"usr/lib/a": b"", b"usr/lib/d/b": b"", b"usr/lib-x": b"",
                         b"lib": "usr/lib"}))
    assert [e.path for e in files.below(b"lib")] == [b"usr/lib/a", b"usr/lib/d", b"usr/lib/d/b"]
    assert list(files.below(b"nowhere")) == []


def test_contents_are_bounded(make: Any) -> None:
    files = Files(*make({b"a": b"12345", b"b": b"12345", b"l": "a", b"d/x": b""}))
    a, b = files.find(b"a"), files.find(b"b")
    assert a is not None and b is not None
    assert files.contents([a, b, a]) == {b"a": b"12345", b"b": b"12345"}
    assert files.contents([]) == {}
    with pytest.raises(exceptions.InvalidInput, match="/a: 5 bytes"):
        files.contents([a], each=4)
    with pytest.raises(exceptions.InvalidInput, match="2 files hold 10 bytes"):
        files.contents([a, b], together=9)
    with pytest.raises(exceptions.InvalidInput, match="/l: it is not a regular file"):
        files.contents([files.manifest.by_path[b"l"]])


def test_a_reader_that_lacks_a_file_is_an_error(make: Any) -> None:
    manifest, _ = make({b"a": b"1"})
    files = Files(manifest, lambda paths: {})
    with pytest.raises(exceptions.InvalidInput, match="/a: its content is missing"):
        files.content(b"a", limit=10)
    assert files.content(b"b", limit=10) is None
