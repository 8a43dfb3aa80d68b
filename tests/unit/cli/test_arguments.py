"""Words of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.cli import arguments
from splitimage_driver.model.composite import Answer
from splitimage_driver.model.part import FILESET

from . import records


@pytest.mark.parametrize(("read", "text", "value"), [
    (arguments.pair, "base=disk=1.qcow2", ("base", "disk=1.qcow2")),
    (arguments.step, "base=/a/b.qcow2", ("base", Path("/a/b.qcow2"))),
    (arguments.software, "db=mariadb-server,mariadb-client",
     ("db", ("mariadb-server", "mariadb-client"))),
    (arguments.answer, "/etc/motd=keep", Answer(b"etc/motd", (), "keep")),
    (arguments.answer, "etc/a=b=replace", Answer(b"etc/a=b", (), "replace")),
    (arguments.answer, "/srv/\udcff=concatenate", Answer(b"srv/\xff", (), "concatenate")),
    (arguments.port, "65535", 65535), (arguments.count, "0", 0), (arguments.seconds, "2.5", 2.5),
])
def test_words_are_read(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(("read", "text"), [
    (arguments.pair, "base"), (arguments.pair, "=disk"), (arguments.pair, "base="),
    (arguments.software, "db=,"),
    (arguments.answer, "/etc/motd"), (arguments.answer, "/etc/motd=maybe"),
    (arguments.answer, "/=keep"), (arguments.answer, "=keep"),
    (arguments.port, "0"), (arguments.port, "65536"), (arguments.port, "http"),
    (arguments.count, "-1"), (arguments.count, "1.5"),
    (arguments.seconds, "-1"), (arguments.seconds, "nan"), (arguments.seconds, "inf"),
])
def test_other_words_are_refused(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=text.rpartition("=")[0] or text[:3]):
        read(text)


@pytest.mark.parametrize(("path", "name"), [
    ("page", "page"), ("/srv/My Page/", "my-page"), ("site-1.2.tar.gz", "site-1.2"),
    ("a.tgz", "a"), ("x.tar", "x"), ("blob.squashfs", "blob"), ("..hidden", "hidden"),
    ("---", "files"), ("x" * 80, "x" * 63), ("page.d", "page.d"),
])
def test_a_part_is_named_after_its_file(path: str, name: str) -> None:
    assert arguments.part_name(Path(path)) == name


def test_a_file_set_that_exists_as_a_path_is_stored(application: Any, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page").mkdir()
    application.store.parts.return_value = [records.PAGE]
    application.images.create_part.return_value = records.part("page", "5", FILESET)
    assert arguments.fileset(application, "page") == records.digest("5")
    application.images.create_part.assert_called_once_with("page", Path("page"))


@pytest.mark.parametrize("given", ["page", records.digest("4"), records.digest("4")[:12]])
def test_a_stored_file_set_goes_by_name_or_id(given: str, application: Any, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A software part of that name is not meant.
    application.store.parts.return_value = [records.part("page", "6"), records.PAGE]
    assert arguments.fileset(application, given) == records.digest("4")
    application.images.create_part.assert_not_called()


def test_a_file_set_that_is_nowhere_is_told(application: Any, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(exceptions.NotFound, match="page"):
        arguments.fileset(application, "page")


def test_a_name_that_several_have_asks_for_an_id(application: Any, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    application.store.parts.return_value = [records.PAGE, records.part("page", "7", FILESET)]
    with pytest.raises(exceptions.InvalidInput, match="444444444444, 777777777777"):
        arguments.fileset(application, "page")
