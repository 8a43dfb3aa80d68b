"""The rpm database of a tree, as rpm 4.16 and later write it (SQLite)."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb import database, header, rich
from splitimage_driver.capture.packagedb.files import Files
from splitimage_driver.capture.packagedb.header import Header
from splitimage_driver.model.entry import FileEntry, text

LOG = logging.getLogger(__name__)

#: In Fedora and SUSE the first is a link to the second.
DIRECTORIES = (b"var/lib/rpm", b"usr/lib/sysimage/rpm")
SQLITE = b"rpmdb.sqlite"
_OTHERS = {b"Packages.db": "the ndb format", b"Packages": "the Berkeley DB format"}
PROTECTED = b"etc/dnf/protected.d"

#: rpm has no ``Essential``; dnf protects itself, systemd and what
#: protected.d names. These are below all of them on every rpm system.
_ESSENTIAL = frozenset((
    "basesystem", "bash", "coreutils", "coreutils-single", "dnf", "dnf5", "filesystem", "glibc",
    "gpg-pubkey", "microdnf", "rpm", "setup", "systemd", "util-linux", "yum", "zypper"))

_SCRIPTS = (header.PRETRANS, header.PREIN, header.POSTIN, header.PREUN, header.POSTUN,
            header.POSTTRANS)
_CONFIG = 1 << 0      # RPMFILE_CONFIG
_MISSINGOK = 1 << 19  # RPMSENSE_MISSINGOK
_RPMLIB = 1 << 24     # RPMSENSE_RPMLIB
_PLACED = frozenset((0, 3))  # RPMFILE_STATE_NORMAL, _NETSHARED: the others have no file here

_MAX_DATABASE = 1 << 30
_MAX_STEPS = 20_000  # of 100,000 instructions of SQLite's machine
_TABLE = re.compile(
    r"CREATE TABLE ['\"]?Packages['\"]? ?\(\s*hnum INTEGER PRIMARY KEY( AUTOINCREMENT)?,"
    r"\s*blob BLOB NOT NULL\s*\)\Z")


def present(files: Files) -> bool:
    """Whether the tree has an rpm database of any format."""
    return any(files.find(directory + b"/" + name) is not None
               for directory in DIRECTORIES for name in (SQLITE, *_OTHERS))


def read(files: Files) -> database.PackageDB:
    """
    :raises InvalidInput: the database is damaged
    :raises Unsupported: it has an older format than SQLite
    """
    directory, entry = _find(files)
    log = files.find(directory + b"/" + SQLITE + b"-wal")
    protected = [one for one in files.below(PROTECTED)
                 if one.is_file and one.path.endswith(b".conf") and one.size <= 1 << 16]
    contents = files.contents([entry, *([log] if log else []), *protected],
                              each=_MAX_DATABASE, together=_MAX_DATABASE)
    essential = _ESSENTIAL | {word for one in protected
                              for word in contents[one.path].decode("utf-8", "replace").split()}
    with _headers(text(entry.path), contents[entry.path],
                  contents[log.path] if log else b"") as headers:
        records = [_Record(one, files) for one in headers]
    capabilities = {name for record in records for name in (record.name, *record.provides)}
    paths = {path for record in records for path in record.files}

    def installed(name: str) -> bool:
        return name in capabilities or (
            name.startswith("/") and files.place(_bytes(name)) in paths)

    packages = database.leaves([record.package(essential, installed) for record in records],
                           "rpm", place=files.place)
    db = database.PackageDB(
        packages, format="rpm", architecture=_architecture(packages), place=files.place,
        paths=(one.path for one in files.below(directory) if one.is_file))
    LOG.info("rpm database: %d packages, %d of them needed by no other",
             len(packages), sum(package.manual for package in packages))
    return db


def _find(files: Files) -> tuple[bytes, FileEntry]:
    for directory in DIRECTORIES:
        entry = files.find(directory + b"/" + SQLITE)
        if entry is not None:
            return directory, entry
    for directory in DIRECTORIES:
        for name, format in _OTHERS.items():
            if files.find(directory + b"/" + name) is not None:
                raise exceptions.Unsupported(
                    what=f"the rpm database {text(directory + b'/' + name)}",
                    reason=f"it has {format}; only SQLite is read "
                           "(rpm --rebuilddb converts it where rpm is 4.16 or later)")
    raise exceptions.InvalidInput(what="rpm database", reason="it is not there")


# -- SQLite ---------------------------------------------------------------------

@contextlib.contextmanager
def _headers(where: str, content: bytes, log: bytes) -> Iterator[Iterator[Header]]:
    """The database is the machine's, so its bytes are opened as a private
    copy, may define nothing but rpm's own table, and get bounded work.

    :param log: of committed changes not in the database yet (its -wal file)
    """
    with tempfile.TemporaryDirectory(prefix="splitimage-rpmdb-") as scratch:
        path = Path(scratch) / "rpmdb.sqlite"
        path.write_bytes(content)
        mode = "mode=ro&immutable=1"
        if log:
            path.with_name(path.name + "-wal").write_bytes(log)
            mode = "mode=rw"  # of the copy: SQLite must build an index of the log
        try:
            with contextlib.closing(
                    sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True)) as connection:
                yield _rows(connection, where)
        except (sqlite3.Error, OverflowError) as error:
            raise exceptions.InvalidInput(what=where, reason=str(error)) from error


def _rows(connection: sqlite3.Connection, where: str) -> Iterator[Header]:
    steps = total = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return steps > _MAX_STEPS

    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, header.MAX_BYTES)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.set_progress_handler(step, 100_000)
    found = connection.execute(
        "SELECT type, sql FROM sqlite_master WHERE name = 'Packages'").fetchall()
    if len(found) != 1 or found[0][0] != "table" or not _TABLE.match(str(found[0][1])):
        raise exceptions.InvalidInput(what=where, reason="it has no table as rpm makes it")
    for number, (blob,) in enumerate(connection.execute("SELECT blob FROM Packages")):
        if not isinstance(blob, bytes):
            raise exceptions.InvalidInput(what=where, reason="a package is not a blob")
        total += len(blob)
        if number >= database.MAX_PACKAGES or total > _MAX_DATABASE:
            raise exceptions.InvalidInput(what=where, reason="it has too many packages")
        yield Header(blob)


# -- one package ----------------------------------------------------------------

class _Record:
    """A header, decoded; rich dependencies wait until all packages are known."""

    def __init__(self, tags: Header, files: Files) -> None:
        self.tags = tags
        self.name = _word(tags, header.NAME)
        if not self.name:
            raise exceptions.InvalidInput(what="rpm database", reason="a package has no name")
        self.provides = tuple(dict.fromkeys(
            _text(one) for one in tags.strings(header.PROVIDENAME) if _text(one) != self.name))
        self.files: dict[bytes, int] = dict(_files(tags, files, self.name))

    def package(self, essential: Iterable[str],
                installed: Callable[[str], bool]) -> database.Package:
        tags = self.tags
        epoch = tags.numbers(header.EPOCH)
        version = f"{_word(tags, header.VERSION)}-{_word(tags, header.RELEASE)}"
        flags = tags.numbers(header.REQUIREFLAGS)
        names = tags.strings(header.REQUIRENAME)
        if len(flags) != len(names):
            raise exceptions.InvalidInput(
                what="rpm database", reason=f"package {self.name} has {len(names)} requirements "
                                            f"and {len(flags)} flags of them")
        needed = [name for name, flag in zip(names, flags, strict=True)
                  if not flag & (_RPMLIB | _MISSINGOK) and not name.startswith(b"rpmlib(")]
        weak = [name for name, flag in zip(names, flags, strict=True) if flag & _MISSINGOK]
        return database.Package(
            name=self.name, architecture=_word(tags, header.ARCH),
            version=f"{epoch[0]}:{version}" if epoch else version,
            essential=self.name in essential,
            section=_text(tags.string(header.GROUP)),
            source=re.sub(r"-[^-]*-[^-]*\Z", "", _text(tags.string(header.SOURCERPM)))
            or self.name,
            installed_size=tags.number(header.LONGSIZE) or tags.number(header.SIZE),
            installed=tags.number(header.INSTALLTIME),
            depends=_relation(needed, installed),
            recommends=_relation((*tags.strings(header.RECOMMENDNAME), *weak), installed),
            provides=self.provides, files=tuple(sorted(self.files)),
            conffiles=tuple(sorted(path for path, flag in self.files.items()
                                   if flag & _CONFIG)),
            scripts=b"\n".join(tags.string(tag) for tag in _SCRIPTS if tags.string(tag)))


def _files(tags: Header, files: Files, name: str) -> Iterator[tuple[bytes, int]]:
    """(real place, flags) of the files that installation put in place."""
    names, directories = tags.strings(header.BASENAMES), tags.strings(header.DIRNAMES)
    indexes, flags = tags.numbers(header.DIRINDEXES), tags.numbers(header.FILEFLAGS)
    states = tags.numbers(header.FILESTATES) or (0,) * len(names)
    if not len(names) == len(indexes) == len(flags) == len(states) \
            or any(index >= len(directories) for index in indexes) \
            or not all(directory.startswith(b"/") for directory in directories):
        raise exceptions.InvalidInput(what="rpm database",
                                      reason=f"the file list of package {name} does not fit")
    for last, index, flag, state in zip(names, indexes, flags, states, strict=True):
        if state in _PLACED:
            yield files.place(directories[index] + last), flag


def _relation(names: Iterable[bytes],
              installed: Callable[[str], bool]) -> tuple[tuple[str, ...], ...]:
    found: dict[tuple[str, ...], None] = {}
    for name in names:
        if name.startswith(b"("):
            found.update(dict.fromkeys(rich.clauses(_text(name), installed)))
        else:
            found[(_text(name),)] = None
    return tuple(found)


def _architecture(packages: Iterable[database.Package]) -> str:
    """The machine's own: that of rpm or glibc, else the one most packages
    have."""
    counts: dict[str, int] = {}
    for package in packages:
        if package.architecture not in ("", "noarch"):
            weight = 1_000_000 if package.name in ("rpm", "systemd") else 1
            counts[package.architecture] = counts.get(package.architecture, 0) + weight
    return max(sorted(counts), key=lambda one: counts[one], default="")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _word(tags: Header, tag: int) -> str:
    value = tags.string(tag)
    if len(value) > 256 or any(byte <= 32 or byte >= 127 for byte in value):
        raise exceptions.InvalidInput(what="rpm database",
                                      reason=f"tag {tag} is {_text(value)[:80]!r}")
    return _text(value)
