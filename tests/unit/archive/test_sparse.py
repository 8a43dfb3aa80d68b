from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.archive import sparse


def test_one_form_for_each_map() -> None:
    assert sparse.normal([(0, 10)], 10) == ()
    assert sparse.normal([(0, 4), (4, 6)], 10) == ()
    assert sparse.normal([(0, 4), (6, 2), (8, 1), (10, 0)], 10) == ((0, 4), (6, 3))
    assert sparse.normal([], 10) == sparse.normal([(10, 0)], 10) == ((10, 0),)
    assert sparse.normal([(0, 0)], 0) == ()


@pytest.mark.parametrize("segments", [
    [(5, 6)], [(4, 2), (5, 1)], [(6, 1), (1, 1)], [(-1, 2)], [(3, -1)], [(11, 0)]])
def test_impossible_maps(segments: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="sparse map"):
        sparse.normal(segments, 10)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6),
       st.integers(0, 400))
def test_normal_is_stable_and_tars_map_means_the_same(
        gaps: list[tuple[int, int]], tail: int) -> None:
    segments, position = [], 0
    for gap, length in gaps:
        segments.append((position + gap, length))
        position += gap + length
    size = position + tail
    once = sparse.normal(segments, size)
    if once:  # () says that all of it is data
        assert sparse.normal(once, size) == once
        on_disk = sparse.for_tar(once, size)
        assert sum(on_disk[-1]) == size
        assert sparse.normal(on_disk, size) == once


def test_a_files_own_map(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as out:
        out.truncate(4 << 20)
        out.seek(1 << 20)
        out.write(b"x" * 4096)
    with path.open("rb") as file:
        found = sparse.of_file(file.fileno(), 4 << 20)
        assert file.read(3) == b"\0\0\0"
    # a file system without holes says that all of it is data
    assert found == () or any(a <= 1 << 20 < a + n for a, n in found)
