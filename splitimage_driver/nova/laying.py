"""What servers of this host lay while they run: the files that they are given, and
the record beside them.

A server's directory holds, as long as there is something to lay, the disk with the
plan and one name of each part's blob, all named by their serial numbers. Such a name
is a further one of the copy that all servers of this host share: it goes with the
directory, whoever removes that, and no cache can take the blob away before.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.assembly import disks
from splitimage_driver.deliveries import Delivery
from splitimage_driver.model.composite import Answer
from splitimage_driver.model.entry import UNDECODABLE
from splitimage_driver.model.layout import COMPLETE, FAILED, LAYING, Layout
from splitimage_driver.model.part import FILESET_PREFIX
from splitimage_driver.model.plan import Request
from splitimage_driver.nova.request import Wanted
from splitimage_driver.store.base import Store

LOG = logging.getLogger(__name__)
#: Below Nova's ``instances_path``: copies of blobs, where names of the store's own
#: cannot be had, and what waits for its server's directory.
SHARED = "_splitimage"
#: In a server's directory: the record; what its console said before it was told to
#: try again.
RECORD, BEFORE = "splitimage.layout", "splitimage.console"
#: Of another file system, or too many names, or none may be given: then a copy.
_NO_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)
#: Bytes of a record that is read.
_LARGEST = 1 << 20

#: In a server's system metadata, where it is made of other parts than its image; a
#: snapshot inherits them as properties, so none is of those that are protected.
OF, PARTS, FILESETS, STATE, WISH = ("composed_of", "composed_parts", "composed_filesets",
                                    "composed_layout", "composed_wish")
#: Bytes of a value of metadata.
_VALUE = 255
_KEY = re.compile(f"(?:{OF}|{STATE}|{WISH}|(?:{PARTS}|{FILESETS})(?:_\\d+)?)\\Z")
_DIGITS = 16
#: Bytes of two texts that are no accident.
_ALIKE = 32
#: Among what has failed: everything, because the server's user gave it up.
STOPPED = "stopped by the server's user"


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a server consists of, by what was asked for.

    :ivar composite: id
    :ivar filesets: names or ids
    """

    composite: str
    parts: tuple[str, ...] = ()
    filesets: tuple[str, ...] = ()

    def request(self, answers: tuple[Answer, ...] = ()) -> Request:
        return Request(composite=self.composite, parts=self.parts, filesets=self.filesets,
                       answers=answers)


class Laying(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar had: what the server consists of until all is laid
    :ivar becomes: from then on
    """

    layout: Layout
    had: Made
    becomes: Made

    @property
    def incomplete(self) -> bool:
        """Whether its guest is still at it, or has disks that it no longer needs."""
        return self.layout.state == LAYING or self.layout.attached

    @property
    def again(self) -> bool:
        """Whether it failed, and a further try may do better."""
        return (self.layout.state == FAILED and not self.layout.over
                and STOPPED not in self.layout.failed)

    @property
    def made(self) -> Made:
        """What it consists of now. What a failed part has left is no harm: what is
        there already is laid again in no time."""
        if self.layout.state == COMPLETE:
            return self.becomes
        parts = {*self.layout.parts, *self.layout.filesets}
        only_units_failed = (self.layout.state == FAILED and bool(self.layout.failed)
                             and not parts & self.layout.failed.keys()
                             and all("." in name and not name.startswith(FILESET_PREFIX)
                                     for name in self.layout.failed))
        return self.becomes if only_units_failed else self.had


# -- in metadata ---------------------------------------------------------------------


def noted(made: Made) -> dict[str, str]:
    """As a server's system metadata have it."""
    found = {OF: made.composite}
    for key, names in ((PARTS, made.parts), (FILESETS, made.filesets)):
        text = ",".join(names)
        for number, start in enumerate(range(0, len(text), _VALUE)):
            found[f"{key}_{number}" if number else key] = text[start:start + _VALUE]
    return found


def read(metadata: Mapping[str, str]) -> Made | None:
    """None: it is made of what its image is."""
    if OF not in metadata:
        return None
    found = []
    for key in PARTS, FILESETS:
        text, number = metadata.get(key, ""), 1
        while (more := metadata.get(f"{key}_{number}")) is not None:
            text, number = text + more, number + 1
        found.append(tuple(name for name in text.split(",") if name))
    return Made(composite=metadata[OF], parts=found[0], filesets=found[1])


def is_ours(key: str) -> bool:
    """Whether system metadata of this name are of these."""
    return bool(_KEY.match(key))


def forget(metadata: dict[str, str]) -> None:
    """What it was made of does not count any more."""
    for key in [key for key in metadata if is_ours(key)]:
        del metadata[key]


def wish(wanted: Wanted) -> str:
    """Stands for what a server is asked to be, so that it is seen when that changes."""
    words = ("none" if wanted.parts is None else ",".join(wanted.parts), *wanted.filesets)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:_DIGITS]


def told(layout: Layout) -> str:
    """For the server's user, in a value of its metadata. It changes seldom."""
    if layout.state == LAYING:
        quarters = 4 * layout.done // layout.size if layout.size else 0
        return f"{LAYING} {25 * min(quarters, 3)}%"
    if layout.state == COMPLETE:
        return COMPLETE
    reason = "; ".join(f"{name}: {why}".removesuffix(": ")
                       for name, why in sorted(layout.failed.items()))
    if not reason and layout.kept:
        reason = "changed in the server: " + ", ".join(layout.kept)
    return cut(f"{FAILED}: {reason or 'the guest does not say why'}")


def cut(text: str) -> str:
    """As long as a value of metadata may be, in plain ASCII."""
    plain = text.encode("ascii", "replace").decode()
    return plain if len(plain) <= _VALUE else plain[:_VALUE - 3] + "..."


def newer(tail: bytes, before: bytes) -> bytes:
    """What was added to a text of which the end is known only.

    :param tail: its end now
    :param before: its end at an earlier time
    """
    if tail.startswith(before):
        return tail[len(before):]
    head = tail[:_ALIKE]
    start = before.find(head)
    while head and start >= 0:
        if tail.startswith(before[start:]):
            return tail[len(before) - start:]
        start = before.find(head, start + 1)
    return tail


# -- on this host --------------------------------------------------------------------


class Places:
    """:param instances: Nova's directory of servers"""

    def __init__(self, instances: Path) -> None:
        self.instances = instances
        self.shared = instances / SHARED

    def of(self, server: str) -> Path:
        """The server's directory. :param server: id"""
        return self.instances / server

    # -- what it is given --------------------------------------------------------------

    def prepare(self, server: str, delivery: Delivery, store: Store, *, had: Made,
                becomes: Made) -> None:
        """Have the files ready for the server's directory, which need not be there
        yet: :meth:`settle` brings them.

        :param store: has the blobs, and keeps them meanwhile
        :raises SplitImageError: nothing is left behind
        """
        waiting = self.shared / server
        shutil.rmtree(waiting, ignore_errors=True)
        waiting.mkdir(parents=True)
        try:
            layout = delivery.layout
            with disks.beside(waiting / layout.serial) as plan:
                delivery.write(plan)
                plan.chmod(0o444)
            for disk in layout.disks:
                if not (waiting / disk.serial).exists():
                    self._name(store.path(disk.blob), waiting / disk.serial)
            layout = msgspec.structs.replace(layout, policy=delivery.plan.policy)
            self._write(waiting / RECORD, Laying(layout=layout, had=had, becomes=becomes))
        except BaseException:
            shutil.rmtree(waiting, ignore_errors=True)
            raise

    def settle(self, server: str) -> None:
        """Bring what is ready for a server into its directory, if anything is."""
        waiting, place = self.shared / server, self.of(server)
        if not (waiting / RECORD).exists():
            return
        place.mkdir(parents=True, exist_ok=True)
        self.clear(server)
        # The record last: what it names is there then.
        for file in sorted(waiting.iterdir(), key=lambda file: file.name == RECORD):
            file.rename(place / file.name)
        waiting.rmdir()

    def drop(self, server: str) -> None:
        """What is ready for a server is not wanted."""
        shutil.rmtree(self.shared / server, ignore_errors=True)

    def _name(self, blob: Path, name: Path) -> None:
        """A further name of this host's copy of a blob, readable for the servers'
        processes; nobody can write to it."""
        try:
            blob.chmod(0o444)
            os.link(blob, name)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            return
        copy = self.shared / blob.name
        copy.parent.mkdir(exist_ok=True)
        while True:
            if not copy.exists():
                disks.copy(blob, copy, expected=blob.name)
                copy.chmod(0o444)
            try:
                os.link(copy, name)
                return
            except FileNotFoundError:
                continue  # tidied away just now
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
            disks.copy(copy, name, expected=blob.name)
            name.chmod(0o444)
            return

    def renew(self, server: str, store: Store) -> None:
        """Before another try: blobs that are damaged here are fetched anew.

        :raises SplitImageError: one cannot be had
        """
        laying = self.read(server)
        for disk in laying.layout.disks if laying else ():
            name = self.of(server) / disk.serial
            with contextlib.suppress(FileNotFoundError):
                if _digest(name) == disk.blob:
                    continue
            LOG.warning("blob %s is damaged here; it is fetched again", disk.blob)
            with contextlib.suppress(exceptions.DigestMismatch):
                store.verify(disk.blob)
            with store.hold([disk.blob]):
                (self.shared / disk.blob).unlink(missing_ok=True)
                name.unlink(missing_ok=True)
                self._name(store.path(disk.blob), name)

    # -- the record --------------------------------------------------------------------

    def read(self, server: str) -> Laying | None:
        """None: it has never had anything to lay here."""
        try:
            with (self.of(server) / RECORD).open("rb") as file:
                return msgspec.json.decode(file.read(_LARGEST), type=Laying)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UNDECODABLE as error:
            LOG.warning("server %s: what it lays cannot be read: %s", server, error)
            return None

    def save(self, server: str, laying: Laying) -> None:
        """:raises FileNotFoundError: the server's directory is gone"""
        self._write(self.of(server) / RECORD, laying)

    @staticmethod
    def _write(path: Path, laying: Laying) -> None:
        with disks.beside(path) as file:
            file.write_bytes(msgspec.json.encode(laying))

    def disks(self, server: str) -> list[tuple[str, Path]]:
        """Serial number and file of each disk that its machine has to have; the
        plan's is the last, because the guest begins when it sees that."""
        laying = self.read(server)
        if laying is None or laying.layout.state != LAYING:
            return []
        serials = [*dict.fromkeys(disk.serial for disk in laying.layout.disks),
                   laying.layout.serial]
        return [(serial, self.of(server) / serial) for serial in serials]

    def laying(self) -> Iterator[str]:
        """Ids of the servers that have a record here."""
        for path in sorted(self.instances.glob(f"*/{RECORD}")):
            if path.parent.parent == self.instances:
                yield path.parent.name

    # -- before another try --------------------------------------------------------------

    def before(self, server: str) -> bytes:
        """What a server's console had said before it was told to try again."""
        try:
            return (self.of(server) / BEFORE).read_bytes()
        except FileNotFoundError:
            return b""

    def keep_before(self, server: str, said: bytes) -> None:
        with disks.beside(self.of(server) / BEFORE) as file:
            file.write_bytes(said)

    # -- the end -----------------------------------------------------------------------

    def clear(self, server: str) -> None:
        """Away with a server's files, but for the record of how it ended."""
        place = self.of(server)
        for file in (*place.glob("si-*"), place / BEFORE):
            file.unlink(missing_ok=True)
        self.tidy()

    def forget(self, server: str) -> None:
        """It has nothing to lay, and never had."""
        self.clear(server)
        (self.of(server) / RECORD).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Away with copies of blobs that no server has."""
        with contextlib.suppress(FileNotFoundError):
            for file in self.shared.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if file.is_file() and file.stat().st_nlink == 1:
                        file.unlink()

    def tidy_all(self) -> None:
        """At the start, when nobody prepares anything."""
        with contextlib.suppress(FileNotFoundError):
            for path in self.shared.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
        self.tidy()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refusal(laying: Laying | None, what: str) -> str | None:
    """Why something has to wait; None: it need not."""
    if laying is None or not laying.incomplete:
        return None
    layout = laying.layout
    percent = 100 * layout.done // layout.size if layout.size else 0
    return (f"the server still lays its parts ({min(percent, 99)} %), and {what} would not have "
            "all of them: try again when its metadata splitimage:layout is complete or failed")


