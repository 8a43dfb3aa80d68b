from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitimage_driver import exceptions, process
from splitimage_driver.archive import blob
from splitimage_driver.archive.tree import TarTree
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.model.entry import FileEntry

from .helpers import file


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[object]]:
    """The tool's part: it keeps the tar as it is."""
    seen: list[list[object]] = []

    @contextlib.contextmanager
    def writing(argv: list[object], env: dict[str, str]) -> Iterator[io.BytesIO]:
        seen.append([*argv, env])
        stream = io.BytesIO()
        yield stream
        Path(str(argv[2])).write_bytes(stream.getvalue())

    monkeypatch.setattr(process, "writing", writing)
    return seen


def fill(writer: TarWriter) -> None:
    writer.add(file(b"f", b"data"), io.BytesIO(b"data"))


def test_a_blob_is_built_once_if_nothing_is_wrong(tmp_path: Path,
                                                  commands: list[list[object]]) -> None:
    blob.build(tmp_path / "b", fill, newest=1_600_000_000_123_456_789)
    [argv] = commands
    assert argv[:3] == ["mksquashfs", "-", tmp_path / "b"]
    assert argv[-1] == {"SOURCE_DATE_EPOCH": "1600000000"}
    assert [e.path for e in TarTree(tmp_path / "b").manifest()] == [b"f"]


@pytest.mark.parametrize(("newest", "epoch"), [(-5, "0"), (2**33 * 10**9, str(2**32 - 1))])
def test_a_time_that_squashfs_does_not_know(tmp_path: Path, commands: list[list[object]],
                                            newest: int, epoch: str) -> None:
    blob.build(tmp_path / "b", fill, newest=newest)
    assert commands[0][-1] == {"SOURCE_DATE_EPOCH": epoch}


def test_what_looks_like_a_boot_record_is_padded(tmp_path: Path, commands: list[list[object]],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["gpt", "gpt", "raw"])
    monkeypatch.setattr(blob, "_format", lambda _: next(answers))
    blob.build(tmp_path / "b", fill, newest=0)
    assert len(commands) == 3
    first, *_ = TarTree(tmp_path / "b").members()
    assert (first.entry.path, first.entry.size) == (blob.PADDING, blob.BLOCK)


def test_paddings_differ_and_do_not_compress() -> None:
    import zstandard
    one, two = (b"".join(blob._noise(seed)) for seed in (1, 2))
    assert one != two
    assert len(one) == len(two) == blob.BLOCK
    assert len(zstandard.compress(one, 19)) >= blob.BLOCK


def test_it_gives_up_with_an_error(tmp_path: Path, commands: list[list[object]],
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob, "_format", lambda _: "gpt")
    with pytest.raises(exceptions.Unsupported, match="looks like gpt"):
        blob.build(tmp_path / "b", fill, newest=0)
    assert not (tmp_path / "b").exists()


def test_nothing_is_left_behind_when_filling_fails(tmp_path: Path,
                                                   commands: list[list[object]]) -> None:
    def spoil(writer: TarWriter) -> None:
        (tmp_path / "b").write_bytes(b"what the tool wrote so far")
        writer.add(FileEntry(b"f", "f", 0o644, size=3), io.BytesIO(b"ab"))

    with pytest.raises(exceptions.DigestMismatch):
        blob.build(tmp_path / "b", spoil, newest=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("head", "found"), [
    (b"hsqs" + bytes(4092), "raw"),
    (b"hsqs" + bytes(506) + b"\x55\xaa" + bytes(3584), "gpt"),
    (b"QFI\xfb\0\0\0\3" + bytes(4088), "qcow2")])
def test_detection_is_glances_own(tmp_path: Path, head: bytes, found: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(head)
    assert blob._format(path) == found


def test_digest(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 100_000)
    assert blob.digest(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
