from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb import base as packagedb
from splitimage_driver.capture.packagedb import header

DATABASE = b"usr/lib/sysimage/rpm/rpmdb.sqlite"
TABLE = "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)"

Value = bytes | int | list[bytes] | list[int]


def blob(tags: dict[int, Value]) -> bytes:
    """A header as rpm lays it out: strings, string arrays, 32-bit numbers,
    and states as bytes."""
    index, data = b"", b""
    for tag, value in tags.items():
        if isinstance(value, bytes):
            kind, count, piece = 6, 1, value + b"\0"
        elif isinstance(value, int):
            kind, count, piece = 4, 1, struct.pack(">I", value)
        elif tag == header.FILESTATES:
            kind, count, piece = 1, len(value), bytes(one for one in value if type(one) is int)
        elif value and isinstance(value[0], int):
            kind, count, piece = 4, len(value), struct.pack(f">{len(value)}I", *value)
        else:
            kind, count = 8, len(value)
            piece = b"".join(one + b"\0" for one in value if isinstance(one, bytes))
        index += struct.pack(">IIII", tag, kind, len(data), count)
        data += piece
    return struct.pack(">II", len(tags), len(data)) + index + data


def package(name: bytes, files: dict[bytes, int] | None = None, *,
            requires: Iterable[bytes] = (), **more: Value) -> dict[int, Value]:
    """:param files: path to flags"""
    tags: dict[int, Value] = {header.NAME: name, header.VERSION: b"1", header.RELEASE: b"2",
                              header.ARCH: b"x86_64", header.SIZE: 5}
    if files:
        tags |= {header.BASENAMES: [one.rpartition(b"/")[2] for one in files],
                 header.DIRNAMES: [one.rpartition(b"/")[0] + b"/" for one in files],
                 header.DIRINDEXES: list(range(len(files))),
                 header.FILEFLAGS: list(files.values())}
    names = list(requires)
    if names:
        tags |= {header.REQUIRENAME: names, header.REQUIREFLAGS: [0] * len(names)}
    return tags | {getattr(header, key): value for key, value in more.items()}


def sqlite(path: Path, blobs: Iterable[object], table: str = TABLE) -> bytes:
    with sqlite3.connect(path) as connection:
        connection.execute(table)
        for one in blobs:
            connection.execute("INSERT INTO Packages (blob) VALUES (?)", (one,))
    connection.close()
    return path.read_bytes()


@pytest.fixture
def machine(make: Any, tmp_path: Path) -> Any:
    def build(*packages: dict[int, Value], **more: bytes | str) -> Any:
        content = {DATABASE: sqlite(tmp_path / "db", map(blob, packages)),
                   b"var/lib/rpm": "../../usr/lib/sysimage/rpm", b"bin": "usr/bin"}
        return make(content | {key.encode(): value for key, value in more.items()})
    return build


def test_a_package_with_all_its_tags(machine: Any) -> None:
    db = packagedb.read(*machine(
        package(b"httpd", {b"/etc/httpd.conf": 0x11, b"/bin/httpd": 0, b"/var/log/h": 0x40},
                requires=(b"/usr/bin/sh", b"rpmlib(X)", b"(tools or nothing)", b"(l10n if no)"),
                EPOCH=3, GROUP=b"Web", SOURCERPM=b"httpd-src-1-2.src.rpm", INSTALLTIME=99,
                PREIN=b"pre", POSTUN=b"postun", PROVIDENAME=[b"httpd", b"webserver"],
                RECOMMENDNAME=[b"tools"]),
        package(b"bash", {b"/bin/sh": 0}, requires=()), package(b"tools")))
    assert db is not None and db.format == "rpm" and db.architecture == "x86_64"
    httpd = db.packages["httpd"]
    assert (httpd.version, httpd.source, httpd.section) == ("3:1-2", "httpd-src", "Web")
    assert (httpd.installed, httpd.installed_size, httpd.manual) == (99, 5, True)
    assert httpd.files == (b"etc/httpd.conf", b"usr/bin/httpd", b"var/log/h")
    assert httpd.conffiles == (b"etc/httpd.conf",) and httpd.scripts == b"pre\npostun"
    assert httpd.depends == (("/usr/bin/sh",), ("tools", "nothing"))
    assert httpd.recommends == (("tools",),) and httpd.provides == ("webserver",)
    assert db.closure(["httpd"]) == {"httpd", "bash", "tools"}
    assert db.packages["bash"].essential and not db.packages["bash"].manual
    assert db.paths == (DATABASE,)


def test_files_that_were_not_put_in_place_are_not_owned(machine: Any) -> None:
    db = packagedb.read(*machine(
        package(b"a", {b"/%d" % number: 0 for number in range(5)},
                FILESTATES=[0, 1, 2, 3, 4])))
    assert db is not None and db.packages["a"].files == (b"0", b"3")


def test_optional_requirements_are_recommendations(machine: Any) -> None:
    tags = package(b"a", requires=(b"b", b"c", b"d"))
    tags[header.REQUIREFLAGS] = [0, 1 << 19, 1 << 24]
    db = packagedb.read(*machine(tags, package(b"b"), package(b"c"), package(b"d")))
    assert db is not None
    assert db.packages["a"].depends == (("b",),) and db.packages["a"].recommends == (("c",),)
    assert {key for key, one in db.packages.items() if one.manual} == {"a", "d"}


def test_tags_that_installation_added_go_first(make: Any, tmp_path: Path) -> None:
    tags = blob(package(b"a"))
    count, length = struct.unpack_from(">II", tags)
    added = (struct.pack(">II", count + 1, length + 4) + tags[8:8 + 16 * count]
             + struct.pack(">IIII", header.SIZE, 4, length, 1) + tags[8 + 16 * count:]
             + struct.pack(">I", 77))
    db = packagedb.read(*make({DATABASE: sqlite(tmp_path / "db", [added])}))
    assert db is not None and db.packages["a"].installed_size == 77


def test_kernels_of_several_versions(machine: Any) -> None:
    db = packagedb.read(*machine(package(b"kernel-core"), package(b"kernel-core", VERSION=b"2")))
    assert db is not None
    assert set(db.packages) == {"kernel-core-1-2:x86_64", "kernel-core-2-2:x86_64"}


def test_dnf_names_more_that_is_essential(machine: Any) -> None:
    db = packagedb.read(*machine(package(b"sudo"), package(b"vim"),
                                 **{"etc/dnf/protected.d/sudo.conf": b"sudo\n"}))
    assert db is not None
    assert {key for key, one in db.packages.items() if one.essential} == {"sudo"}


def test_changes_still_in_the_log_are_seen(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "db"
    sqlite(path, [blob(package(b"old"))])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("INSERT INTO Packages (blob) VALUES (?)", (blob(package(b"new")),))
    connection.commit()
    content = {DATABASE: path.read_bytes(),
               DATABASE + b"-wal": path.with_name("db-wal").read_bytes()}
    connection.close()
    assert len(content[DATABASE + b"-wal"]) > 0
    db = packagedb.read(*make(content))
    assert db is not None and set(db.packages) == {"old", "new"}
    content[DATABASE + b"-wal"] = b""
    db = packagedb.read(*make(content))
    assert db is not None and set(db.packages) == {"old"}


@pytest.mark.parametrize("name, words", [(b"Packages", "Berkeley DB"), (b"Packages.db", "ndb")])
def test_other_formats_are_named(make: Any, name: bytes, words: str) -> None:
    with pytest.raises(exceptions.Unsupported, match=words):
        packagedb.read(*make({b"var/lib/rpm/" + name: b"x"}))


@pytest.mark.parametrize("tags, words", [
    ({header.NAME: b""}, "has no name"),
    (package(b"a b"), "tag 1000 is 'a b'"),
    (package(b"a", VERSION=b"x" * 300), "tag 1001"),
    (package(b"a", NAME=5), "should be text"),
    (package(b"a", SIZE=b"5"), "should be numbers"),
    (package(b"a", {b"/x": 0}, DIRINDEXES=[1]), "file list of package a does not fit"),
    (package(b"a", {b"/x": 0}, FILEFLAGS=[0, 0]), "file list of package a does not fit"),
    (package(b"a", {b"x/y": 0}), "file list of package a does not fit"),
    (package(b"a", requires=(b"x",), REQUIREFLAGS=[0, 0]), "1 requirements and 2 flags"),
    (package(b"a", requires=(b"(x",)), "is not a rich dependency"),
])
def test_damaged_packages_are_refused(machine: Any, tags: dict[int, Value], words: str) -> None:
    with pytest.raises(exceptions.InvalidInput) as caught:
        packagedb.read(*machine(tags))
    assert words in str(caught.value)


@pytest.mark.parametrize("table", [
    "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY,"
    " blob BLOB GENERATED ALWAYS AS (zeroblob(900000000)))",
    "CREATE VIEW Packages AS WITH RECURSIVE x(blob) AS (VALUES(1) UNION ALL SELECT blob+1 FROM x)"
    " SELECT blob FROM x",
    "CREATE TABLE Other (blob BLOB)",
])
def test_only_rpms_own_table_is_read(make: Any, tmp_path: Path, table: str) -> None:
    content = {DATABASE: sqlite(tmp_path / "db", (), table)}
    with pytest.raises(exceptions.InvalidInput, match="no table as rpm makes it"):
        packagedb.read(*make(content))


def test_damaged_databases_are_refused(make: Any, tmp_path: Path) -> None:
    good = sqlite(tmp_path / "db", [blob(package(b"a" + b"x" * 99)) for _ in range(200)])
    for bad in (b"", b"x" * 5000, good[:4096], good[:-4096], good[:4096] + b"\xff" * 8192):
        with pytest.raises(exceptions.InvalidInput, match=r"rpmdb\.sqlite"):
            packagedb.read(*make({DATABASE: bad}))


def test_packages_that_are_no_blobs_are_refused(make: Any, tmp_path: Path) -> None:
    content = {DATABASE: sqlite(tmp_path / "db", ["text"])}
    with pytest.raises(exceptions.InvalidInput, match="a package is not a blob"):
        packagedb.read(*make(content))


def test_too_many_packages_are_refused(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitimage_driver.capture.packagedb.database.MAX_PACKAGES", 1)
    with pytest.raises(exceptions.InvalidInput, match="too many packages"):
        packagedb.read(*machine(package(b"a"), package(b"b")))


@pytest.mark.parametrize("data", [
    b"", b"1234567", struct.pack(">II", 1, 0), struct.pack(">II", 0, 9),
    struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF) + b"x" * 16,
    struct.pack(">IIIIII", 1, 1, header.NAME, 6, 2, 1) + b"\0",           # offset
    struct.pack(">IIIIII", 1, 1, header.NAME, 6, 0, 1) + b"x",            # no end
    struct.pack(">IIIIII", 1, 4, header.BASENAMES, 8, 0, 5) + b"\0" * 4,  # count
    struct.pack(">IIIIII", 1, 4, header.SIZE, 4, 0, 4) + b"\0" * 4,       # 16 bytes of 4
])
def test_headers_that_do_not_fit_are_refused(data: bytes) -> None:
    with pytest.raises(exceptions.InvalidInput, match="header"):
        header.Header(data)


@given(st.dictionaries(st.sampled_from([header.NAME, header.BASENAMES, header.SIZE]),
                       st.one_of(st.binary(max_size=9).map(lambda one: one.replace(b"\0", b"")),
                                 st.integers(0, 2**32 - 1))),
       st.integers(0, 80), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(tags: dict[int, Value], place: int, byte: int) -> None:
    data = bytearray(blob(tags))
    data[place % len(data)] = byte
    try:
        found = header.Header(bytes(data))
        names, numbers = found.strings(header.NAME), found.numbers(header.SIZE)
    except exceptions.InvalidInput:
        return
    assert all(isinstance(one, bytes) for one in names)
    assert all(isinstance(one, int) for one in numbers)
