"""``store check``: is everything there, whole, and needed?"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import part as parts_
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import PartManifest
from splitimage_driver.progress import Operation
from splitimage_driver.store import objects
from splitimage_driver.store.contents import MANIFEST, Contents, targets
from splitimage_driver.store.database import Database
from splitimage_driver.store.locks import Locks
from splitimage_driver.store.records import Finding
from splitimage_driver.store.scratch import Scratch, remove_tree
from splitimage_driver.store.tables import MODELS, Tables, kind

LOG = logging.getLogger(__name__)
DAMAGED, MISSING, LEFTOVER, UNREFERENCED = "damaged", "missing", "leftover", "unreferenced"


class Checker:
    """One inspection of a local store; others may go on using it.

    :param grace: seconds that what nothing refers to is left alone
    """

    def __init__(self, root: Path, database: Database, tables: Tables, contents: Contents,
                 scratch: Scratch, locks: Locks, release_dead: Callable[[], None], *,
                 grace: float) -> None:
        self.root, self.database, self.tables = root, database, tables
        self.contents, self.scratch, self.locks = contents, scratch, locks
        self.release_dead, self.grace = release_dead, grace

    def run(self, *, repair: bool) -> Iterator[Finding]:
        """Findings as they are met.

        :param repair: remove the harmless ones, as far as they are older
            than the grace time; what is damaged or missing is only told
        :raises StoreCorrupt: the database cannot be read at all
        """
        faults = list(self._database())
        yield from faults
        if faults:
            # What a damaged database does not know may still be needed.
            LOG.warning("the rest of the check is left out: the database is damaged")
            return
        yield from self._scratch(repair)
        yield from self._files(repair)
        yield from self._records(repair)
        yield from self._servers(repair)
        if repair:
            self.release_dead()
            self.locks.tidy()

    def _database(self) -> Iterator[Finding]:
        subject = str(self.database.path)
        for row in self.database.query("PRAGMA integrity_check"):
            if row[0] != "ok":
                yield Finding(kind=DAMAGED, subject=subject, detail=row[0])
        for row in self.database.query("PRAGMA foreign_key_check"):
            yield Finding(kind=DAMAGED, subject=subject,
                          detail=f"row {row[1]} of {row[0]} refers to nothing in {row[2]}")

    def _scratch(self, repair: bool) -> Iterator[Finding]:
        for path in self.scratch.tidy() if repair else self.scratch.leftovers():
            yield Finding(kind=LEFTOVER, subject=self._shown(path), repaired=repair,
                          detail="work of a process that ended early")

    # -- files ----------------------------------------------------------------

    def _files(self, repair: bool) -> Iterator[Finding]:
        listed = [(target, path, _size(path)) for target, directory in self.contents.files.items()
                  for path in directory]
        with Operation("check", sum(size for *_, size in listed), "bytes",
                       subject=str(self.root)) as operation:
            for target, path, size in listed:
                before = operation.current
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, as it may be
                    yield from self._file(target, path, operation, repair)
                operation.advance(max(0, size - (operation.current - before)))

    def _file(self, target: str, path: Path, operation: Operation,
              repair: bool) -> Iterator[Finding]:
        digest = self.contents.files[target].digest_of(path)
        if not digest:
            yield self._stray(path, repair)
            return
        fault = self._fault(target, path, digest, operation)
        with self.database.reading() as connection:
            used = self.contents.used(connection, target, digest)
            leased = self.contents.leased(connection, target, digest)
        young = self.contents.young(target, digest, self.grace)
        if fault and (used or leased or young):
            yield self._damaged(target, path, digest, fault, repair=repair)
        elif not used and not leased and path.exists():
            removed = bool(repair and self.contents.collect({(target, digest)}, grace=self.grace))
            yield Finding(kind=UNREFERENCED, subject=self._shown(path), repaired=removed,
                          detail=fault or self._detail("nothing refers to it", young))

    def _damaged(self, target: str, path: Path, digest: str, fault: str, *,
                 repair: bool) -> Finding:
        return Finding(kind=DAMAGED, subject=self._shown(path), detail=fault)

    def _fault(self, target: str, path: Path, digest: str, operation: Operation) -> str:
        """What is wrong with an object's content; "" if nothing."""
        try:
            if target == MANIFEST:
                decode(self.contents.read(digest))
                return ""
            found = objects.digest(path, operation.advance)
        except exceptions.NotFound as error:
            raise FileNotFoundError(path) from error
        except FileNotFoundError:
            raise
        except exceptions.DigestMismatch as error:
            return f"its content is {error.fields['found']}"
        except exceptions.SplitImageError as error:
            return str(error)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return "" if found == digest else f"its content is {found}"

    def _stray(self, path: Path, repair: bool) -> Finding:
        young = time.time() - path.lstat().st_mtime < self.grace
        if repair and not young:
            path.unlink()
        return Finding(kind=LEFTOVER, subject=self._shown(path), repaired=repair and not young,
                       detail=self._detail("not the name of an object", young))

    # -- records --------------------------------------------------------------

    def _records(self, repair: bool) -> Iterator[Finding]:
        with self.database.reading() as connection:
            rows = [(model, row) for model in MODELS for row in self.tables.raw(connection, model)]
            uses = {tuple(row) for row in connection.execute("SELECT * FROM uses")}
        for model, row in rows:
            try:
                record = self.tables.decode(model, row)
            except exceptions.StoreCorrupt as error:
                yield Finding(kind=DAMAGED, subject=f"{kind(model)} {row['id']}",
                              detail=error.fields["reason"])
                continue
            for target, digest in sorted(targets(record)):
                if (kind(model), record.id, record.owner, target, digest) not in uses:
                    yield Finding(kind=DAMAGED, subject=f"{kind(model)} {record.name}",
                                  detail=f"that it needs {target} {digest} is not noted")
        for what, holder, owner, target, digest in sorted(uses):
            with self.database.reading() as connection:
                if self.contents.present(connection, target, digest) or not connection.execute(
                        "SELECT 1 FROM uses WHERE kind = ? AND holder = ? AND owner = ?"
                        " AND target = ? AND digest = ?",
                        (what, holder, owner, target, digest)).fetchone():
                    continue
                name = self.tables.name(connection, what, holder)
            yield self._missing(what, holder, f"{what} {name}", target, digest, repair=repair)

    def _missing(self, what: str, holder: str, subject: str, target: str, digest: str, *,
                 repair: bool) -> Finding:
        return Finding(kind=MISSING, subject=subject,
                       detail=f"it needs {target} {digest}, which is not there")

    def _servers(self, repair: bool) -> Iterator[Finding]:
        for path in sorted((self.root / "servers").iterdir()):
            if self.database.query("SELECT 1 FROM servers WHERE id = ?", path.name):
                continue
            try:
                young = time.time() - path.lstat().st_mtime < self.grace
            except FileNotFoundError:
                continue
            if repair and not young:
                remove_tree(path)
            yield Finding(kind=LEFTOVER, subject=self._shown(path), repaired=repair and not young,
                          detail=self._detail("no server has this directory", young))

    # -- messages -------------------------------------------------------------

    def _shown(self, path: Path) -> str:
        return os.fsencode(path.relative_to(self.root)).decode("utf-8", "backslashreplace")

    def _detail(self, what: str, young: bool) -> str:
        return f"{what}; left alone for {self.grace:g} s" if young else what


def decode(data: bytes) -> Manifest | PartManifest:
    """Either kind of manifest. :raises BadArchive: neither"""
    if data.startswith(parts_.MAGIC):
        return PartManifest.decode(data)
    return Manifest.decode(data)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
